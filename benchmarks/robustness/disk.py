"""Full and read-only disks."""

import os
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from io import BytesIO
from pathlib import Path
from typing import NamedTuple

import nibabel
import numpy as np
import rasterio
import torch
from PIL import Image
from rasterio.transform import from_origin
from safetensors.torch import save_file

from benchmarks.harness import settings
from benchmarks.robustness.isolated import run_isolated
from benchmarks.robustness.rows import CannotRun, Outcome, Row
from benchmarks.robustness.samples import scene
from benchmarks.robustness.training_runs import (
    TINY,
    ProcessResult,
    TrainingInputs,
    run,
    write_training_inputs,
)
from kshot.cli.main import main as kshot
from kshot.data.prepare import SBD_ARCHIVE, VOC_ARCHIVE
from kshot.errors import WriteError
from kshot.evaluation.results import read_result, write_result
from kshot.io.files import save_image
from kshot.io.geotiff import create_geotiff, open_geotiff
from kshot.io.nifti import load_nifti, make_volume, write_volume
from kshot.io.overlays import label_image
from kshot.io.raster_options import RasterOptions
from kshot.methods.config import ModelConfig
from kshot.methods.saving import build_method, imagenet_backbone, load_model, save_model
from kshot.models.backbones import Backbone
from kshot.predict.outputs import Outputs
from kshot.predict.resume_log import ImageRecord, ResumeLog
from kshot.segmenter import Segmenter
from kshot.training.checkpoint import Checkpoint, read_checkpoint, save_checkpoint
from kshot.training.run_folder import RunFolder

SIZE = 8 * 2**20
PAGE = 4096
"""Bytes of a disk in memory, and of its blocks."""

RESULT = Path("benchmarks/results/shipped_two-pass_coco-mini-60_1shot.json")
"""A result file of `kshot evaluate`."""


class Writer(NamedTuple):
    """A kind of file that kshot writes.

    write: writes into a folder; the content depends on a number. read: loads it, and raises if it is
    incomplete. appends: adds to a file whose earlier content must stay.
    """

    write: Callable[[Path, int], object]
    read: Callable[[Path], object]
    appends: bool = False


class WriteAttempt(NamedTuple):
    """The outcome of a write to a full disk and of one after space was freed."""

    name: str
    is_intact: bool
    is_reported: bool
    is_written: bool
    message: str


def full_disk(folder: Path, count: int = 100) -> Outcome:
    """Overwrite each kind of file on a disk that becomes full meanwhile."""
    with small_disk(folder / "disk") as place:
        attempts = run_isolated(_attempt_all, folder, place, count)
    for one in attempts:
        if not (one.is_intact and one.is_reported and one.is_written):
            print(one, file=sys.stderr)
    intact, reported, written = (sum(column) for column in list(zip(*attempts, strict=True))[1:4])
    figure = (
        f"{intact}/{count}: the earlier file still loads; {reported} report one line with the path; "
        f"{written} are written once space is freed"
    )
    return Outcome(figure, intact == reported == written == count)


def read_only(folder: Path) -> Outcome:
    """Run the commands that write with a folder on a read-only disk."""
    inputs = write_training_inputs(folder)
    write_archives(folder)
    with small_disk(folder / "disk") as place:
        (place / "there").mkdir()
        _mount("-o", "remount,ro", str(place))
        results = run_isolated(_run_commands, inputs, place)
    wrong = [verb for verb, one in results.items() if not _is_refused(one, place)]
    for verb in wrong:
        print(verb, results[verb], file=sys.stderr)
    figure = (
        f"{len(results) - len(wrong)}/{len(results)} commands: exit status 2, one line that names the path"
    )
    return Outcome(f"{figure}{'; not ' if wrong else ''}{', '.join(wrong)}", not wrong)


@contextmanager
def small_disk(place: Path) -> Iterator[Path]:
    """Mount a small disk. Raises CannotRun if mounting is not allowed."""
    place.mkdir()
    _mount("-t", "tmpfs", "-o", f"size={SIZE}", "tmpfs", str(place))
    try:
        yield place
    finally:
        subprocess.run(["umount", str(place)], check=True)


def _mount(*arguments: str) -> None:
    try:
        subprocess.run(["mount", *arguments], check=True, capture_output=True, text=True)
    except FileNotFoundError:
        raise CannotRun("the command `mount` is missing") from None
    except subprocess.CalledProcessError as error:
        raise CannotRun(f"a small disk cannot be mounted ({error.stderr.strip()})") from None


def _attempt_all(folder: Path, place: Path, count: int) -> list[WriteAttempt]:
    """Try all writers in turn. Called in its own process, as GDAL writes to stderr."""
    torch.set_num_threads(1)
    random, writers = np.random.default_rng(0), list(_writers(folder).items())
    return [
        _attempt(*writers[number % len(writers)], place, folder / f"whole {number}", random)
        for number in range(count)
    ]


