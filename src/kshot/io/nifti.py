"""Read NIfTI volumes as slices in radiological orientation, and write results on the file's own grid."""

import gzip
import logging
import struct
import zlib
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from kshot.errors import ImageError, KshotError, MaskError, reason_of
from kshot.io.extras import import_extra
from kshot.io.files import atomic_write
from kshot.io.raster_options import Plane, WindowLevel, to_integers

PLANES: tuple[Plane, ...] = ("sagittal", "coronal", "axial")
"""The plane across each axis: right, anterior, superior."""

logger = logging.getLogger(__name__)

NIFTI2_HEADER = 540
"""Bytes of a NIfTI-2 header."""

SMALLEST_VOLUME = 1e-3
"""Smallest volume that the directions of the axes, of length 1 each, span."""

BROKEN = (
    OSError,
    EOFError,
    ValueError,
    zlib.error,
    struct.error,
    ArithmeticError,
    LookupError,
    RuntimeError,
    TypeError,
    AttributeError,
    MemoryError,
)
"""What nibabel raises for broken files."""

AFFINE_TOLERANCE = 1e-2
"""Millimetres by which a mask's affine may differ from its volume's."""


@dataclass(frozen=True, eq=False)
class Volume:
    """A volume in RAS order: its axes run to the patient's right, front and head.

    voxels: (X, Y, Z) float32. source: nibabel's image, in the file's own order. axis: along which slices are
    numbered. window: voxel values shown as black and white.
    """

    voxels: NDArray[np.float32]
    source: Any
    axis: int
    window: WindowLevel

    @property
    def num_slices(self) -> int:
        """Number of slices along the axis."""
        return int(self.voxels.shape[self.axis])

    def slice_index(self, number: int) -> tuple[Any, ...]:
        """Return the index of a slice in arrays (X, Y, Z)."""
        return tuple(number if axis == self.axis else slice(None) for axis in range(3))

    def slice_image(self, number: int) -> Image.Image:
        """Return a slice as an RGB image, in the orientation of `to_display`."""
        grey = self.window.to_grey(to_display(self.voxels[self.slice_index(number)]))
        return Image.fromarray(np.ascontiguousarray(grey)).convert("RGB")


def make_volume(source: Any, plane: Plane | None, window: WindowLevel | None) -> Volume:
    """Return nibabel's image as a volume.

    plane: of the slices; None: across the file's last axis. window: None: the file's own (cal_min, cal_max),
    or percentiles of all voxels if it has none.
    """
    data = source.get_fdata(dtype=np.float32, caching="unchanged")
    voxels = to_canonical(data.reshape(grid_shape(source)), source)
    stored = WindowLevel(float(source.header["cal_min"]), float(source.header["cal_max"]))
    if window is None:
        window = stored if stored.white > stored.black else WindowLevel.from_percentiles(voxels)
    last = int(nibabel().io_orientation(source.affine)[2, 0])
    return Volume(voxels, source, last if plane is None else PLANES.index(plane), window)


def load_nifti(path: Path) -> Any:
    """Return a NIfTI file as nibabel's image. Raises ImageError unless it is a readable 3-D volume."""
    library = nibabel()
    errors = library.filebasedimages.ImageFileError, library.spatialimages.HeaderDataError
    try:
        image = _load(path)
        np.asarray(image.dataobj)  # read all voxels now, which finds damage
    except FileNotFoundError:
        raise ImageError(f"There is no file '{path}'.") from None
    except KshotError:
        raise
    except (*BROKEN, *errors) as error:
        raise ImageError(f"'{path}' cannot be read as NIfTI: {reason_of(error)}.") from error
    is_volume = len(image.shape) >= 2 and all(length == 1 for length in image.shape[3:])
    if not is_volume or 0 in image.shape or image.get_data_dtype().kind not in "iuf":
        raise ImageError(
            f"'{path}' has the shape {image.shape} and voxels of {image.get_data_dtype()}; it must be a "
            "volume of three axes, of one number a voxel. Take one volume out of a series first."
        )
    return image


def _load(path: Path) -> Any:
    """Return nibabel's image, with an affine that can be inverted; logs which one if it is not the first."""
    library = nibabel()
    try:
        image = library.load(path)
        if _is_affine(image.affine):
            return image
        header, voxels = image.header, np.asanyarray(image.dataobj)
    except ValueError:  # from a quaternion that is none; HeaderDataError is one in some releases
        header, voxels = _read_parts(path)
    header = header.copy()
    used, affine = _best_affine(header)
    logger.warning(f"'{path}': its orientation cannot be inverted; {used} is used instead.")
    kind = library.Nifti2Image if header["sizeof_hdr"] == NIFTI2_HEADER else library.Nifti1Image
    header["sform_code"] = header["qform_code"] = 0
    return kind(voxels, affine, header)


