"""Fuzz each reader: mutate sound files for some time, with fixed seeds, and read what comes out.

A new reader needs its name, a function that writes sound files, and one that reads a file: see READERS.
"""

import json
import math
import os
import time
import warnings
import zlib
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from benchmarks.robustness.isolated import Crashed, run_isolated
from benchmarks.robustness.rows import Outcome, Row
from benchmarks.robustness.samples import scene
from kshot.errors import KshotError
from kshot.io.images import read_image, read_mask, read_size

SECONDS = float(os.environ.get("KSHOT_FUZZ_SECONDS", "600"))
"""Time for each reader."""

MAX_PIXELS = "1000000"
"""KSHOT_MAX_PIXELS while fuzzing, so that no mutated header costs time and memory."""

NUMBERS = (0, 1, 127, 128, 255, 2**15, 2**16 - 1, 2**31 - 1, 2**31, 2**32 - 1)
"""Values that are written over two or four bytes."""

PIECES = (b"[", b"{", b'"', b"null", b"-1", b"1e999", b"NaN", b"\xff\xfe", b"\0\0\0\0", b"<", b"&#0;", b"")
"""What is inserted."""


class Reader(NamedTuple):
    """A reader to fuzz. write: writes sound files to a folder. read: reads one file, whole.

    repair: corrects checksums of a mutated file, without which every one would be refused for them.
    """

    name: str
    write: Callable[[Path], Iterable[Path]]
    read: Callable[[Path], Any]
    repair: Callable[[bytes], bytes] = bytes


def fuzz(
    reader: Reader, folder: Path, seconds: float = math.inf, max_files: float = math.inf, seed: int = 0
) -> tuple[Counter[str], list[str]]:
    """Read mutated files, for some time or up to a number of them.

    Returns how many were read, refused and failed, and the failures.
    """
    random, counts, failures = np.random.default_rng(seed), Counter[str](), list[str]()
    samples = [(path, path.read_bytes()) for path in reader.write(folder)]
    end = time.monotonic() + seconds
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        while time.monotonic() < end and counts.total() < max_files:
            path, sound = samples[int(random.integers(len(samples)))]
            broken = reader.repair(mutate(sound, random))
            path.write_bytes(broken)
            try:
                reader.read(path)
                counts["read"] += 1
            except KshotError as error:
                counts["refused"] += 1
                if "\n" in str(error):
                    failures.append(f"{path.name}: an error of several lines: {error}")
            except Exception as error:
                counts["failed"] += 1
                failures.append(f"{path.name}, file {counts.total()}: {error!r}")
    return counts, failures


def mutate(content: bytes, random: np.random.Generator) -> bytes:
    """Change one to four places of a file."""
    changed = bytearray(content)
    for _ in range(int(random.integers(1, 5))):
        if not changed:
            break
        place, length = int(random.integers(len(changed))), int(random.integers(1, 33))
        match int(random.integers(7)):
            case 0:
                changed[place] ^= 1 << int(random.integers(8))
            case 1:
                changed[place] = int(random.integers(256))
            case 2:
                size, order = int(random.choice([2, 4])), str(random.choice(["little", "big"]))
                number = NUMBERS[random.integers(len(NUMBERS))] % 256**size
                changed[place : place + size] = number.to_bytes(size, order)  # type: ignore[arg-type]
            case 3:
                del changed[place : place + length]
            case 4:
                changed[place:place] = changed[place : place + length]
            case 5:
                changed[place:place] = PIECES[random.integers(len(PIECES))]
            case _ if random.random() < 0.2:
                del changed[place:]
    return bytes(changed)


def with_png_checksums(content: bytes) -> bytes:
    """Return a PNG whose chunks have the right checksums, as far as their lengths can be followed."""
    changed, place = bytearray(content), 8
    while place + 12 <= len(changed):
        end = place + 8 + int.from_bytes(changed[place : place + 4], "big")
        changed[end : end + 4] = zlib.crc32(changed[place + 4 : end]).to_bytes(4, "big")
        place = end + 4
    return bytes(changed)


