import numpy as np
import pytest
from make_data import colour_segmenter, tiny_method, write_folder, write_pascal

from kshot.data.benchmarks import read_fold
from kshot.data.folder import Folder
from kshot.data.manifest import Manifest, episodes_sha256, make_manifest
from kshot.data.pascal import Pascal
from kshot.data.sampling import Episode, draw_episodes
from kshot.errors import DataError
from kshot.evaluation.evaluator import EpisodeReader, check_files, evaluate, read_ahead
from kshot.evaluation.metrics import score_episodes
from kshot.transforms import Resize

MORE_WORKERS_THAN_CORES = pytest.mark.filterwarnings("ignore:This DataLoader will create")

PAIRS = [(f"im{n}", n % 3) for n in range(12)] + [("both", 0), ("both", 1)]


@pytest.fixture
def dataset(tmp_path):
    return Folder(write_folder(tmp_path, PAIRS, class_names=("ant", "bee", "cow")))


def manifest_of(dataset, shots=1, count=30, rule="balanced"):
    fold = dataset.fold()
    return make_manifest(fold, draw_episodes(fold, rule, shots, count, 0), rule, 0, {})


def scores_of(counted, manifest):
    class_ids = np.array([episode.class_id for episode in manifest.episodes])
    return score_episodes(counted.counts, class_ids, tuple(manifest.classes))


@pytest.mark.parametrize("fit", ["squash", "pad"])
@pytest.mark.parametrize("at_original_size", [True, False])
@pytest.mark.parametrize("shots", [1, 3])
def test_a_method_that_segments_correctly_scores_high(dataset, fit, at_original_size, shots):
    manifest = manifest_of(dataset, shots)
    transform = Resize(48, fit)
    (counted,) = evaluate(
        colour_segmenter(), dataset, [manifest], transform, at_original_size=at_original_size
    )
    assert scores_of(counted, manifest).miou > 0.9
    assert counted.num_images == counted.num_computed == 13
    assert counted.num_empty_supports == 0
    total = 36 * 48 if at_original_size or fit == "pad" else 48 * 48
    assert (counted.counts[:, 2] + counted.counts[:, 1] == total).all()  # every known pixel counts once


@MORE_WORKERS_THAN_CORES
def test_workers_change_nothing(dataset):
    manifest = manifest_of(dataset, rule="hsnet")
    results = [
        evaluate(colour_segmenter(), dataset, [manifest], Resize(48), at_original_size=True, num_workers=n)[0]
        for n in (0, 1, 4)
    ]
    for other in results[1:]:
        np.testing.assert_array_equal(results[0].counts, other.counts)
        assert other.num_computed == results[0].num_computed


class NamesOnly:
    """A dataset whose ground truth contains the image's name, to check what a worker loads."""

    class_names = ()

    def ground_truth(self, name, class_id):
        return np.frombuffer(f"{class_id} {name}".encode(), dtype=np.uint8)[None].copy()


@MORE_WORKERS_THAN_CORES
@pytest.mark.parametrize(("data", "fold"), [("pascal", 0), ("coco", 2)])
def test_hsnets_first_thousand_episodes_are_the_same_for_any_number_of_workers(data, fold):
    episodes = tuple(draw_episodes(read_fold(data, fold), "hsnet", 1, 1000, 0))
    reader = EpisodeReader(NamesOnly(), episodes, Resize(2))
    reader.first_read = [[] for _ in episodes]  # no images: the test reads names only
    expected = {n: f"{e.class_id} {e.query}" for n, e in enumerate(episodes)}
    for num_workers in (0, 1, 4):
        read = [(f.episode, bytes(f.ground_truth[0]).decode()) for f in read_ahead(reader, num_workers)]
        assert [n for n, _ in read] == reader.order
        assert dict(read) == expected


