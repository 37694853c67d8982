"""Read a DICOM slice, or a folder with the slices of one series, as nibabel's image."""

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kshot.errors import ImageError, KshotError, reason_of
from kshot.io.extras import import_extra
from kshot.io.filetypes import is_dicom
from kshot.io.nifti import nibabel
from kshot.io.raster_options import WindowLevel

LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])
"""DICOM's axes run to the patient's left and back, NIfTI's to the right and front."""

MAX_GAP_RATIO = 1.5
"""Largest gap between slices divided by the smallest; above it a slice is taken to be missing."""

logger = logging.getLogger(__name__)


SMALLEST_AREA = 0.1
"""Smallest area that the directions of rows and columns, of length 1 each, span: they are at right angles."""


def load_dicom(path: Path) -> tuple[Any, WindowLevel | None]:
    """Read a DICOM file, or a folder with one series: nibabel's image in the file's units, and its window.

    Slices are sorted by position. The window is the first slice's; None if it has none.
    Fields that are empty count as missing. Raises ImageError for colour, several frames in a file, several
    series, slices that do not match, or a field that is no number.
    """
    try:
        return _load(path)
    except KshotError:
        raise
    except (ArithmeticError, AttributeError, LookupError, RuntimeError, TypeError, ValueError) as error:
        raise ImageError(f"'{path}' cannot be read as DICOM: {reason_of(error)}.") from error


def _load(path: Path) -> tuple[Any, WindowLevel | None]:
    paths = sorted(file for file in path.iterdir() if is_dicom(file)) if path.is_dir() else [path]
    if not paths:
        raise ImageError(f"Folder '{path}' holds no DICOM files.")
    slices = [_read(file) for file in paths]
    if len(series := {str(dataset.get("SeriesInstanceUID", "")) for dataset in slices}) > 1:
        raise ImageError(f"Folder '{path}' holds {len(series)} DICOM series. Give each its own folder.")
    if len(geometries := {_geometry(dataset) for dataset in slices}) > 1:
        raise ImageError(
            f"The slices in '{path}' differ in size, spacing or direction: {sorted(geometries)[:2]}."
        )
    slices.sort(key=_height)
    _check_gaps(path, np.diff([_height(dataset) for dataset in slices]))
    voxels = np.stack([_values(dataset).T for dataset in slices], axis=2)
    image = nibabel().Nifti1Image(voxels, _affine(slices))
    image.header.set_xyzt_units("mm")
    return image, _window(slices[0])


def series_id(path: Path) -> str:
    """Return the ID of a file's series; the path itself if the file has none or is unreadable."""
    library = pydicom()
    try:
        header = library.dcmread(path, stop_before_pixels=True, specific_tags=["SeriesInstanceUID"])
        return str(header.get("SeriesInstanceUID", path))
    except Exception:  # pydicom raises errors of many kinds; `load_dicom` reports what is wrong
        return str(path)


def pydicom() -> Any:
    """Return pydicom. Raises KshotError if it is not installed."""
    return import_extra("pydicom", "NIfTI and DICOM need nibabel and pydicom", "medical")


def _check_gaps(path: Path, gaps: NDArray[np.float64]) -> None:
    if gaps.size and not gaps.all():
        raise ImageError(f"Two slices in '{path}' lie at the same place. Keep one of each place.")
    if gaps.size and gaps.max() > MAX_GAP_RATIO * gaps.min():
        raise ImageError(
            f"The slices in '{path}' are {gaps.min():.3g} to {gaps.max():.3g} mm apart: one seems to be "
            "missing. Complete the series, or give its parts in separate folders."
        )


def _read(path: Path) -> Any:
    library = pydicom()
    try:
        dataset = library.dcmread(path)
        if dataset.get("SamplesPerPixel", 1) != 1 or dataset.get("NumberOfFrames", 1) not in (1, None):
            raise ImageError(
                f"'{path}' has colours or several frames; kshot reads grey slices, one a file. Save colours "
                "as PNG, and frames as NIfTI (dcm2niix does)."
            )
        dataset.pixel_array  # noqa: B018  # decodes, and keeps, the pixels
    except FileNotFoundError:
        raise ImageError(f"There is no file '{path}'.") from None
    except ImageError:
        raise
    # Optional decoders raise errors of many kinds for a damaged file.
    except Exception as error:
        raise ImageError(f"'{path}' cannot be read as DICOM: {reason_of(error)}.") from error
    return dataset


def _values(dataset: Any) -> NDArray[np.float32]:
    """Return a slice (rows, columns) in the file's units, such as Hounsfield units."""
    slope, intercept = _number(dataset, "RescaleSlope", 1), _number(dataset, "RescaleIntercept", 0)
    if slope == 0:
        _warn_once(dataset, "RescaleSlope is 0, which would erase all values; 1 is used")
        slope = 1.0
    stored = dataset.pixel_array.astype(np.float32)
    values: NDArray[np.float32] = stored * np.float32(slope) + np.float32(intercept)
    return -values if _is_inverted(dataset) else values


