import json
import random
from pathlib import Path

import pytest
from make_data import colour_segmenter, scene
from PIL import Image
from test_cli import run

from kshot.errors import KshotError
from kshot.predict.shards import WHOLE, Shard, parse_shard
from kshot.segmenter import Segmenter

NAMES = [f"{place}/{number}.jpg" for place in ("a", "deep/b", "zwölf drei") for number in range(3)]


def write_photos(folder):
    """Write a labelled image, nine to segment, and a broken file."""
    picture, mask = scene()
    picture.save(folder / "support.png")
    Image.fromarray(mask).save(folder / "mask.png")
    for index, name in enumerate(NAMES):
        path = folder / "queries" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        scene(left=10 + 5 * index, seed=index)[0].save(path)
    (folder / "queries" / "broken.jpg").write_bytes(b"nothing")
    return folder


def take_colours(monkeypatch):
    """Take the model that finds the support's colour, whatever the command asks for; make small sheets."""

    def from_pretrained(name, *, image_size=None, tile=None, long_side=None, **_):
        return colour_segmenter(image_size or 48, tile=tile, long_side=long_side)

    monkeypatch.setattr(Segmenter, "from_pretrained", from_pretrained)
    monkeypatch.setattr("kshot.predict.runner.SHEET_ROWS", 2)


@pytest.fixture
def photos(tmp_path, monkeypatch):
    """Images, and the model that finds the support's colour."""
    take_colours(monkeypatch)
    return write_photos(tmp_path)


def files(folder):
    """Return the content of all files of a folder, by their names."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def drawn_names(count):
    draw = random.Random(0)
    letters = "abcxyz0189 _-äß漢.\n"
    parts = [["".join(draw.choices(letters, k=12)) for _ in range(draw.randint(1, 3))] for _ in range(count)]
    return {Path(*one) for one in parts}


@pytest.mark.parametrize("count", [1, 2, 3, 8, 100])
def test_shares_are_disjoint_complete_and_about_equal(count):
    names = drawn_names(5000)
    shares = [{name for name in names if Shard(number, count).takes(name)} for number in range(1, count + 1)]
    assert set().union(*shares) == names
    assert sum(map(len, shares)) == len(names)
    mean = len(names) / count
    assert all(abs(len(share) - mean) < 5 * mean**0.5 for share in shares)


def test_a_name_stays_in_its_share():
    names = ("a", "deep/b", "zwölf drei", "\udcff")  # the last is no text, but a file may be called so
    taken = [next(n for n in (1, 2, 3) if Shard(n, 3).takes(Path(name))) for name in names]
    assert taken == [2, 1, 1, 1]  # whatever the machine or the release


def test_files_of_a_share_have_names_of_their_own():
    assert Shard(3, 8).named("confidence.csv") == "confidence_3of8.csv"
    assert WHOLE.named("confidence.csv") == "confidence.csv"


def test_shares_are_read():
    assert parse_shard("3/8") == Shard(3, 8)
    assert parse_shard("1/1") == WHOLE


@pytest.mark.parametrize("text", ["", "3", "/8", "3/", "0/8", "9/8", "-1/8", "1/0", "1 / 2", "1/2/3", "²/8"])
def test_what_is_no_share_is_refused(text):
    with pytest.raises(KshotError, match="it must be I/N with I from 1 to N") as caught:
        parse_shard(text)
    assert f"'{text}'" in str(caught.value)


def test_shares_in_one_folder_are_what_one_run_gives(photos, capsys):
    support = ["--support", photos / "support.png", photos / "mask.png", photos / "queries"]
    options = [*support, "--also", "coco,labelme,probability"]
    assert run("segment", *options, "--out", photos / "whole") == 1
    statuses = {run("segment", *options, "--out", photos / "out", "--shard", f"{n}/3") for n in (3, 1, 2)}
    assert statuses == {0, 1}  # one of them has the broken file
    whole, shared = files(photos / "whole"), files(photos / "out")
    own = {"confidence.csv", "contact_sheet.png", "done.jsonl", "failures.jsonl", "instances.json"}
    per_run = {f"{stem}_{n}of3.{end}" for stem, end in (name.split(".") for name in own) for n in (1, 2, 3)}
    settings = json.loads(whole.pop("settings.json"))
    assert json.loads(shared.pop("settings.json")) == settings | {"shards": 3}
    assert {name: shared[name] for name in shared if name not in per_run} == {
        name: whole[name] for name in whole if name not in own
    }
    header, *sure = whole["confidence.csv"].decode().splitlines()
    parts = [shared[f"confidence_{n}of3.csv"].decode().splitlines() for n in (1, 2, 3)]
    assert all(part[0] == header for part in parts)
    assert sorted(line for part in parts for line in part[1:]) == sorted(sure)
    assert len(sure) == len(NAMES)
    failures = [shared[name] for name in shared if name.startswith("failures")]
    assert failures == [whole["failures.jsonl"]]
    found = [json.loads(shared[f"instances_{n}of3.json"]) for n in (1, 2, 3)]
    file_names = [image["file_name"] for one in found for image in one["images"]]
    assert sorted(file_names) == sorted(NAMES)


def test_a_share_without_images_is_done(photos, capsys):
    support = ["--support", photos / "support.png", photos / "mask.png", photos / "queries" / "a" / "0.jpg"]
    shares = [Shard(number, 2).takes(Path("0")) for number in (1, 2)]
    for number, takes in enumerate(shares, 1):
        assert run("segment", *support, "--out", photos / "out", "--shard", f"{number}/2") == 0
        assert f"{int(takes)} of {int(takes)} images segmented" in capsys.readouterr().out
    assert (photos / "out" / "0_mask.png").exists()


def test_a_wrong_share_is_a_users_mistake(photos, capsys):
    support = ["--support", photos / "support.png", photos / "mask.png", photos / "queries"]
    for wrong in (["--shard", "9/8"], ["--shard", ""], ["--shard", "1/2", "--ray", "2"]):
        assert run("segment", *support, "--out", photos / "out", *wrong) == 2
        printed = capsys.readouterr().err
        assert printed.startswith("kshot: --shard")
        assert printed.count("\n") == 1
    assert not (photos / "out").exists()
