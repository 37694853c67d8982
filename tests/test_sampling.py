import lzma
import time
from importlib.resources import files
from itertools import islice

import numpy as np
import pytest

from kshot.data.benchmarks import read_fold
from kshot.data.folds import base_classes, novel_classes
from kshot.data.sampling import Episode, Fold, draw_episodes
from kshot.errors import DataError

SPLITS = files("kshot") / "data" / "splits"


def lines(name):
    return lzma.decompress((SPLITS / f"{name}.txt.xz").read_bytes()).decode().splitlines()


# HSNet's published rule, written again from its description and from the raw lists.


def supports_of(query, images, shots):
    found = []
    while len(found) < shots:
        support = np.random.choice(images, 1, replace=False)[0]
        if support != query:
            found.append(str(support))
    return tuple(found)


def hsnet_pascal(fold, shots):
    np.random.seed(0)
    pairs = [line.split("__") for line in lines(f"pascal5i/val_fold{fold}")]
    # Arrays, as choice would convert a list again in each draw.
    images = {number: np.array([name for name, other in pairs if other == number]) for _, number in pairs}
    while True:
        for query, number in pairs:
            yield Episode(int(number) - 1, query, supports_of(query, images[number], shots))


def hsnet_coco(fold, shots):
    np.random.seed(0)
    images = {int(line.split()[0]): np.array(line.split()[1:]) for line in lines("coco20i/val")}
    while True:
        class_id = np.random.choice([fold + 4 * n for n in range(20)], 1, replace=False)[0]
        query = str(np.random.choice(images[class_id], 1, replace=False)[0])
        yield Episode(int(class_id), query, supports_of(query, images[class_id], shots))


def hsnet_fss(_, shots):
    np.random.seed(0)
    for index, name in enumerate(sorted(lines("fss1000/test"))):
        for number in sorted(str(n) for n in range(1, 11)):
            drawn, query = [], f"{name}/{number}"
            while len(drawn) < shots:
                support = f"{name}/{np.random.choice(range(1, 11), 1, replace=False)[0]}"
                if support != query:
                    drawn.append(support)
            yield Episode(760 + index, query, tuple(drawn))


@pytest.mark.parametrize("shots", [1, 5])
@pytest.mark.parametrize(
    ("data", "fold", "rule", "count"),
    [
        *(("pascal", fold, hsnet_pascal, 1000) for fold in range(4)),
        *(("coco", fold, hsnet_coco, 1000) for fold in range(4)),
        ("fss1000", 0, hsnet_fss, 2400),
    ],
)
def test_hsnets_episodes_are_hsnets(data, fold, rule, count, shots):
    expected = list(islice(rule(fold, shots), count))
    assert draw_episodes(read_fold(data, fold), "hsnet", shots, count, 0) == expected


@pytest.mark.parametrize("rule", ["hsnet", "image-list", "balanced"])
def test_twenty_thousand_episodes_are_clean_and_quick(rule):
    start, drawn = time.process_time(), 0
    for data, fold, shots in [("pascal", 0, 1), ("pascal", 2, 5), ("coco", 1, 1), ("coco", 3, 5)]:
        pairs = read_fold(data, fold)
        shown = {class_id: set(names) for class_id, names in pairs.images.items()}
        novel, base = set(novel_classes(data, fold)), set(base_classes(data, fold))
        for episode in draw_episodes(pairs, rule, shots, 5000, seed=7):
            assert episode.query not in episode.supports
            assert episode.class_id in novel - base
            assert shown[episode.class_id] >= {episode.query, *episode.supports}
            if rule != "hsnet":
                assert len(set(episode.supports)) == shots
            drawn += 1
    assert drawn == 20_000
    assert time.process_time() - start < 10  # one or two seconds; the limit is for slow machines


@pytest.mark.parametrize("rule", ["image-list", "balanced"])
def test_an_episode_depends_on_seed_and_index_alone(rule):
    fold = read_fold("pascal", 0)
    long = draw_episodes(fold, rule, 1, 300, seed=3)
    assert draw_episodes(fold, rule, 1, 20, seed=3) == long[:20]
    other = draw_episodes(fold, rule, 1, 300, seed=4)
    assert sum(a == b for a, b in zip(long, other, strict=True)) < 30


def test_balanced_draws_every_class_and_every_image_equally_often():
    fold = read_fold("pascal", 3)
    episodes = draw_episodes(fold, "balanced", 1, 1000, seed=0)
    numbers = {c: sum(e.class_id == c for e in episodes) for c in fold.images}
    assert set(numbers.values()) == {200}
    for class_id, images in fold.images.items():
        times = [sum(e.query == name and e.class_id == class_id for e in episodes) for name in images]
        assert max(times) - min(times) <= 1


def test_image_list_takes_queries_in_the_lists_order():
    fold = read_fold("pascal", 0)
    names = list(dict.fromkeys(name for name, _ in fold.queries))
    queries = [e.query for e in draw_episodes(fold, "image-list", 1, 400, seed=0)]
    assert queries == (names + names)[:400]
    assert len(names) == 345  # one image shows two of the fold's classes
    train = [e.query for e in draw_episodes(read_fold("pascal", 3, "train"), "image-list", 1, 500, seed=0)]
    assert train == sorted(train)
    ids = [int(e.query) for e in draw_episodes(read_fold("coco", 0), "image-list", 1, 50, seed=0)]
    assert ids == sorted(ids)


def test_draws_never_change():
    assert draw_episodes(read_fold("pascal", 0), "balanced", 1, 2, 0) == [
        Episode(0, "2010_003495", ("2010_002147",)),
        Episode(1, "2010_005664", ("2007_007235",)),
    ]
    assert draw_episodes(read_fold("coco", 0), "image-list", 1, 2, 0) == [
        Episode(16, "42", ("61794",)),
        Episode(16, "74", ("256657",)),
    ]


def small_fold(cats=3, dogs=8):
    images = {0: tuple(f"cat {n}" for n in range(cats)), 1: tuple(f"dog {n}" for n in range(dogs))}
    queries = tuple((name, c) for c, names in images.items() for name in names)
    return Fold("folder", "all", 0, ("cat", "dog"), images, queries)


def test_a_class_with_too_few_images_is_named():
    with pytest.raises(DataError, match=r"Class 'cat' has 3 images, but 5-shot episodes need 6"):
        draw_episodes(small_fold(), "balanced", 5, 10, 0)
    assert small_fold().too_small(5) == {"cat": 3}
    episodes = draw_episodes(small_fold().large_enough(5), "balanced", 5, 10, 0)
    assert {e.class_id for e in episodes} == {1}


def test_a_fold_can_be_restricted_to_what_is_there():
    kept = small_fold().keep(["cat 0", "dog 1", "dog 2"])
    assert kept.images == {0: ("cat 0",), 1: ("dog 1", "dog 2")}
    assert kept.queries == (("cat 0", 0), ("dog 1", 1), ("dog 2", 1))


@pytest.mark.parametrize(
    ("shots", "count", "seed", "reason"),
    [
        (0, 1, 0, "shots is 0"),
        (1, 0, 0, "number of episodes is 0"),
        (1, 1, -1, "seed is -1"),
        (1, 1, 2**32, "seed"),
    ],
)
def test_numbers_out_of_range_are_errors(shots, count, seed, reason):
    with pytest.raises(DataError, match=reason):
        draw_episodes(small_fold(), "hsnet", shots, count, seed)


def test_an_empty_fold_is_an_error():
    with pytest.raises(DataError, match="no images to draw from"):
        draw_episodes(small_fold().keep([]), "hsnet", 1, 1, 0)