def _numbers(dataset: Any, name: str) -> list[float]:
    """Return a field's numbers; none if it is missing or empty. Raises ImageError if it is no number."""
    try:
        value = dataset.get(name)
        several = value if isinstance(value, Sequence) and not isinstance(value, str) else [value]
        numbers = [float(one) for one in several if one is not None and str(one).strip()]
    except (TypeError, ValueError, OverflowError) as error:
        raise ImageError(f"{_name(dataset)}: its {name} is no number: {reason_of(error)}.") from error
    if not np.isfinite(numbers).all():
        raise ImageError(f"{_name(dataset)}: its {name} is {numbers}, which is no finite number.")
    return numbers


def _number(dataset: Any, name: str, default: float) -> float:
    """Return a field's first number, or `default` if it is missing or empty."""
    return next(iter(_numbers(dataset, name)), default)


def _warn_once(dataset: Any, fault: str) -> None:
    """Log a fault of a slice the first time that it is found."""
    known = vars(dataset).setdefault("_kshot_faults", set())
    if fault not in known:
        known.add(fault)
        logger.warning(f"{_name(dataset)}: {fault}.")


def _name(dataset: Any) -> str:
    return f"'{getattr(dataset, 'filename', None) or 'a DICOM slice'}'"


def _is_inverted(dataset: Any) -> bool:
    """Return whether small values are white; such slices are negated."""
    return bool(dataset.get("PhotometricInterpretation") == "MONOCHROME1")


def _window(dataset: Any) -> WindowLevel | None:
    centres, widths = _numbers(dataset, "WindowCenter"), _numbers(dataset, "WindowWidth")
    usable = [(centre, width) for centre, width in zip(centres, widths, strict=False) if width > 0]
    if not usable:
        if centres or widths:
            logger.info(f"{_name(dataset)}: its window {centres}, {widths} cannot be used; percentiles are.")
        return None
    centre, width = usable[0]
    centre = -centre if _is_inverted(dataset) else centre
    return WindowLevel(centre - width / 2, centre + width / 2)


def _directions(dataset: Any) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the directions along a row and down a column."""
    given = np.array(_numbers(dataset, "ImageOrientationPatient") or [1, 0, 0, 0, 1, 0], np.float64)
    if given.shape != (6,) or np.linalg.norm(np.cross(given[:3], given[3:])) < SMALLEST_AREA:
        _warn_once(dataset, f"ImageOrientationPatient is {given.tolist()}; axial slices are assumed")
        given = np.array([1, 0, 0, 0, 1, 0], np.float64)
    return given[:3], given[3:]


def _spacing(dataset: Any) -> tuple[float, float]:
    """Return the millimetres between rows and between columns."""
    given = _numbers(dataset, "PixelSpacing") or _numbers(dataset, "ImagerPixelSpacing") or [1.0, 1.0]
    if len(given) != 2 or min(given) <= 0:
        _warn_once(dataset, f"PixelSpacing is {given}; 1 mm is assumed")
        given = [1.0, 1.0]
    down, across = given
    return down, across


def _position(dataset: Any) -> NDArray[np.float64]:
    given = _numbers(dataset, "ImagePositionPatient")
    if len(given) != 3:
        given = [0, 0, _number(dataset, "InstanceNumber", 0)]
    return np.array(given, np.float64)


def _height(dataset: Any) -> float:
    """Return a slice's position in millimetres along the direction in which slices are stacked."""
    return float(np.cross(*_directions(dataset)) @ _position(dataset))


def _geometry(dataset: Any) -> tuple[Any, ...]:
    along, down = _directions(dataset)
    directions = *along.round(3).tolist(), *down.round(3).tolist()
    return (dataset.Rows, dataset.Columns, *_spacing(dataset), *directions)


def _affine(slices: list[Any]) -> NDArray[np.float64]:
    """Return the affine from (column, row, slice) to RAS millimetres (DICOM PS3.3, equation C.7.6.2.1-1)."""
    first, last = slices[0], slices[-1]
    along, down = _directions(first)
    between_rows, between_columns = _spacing(first)
    if len(slices) > 1:
        step = (_position(last) - _position(first)) / (len(slices) - 1)
    else:
        step = np.cross(along, down) * (_number(first, "SliceThickness", 1) or 1)
    affine = np.eye(4)
    affine[:3] = np.column_stack([along * between_columns, down * between_rows, step, _position(first)])
    return np.asarray(LPS_TO_RAS @ affine)
