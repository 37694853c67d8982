import re

import pytest
from make_data import write_folder, write_pascal

from kshot.data.benchmarks import read_fold
from kshot.data.tasks import TaskSet, draw_episodes, folder_set, pascal_set, read_task_sets
from kshot.errors import DataError


class NamesOnly:
    class_names = ("ant", "bee")


def frames(number, name="video", **options):
    return TaskSet(name, NamesOnly(), {0: tuple(f"frame{n}" for n in range(number))}, **options)


def place(name):
    return int(re.findall(r"\d+", name)[0])


def write_sets(root, names=("one", "two"), images=5):
    for name in names:
        write_folder(root / name, [(f"im{n}", n % 2) for n in range(2 * images)], class_names=("ant", "bee"))
    return root


@pytest.mark.parametrize(("number", "shots"), [(44, 1), (44, 5), (150, 5), (20, 1), (11, 3)])
def test_support_and_query_are_a_gap_apart(number, shots):
    drawn = draw_episodes([frames(number)], shots, draws=8, queries=None, seed=3)
    block, gap = max(shots, number // 3), number // 10
    for _, _, (_, query, supports) in drawn.episodes:
        assert len(set(supports)) == shots
        for support in supports:
            distance = abs(place(query) - place(support))
            assert min(distance, number - distance) > gap
    for draw in range(8):
        rows = [row.episode for row in drawn.episodes if row.draw == draw]
        assert len({row.supports for row in rows}) == 1
        assert len({row.query for row in rows}) == len(rows) == number - block - 2 * gap
    assert len({row.episode.supports for row in drawn.episodes}) > 4  # draws differ


@pytest.mark.parametrize("number", range(4, 60))
def test_every_draw_has_three_queries_at_least(number):
    for shots in range(1, number - 2):
        drawn = draw_episodes([frames(number)], shots, draws=1, queries=None)
        assert len(drawn.episodes) >= 3
        assert all(row.episode.query not in row.episode.supports for row in drawn.episodes)


def test_independent_images_are_all_queries_but_the_support():
    drawn = draw_episodes([frames(9, apart=False)], 2, draws=3, queries=None)
    for draw in range(3):
        rows = [row.episode for row in drawn.episodes if row.draw == draw]
        assert {row.query for row in rows} | set(rows[0].supports) == {f"frame{n}" for n in range(9)}
        assert len(rows) == 7


def test_episodes_depend_on_the_seed_and_nothing_else():
    alone = draw_episodes([frames(44)], 1, queries=4)
    assert alone == draw_episodes([frames(44)], 1, queries=4)
    assert alone.sha256 == draw_episodes([frames(44)], 1, queries=4).sha256
    both = draw_episodes([frames(30, "other"), frames(44)], 1, queries=4)
    assert both.episodes[-12:] == alone.episodes  # another set changes nothing
    assert draw_episodes([frames(44)], 1, queries=4, seed=1).sha256 != alone.sha256
    more = draw_episodes([frames(44)], 1, queries=6)
    assert set(alone.episodes) < set(more.episodes)
    # Written down: what is drawn must never change.
    assert alone.episodes[0].episode == (0, "frame26", ("frame43",))


def test_small_classes_are_skipped_and_named():
    sets = [frames(7), frames(9, "long")]
    drawn = draw_episodes(sets, 5)
    assert drawn.left_out == {"video: ant": 7}
    assert {row.set_name for row in drawn.episodes} == {"long"}
    with pytest.raises(DataError, match=r"5-shot tasks need 8, and the largest class has 7\. Use"):
        draw_episodes(sets[:1], 5)


@pytest.mark.parametrize("wrong", [{"shots": 0}, {"draws": 0}, {"queries": 0}, {"seed": -1}])
def test_numbers_out_of_range_are_refused(wrong):
    with pytest.raises(DataError, match=r"is (0|-1); it must be"):
        draw_episodes([frames(44)], **({"shots": 1} | wrong))


def test_folders_of_folders_and_lists_of_them_are_the_same(tmp_path):
    root = write_sets(tmp_path / "sets")
    (root / "README.md").write_text("no set")
    (root / ".hidden").mkdir()
    (tmp_path / "list.txt").write_text("# mine\nsets/one\n\nsets/two  # a comment\n")
    for sets in (read_task_sets(root), read_task_sets(tmp_path / "list.txt")):
        assert [one.name for one in sets] == ["one", "two"]
        assert sets[0].images == {c: tuple(f"im{n}" for n in range(c, 10, 2)) for c in (0, 1)}
        assert all(one.apart for one in sets)


def test_numbers_in_names_sort_by_value(tmp_path):
    names = ["frame10", "frame2", "frame1", "frame100"]
    write_folder(tmp_path / "video", [(name, 0) for name in names])
    assert folder_set(tmp_path / "video").images[0] == ("frame1", "frame2", "frame10", "frame100")


def test_faulty_suites_say_what_to_do(tmp_path):
    with pytest.raises(DataError, match=r"There is no folder or file .*none"):
        read_task_sets(tmp_path / "none")
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="contains no data sets"):
        read_task_sets(tmp_path / "empty")
    root = write_sets(tmp_path / "sets")
    with pytest.raises(DataError, match=r"is one data set, not a folder of them"):
        read_task_sets(root / "one")
    listed = tmp_path / "list.txt"
    listed.write_text("sets/three\n")
    with pytest.raises(DataError, match=r"list.txt lists .*three, but there is no such folder"):
        read_task_sets(listed)
    listed.write_text("sets/one\nsets/one\n")
    with pytest.raises(DataError, match="two data sets called 'one'"):
        read_task_sets(listed)
    (root / "one" / "classes.txt").write_text("ant\nant\n")
    with pytest.raises(DataError, match="names class 2 'ant'"):
        folder_set(root / "one")


def test_a_fold_of_pascal_takes_the_images_that_are_there(tmp_path):
    listed = read_fold("pascal", 0).queries
    pairs = [pair for c in range(5) for pair in [p for p in listed if p[1] == c][:4]]
    one = pascal_set(write_pascal(tmp_path, pairs), 0)
    there = {name for name, _ in pairs}
    assert one.images == {c: tuple(sorted(n for n, k in listed if k == c and n in there)) for c in range(5)}
    assert not one.apart
    drawn = draw_episodes([one], 1, queries=None)
    assert len(drawn.episodes) == 3 * sum(len(names) - 1 for names in one.images.values())
    with pytest.raises(DataError, match="No image of PASCAL-5i's val list of fold 1"):
        pascal_set(write_pascal(tmp_path / "other", [("2012_x", 0)]), 1)
