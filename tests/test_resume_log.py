import json
import os
from dataclasses import replace
from pathlib import Path

import pytest
from make_data import full_after, scene, two_things
from PIL import Image
from test_cli import run
from test_shards import files, take_colours

from kshot.errors import DataError, KshotError
from kshot.io.overlays import label_image
from kshot.predict.resume_log import ImageRecord, ResumeLog, check_settings, fingerprint, pack_row, unpack_row
from kshot.segmenter import Segmenter

RECORDS = [ImageRecord(f"photos/{name}.jpg", name, [3, 4], 0.5) for name in ("one", "zwölf\n", "\udcff")]


class Killed(BaseException):
    """Ends a run like a signal: nobody catches it."""


def test_records_come_back_and_the_last_of_a_name_counts(tmp_path):
    resume_log = ResumeLog(tmp_path / "done.jsonl")
    assert resume_log.read() == {}
    later = replace(RECORDS[0], confidence=1 / 3, entries={"image": {}}, row=[["query", "…"]])
    for record in (*RECORDS, later):
        resume_log.add(record)
    assert resume_log.read() == {record.results: record for record in (later, *RECORDS[1:])}


def test_half_a_line_is_skipped_wherever_a_run_was_killed(tmp_path):
    resume_log = ResumeLog(tmp_path / "done.jsonl")
    for record in RECORDS[:2]:
        resume_log.add(record)
    content = resume_log.path.read_bytes()
    first = content.index(b"\n") + 1
    for length in range(first, len(content)):
        resume_log.path.write_bytes(content[:length])
        known = resume_log.read()
        assert known[RECORDS[0].results] == RECORDS[0]
        assert set(known) <= {record.results for record in RECORDS[:2]}
        resume_log.add(RECORDS[2])
        assert resume_log.read() == known | {RECORDS[2].results: RECORDS[2]}
    resume_log.path.write_bytes(b'[]\n{"image": 1}\nnull\n\0\0\0\n\xff\n' + content)
    assert list(resume_log.read().values()) == RECORDS[:2]


def test_the_fingerprint_of_an_image_changes_with_it(tmp_path):
    (tmp_path / "series").mkdir()
    image = tmp_path / "series" / "1.dcm"
    for place in (image, image.parent):
        image.write_bytes(b"123")
        os.utime(image, ns=(1, 10**18 + 1))
        before = fingerprint(place)
        assert before == [3, 10**18 + 1]
        os.utime(image, ns=(1, 10**18 + 2))
        assert fingerprint(place) != before


def test_rows_come_back_as_they_were():
    row = [("support", scene()[0]), ("query", Image.new("RGB", (1, 9), "red"))]
    again = unpack_row(json.loads(json.dumps(pack_row(row))))
    assert [(caption, picture.tobytes()) for caption, picture in again] == [
        (caption, picture.tobytes()) for caption, picture in row
    ]


def test_settings_are_compared_one_by_one(tmp_path):
    settings = {"classes": ["cup"], "bands": (4, 3, 2), "threshold": 0.1 + 0.2, "sha256": 64 * "a"}
    for _ in range(2):
        check_settings(tmp_path, settings)
    with pytest.raises(KshotError, match=r"bands was \[4, 3, 2\] and is now null. Choose another --out"):
        check_settings(tmp_path, settings | {"bands": None})
    with pytest.raises(KshotError, match=r'sha256 was "a{39}… and is now "b{39}…'):
        check_settings(tmp_path, settings | {"sha256": 64 * "b"})
    with pytest.raises(KshotError, match="shards was null and is now 2"):
        check_settings(tmp_path, settings | {"shards": 2})
    (tmp_path / "settings.json").write_text("{")
    with pytest.raises(DataError, match="no JSON file"):
        check_settings(tmp_path, settings)
    (tmp_path / "settings.json").write_text("[]")
    with pytest.raises(KshotError, match="holds no settings"):
        check_settings(tmp_path, settings)


@pytest.fixture
def command(tmp_path, monkeypatch):
    """Return the command on five images, with the model that finds the support's colour.

    Two of them are on the contact sheet.
    """
    take_colours(monkeypatch)
    monkeypatch.chdir(tmp_path)
    picture, mask = scene()
    picture.save("support.png")
    Image.fromarray(mask).save("mask.png")
    Path("queries").mkdir()
    for index in range(5):
        scene(left=10 + index, seed=index)[0].save(f"queries/{index}.jpg")
    return ["segment", "--support", "support.png", "mask.png", "queries", "--out"]


def stop_before_write(monkeypatch, number):
    """End the process, so to speak, before it gives the number-th file from now on its name."""
    move, left = Path.replace, iter(range(number))

    def replace_or_end(self, target):
        if next(left, None) is None:
            raise Killed
        return move(self, target)

    monkeypatch.setattr(Path, "replace", replace_or_end)