def _read_both(path: Path) -> None:
    """Read a file as an image and as a mask."""
    read_size(path)
    size = read_image(path).size[::-1]
    read_mask(path, size)


def _write_images(*names: str) -> Callable[[Path], Iterable[Path]]:
    """Return a function that writes a colour image and a mask with metadata, in formats given by suffixes."""

    def write(folder: Path) -> list[Path]:
        image, mask = scene(width=60, height=45)
        exif = Image.Exif()
        exif[274] = 6
        paths = []
        for name in names:
            for kind, one in (("image", image), ("mask", Image.fromarray(mask.astype(np.uint8)))):
                path = folder / f"{kind}.{name}"
                one.save(path, exif=exif.tobytes(), icc_profile=b"profile" * 20)
                paths.append(path)
        return paths

    return write


def _write_deep(folder: Path) -> list[Path]:
    levels = np.arange(600, dtype=np.uint16).reshape(20, 30)
    paths = [folder / "deep.tif", folder / "float.tif", folder / "grey.tif"]
    for path, values in zip(paths, (levels, levels.astype(np.float32), levels.astype(np.uint8)), strict=True):
        Image.fromarray(values).save(path, compression="tiff_lzw" if path.stem == "grey" else None)
    return paths


def _write_nifti(folder: Path) -> list[Path]:
    import nibabel

    voxels = np.arange(120, dtype=np.int16).reshape(6, 5, 4)
    paths = [folder / "scan.nii", folder / "scan.nii.gz"]
    for path in paths:
        nibabel.save(nibabel.Nifti1Image(voxels, np.diag([1.0, 2.0, 3.0, 1.0])), path)
    return paths


def _read_nifti(path: Path) -> None:
    from kshot.io.nifti import load_nifti, make_volume

    make_volume(load_nifti(path), None, None).slice_image(0)


def _write_dicom(folder: Path) -> list[Path]:
    from pydicom.dataset import Dataset, FileMetaDataset
    from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian

    one = Dataset()
    one.SOPClassUID, one.SOPInstanceUID, one.SeriesInstanceUID = CTImageStorage, "1.2.3.4", "1.2.3"
    one.Rows, one.Columns, one.SamplesPerPixel, one.BitsAllocated, one.BitsStored = 4, 5, 1, 16, 16
    one.PhotometricInterpretation, one.HighBit, one.PixelRepresentation = "MONOCHROME2", 15, 0
    one.RescaleSlope, one.RescaleIntercept, one.WindowCenter, one.WindowWidth = 1, -1024, [40, 50], [400, 500]
    one.PixelSpacing, one.SliceThickness, one.ImagePositionPatient = [0.5, 0.75], 2, [0, 0, 0]
    one.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
    one.PixelData = np.arange(20, dtype="<u2").tobytes()
    one.file_meta = FileMetaDataset()
    one.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    one.save_as(folder / "slice.dcm", enforce_file_format=True)
    return [folder / "slice.dcm"]


def _read_dicom(path: Path) -> None:
    from kshot.io.dicom import load_dicom
    from kshot.io.nifti import make_volume

    make_volume(load_dicom(path)[0], None, None).slice_image(0)


def _write_annotations(name: str, content: str) -> Callable[[Path], Iterable[Path]]:
    """Return a function that writes an annotation file beside its image."""

    def write(folder: Path) -> list[Path]:
        scene(width=120, height=90)[0].save(folder / "image.png")
        (folder / name).write_text(content)
        return [folder / name]

    return write


def _read_annotations(path: Path) -> None:
    from kshot.annotations.reader import read_annotations

    for one in read_annotations(path).images:
        one.read()


