import math

import numpy as np
import pytest
import torch
from make_data import random_pyramid, tiny_backbone, tiny_method
from PIL import Image

from kshot.data.manifest import make_manifest
from kshot.data.sampling import Episode, Fold
from kshot.errors import DataError
from kshot.evaluation.evaluator import EpisodeReader
from kshot.evaluation.results import write_result
from kshot.io.provenance import Provenance
from kshot.models.backbones import FeaturePyramid
from kshot.reproduction.discriminability import (
    Discriminability,
    average_regions,
    backbones_of,
    make_discriminability,
    measure_similarities,
    read_discriminability,
)
from kshot.transforms import Resize

SIZE = 32
CPU = torch.device("cpu")
TRANSFORM = Resize(SIZE)
PROVENANCE = Provenance(date="", command="", commit=None, versions={}, machine="", seconds=0)


class ArrayDataset:
    """A dataset whose images are files and whose ground truths are arrays."""

    class_names = ("thing", "other thing")

    def __init__(self, folder, ground_truths):
        self.folder, self.ground_truths = folder, ground_truths
        for index, name in enumerate(dict.fromkeys(name for name, _ in ground_truths)):
            pixels = np.random.default_rng(index).integers(0, 256, (SIZE, SIZE, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(self.image_path(name))

    def image_path(self, name):
        return self.folder / f"{name}.png"

    def ground_truth(self, name, class_id):
        return self.ground_truths[name, class_id]


def box(top=8, left=8, bottom=20, right=25, unknown=0):
    """Draw a ground truth: a box of 1 with a border of unknown pixels around it."""
    ground_truth = np.zeros((SIZE, SIZE), np.uint8)
    ground_truth[top - unknown : bottom + unknown, left - unknown : right + unknown] = 255
    ground_truth[top:bottom, left:right] = 1
    return ground_truth


def manifest_of(*episodes):
    classes = {e.class_id: () for e in episodes}
    fold = Fold("folder", "all", 0, ArrayDataset.class_names, classes, ())
    return make_manifest(fold, list(episodes), "balanced", 0, {})


def area_share(mask, rows, columns):
    """Average a mask over each cell of a grid, as torch defines its cells; by loops."""
    shares = np.zeros((rows, columns))
    for i in range(rows):
        for j in range(columns):
            top, bottom = i * SIZE // rows, math.ceil((i + 1) * SIZE / rows)
            left, right = j * SIZE // columns, math.ceil((j + 1) * SIZE / columns)
            shares[i, j] = mask[top:bottom, left:right].mean()
    return shares


def mean_by_loops(features, shares):
    total, weight = 0.0, 0.0
    for i in range(features.shape[1]):
        for j in range(features.shape[2]):
            total = total + shares[i, j] * features[:, i, j]
            weight += shares[i, j]
    return total / weight


def similarities_by_loops(query, query_truth, supports, support_truths):
    """Measure one episode at one tap, query and supports (C, h, w), position by position."""
    shape = query.shape[1:]
    shots = [
        mean_by_loops(s, area_share(t == 1, *shape)) for s, t in zip(supports, support_truths, strict=True)
    ]
    prototype = sum(shots) / len(shots)
    cosine = np.zeros((1, *shape))
    for i in range(shape[0]):
        for j in range(shape[1]):
            feature = query[:, i, j]
            cosine[0, i, j] = feature @ prototype / np.linalg.norm(feature) / np.linalg.norm(prototype)
    return [float(mean_by_loops(cosine, area_share(query_truth == value, *shape))[0]) for value in (1, 0)]


class Counting:
    """A backbone of fixed random features, by the image's first pixel; counts its calls."""

    def __init__(self):
        self.pyramids, self.calls = {}, 0

    def __call__(self, image):
        self.calls += 1
        return self.pyramids.setdefault(self.key(image), random_pyramid(batch=1))

    @staticmethod
    def key(image):
        return tuple(image[0, :, 0, 0].tolist())


@pytest.mark.parametrize("shots", [1, 2])
def test_similarities_equal_loops_over_positions(tmp_path, shots):
    ground_truths = {
        ("a", 0): box(unknown=2),
        ("b", 0): box(5, 3, 16, 14, unknown=3),
        ("c", 0): box(1, 1, 3, 3),
    }
    dataset, backbone = ArrayDataset(tmp_path, ground_truths), Counting()
    episode = Episode(0, "a", ("b", "c")[:shots])
    reader = EpisodeReader(dataset, (episode,), TRANSFORM)
    foreground, background = measure_similarities(backbone, reader, CPU)
    query, *supports = (backbone(reader.image(name)) for name in ("a", *episode.supports))
    taps = [(stage, index) for stage, taps in enumerate(query.stages) for index in range(len(taps))]
    assert foreground.shape == background.shape == (1, len(taps))
    for k, (stage, index) in enumerate(taps):
        expected = similarities_by_loops(
            query.stages[stage][index][0].double().numpy(),
            ground_truths["a", 0],
            [support.stages[stage][index][0].double().numpy() for support in supports],
            [ground_truths[name, 0] for name in episode.supports],
        )
        np.testing.assert_allclose([foreground[0, k], background[0, k]], expected, atol=1e-5)


def test_images_are_computed_once_for_all_classes_and_roles(tmp_path):
    ground_truths = {(name, class_id): box(left=4 + 8 * class_id) for name in "abc" for class_id in (0, 1)}
    episodes = (
        Episode(1, "a", ("b",)),
        Episode(0, "b", ("a",)),
        Episode(0, "a", ("c",)),
        Episode(1, "c", ("a",)),
    )
    dataset, backbone, seen = ArrayDataset(tmp_path, ground_truths), Counting(), []
    together = measure_similarities(backbone, EpisodeReader(dataset, episodes, TRANSFORM), CPU, seen.append)
    assert backbone.calls == 3
    assert seen == [1, 2, 3, 4]
    for index, episode in enumerate(episodes):  # in the manifest's order, though read class by class
        alone = measure_similarities(backbone, EpisodeReader(dataset, (episode,), TRANSFORM), CPU)
        np.testing.assert_array_equal(np.stack(together)[:, index], np.stack(alone)[:, 0])


def test_regions_by_hand():
    """Object (2, 0), background (0.5, 0.87), 60 degrees from it."""
    ground_truth = box(8, 8, 16, 24)
    mask = torch.from_numpy(ground_truth == 1)
    tap = torch.stack([torch.where(mask, 2.0, 0.5), torch.where(mask, 0.0, math.sqrt(0.75))])[None]
    prototype, foreground, background = average_regions(FeaturePyramid(((tap,),), tap), ground_truth)[0]
    torch.testing.assert_close(prototype, torch.tensor([2.0, 0.0]))
    torch.testing.assert_close(foreground, torch.tensor([1.0, 0.0]), atol=1e-4, rtol=0)
    torch.testing.assert_close(background, torch.tensor([0.5, math.sqrt(0.75)]), atol=1e-4, rtol=0)


class ByTruth:
    """A backbone that sees the ground truth: object (1, 0), background at 60 degrees, for every image."""

    def __init__(self, ground_truth):
        mask = torch.from_numpy(ground_truth == 1)
        foreground, background = torch.tensor([1.0, 0.0]), torch.tensor([0.5, math.sqrt(0.75)])
        tap = torch.where(mask, foreground[:, None, None], background[:, None, None])[None]
        self.pyramid = FeaturePyramid(((tap,), (tap,), (tap,)), tap)

    def __call__(self, image):
        return self.pyramid


def measure_two(tmp_path, supports=("b", "a")):
    ground_truths = {("a", 0): box(), ("b", 0): box(), ("empty", 0): np.zeros((SIZE, SIZE), np.uint8)}
    ground_truths["full", 0] = np.ones((SIZE, SIZE), np.uint8)
    episodes = Episode(0, "a", (supports[0],)), Episode(0, "b", (supports[1],))
    reader = EpisodeReader(ArrayDataset(tmp_path, ground_truths), episodes, TRANSFORM)
    return measure_similarities(ByTruth(box()), reader, CPU), manifest_of(*episodes)


def make(similarities, manifest):
    return make_discriminability(tiny_backbone(), "B_cls", *similarities, manifest, SIZE, PROVENANCE)


def test_rho_is_the_ratio_of_means_and_reads_back(tmp_path):
    similarities, manifest = measure_two(tmp_path)
    result = make(similarities, manifest)
    np.testing.assert_allclose(result.foreground, 1, atol=1e-4)
    np.testing.assert_allclose(result.background, 0.5, atol=1e-4)
    np.testing.assert_allclose(result.rho, 2, atol=1e-3)
    assert (result.num_episodes, result.num_left_out) == (2, 0)
    write_result(result, tmp_path / "rho.json")
    assert read_discriminability(tmp_path / "rho.json") == result


def test_ratios_are_taken_after_averaging():
    foreground = np.array([[0.9], [0.5]]).repeat(3, axis=1)
    background = np.array([[0.6], [0.1]]).repeat(3, axis=1)
    background[:, 2] = -0.1
    result = make((foreground, background), manifest_of(Episode(0, "a", ("b",))))
    np.testing.assert_allclose(result.rho[:2], 2.0)  # the mean of the ratios would be 3.25
    assert result.rho[2] is None


def test_taps_are_named_by_stride_and_module(tmp_path):
    result = make(*measure_two(tmp_path))
    assert result.taps == [(8, "layer2.0.act2"), (16, "layer3.0.act3"), (32, "layer4.0.act2")]


def test_episodes_that_show_nothing_are_skipped(tmp_path):
    similarities, manifest = measure_two(tmp_path, supports=("b", "empty"))
    assert np.isnan(similarities[0][1]).all()
    result = make(similarities, manifest)
    assert (result.num_episodes, result.num_left_out) == (1, 1)
    np.testing.assert_allclose(result.rho, 2, atol=1e-3)
    with pytest.raises(DataError, match="None of the 2 episodes"):
        make(measure_two(tmp_path, supports=("empty", "empty"))[0], manifest)


def test_a_support_without_object_does_not_count_beside_others(tmp_path):
    ground_truths = {
        ("a", 0): box(),
        ("b", 0): box(3, 3, 9, 9),
        ("empty", 0): np.zeros((SIZE, SIZE), np.uint8),
    }
    dataset, backbone = ArrayDataset(tmp_path, ground_truths), Counting()
    two, one = (
        measure_similarities(backbone, EpisodeReader(dataset, (Episode(0, "a", supports),), TRANSFORM), CPU)
        for supports in (("b", "empty"), ("b",))
    )
    np.testing.assert_array_equal(two, one)


@pytest.mark.parametrize(
    ("method", "expected"),
    [("prototype", ["cls"]), ("hsnet-cls", ["cls"]), ("hsnet-sem", ["sem"]), ("two-pass", ["cls", "sem"])],
)
def test_the_backbones_of_every_method_can_be_measured(tmp_path, method, expected):
    backbones = backbones_of(tiny_method(method))
    assert list(backbones) == expected
    ground_truths = {("a", 0): box(), ("b", 0): box(4, 4, 20, 20)}
    episode = Episode(0, "a", ("b",))
    reader = EpisodeReader(ArrayDataset(tmp_path, ground_truths), (episode,), TRANSFORM)
    for backbone in backbones.values():
        similarities = measure_similarities(backbone, reader, CPU)
        result = make_discriminability(
            backbone, "tiny", *similarities, manifest_of(episode), SIZE, PROVENANCE
        )
        assert len(result.rho) == sum(backbone.taps_per_stage)
        assert all(-1 <= value <= 1 for value in result.foreground + result.background)


def test_broken_files_are_named(tmp_path):
    with pytest.raises(
        DataError, match=r"no result file .* `kshot figure discriminability --json` writes one"
    ):
        read_discriminability(tmp_path / "nothing.json")
    result = make(*measure_two(tmp_path))
    path = tmp_path / "rho.json"
    path.write_text(result.model_dump_json().replace('"num_left_out":0,', ""))
    with pytest.raises(DataError, match="num_left_out"):
        read_discriminability(path)
    content = result.model_dump() | {"rho": []}
    with pytest.raises(ValueError, match="one entry for each tap"):
        Discriminability.model_validate(content)