def test_a_small_cache_costs_time_and_nothing_else(dataset):
    manifest = manifest_of(dataset)
    segmenter = colour_segmenter()
    segmenter = type(segmenter)(segmenter.config, tiny_method("prototype"), segmenter.device)
    transform = Resize(64)
    (cached,) = evaluate(segmenter, dataset, [manifest], transform, at_original_size=True)
    (none,) = evaluate(segmenter, dataset, [manifest], transform, at_original_size=True, cache_gb=0)
    np.testing.assert_array_equal(cached.counts, none.counts)
    assert cached.num_computed == 13
    assert none.num_computed == 60


def test_manifests_that_are_run_together_share_features_and_count_apart(dataset):
    first, second = manifest_of(dataset), manifest_of(dataset, shots=2, count=17, rule="hsnet")
    transform = Resize(48)
    apart = [
        evaluate(colour_segmenter(), dataset, [manifest], transform, at_original_size=True)[0]
        for manifest in (first, second)
    ]
    together = evaluate(colour_segmenter(), dataset, [first, second], transform, at_original_size=True)
    for one, other in zip(apart, together, strict=True):
        np.testing.assert_array_equal(one.counts, other.counts)
        assert one.num_images == other.num_images
    assert sum(one.num_computed for one in apart) == sum(one.num_images for one in apart)
    assert sum(one.num_computed for one in together) == 13


def test_images_that_are_never_queries_are_encoded_as_supports(dataset):
    fold = dataset.fold()
    drawn = draw_episodes(fold, "balanced", 2, 4, 0)
    manifest = make_manifest(fold, drawn, "balanced", 0, {})
    queries = {episode.query for episode in drawn}
    supports = {name for episode in drawn for name in episode.supports} - queries
    assert supports
    segmenter, read = colour_segmenter(), {"features": 0, "support_features": 0}

    class Watched(type(segmenter.method)):
        def features(self, images):
            read["features"] += 1
            return images

        def support_features(self, images):
            read["support_features"] += 1
            return images

    segmenter.accelerated = Watched()
    evaluate(segmenter, dataset, [manifest], Resize(48), at_original_size=True)
    assert read == {"features": len(queries), "support_features": len(supports)}


def test_unknown_pixels_do_not_count(tmp_path):
    dataset = Pascal(write_pascal(tmp_path, [("x", 0), ("y", 0)]))
    episodes = (Episode(0, "x", ("y",)),)
    manifest = Manifest(
        benchmark="pascal",
        split="val",
        fold=0,
        shots=1,
        protocol="hsnet",
        seed=0,
        classes={0: "aeroplane"},
        sha256=episodes_sha256(episodes),
        episodes=episodes,
    )
    (counted,) = evaluate(colour_segmenter(), dataset, [manifest], Resize(48), at_original_size=True)
    assert counted.counts[0, 1] + counted.counts[0, 2] == 36 * 48 - 36  # the left column is 255


def test_progress_counts_episodes_class_by_class(dataset):
    manifest, seen = manifest_of(dataset), []
    evaluate(
        colour_segmenter(),
        dataset,
        [manifest],
        Resize(48),
        at_original_size=True,
        on_progress=lambda done, total: seen.append(done),
    )
    assert seen == list(range(1, 31))
    reader = EpisodeReader(dataset, manifest.episodes, Resize(48))
    classes = [manifest.episodes[reader[n].episode].class_id for n in range(30)]
    assert classes == sorted(classes)


def test_missing_images_and_another_dataset_are_reported_before_the_run(dataset, tmp_path):
    manifest = manifest_of(dataset)
    (tmp_path / "images" / "im3.png").unlink()
    with pytest.raises(DataError, match=r"1 of 13 images are missing, the first: .*im3"):
        check_files(Folder(tmp_path), manifest)
    dataset.class_names = ("ant", "bee", "dog")
    with pytest.raises(DataError, match="class 2 is 'cow', but this dataset's is 'dog'"):
        check_files(dataset, manifest)
    dataset.class_names = ("ant", "bee")
    with pytest.raises(DataError, match="this dataset's is 'missing'"):
        check_files(dataset, manifest)


def test_a_support_that_vanishes_is_counted(dataset):
    (counted,) = evaluate(
        colour_segmenter(), dataset, [manifest_of(dataset)], Resize(1), at_original_size=True
    )
    assert counted.num_empty_supports > 0