def _attempt(
    name: str, writer: Writer, place: Path, whole: Path, random: np.random.Generator
) -> WriteAttempt:
    """Write twice; the second time the disk has no space for the largest file. whole: a folder with space."""
    here = place / "here"
    for one in (here, whole):
        one.mkdir(exist_ok=True)
        writer.write(one, 0)
    before = _files(here)
    writer.write(whole, 1)
    after = _files(whole)
    largest = max(len(after[key]) - (len(before[key]) if writer.appends else 0) for key in after)
    with _nearly_full(place, int(random.integers(max(1, largest // PAGE)))):
        message = _write_error(writer, here)
    now = _files(here)
    is_intact = now.keys() == before.keys() and now != after and _reads(writer, here)
    for key, content in now.items():
        old, new = before.get(key, b""), after.get(key, b"")
        is_intact &= content.startswith(old) if writer.appends else content in (old, new)
    is_reported = "\n" not in message and str(here) in message and "Free some space" in message
    writer.write(here, 1)
    is_written = _reads(writer, here) and (writer.appends or _files(here) == after)
    shutil.rmtree(here)
    return WriteAttempt(name, is_intact, is_reported, is_written, message)


def _writers(folder: Path) -> dict[str, Writer]:
    """Return the kinds of files by name."""
    backbone = folder / "backbone.safetensors"
    save_file(Backbone(TINY).trunk.state_dict(), backbone)
    result = read_result(RESULT)
    map_file, scan_file = _write_map(folder / "map.tif"), _write_scan(folder / "scan.nii.gz")
    segmenter = Segmenter.from_pretrained("prototype", image_size=65).fit(*scene())
    image = folder / "image.png"
    Image.fromarray(_noise(0, (90, 120, 3))).save(image)
    predictions = [segmenter.predict(scene(left=5 + 40 * number)[0]) for number in range(2)]

    def write_model(out: Path, number: int) -> None:
        torch.manual_seed(number)
        config = ModelConfig(method="hsnet", backbone=TINY, image_size=65, channels=(4, 8, 12))
        save_model(config, build_method(config, partial(imagenet_backbone, config, backbone)), out)

    def write_results(out: Path, number: int) -> None:
        outputs = Outputs.from_paths([image], out, frozenset({"probability"}))
        outputs.write(Path("image"), Image.fromarray(_noise(number, (90, 120, 3))), predictions[number])

    def write_mask_of_map(out: Path, number: int) -> None:
        with (
            open_geotiff(map_file, RasterOptions()) as source,
            create_geotiff(out / "map_mask.tif", source, ["mask"], "uint8", 255) as writer,
        ):
            writer.write(_noise(number, (1, *source.size)))

    def write_mask_of_scan(out: Path, number: int) -> None:
        volume = make_volume(load_nifti(scan_file), None, None)
        write_volume(_noise(number, volume.voxels.shape), volume, out / "scan_mask.nii.gz")

    def log(out: Path, number: int) -> None:
        RunFolder(out, "{}", resume=True).log({"phase": 0, "step": number, "losses": _many(number)})

    def add_record(out: Path, number: int) -> None:
        ResumeLog(out / "done.jsonl").add(ImageRecord("image", f"{number}", [0, 0], 0.5, _many(number)))

    return {
        "checkpoint": Writer(
            lambda out, number: save_checkpoint(_checkpoint(number), out / "checkpoint.pt"),
            lambda out: read_checkpoint(out / "checkpoint.pt", "{}"),
        ),
        "model": Writer(write_model, lambda out: load_model(out, backbone_weights=backbone)),
        "result": Writer(
            lambda out, number: write_result(result.model_copy(update={"fold": number}), out / "result.json"),
            lambda out: read_result(out / "result.json"),
        ),
        "image": Writer(write_results, _read_results),
        "labels": Writer(
            lambda out, number: save_image(label_image(_noise(number, (90, 120))), out / "labels.png"),
            lambda out: _decode(out / "labels.png"),
        ),
        "jpeg": Writer(
            lambda out, number: save_image(Image.fromarray(_noise(number, (90, 120))), out / "page.jpg"),
            lambda out: _decode(out / "page.jpg"),
        ),
        "map": Writer(write_mask_of_map, lambda out: rasterio.open(out / "map_mask.tif").read()),
        "scan": Writer(write_mask_of_scan, lambda out: load_nifti(out / "scan_mask.nii.gz").get_fdata()),
        "log": Writer(log, lambda out: RunFolder(out, "{}", resume=True).read_log()[0]["losses"], True),
        "resume log": Writer(add_record, lambda out: ResumeLog(out / "done.jsonl").read()["0"], True),
    }


def _checkpoint(number: int) -> Checkpoint:
    generator = torch.Generator().manual_seed(number)
    return Checkpoint(0, number, {"weights": torch.randn(20_000, generator=generator)}, {}, None, "{}")


def _noise(number: int, size: tuple[int, ...]) -> np.ndarray:
    return np.random.default_rng(number).integers(0, 256, size, dtype=np.uint8)


def _many(number: int) -> dict[str, float]:
    return {f"loss {n}": float(number) for n in range(2000)}


def _read_results(out: Path) -> None:
    _decode(out / "image_mask.png")
    _decode(out / "image_overlay.png")
    np.load(out / "image_probability.npy")


def _decode(path: Path) -> None:
    with Image.open(path) as image:
        image.load()


def _write_map(path: Path) -> Path:
    profile = {
        "width": 200,
        "height": 300,
        "count": 1,
        "dtype": "uint8",
        "transform": from_origin(0, 0, 1, 1),
    }
    with rasterio.open(path, "w", driver="GTiff", crs="EPSG:3857", **profile) as dataset:
        dataset.write(_noise(0, (1, 300, 200)))
    return path


def _write_scan(path: Path) -> Path:
    nibabel.save(nibabel.Nifti1Image(_noise(0, (40, 40, 20)), np.eye(4)), path)
    return path


@contextmanager
def _nearly_full(place: Path, left: int) -> Iterator[None]:
    """Fill a disk except for `left` pages."""
    filler, usage = place / "filler", os.statvfs(place)
    with filler.open("wb") as file:
        for _ in range(usage.f_bavail - left):
            file.write(bytes(PAGE))
    try:
        yield
    finally:
        filler.unlink()


def _write_error(writer: Writer, out: Path) -> str:
    """Write to a full disk; return the error message."""
    try:
        writer.write(out, 1)
    except WriteError as error:
        return str(error)
    except Exception as error:
        return f"unexpected error:\n{type(error).__name__}: {error}"
    return "no error\n"


def _reads(writer: Writer, out: Path) -> bool:
    try:
        writer.read(out)
    except Exception as error:
        print(f"{out}: {error}", file=sys.stderr)
        return False
    return True


def _files(out: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in out.iterdir()}


def write_archives(folder: Path) -> None:
    """Write archives like those of VOC and SBD, with one image and its mask."""
    image, mask = BytesIO(), BytesIO()
    scene()[0].save(image, "JPEG")
    label_image(scene()[1].astype(np.uint8)).save(mask, "PNG")
    root = "VOCdevkit/VOC2012"
    members = {f"{root}/JPEGImages/a.jpg": image, f"{root}/SegmentationClass/a.png": mask}
    for archive, mode, contents in ((VOC_ARCHIVE, "w", members), (SBD_ARCHIVE, "w:gz", {})):
        with tarfile.open(folder / archive.name, mode) as tar:  # type: ignore[call-overload]
            for name, content in contents.items():
                entry = tarfile.TarInfo(name)
                entry.size = len(content.getvalue())
                tar.addfile(entry, BytesIO(content.getvalue()))


def _run_commands(inputs: TrainingInputs, place: Path) -> dict[str, ProcessResult]:
    """Run each command in a fork of this process."""
    torch.set_num_threads(1)
    folder = place.parent
    results = {}
    for verb, arguments in _commands(inputs, place).items():
        results[verb] = run(partial(kshot, list(map(str, arguments))), folder / "stderr.txt")
    return results


def _commands(inputs: TrainingInputs, place: Path) -> dict[str, list[str | Path]]:
    folder, there, new = place.parent, place / "there", place / "new"
    image, mask = scene()
    image.save(folder / "support.png")
    Image.fromarray(mask).save(folder / "mask.png")
    support = ["--support", folder / "support.png", folder / "mask.png", folder / "support.png"]
    small = ["--image-size", "65"]
    data = ["--data", inputs.data]
    scored = [*data, "--episodes", "2", *settings("image_size=65")]
    weights = ["--backbone", TINY, "--backbone-weights", inputs.weights]
    return {
        "segment": ["segment", *support, *small, "--out", there],
        "segment into a new folder": ["segment", *support, *small, "--out", new],
        "pretrain": [*inputs.pretrain(there)],
        "train": [*inputs.train(there), *settings("method=hsnet", f"cache={folder / 'features'}")],
        "train into the cache": [*inputs.train(folder / "run"), *settings("method=hsnet", f"cache={there}")],
        "episodes": ["episodes", "--data", inputs.data, "--episodes", "2", "--out", there / "list.json"],
        "evaluate --json": ["evaluate", *scored, "--json", there / "result.json"],
        "compare --json": ["compare", RESULT, RESULT, "--json", there / "difference.json"],
        "table": ["table", "list", RESULT, "--out", there / "table.md"],
        "figure": ["figure", "classes", RESULT, "--out", there / "classes.png"],
        "export": ["export", "prototype", *weights, *small, "--out", there / "model.onnx"],
        "data prepare": ["data", "prepare", "pascal", "--root", there, "--archives", folder],
    }


def _is_refused(result: ProcessResult, place: Path) -> bool:
    """Return whether a command failed as expected: with one line that names a path on the disk."""
    text = result.stderr.strip()
    return result.status == 2 and text.startswith("kshot: ") and "\n" not in text and str(place) in text


ROWS = (
    Row(
        "full-disk",
        "disk full during a write: checkpoint, model, result, masks, logs",
        "100/100: the earlier file still loads, the message names the path",
        full_disk,
    ),
    Row(
        "read-only",
        "a read-only folder, for all commands that write",
        "exit status 2, one line that names the path",
        read_only,
    ),
)
