from collections import Counter

import numpy as np
import pytest
import torch
from make_data import (
    HOLDOUT,
    NOVEL,
    NUM_BASE_CLASSES,
    TINY,
    TRAINED,
    randomise_norms,
    tiny_backbone,
    write_pascal,
    write_training_images,
)

from kshot.data.pascal import Pascal
from kshot.errors import DataError
from kshot.io.images import read_image
from kshot.methods.hsnet import HSNet
from kshot.models.base_learner import PSPNet, base_map
from kshot.training.episodes import CachedEncoder, TrainingEpisodes
from kshot.training.feature_files import DiskBudget
from kshot.training.recipes import SizeStage, TrainConfig
from kshot.transforms import Resize

SIZE = 65
CONFIG = TrainConfig(
    backbone=TINY, sizes=(SizeStage(steps=1, image_size=SIZE),), class_cap=4, flip=True, novel_pixels="ignore"
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


@pytest.fixture
def encoder(voc, networks, tmp_path):
    cls, base_learner = networks
    matcher = HSNet(cls, base_learner.backbone)
    return CachedEncoder(voc, matcher, [base_learner], SIZE, DiskBudget(tmp_path, 2**30), torch.device("cpu"))


def episodes_of(voc, **changes):
    return TrainingEpisodes(CONFIG.model_copy(update=changes), voc, [BASE_CLASSES])


def test_only_trained_classes_are_ever_shown(voc):
    episodes = episodes_of(voc)
    assert set(episodes.fold.images) == set(TRAINED)
    drawn = [episodes.episode(index) for index in range(600)]
    seen = Counter(episode.class_id for episode, _ in drawn)
    assert set(seen) == set(TRAINED)
    assert min(seen.values()) > 150  # all have five images, and a cap of four
    assert all(episode.query not in episode.supports for episode, _ in drawn)
    assert {flips for _, flips in drawn} == {(a, b) for a in (True, False) for b in (True, False)}
    again = episodes_of(voc)
    assert drawn == [again.episode(index) for index in range(600)]
    everything = episodes_of(voc, select_on=None)
    assert set(everything.fold.images) == {*TRAINED, *HOLDOUT}
    assert {everything.episode(index)[1] for index in range(50)} != {(False, False)}
    unflipped = episodes_of(voc, flip=False)
    assert {unflipped.episode(index)[1] for index in range(50)} == {(False, False)}


def test_each_episode_knows_its_place_among_the_base_classes(voc, encoder):
    episodes = episodes_of(voc)
    batch = episodes.load(list(range(12)), encoder)
    for index, place in enumerate(batch.episode_class.tolist()):
        class_id = episodes.episode(index)[0].class_id
        assert BASE_CLASSES[place] == voc.class_names[class_id]
    unknown = TrainingEpisodes(CONFIG, voc, [("bus",)])
    assert unknown.load([0], encoder).episode_class.tolist() == [-1]


def test_a_batch_holds_what_the_networks_say_of_the_images_mirrored_too(voc, networks, encoder):
    episodes = episodes_of(voc)
    batch = episodes.load(list(range(8)), encoder)
    cls_backbone, base_learner = networks
    for index in range(8):
        (class_id, query, (support,)), flips = episodes.episode(index)
        for name, flipped, features in zip(
            (query, support), flips, (batch.query, batch.support.features), strict=True
        ):
            image = Resize(SIZE).image(read_image(voc.image_path(name)))
            image = image.flip(-1) if flipped else image
            with torch.no_grad():
                cls, sem = cls_backbone(image), base_learner.backbone(image)
                logits = base_learner.head(sem.last)
            for found, expected in ((features.cls, cls), (features.sem, sem)):
                for taps, computed in zip(found.stages(), expected.stages, strict=True):
                    for tap, one in zip(taps, computed, strict=True):
                        torch.testing.assert_close(tap[index], one[0], rtol=1e-3, atol=1e-2)
            torch.testing.assert_close(features.base_logits[index], logits[0], rtol=1e-3, atol=1e-2)
        ground_truth = encoder.transform.mask(voc.ground_truth(support, class_id)) == 1
        mask = batch.support.mask[index, 0].numpy() == 1
        np.testing.assert_array_equal(mask, ground_truth[:, ::-1] if flips[1] else ground_truth)


def test_unknown_and_novel_pixels_are_what_the_recipe_says(voc, encoder):
    def masks(**changes):
        episodes = episodes_of(voc, flip=False, **changes)
        bird = next(n for n in range(300) if NOVEL[0] in voc.classes_in(episodes.episode(n)[0].query))
        return episodes.load([bird], encoder).query_mask[0], episodes.episode(bird)[0]

    ignored, episode = masks(novel_pixels="ignore", unknown_pixels="ignore")
    shown, _ = masks(novel_pixels="background", unknown_pixels="background")
    bird = torch.from_numpy(encoder.transform.mask(voc.ground_truth(episode.query, NOVEL[0])) == 1)
    dog = torch.from_numpy(encoder.transform.mask(voc.ground_truth(episode.query, 11)) == 1)
    assert (ignored[bird] == 255).all()
    assert (ignored[:, 0] == 255).all()
    assert (shown[bird] == 0).all()
    assert (shown[:, 0] == 0).all()
    for mask in (ignored, shown):
        assert (mask[dog] == 1).all()
    dropped = episodes_of(voc, novel_pixels="drop")
    assert len(dropped.fold.images[11]) == 4


def test_only_what_a_method_matches_with_is_read(voc, networks, tmp_path):
    budget = DiskBudget(tmp_path, 2**30)
    cpu = torch.device("cpu")
    name = next(iter(episodes_of(voc).fold.images[8]))
    only_cls = CachedEncoder(voc, HSNet(networks[0]), [], SIZE, budget, cpu).encode_one(name)
    assert only_cls.sem is only_cls.base_logits is None
    only_sem = CachedEncoder(
        voc, HSNet(None, networks[1].backbone), [networks[1]], SIZE, budget, cpu
    ).encode_one(name)
    assert only_sem.cls is None
    assert only_sem.base_logits.dtype == torch.float32


def test_without_images_there_is_nothing_to_train_on(tmp_path):
    empty = Pascal(write_pascal(tmp_path, [("alone", 3)]))
    with pytest.raises(DataError, match="No class has enough images"):
        TrainingEpisodes(CONFIG, empty, [BASE_CLASSES])


def test_h_cls_can_unlearn_the_episodes_class_in_training(voc, encoder):
    """Then the base map is that of a head without this output, even where it is sure of the class."""
    kept, unlearnt = (
        episodes_of(voc, mask_class_logit=u).load(list(range(8)), encoder) for u in (False, True)
    )
    for index, place in enumerate(kept.episode_class.tolist()):
        logits = kept.query.base_logits[index]
        without = torch.cat([logits[: place + 1], logits[place + 2 :]])
        found = base_map(unlearnt.query.base_logits, unlearnt.episode_class)[index, 0]
        torch.testing.assert_close(found, 1 - without.softmax(0)[0])
    unknown = TrainingEpisodes(CONFIG.model_copy(update={"mask_class_logit": True}), voc, [("bus",)])
    assert unknown.load([0], encoder).query.base_logits.isfinite().all()


def test_an_episode_is_read_by_a_base_learner_that_does_not_know_its_class(voc, networks, tmp_path):
    """Its features, centred by that one's own means, and its base map."""
    cls, first = networks
    second = PSPNet(TINY, 2)
    randomise_norms(second)
    matcher = HSNet(cls, first.backbone, center_features=True)
    matcher.sem_means.fill_(0.25)
    encoder = CachedEncoder(
        voc, matcher, [first, second], SIZE, DiskBudget(tmp_path, 2**30), torch.device("cpu")
    )
    encoder.other_means[1] = torch.full_like(matcher.sem_means, 0.5)
    episodes = TrainingEpisodes(CONFIG, voc, [("bus", "chair", "dog"), ("cow", "sheep")])
    batch = episodes.load(list(range(16)), encoder)
    assert batch.episode_class.tolist() == [-1] * 16
    with torch.autocast("cpu", torch.bfloat16):  # as in training; the cache, in fp16, is now full
        again = episodes.load(list(range(16)), encoder)
    torch.testing.assert_close(again.query.base_logits, batch.query.base_logits)
    used = set()
    for index in range(16):
        (class_id, query, _), (flipped, _) = episodes.episode(index)
        number = int(voc.class_names[class_id] in ("bus", "chair", "dog"))
        used.add(number)
        learner, mean = ((first, 0.25), (second, 0.5))[number]
        image = Resize(SIZE).image(read_image(voc.image_path(query)))
        with torch.no_grad():
            sem = learner.backbone(image.flip(-1) if flipped else image)
            logits = learner.head(sem.last)
        for taps, computed in zip(batch.query.sem.stages(), sem.stages, strict=True):
            for tap, one in zip(taps, computed, strict=True):
                torch.testing.assert_close(tap[index], one[0] - mean, rtol=1e-3, atol=1e-2)
        found = base_map(batch.query.base_logits, batch.episode_class)[index]
        torch.testing.assert_close(found, base_map(logits)[0], rtol=1e-3, atol=1e-2)
    assert used == {0, 1}
    with pytest.raises(DataError, match="All 2 base learners were trained on dog"):
        TrainingEpisodes(CONFIG, voc, [("dog",), ("dog", "cow")])


def test_the_same_weights_at_another_stride_have_features_of_their_own(voc, networks, tmp_path):
    coarse = PSPNet(TINY, NUM_BASE_CLASSES, output_stride=16)
    coarse.load_state_dict(networks[1].state_dict())
    name = next(iter(episodes_of(voc).fold.images[8]))
    sizes = []
    for learner in (networks[1], coarse):
        matcher, budget = HSNet(None, learner.backbone), DiskBudget(tmp_path, 2**30)
        encoder = CachedEncoder(voc, matcher, [learner], SIZE, budget, torch.device("cpu"))
        sizes.append(encoder.encode_one(name).base_logits.shape[-1])
    assert sizes == [9, 5]