COCO = {
    "images": [{"id": 1, "file_name": "image.png", "width": 120, "height": 90}],
    "categories": [{"id": 3, "name": "cup"}],
    "annotations": [
        {"id": 1, "image_id": 1, "category_id": 3, "segmentation": [[9, 9, 60, 9, 60, 50]], "iscrowd": 0},
        {
            "id": 2,
            "image_id": 1,
            "category_id": 3,
            "segmentation": {"size": [90, 120], "counts": [99, 20, 10681]},
        },
    ],
}
LABELME = {
    "imagePath": "image.png",
    "imageHeight": 90,
    "imageWidth": 120,
    "shapes": [
        {"label": "cup", "shape_type": "polygon", "points": [[9, 9], [60, 9], [60, 50]]},
        {"label": "cup", "shape_type": "rectangle", "points": [[9, 9], [60, 50]]},
        {"label": "cup", "shape_type": "circle", "points": [[50, 40], [60, 50]]},
    ],
}
LABEL_STUDIO = [
    {
        "data": {"image": "image.png"},
        "annotations": [
            {
                "result": [
                    {
                        "type": "polygonlabels",
                        "original_width": 120,
                        "original_height": 90,
                        "value": {"points": [[9, 9], [60, 9], [60, 50]], "polygonlabels": ["cup"]},
                    }
                ]
            }
        ],
    }
]
CVAT = """<?xml version="1.0"?><annotations><version>1.1</version>
<image id="0" name="image.png" width="120" height="90">
<polygon label="cup" points="9,9;60,9;60,50" z_order="0"/><box label="cup" xtl="9" ytl="9" xbr="60" ybr="50"/>
<mask label="cup" rle="4, 8, 4" left="10" top="10" width="4" height="4"/></image></annotations>"""

READERS = (
    Reader("PNG", _write_images("png"), _read_both, with_png_checksums),
    Reader("JPEG", _write_images("jpg"), _read_both),
    Reader("WebP", _write_images("webp"), _read_both),
    Reader("TIFF", _write_deep, _read_both),
    Reader("NIfTI", _write_nifti, _read_nifti),
    Reader("DICOM", _write_dicom, _read_dicom),
    Reader("COCO", _write_annotations("coco.json", json.dumps(COCO)), _read_annotations),
    Reader("LabelMe", _write_annotations("image.json", json.dumps(LABELME)), _read_annotations),
    Reader("Label Studio", _write_annotations("tasks.json", json.dumps(LABEL_STUDIO)), _read_annotations),
    Reader("CVAT", _write_annotations("annotations.xml", CVAT), _read_annotations),
)
"""All readers. Add new ones here."""


def fuzz_by_name(name: str, folder: Path, seconds: float) -> tuple[Counter[str], list[str]]:
    """Fuzz the reader of that name, as a function that a new process can call."""
    os.environ["KSHOT_MAX_PIXELS"] = MAX_PIXELS
    folder.mkdir(parents=True, exist_ok=True)
    return fuzz(next(one for one in READERS if one.name == name), folder, seconds)


def mutated_files(folder: Path, seconds: float = SECONDS) -> Outcome:
    """Fuzz every reader, each in its own process."""
    total, failures = Counter[str](), list[str]()
    for reader in READERS:
        try:
            counts, found = run_isolated(fuzz_by_name, reader.name, folder / reader.name, seconds)
        except Crashed:
            counts, found = Counter[str](), ["the process died"]
        total += counts
        failures += [f"{reader.name}: {one}" for one in found]
    for failure in failures[:20]:
        print(failure, flush=True)
    figure = (
        f"{len(READERS)} readers, {seconds:g} s each, {total.total():,} files: {len(failures)} failures, "
        f"{total['refused']:,} refused in one line, {total['read']:,} read"
    )
    return Outcome(figure, not failures)


ROWS = (
    Row(
        "fuzz",
        "mutated files of each format of images, volumes and annotations",
        "read, or refused in one line",
        mutated_files,
    ),
)
