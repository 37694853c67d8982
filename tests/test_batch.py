"""Folders as people really have them: one bad file costs one line, never the batch."""

import json
from pathlib import Path

import numpy as np
import pytest
from make_data import colour_segmenter, scene
from make_rasters import write_map, write_nifti, write_slice
from test_cli import run

from kshot.io.folders import find_files, holds_results
from kshot.io.overlays import mask_image
from kshot.predict import runner
from kshot.predict.outputs import Outputs
from kshot.segmenter import Segmenter

SUPPORT = ["--support", "support.png", "mask.png"]


@pytest.fixture
def colours(monkeypatch):
    """Take the model that finds the support's colour, whatever the command asks for."""
    monkeypatch.setattr(Segmenter, "from_pretrained", lambda name, **_: colour_segmenter())


@pytest.fixture
def folder(tmp_path, monkeypatch, colours):
    """A support image and a folder of two good images, in the working directory."""
    monkeypatch.chdir(tmp_path)
    Path("photos").mkdir()
    image, mask = scene()
    image.save("support.png")
    mask_image(mask).save("mask.png")
    for name in ("a", "b"):
        image.save(f"photos/{name}.png")
    return tmp_path


def failures(out="out"):
    return {
        Path(one["image"]).name: one["reason"]
        for one in map(json.loads, Path(out, "failures.jsonl").read_text().splitlines())
    }


def masks(out="out"):
    return {path.name for path in Path(out).rglob("*_mask.*")}


ERRORS = [KeyError("x"), RuntimeError("two\nlines"), MemoryError()]


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
def test_any_error_of_one_image_is_one_line_and_the_batch_goes_on(folder, monkeypatch, capsys, error):
    read = runner.read_image

    def read_or_fail(path):
        if path.name == "a.png":
            raise error
        return read(path)

    monkeypatch.setattr(runner, "read_image", read_or_fail)
    assert run("segment", *SUPPORT, "photos", "--out", "out") == 1
    (reason,) = failures().values()
    assert "\n" not in reason
    assert masks() == {"b_mask.png"}
    printed = capsys.readouterr()
    assert "Traceback" not in printed.out + printed.err
    assert printed.out.splitlines()[-2].startswith("1 of 2 images segmented into out; 1 failed")
    monkeypatch.undo()
    monkeypatch.chdir(folder)
    monkeypatch.setattr(Segmenter, "from_pretrained", lambda name, **_: colour_segmenter())
    assert run("segment", *SUPPORT, "photos", "--out", "out") == 0  # what failed is tried again
    assert masks() == {"a_mask.png", "b_mask.png"}


def test_an_error_while_a_result_is_written_costs_one_line_too(folder, monkeypatch):
    write = Outputs.write

    def write_or_fail(self, name, *rest):
        if name.name == "a":
            raise TypeError("no such mode")
        return write(self, name, *rest)

    monkeypatch.setattr(Outputs, "write", write_or_fail)
    assert run("segment", *SUPPORT, "photos", "--out", "out") == 1
    assert "TypeError: no such mode" in failures()["a.png"]
    assert masks() == {"b_mask.png"}


def test_strict_stops_at_the_first_failure(folder, capsys):
    Path("photos/a.png").write_bytes(b"nothing")
    assert run("segment", *SUPPORT, "photos", "--out", "out", "--strict") == 1
    assert list(failures()) == ["a.png"]
    assert masks() == set()
    assert "0 of 2 images" in capsys.readouterr().out
    assert run("segment", *SUPPORT, "photos", "--out", "out") == 1  # --strict is no setting of the results
    assert masks() == {"b_mask.png"}


def test_an_interrupted_run_stops(folder, monkeypatch):
    def interrupt(path):
        raise KeyboardInterrupt

    monkeypatch.setattr(runner, "read_image", interrupt)
    assert run("segment", *SUPPORT, "photos", "--out", "out") != 0
    assert not Path("out/failures.jsonl").exists()


JUNK = (
    "._a.png",
    "__MACOSX/a.png",
    ".ipynb_checkpoints/a-checkpoint.png",
    "@eaDir/a.png/SYNOPHOTO_THUMB_M.jpg",
    "sub/.AppleDouble/a.png",
    "Thumbs.db",
    ".DS_Store",
    ".kshot-0123.png",
)


