"""Tell GeoTIFFs and medical volumes from ordinary images without loading their libraries."""

import struct
import warnings
from contextlib import suppress
from pathlib import Path
from typing import Literal

from PIL import TiffImagePlugin

GEO_KEYS = 34735
"""TIFF tag of the coordinate system (GeoKeyDirectoryTag)."""

BIG_TIFF = 43
"""Version number in the header of a BigTIFF."""

DICOM_SUFFIXES = frozenset({".dcm", ".dicom", ".ima"})

FileType = Literal["image", "geotiff", "volume"]


def file_type(path: Path) -> FileType:
    """Return the type of a file, or of a folder with a DICOM series; reads only the header."""
    if path.is_dir() or is_nifti(path) or is_dicom(path):
        return "volume"
    return "geotiff" if is_tiff(path) and _has_coordinates(path) else "image"


def is_nifti(path: Path) -> bool:
    """Return whether a file is NIfTI, judged by its name."""
    return path.name.lower().endswith((".nii", ".nii.gz"))


def is_dicom(path: Path) -> bool:
    """Return whether a file is DICOM, judged by its suffix, or by its header if it has no suffix."""
    if path.suffix:
        return path.suffix.lower() in DICOM_SUFFIXES
    if not path.is_file():
        return False
    with suppress(OSError), path.open("rb") as file:  # scanners often write files without a suffix
        return file.read(132)[128:] == b"DICM"
    return False


def is_tiff(path: Path) -> bool:
    """Return whether a file is a TIFF, judged by its suffix."""
    return path.suffix.lower() in (".tif", ".tiff")


def _has_coordinates(path: Path) -> bool:
    try:
        with path.open("rb") as file, warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow's, of damage that the image reader reports
            header = file.read(8)
            header += file.read(8) if BIG_TIFF in header[2:4] else b""
            directory = TiffImagePlugin.ImageFileDirectory_v2(header)
            file.seek(directory.next)
            directory.load(file)
    except (OSError, SyntaxError, ValueError, struct.error):
        return False  # the image reader reports what is wrong with it
    return GEO_KEYS in directory
