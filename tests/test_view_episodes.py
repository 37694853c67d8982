import numpy as np
import pytest
import torch
from make_data import (
    NOVEL,
    NUM_BASE_CLASSES,
    TINY,
    randomise_norms,
    tiny_backbone,
    write_folder,
    write_pascal,
    write_training_images,
)

from kshot.data.folder import Folder
from kshot.data.pascal import Pascal
from kshot.errors import DataError
from kshot.methods.two_pass import TwoPass
from kshot.models.base_learner import PSPNet
from kshot.training.recipes import EpisodeMix, SizeStage, TrainConfig
from kshot.training.view_episodes import ViewEpisodes
from kshot.transforms import Resize

SIZE = 65
CONFIG = TrainConfig(
    backbone=TINY, sizes=(SizeStage(steps=1, image_size=SIZE),), class_cap=4, novel_pixels="ignore"
)
BASE_CLASSES = ("bus", "chair", "cow", "dog")


@pytest.fixture(scope="module")
def voc(tmp_path_factory):
    return Pascal(write_training_images(tmp_path_factory.mktemp("voc")))


@pytest.fixture(scope="module")
def networks():
    base_learner = PSPNet(TINY, NUM_BASE_CLASSES)
    randomise_norms(base_learner)
    return tiny_backbone(), base_learner


MIX = EpisodeMix(classes=1, extra=1, regions=1, parts=1, items=1, mosaics=1, thin=1)


@pytest.fixture(scope="module")
def other_set(tmp_path_factory):
    """A folder with two classes of its own, and airplanes."""
    pairs = [(f"{kind}{n}", kind) for kind in range(3) for n in range(3)]
    root = write_folder(
        tmp_path_factory.mktemp("other") / "set", pairs, class_names=("vase", "airplane", "kite")
    )
    return Folder(root)


def views_of(voc, other_set, **changes):
    config = CONFIG.model_copy(update={"mix": MIX, "select_on": None, **changes})
    return ViewEpisodes(config, voc, {"set": other_set}, BASE_CLASSES)


def test_a_mix_shows_all_kinds_and_labels_no_novel_class(voc, other_set):
    episodes = views_of(voc, other_set)
    drawn = [episodes.draw(2 * index, SIZE) for index in range(150)]
    names = {one.class_name for one in drawn}
    assert {None, "vase", "kite"} <= names
    assert names & {"bus", "chair", "cow", "dog"}
    assert not names & {"airplane", *(voc.class_names[c] for c in NOVEL)}


def test_episodes_come_in_pairs_with_exchanged_roles(voc, other_set):
    episodes = views_of(voc, other_set)
    one, other = episodes.draw(6, SIZE), episodes.draw(7, SIZE)
    np.testing.assert_array_equal(one.query.image, other.support.image)
    np.testing.assert_array_equal(one.support.mask, other.query.mask)
    assert one.class_name == other.class_name


def test_a_batch_holds_what_its_episodes_show(voc, other_set, networks):
    cls, base_learner = networks
    method = TwoPass(cls, base_learner.backbone, base_learner.head).eval()
    episodes = views_of(voc, other_set, mask_class_logit=True)
    indices = [3, 4, 5, 8]
    batch, alone_too = episodes.batches([indices, [8]], SIZE, method)
    assert torch.equal(alone_too.query_mask[0], batch.query_mask[3])
    for place, index in enumerate(indices):
        drawn = episodes.draw(index, SIZE)
        np.testing.assert_array_equal(batch.query_mask[place], drawn.query.mask)
        np.testing.assert_array_equal(batch.support.mask[place, 0], drawn.support.mask == 1)
        alone = method.features(Resize(SIZE).image(drawn.query.image))
        torch.testing.assert_close(batch.query.cls.unit[1][0][place], alone.cls.unit[1][0][0])
        own = BASE_CLASSES.index(drawn.class_name) if drawn.class_name in BASE_CLASSES else -1
        assert batch.episode_class[place] == own
        if own >= 0:
            assert (batch.query.base_logits[place, own + 1] == -torch.inf).all()


def test_without_images_a_mix_is_an_error(tmp_path, other_set):
    empty = Pascal(write_pascal(tmp_path, []))
    with pytest.raises(DataError, match="No class has enough"):
        views_of(empty, other_set)


def test_processes_that_read_ahead_change_nothing(voc, other_set, networks):
    method = TwoPass(networks[0], networks[1].backbone, networks[1].head).eval()
    parts = [[0, 1, 2, 3], [4, 5]]
    here, ahead = (list(views_of(voc, other_set).batches(parts, SIZE, method, workers=w)) for w in (0, 2))
    for one, other in zip(here, ahead, strict=True):
        assert torch.equal(one.query_mask, other.query_mask)
        assert torch.equal(one.query.cls.norms[0][0], other.query.cls.norms[0][0])