def test_what_systems_leave_behind_is_no_image(folder, capsys):
    for name in JUNK:
        path = Path("photos", name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(Path("support.png").read_bytes())
    assert [path.name for path in find_files(Path("photos")).files] == ["a.png", "b.png"]
    assert run("segment", *SUPPORT, "photos", "--out", "out") == 0
    assert masks() == {"a_mask.png", "b_mask.png"}
    assert capsys.readouterr().err == ""


def test_broken_links_and_linked_folders_are_reported_in_one_line(folder, capsys):
    Path("elsewhere").mkdir()
    scene()[0].save("elsewhere/c.png")
    Path("photos/gone.png").symlink_to("nowhere.png")
    Path("photos/more").symlink_to(folder / "elsewhere")
    Path("photos/linked.png").symlink_to(folder / "support.png")  # a linked file is an image
    assert run("segment", *SUPPORT, "photos", "--out", "out") == 0
    assert masks() == {"a_mask.png", "b_mask.png", "linked_mask.png"}
    (line,) = capsys.readouterr().err.splitlines()
    assert "photos/gone.png" in line
    assert "photos/more" in line


def test_results_of_another_run_are_not_segmented(folder, capsys):
    for out in ("photos/first", "photos/deep/second", "photos/first"):
        assert run("segment", *SUPPORT, "photos", "--out", out) == 0
        assert masks(out) == {"a_mask.png", "b_mask.png"}
    assert "photos/deep/second" in capsys.readouterr().err
    assert holds_results(Path("photos/first"))
    Path("photos/settings.json").write_text('{"kshot": 1}')  # a file of this name alone marks nothing
    assert not holds_results(Path("photos"))
    assert run("segment", *SUPPORT, "photos/first/a_overlay.png", "--out", "out") == 0  # if it is named


def test_two_folders_are_a_support_set_by_names(folder, capsys):
    image, mask = scene(left=50)
    for name in ("images/one.jpg", "images/deep/two.png", "images/three.png", "masks/alone.png"):
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        image.save(name)
    for name in ("masks/one.png", "masks/deep/two_mask.png"):
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        mask_image(mask).save(name)
    assert run("segment", "--support", "images", "masks", "photos", "--out", "out") == 0
    assert masks() == {"a_mask.png", "b_mask.png"}
    (line,) = (line for line in capsys.readouterr().err.splitlines() if "partner" in line)
    assert "masks/alone.png" in line
    assert "images/three.png" in line


@pytest.mark.parametrize(
    ("image", "mask"),
    [("photos", "mask.png"), ("support.png", "photos"), ("photos", "empty"), ("empty", "photos")],
)
def test_folders_that_are_no_support_set_are_named(folder, capsys, image, mask):
    Path("empty").mkdir()
    assert run("segment", "--support", image, mask, "photos", "--out", "out") == 2
    said = capsys.readouterr().err
    assert said.startswith("kshot: ")
    assert "photos" in said or "empty" in said
    assert said.count("\n") == 1


def test_two_masks_of_one_image_are_an_error(folder, capsys):
    Path("masks").mkdir()
    for name in ("a", "a_mask"):
        mask_image(scene()[1]).save(f"masks/{name}.png")
    assert run("segment", "--support", "photos", "masks", "photos", "--out", "out") == 2
    assert "masks/a_mask.png" in capsys.readouterr().err


def cut(path, share=0.5):
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])


def write_good(folder):
    """Write a good file of each kind; return the names of their masks."""
    image = scene()[0]
    for name in ("a.png", "b.jpg", "deep/c.webp", "d.bmp", "e.tif"):
        path = folder / name
        path.parent.mkdir(exist_ok=True, parents=True)
        image.save(path)
    write_map(folder / "map.tif", np.asarray(image).transpose(2, 0, 1))
    write_nifti(folder / "scan.nii.gz", np.arange(24, dtype=np.int16).reshape(4, 3, 2))
    for number in range(2):
        (folder / "series").mkdir(exist_ok=True)
        write_slice(folder / "series" / f"{number}.dcm", np.eye(5, dtype=np.uint16), height=number)
    ordinary = {f"{name}_mask.png" for name in "abcde"}
    return ordinary | {"map_mask.tif", "scan_mask.nii.gz", "series_mask.nii.gz"}


def write_bad(folder):
    """Write a bad file of each kind; return their names, as `failures.jsonl` has them."""
    image = scene()[0]
    for name in ("cut.png", "cut.jpg", "cut.tif"):
        image.save(folder / name)
        cut(folder / name)
    write_map(folder / "cut_map.tif", np.asarray(image).transpose(2, 0, 1))
    cut(folder / "cut_map.tif")
    write_nifti(folder / "cut.nii.gz", np.zeros((4, 3, 2), np.int16))
    cut(folder / "cut.nii.gz")
    for name, content in {
        "empty.png": b"",
        "text.jpg": b"no image",
        "page.png": b"<!DOCTYPE html><html>404</html>",
        "text.nii": b"no scan",
        "text.tif": b"II*\0no map",
    }.items():
        (folder / name).write_bytes(content)
    (folder / "bad series").mkdir()
    (folder / "bad series" / "x.dcm").write_bytes(b"no slice")
    write_slice(folder / "bad series" / "y.dcm", np.eye(5, dtype=np.uint16))
    cut(folder / "bad series" / "y.dcm", 0.9)
    files = {path.name for path in folder.iterdir() if path.is_file()}
    return files | {"x.dcm", "y.dcm"}


def test_a_folder_with_one_of_everything(folder, capsys):
    good = write_good(Path("all"))
    Path("all/bad").mkdir()
    bad = write_bad(Path("all/bad"))
    for name in JUNK:
        Path("all", name).parent.mkdir(parents=True, exist_ok=True)
        Path("all", name).write_bytes(b"junk")
    Path("all/gone.png").symlink_to("nowhere.png")
    Path("all/more").symlink_to(folder / "photos")
    assert run("segment", *SUPPORT, "all", "--out", "all/earlier") == 1
    assert run("segment", *SUPPORT, "all", "--out", "out") == 1
    assert masks() == good
    assert set(failures()) == bad
    assert len(Path("out/failures.jsonl").read_text().splitlines()) == len(bad)
    printed = capsys.readouterr()
    assert "Traceback" not in printed.out + printed.err
    for name in ("all/gone.png", "all/more", "all/earlier"):
        assert name in printed.err.splitlines()[-1]
    assert f"{len(good)} of {len(good) + len(bad)} images segmented" in printed.out
