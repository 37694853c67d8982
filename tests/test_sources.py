import numpy as np
import pytest
from make_data import HOLDOUT, NOVEL, TRAINED, write_training_images
from PIL import Image

from kshot.data.base_classes import present, train_fold
from kshot.data.pascal import Pascal
from kshot.errors import DataError
from kshot.training.augment import GENTLE
from kshot.training.sources import (
    MIN_PIXELS,
    ClassPairs,
    ImagePool,
    Items,
    Mixture,
    Mosaics,
    Regions,
    Thin,
    view_with_object,
)

SIZE = 65


@pytest.fixture(scope="module")
def photographs(tmp_path_factory):
    voc = Pascal(write_training_images(tmp_path_factory.mktemp("voc")))
    return ImagePool(voc, present(train_fold("pascal", 0, exclude_holdout=False), voc), NOVEL)


ALL = [
    lambda p: ClassPairs([p], 4),
    lambda p: Regions([p]),
    lambda p: Regions([p], inside=True),
    lambda p: Items([p]),
    lambda p: Mosaics([p]),
    lambda p: Thin([p]),
]


@pytest.mark.parametrize("make", ALL)
def test_every_source_draws_square_images_with_masks_by_its_generator(photographs, make):
    source = make(photographs)
    found = 0
    for seed in range(6):
        drawn, again = (source.draw(np.random.default_rng(seed), SIZE) for _ in range(2))
        for shown, same in ((drawn.query, again.query), (drawn.support, again.support)):
            assert shown.image.size == (SIZE, SIZE)
            assert shown.image.mode == "RGB"
            assert shown.mask.shape == (SIZE, SIZE)
            assert set(np.unique(shown.mask)) <= {0, 1, 255}
            np.testing.assert_array_equal(shown.mask, same.mask)
            np.testing.assert_array_equal(shown.image, same.image)
        found += (drawn.query.mask == 1).any() and (drawn.support.mask == 1).any()
    assert found >= 5


def test_pairs_are_two_images_of_a_named_class(photographs):
    source = ClassPairs([photographs], 4)
    names = {source.draw(np.random.default_rng(seed), SIZE).class_name for seed in range(60)}
    voc = photographs.dataset
    assert names <= {voc.class_names[c] for c in (*TRAINED, *HOLDOUT)}
    assert len(names) > 4


def test_hidden_classes_are_never_labelled_nor_cut_up(photographs):
    voc = photographs.dataset
    with_bird = [n for n in voc_names(photographs) if NOVEL[0] in voc.classes_in(n)]
    assert len(with_bird) == 1
    assert with_bird[0] not in photographs.names
    dog = next(c for c in voc.classes_in(with_bird[0]) if c != NOVEL[0])
    bird = voc.ground_truth(with_bird[0], NOVEL[0]) == 1
    assert (photographs.mask(with_bird[0], dog)[bird] == 255).all()


def voc_names(photographs):
    return sorted({name for names in photographs.fold.images.values() for name in names})


def test_a_look_shows_enough_of_the_object():
    image, mask = Image.new("RGB", (100, 100)), np.zeros((100, 100), dtype=np.uint8)
    mask[:12, :12] = 1  # in a corner, which most enlarged views miss
    for seed in range(30):
        shown = view_with_object(
            image, mask, np.random.default_rng(seed), GENTLE._replace(scale=(1.5, 3.0)), SIZE
        )
        assert (shown.mask == 1).sum() >= MIN_PIXELS


def test_a_mixture_draws_by_weight(photographs):
    class Constant:
        def __init__(self, name):
            self.name = name

        def draw(self, random, size):
            return self.name

    mixture = Mixture({Constant("a"): 3.0, Constant("b"): 1.0, Constant("c"): 0.0})
    drawn = [mixture.draw(np.random.default_rng(seed), SIZE) for seed in range(400)]
    assert 260 < drawn.count("a") < 340
    assert drawn.count("c") == 0
    with pytest.raises(DataError, match="weight"):
        Mixture({Constant("a"): 0.0})
