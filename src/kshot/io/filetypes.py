"""Which files are maps or scans, and which are ordinary pictures."""

import struct
from pathlib import Path
from typing import Literal

from PIL import TiffImagePlugin

GEO_KEYS = 34735
"""The TIFF tag that says which coordinates a map has (GeoKeyDirectoryTag)."""

BIG_TIFF = 43
"""The version in the head of TIFFs of more than 4 GB."""

DICOM_SUFFIXES = frozenset({".dcm", ".dicom", ".ima"})

Kind = Literal["picture", "map", "scan"]


def kind_of(path: Path) -> Kind:
    """Say what a file is, or a folder with the slices of one scan; only its head is read."""
    if path.is_dir() or is_nifti(path) or is_dicom(path):
        return "scan"
    return "map" if is_tiff(path) and _has_coordinates(path) else "picture"


def is_nifti(path: Path) -> bool:
    """Say whether a file is a NIfTI volume, by its name."""
    return path.name.lower().endswith((".nii", ".nii.gz"))


def is_dicom(path: Path) -> bool:
    """Say whether a file is DICOM's, by its suffix; by its head if it has none, as a scanner's often have."""
    if path.suffix:
        return path.suffix.lower() in DICOM_SUFFIXES
    if not path.is_file():
        return False
    with path.open("rb") as file:
        return file.read(132)[128:] == b"DICM"


def is_tiff(path: Path) -> bool:
    """Say whether a file is a TIFF, by its suffix."""
    return path.suffix.lower() in (".tif", ".tiff")


def _has_coordinates(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            head = file.read(8)
            head += file.read(8) if BIG_TIFF in head[2:4] else b""
            directory = TiffImagePlugin.ImageFileDirectory_v2(head)
            file.seek(directory.next)
            directory.load(file)
    except (OSError, SyntaxError, ValueError, struct.error):
        return False  # whoever reads it as a picture says what is wrong with it
    return GEO_KEYS in directory