def _read_parts(path: Path) -> tuple[Any, NDArray[Any]]:
    """Return a file's header and voxels without its affine, which nibabel would compute and refuse."""
    library = nibabel()
    with library.openers.ImageOpener(path) as file:
        size = int.from_bytes(start := file.read(4), "little"), int.from_bytes(start, "big")
    kind = library.Nifti2Header if NIFTI2_HEADER in size else library.Nifti1Header
    with library.openers.ImageOpener(path) as file:
        header = kind.from_fileobj(file, check=False)
        return header, np.asanyarray(library.arrayproxy.ArrayProxy(file, header))


def _best_affine(header: Any) -> tuple[str, NDArray[np.float64]]:
    """Return the first affine that can be inverted, and its name: sform, qform, or the header's spacing."""
    zooms = np.nan_to_num(np.abs(np.asarray(header["pixdim"][1:4], np.float64)), posinf=0)
    header["pixdim"][1:4] = np.where(zooms > 0, zooms, 1)
    for name in ("sform", "qform"):
        with suppress(ValueError):
            affine = getattr(header, f"get_{name}")()
            if int(header[f"{name}_code"]) > 0 and _is_affine(affine):
                return f"the {name}", affine
    return "the header's spacing", np.asarray(header.get_base_affine())


def _is_affine(affine: Any) -> bool:
    """Return whether an affine (4, 4) is finite and maps axes to three directions."""
    matrix = np.asarray(affine, np.float64)[:3, :3]
    if not np.isfinite(np.asarray(affine, np.float64)).all():
        return False
    lengths = np.linalg.norm(matrix, axis=0)
    return bool((lengths > 0).all() and abs(np.linalg.det(matrix / lengths)) > SMALLEST_VOLUME)


def read_volume_mask(path: Path, volume: Volume) -> NDArray[np.integer[Any]]:
    """Return a NIfTI mask on a volume's grid, (X, Y, Z) in the volume's order.

    Raises MaskError for another grid or values that are not integers.
    """
    image = load_nifti(path)
    labels = to_canonical(np.asanyarray(image.dataobj).reshape(grid_shape(image)), image)
    if labels.shape != volume.voxels.shape:
        raise MaskError(f"Mask '{path}' has {labels.shape} voxels, its volume {volume.voxels.shape}.")
    if not np.allclose(canonical_affine(image), canonical_affine(volume.source), atol=AFFINE_TOLERANCE):
        raise MaskError(f"Mask '{path}' lies elsewhere than its volume. Resample it to the volume's grid.")
    return to_integers(labels, path)


def write_volume(values: NDArray[Any], volume: Volume, path: Path) -> None:
    """Write values (X, Y, Z) or (X, Y, Z, classes) as .nii.gz on the grid of the volume's file."""
    library, source = nibabel(), volume.source
    orientation = library.orientations
    transform = orientation.ornt_transform([[0, 1], [1, 1], [2, 1]], library.io_orientation(source.affine))
    data = orientation.apply_orientation(values, transform)
    data = data.reshape(source.shape if values.ndim == 3 else data.shape)
    header = source.header.copy()
    header.set_data_dtype(values.dtype)
    header.set_slope_inter(1, 0)
    header["cal_min"] = header["cal_max"] = 0
    written = type(source)(data, source.affine, header)
    with (
        atomic_write(path) as temporary,
        temporary.open("wb") as file,
        gzip.GzipFile("", "wb", 6, file, mtime=0) as packed,  # no name, no time: reproducible bytes
    ):
        packed.write(written.to_bytes())


def to_display(plane: NDArray[Any]) -> NDArray[Any]:
    """Return a slice (first axis, second axis) as rows and columns in radiological orientation.

    The patient's right is at the left; the head is up, and in axial slices the front.
    """
    return plane.T[::-1, ::-1]


def from_display(rows: NDArray[Any]) -> NDArray[Any]:
    """Undo `to_display`."""
    return rows[::-1, ::-1].T


def to_canonical(array: NDArray[Any], image: Any) -> NDArray[Any]:
    """Return an array on a file's grid with its axes running to the right, front and head."""
    library = nibabel()
    oriented: NDArray[Any] = library.orientations.apply_orientation(
        array, library.io_orientation(image.affine)
    )
    return oriented


def canonical_affine(image: Any) -> NDArray[np.float64]:
    """Return the affine of the array that `to_canonical` returns."""
    library = nibabel()
    transform = library.orientations.inv_ornt_aff(library.io_orientation(image.affine), grid_shape(image))
    affine: NDArray[np.float64] = image.affine @ transform
    return affine


def grid_shape(image: Any) -> tuple[int, int, int]:
    """Return the lengths of an image's three axes; the last is 1 if it has two."""
    first, second, third = (*image.shape, 1)[:3]
    return first, second, third


def nibabel() -> Any:
    """Return nibabel. Raises KshotError if it is not installed."""
    return import_extra("nibabel", "NIfTI and DICOM need nibabel and pydicom", "medical")