@pytest.mark.parametrize("number", range(1 + 2 * 5 + 3))
def test_a_run_that_was_stopped_goes_on_and_ends_with_the_same_files(command, monkeypatch, capsys, number):
    # The files are: settings, two of each image, and three of all.
    options = ["--also", "coco"]
    assert run(*command, "whole", *options) == 0
    with monkeypatch.context() as stopping:
        stop_before_write(stopping, number)
        with pytest.raises(Killed):
            run(*command, "out", *options)
    resume_log = Path("out/done.jsonl")
    done = resume_log.read_text().splitlines() if resume_log.exists() else []
    assert len(done) == max(0, min(5, (number - 1) // 2))
    masks = [Path("out", f"{json.loads(line)['results']}_mask.png") for line in done]
    before = {mask: mask.stat().st_ino for mask in masks}
    capsys.readouterr()
    assert run(*command, "out", *options) == 0
    assert files(Path("out")) == files(Path("whole"))
    assert {mask: mask.stat().st_ino for mask in masks} == before
    printed = capsys.readouterr().out
    assert (f"{len(done)} of 5 images were already done" in printed) == bool(done)
    assert printed.count("s left") == 5 - len(done)


def test_a_full_disk_ends_the_run_in_one_line_and_it_goes_on_when_there_is_room(command, capsys):
    command = [*command[:-1], "--also", "probability", "--out"]
    assert run(*command, "whole") == 0
    capsys.readouterr()
    with full_after(min(path.stat().st_size for path in Path("whole").glob("*_overlay.png")) - 1):
        assert run(*command, "out") == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert said.startswith("kshot: out/0_overlay.png cannot be written: File too large. Free some space")
    assert run(*command, "out") == 0
    assert files(Path("out")) == files(Path("whole"))


def test_what_is_done_is_not_done_again(command, capsys):
    assert run(*command, "out") == 0
    first = files(Path("out"))
    capsys.readouterr()
    assert run(*command, "out") == 0
    assert files(Path("out")) == first
    assert "5 of 5 images were already done\n5 of 5 images segmented" in capsys.readouterr().out


def test_what_is_new_changed_or_gone_is_done(command, capsys):
    Path("queries/broken.jpg").write_bytes(b"nothing")
    assert run(*command, "out") == 1
    Path("out/0_mask.png").unlink()
    Path("out/1_overlay.png").unlink()
    scene(left=60)[0].save("queries/2.jpg")
    Path("queries/4.jpg").unlink()
    scene(left=60)[0].save("queries/new.jpg")
    capsys.readouterr()
    assert run(*command, "out") == 1
    printed = capsys.readouterr().out
    again = [line.split()[1].rstrip(":") for line in printed.splitlines() if "s left" in line]
    assert again == [f"queries/{name}.jpg" for name in ("0", "1", "2", "broken", "new")]
    assert len(Path("out/failures.jsonl").read_text().splitlines()) == 1
    scene(left=50)[0].save("queries/broken.jpg")
    for out in ("out", "whole"):
        assert run(*command, out) == 0
    assert not Path("out/failures.jsonl").exists()
    for name in ("confidence.csv", "contact_sheet.png", "2_mask.png", "broken_mask.png"):
        assert Path("out", name).read_bytes() == Path("whole", name).read_bytes()


def test_another_image_of_the_same_name_is_done(command):
    assert run(*command, "out") == 0
    before = Path("out/3_mask.png").read_bytes()
    Path("other").mkdir()
    scene(left=70)[0].save("other/3.jpg")
    for folder, is_as_before in (("other", False), ("queries", True)):
        assert run(*command[:-2], folder, "--out", "out") == 0
        assert (Path("out/3_mask.png").read_bytes() == before) == is_as_before


@pytest.mark.parametrize(
    ("options", "setting"),
    [
        (["--image-size", 64], "image_size was 48 and is now 64"),
        (["--tile", 30], "tile was null and is now 30"),
        (["--long-side", 90], "long_side"),
        (["--classes", "disc"], 'classes was ["object"] and is now ["disc"]'),
        (["--support", "support.png", "other_mask.png"], "supports_sha256"),
        (["--negative", "queries/1.jpg"], "supports_sha256"),
        (["--also", "probability"], 'also was [] and is now ["probability"]'),
        (["--engine", "openvino"], 'engine was "torch" and is now "openvino"'),
        (["--bands", "3,2,1"], "bands was null and is now [3, 2, 1]"),
        (["--shard", "1/2"], "shards was 1 and is now 2"),
    ],
)
def test_results_of_other_settings_are_refused(command, monkeypatch, capsys, options, setting):
    monkeypatch.setattr(Segmenter, "encode_negative", lambda self, image: ())
    Image.fromarray(scene(left=25)[1]).save("other_mask.png")
    Path("queries/broken.jpg").write_bytes(b"nothing")
    assert run(*command, "out") == 1
    before = files(Path("out"))
    capsys.readouterr()
    assert run(*command, "out", *options) == 2
    printed = capsys.readouterr().err.splitlines()[-1]
    assert printed.startswith("kshot: out holds an earlier run's results with other settings: ")
    assert setting in printed
    assert files(Path("out")) == before


def test_labels_of_several_classes_go_on_too(command, capsys):
    picture, labels = two_things()
    picture.save("things.png")
    label_image(labels).save("labels.png")
    support = ["--support", "things.png", "labels.png", "--classes", "disc=1,square=2"]
    several = ["segment", *support, "queries", "--out", "out", "--also", "labelme,probability"]
    assert run(*several) == 0
    first = files(Path("out"))
    for name in ("2_labels.png", "3.json", "4_probability.npy"):
        Path("out", name).unlink()
    capsys.readouterr()
    assert run(*several) == 0
    assert "2 of 5 images were already done" in capsys.readouterr().out
    again = files(Path("out"))
    assert {name: content for name, content in again.items() if name != "done.jsonl"} == {
        name: content for name, content in first.items() if name != "done.jsonl"
    }
