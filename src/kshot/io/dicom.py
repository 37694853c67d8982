"""DICOM: a slice, or the slices of one series in a folder, as one of nibabel's images."""

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kshot.errors import ImageError, KshotError, reason_of
from kshot.io.filetypes import is_dicom
from kshot.io.nifti import nibabel
from kshot.io.raster_options import Levels

TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])
"""DICOM's axes run to the patient's left and back, NIfTI's to the right and front."""


MOST_UNEVEN = 1.5
"""Factor between the smallest and the largest gap between slices from which on one is missing."""

RESCALE = (("RescaleSlope", 1.0), ("RescaleIntercept", 0.0))
"""What turns stored levels into the file's units, and what holds if the file does not say."""


def load_dicom(path: Path) -> tuple[Any, Levels | None]:
    """Read a DICOM file, or a folder with one series: an image in the file's units, and its window.

    Slices are sorted by where they lie. Window: the first file's; None if it has none.
    Raises ImageError for colours, several frames in a file, several series, or slices of several sizes.
    """
    paths = sorted(one for one in path.iterdir() if is_dicom(one)) if path.is_dir() else [path]
    slices = [_read(one) for one in paths]
    if len(names := {str(one.get("SeriesInstanceUID", "")) for one in slices}) > 1:
        raise ImageError(f"Folder '{path}' holds {len(names)} DICOM series. Give each a folder of its own.")
    if len(shapes := {_geometry(one) for one in slices}) > 1:
        raise ImageError(
            f"The slices in '{path}' differ in size, spacing or direction: {sorted(shapes)[:2]}."
        )
    slices.sort(key=_height)
    _check_gaps(path, np.diff([_height(one) for one in slices]))
    voxels = np.stack([_levels_of(one).T for one in slices], axis=2)
    image = nibabel().Nifti1Image(voxels, _affine(slices))
    image.header.set_xyzt_units("mm")
    return image, _window(slices[0])


def series_of(path: Path) -> str:
    """Say to which series a file belongs; a file that says nothing is its own."""
    library = pydicom()
    try:
        head = library.dcmread(path, stop_before_pixels=True, specific_tags=["SeriesInstanceUID"])
    except (OSError, EOFError, ValueError, library.errors.InvalidDicomError):
        return str(path)  # whoever reads it whole says what is wrong with it
    return str(head.get("SeriesInstanceUID", path))


def pydicom() -> Any:
    """Give pydicom. Raises KshotError if it is not installed."""
    try:
        import pydicom
    except ImportError as error:
        raise KshotError("NIfTI and DICOM need nibabel and pydicom: pip install 'kshot[medical]'.") from error
    return pydicom


def _check_gaps(path: Path, gaps: NDArray[np.float64]) -> None:
    if gaps.size and not gaps.all():
        raise ImageError(f"Two slices in '{path}' lie at the same place. Keep one of each place.")
    if gaps.size and gaps.max() > MOST_UNEVEN * gaps.min():
        raise ImageError(
            f"The slices in '{path}' are {gaps.min():.3g} to {gaps.max():.3g} mm apart: one seems to be "
            "missing. Complete the series, or give its parts in folders of their own."
        )


def _read(path: Path) -> Any:
    library = pydicom()
    try:
        one = library.dcmread(path)
        is_grey = one.get("SamplesPerPixel", 1) == 1 and one.get("NumberOfFrames", 1) in (1, None)
        if not is_grey:
            raise ImageError(
                f"'{path}' has colours or several frames; kshot reads grey slices, one a file. Save colours "
                "as PNG, and frames as NIfTI (dcm2niix does)."
            )
        one.pixel_array  # noqa: B018  # keeps the pixels decoded
    except FileNotFoundError:
        raise ImageError(f"There is no file '{path}'.") from None
    except ImageError:
        raise
    # What a decoder of somebody else makes of a bad file has many names.
    except Exception as error:
        raise ImageError(f"'{path}' cannot be read as DICOM: {reason_of(error)}.") from error
    return one


def _levels_of(one: Any) -> NDArray[np.float32]:
    """Give a slice's levels in the file's units, say Hounsfield's, (rows, columns)."""
    slope, intercept = (float(one.get(name, fallback)) for name, fallback in RESCALE)
    levels: NDArray[np.float32] = one.pixel_array.astype(np.float32) * np.float32(slope) + np.float32(
        intercept
    )
    return -levels if _is_inverted(one) else levels


def _is_inverted(one: Any) -> bool:
    """Say whether small values are white; the image is turned round, so that they are large."""
    return bool(one.get("PhotometricInterpretation") == "MONOCHROME1")


def _window(one: Any) -> Levels | None:
    if "WindowCenter" not in one or "WindowWidth" not in one:
        return None
    centre, width = (float(np.atleast_1d(one[name].value)[0]) for name in ("WindowCenter", "WindowWidth"))
    centre = -centre if _is_inverted(one) else centre
    return Levels(centre - width / 2, centre + width / 2)


def _directions(one: Any) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Give the directions along a row and down a column."""
    given = np.array(one.get("ImageOrientationPatient") or [1, 0, 0, 0, 1, 0], np.float64)
    return given[:3], given[3:]


def _spacing(one: Any) -> tuple[float, float]:
    """Give millimetres between rows and between columns."""
    down, across = one.get("PixelSpacing") or one.get("ImagerPixelSpacing") or [1.0, 1.0]
    return float(down), float(across)


def _position(one: Any) -> NDArray[np.float64]:
    place = one.get("ImagePositionPatient") or [0, 0, float(one.get("InstanceNumber") or 0)]
    return np.array(place, np.float64)


def _height(one: Any) -> float:
    """Give a slice's place along the direction in which they are stacked."""
    return float(np.cross(*_directions(one)) @ _position(one))


def _geometry(one: Any) -> tuple[Any, ...]:
    along, down = _directions(one)
    return (one.Rows, one.Columns, *_spacing(one), *along.round(3).tolist(), *down.round(3).tolist())


def _affine(slices: list[Any]) -> NDArray[np.float64]:
    """Map (column, row, slice) to RAS millimetres."""
    first, last = slices[0], slices[-1]
    along, down = _directions(first)
    between_rows, between_columns = _spacing(first)
    if len(slices) > 1:
        step = (_position(last) - _position(first)) / (len(slices) - 1)
    else:
        step = np.cross(along, down) * float(first.get("SliceThickness") or 1)
    affine = np.eye(4)
    affine[:3] = np.column_stack([along * between_columns, down * between_rows, step, _position(first)])
    return np.asarray(TO_RAS @ affine)
