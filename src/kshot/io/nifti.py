"""NIfTI volumes: slices as radiologists see them, and answers on the file's own grid."""

import gzip
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from kshot.errors import ImageError, KshotError, MaskError, reason_of
from kshot.io.files import replacing
from kshot.io.raster_options import Levels, Plane, integers

PLANES: tuple[Plane, ...] = ("sagittal", "coronal", "axial")
"""The plane across each axis: right, anterior, superior."""

SAME_PLACE = 1e-2
"""Millimetres by which a mask's affine may differ from its volume's."""


@dataclass(frozen=True, eq=False)
class Volume:
    """A scan, whose axes run to the patient's right, front and head, in RAS order, whatever its file's do.

    voxels: (X, Y, Z) float32. image: nibabel's, as in the file. axis: along which slices are counted.
    levels: what becomes black and white.
    """

    voxels: NDArray[np.float32]
    image: Any
    axis: int
    levels: Levels

    @property
    def num_slices(self) -> int:
        """Slices along the axis."""
        return int(self.voxels.shape[self.axis])

    def at(self, number: int) -> tuple[Any, ...]:
        """Give a slice's place in arrays (X, Y, Z)."""
        return tuple(number if axis == self.axis else slice(None) for axis in range(3))

    def picture(self, number: int) -> Image.Image:
        """Draw a slice, as `as_seen` turns it."""
        grey = self.levels.to_grey(as_seen(self.voxels[self.at(number)]))
        return Image.fromarray(np.ascontiguousarray(grey)).convert("RGB")


def read_volume(image: Any, plane: Plane | None, levels: Levels | None) -> Volume:
    """Turn one of nibabel's images into a volume.

    plane: whose slices are taken; None: those of the file's last axis. levels: None takes those that the
    file says are to be shown (cal_min, cal_max), or else percentiles of all voxels.
    """
    whole = image.get_fdata(dtype=np.float32, caching="unchanged")
    voxels = to_canonical(whole.reshape(grid_of(image)), image)
    shown = Levels(float(image.header["cal_min"]), float(image.header["cal_max"]))
    if levels is None:
        levels = shown if shown.white > shown.black else Levels.of(voxels)
    last = int(nibabel().io_orientation(image.affine)[2, 0])
    return Volume(voxels, image, last if plane is None else PLANES.index(plane), levels)


def load_nifti(path: Path) -> Any:
    """Read a NIfTI file of three axes. Raises ImageError, KshotError if nibabel is missing."""
    library = nibabel()
    try:
        image = library.load(path)
        np.asarray(image.dataobj)  # all of it, which finds what is wrong
    except FileNotFoundError:
        raise ImageError(f"There is no file '{path}'.") from None
    except (OSError, EOFError, ValueError, zlib.error, library.filebasedimages.ImageFileError) as error:
        raise ImageError(f"'{path}' cannot be read as NIfTI: {reason_of(error)}.") from error
    is_volume = len(image.shape) >= 2 and all(length == 1 for length in image.shape[3:])
    if not is_volume or 0 in image.shape or image.get_data_dtype().kind not in "iuf":
        raise ImageError(
            f"'{path}' has the shape {image.shape} and voxels of {image.get_data_dtype()}; it must be a "
            "volume of three axes, of one number a voxel. Take one volume out of a series first."
        )
    return image


def read_volume_mask(path: Path, volume: Volume) -> NDArray[np.integer[Any]]:
    """Read a mask on a volume's grid, from a NIfTI file; (X, Y, Z) in the volume's order.

    Raises MaskError for another grid, or values that are no integers.
    """
    image = load_nifti(path)
    labels = to_canonical(np.asanyarray(image.dataobj).reshape(grid_of(image)), image)
    if labels.shape != volume.voxels.shape:
        raise MaskError(f"Mask '{path}' has {labels.shape} voxels, its volume {volume.voxels.shape}.")
    if not np.allclose(canonical_affine(image), canonical_affine(volume.image), atol=SAME_PLACE):
        raise MaskError(f"Mask '{path}' lies elsewhere than its volume. Resample it to the volume's grid.")
    return integers(labels, path)


def write_volume(values: NDArray[Any], volume: Volume, path: Path) -> None:
    """Write values (X, Y, Z) or (X, Y, Z, classes) on the grid of a volume's file, as .nii.gz."""
    library, image = nibabel(), volume.image
    orientation = library.orientations
    back = orientation.ornt_transform([[0, 1], [1, 1], [2, 1]], library.io_orientation(image.affine))
    there = orientation.apply_orientation(values, back)
    there = there.reshape(image.shape if values.ndim == 3 else there.shape)
    header = image.header.copy()
    header.set_data_dtype(values.dtype)
    header.set_slope_inter(1, 0)
    header["cal_min"] = header["cal_max"] = 0
    written = type(image)(there, image.affine, header)
    with (
        replacing(path) as temporary,
        temporary.open("wb") as file,
        gzip.GzipFile("", "wb", 6, file, mtime=0) as packed,  # no name, no time: the same bytes again
    ):
        packed.write(written.to_bytes())


def as_seen(plane: NDArray[Any]) -> NDArray[Any]:
    """Turn a slice (first axis, second axis) into rows and columns as radiologists see them.

    The patient's right is at the left and the head above; in axial slices the front is above.
    """
    return plane.T[::-1, ::-1]


def as_stored(picture: NDArray[Any]) -> NDArray[Any]:
    """Turn what is seen back into a slice of the volume."""
    return picture[::-1, ::-1].T


def to_canonical(array: NDArray[Any], image: Any) -> NDArray[Any]:
    """Turn an array on the grid of a file so that its axes run to the right, front and head."""
    library = nibabel()
    turned: NDArray[Any] = library.orientations.apply_orientation(array, library.io_orientation(image.affine))
    return turned


def canonical_affine(image: Any) -> NDArray[np.float64]:
    """Give the affine of `to_canonical`'s array."""
    library = nibabel()
    turned = library.orientations.inv_ornt_aff(library.io_orientation(image.affine), grid_of(image))
    affine: NDArray[np.float64] = image.affine @ turned
    return affine


def grid_of(image: Any) -> tuple[int, int, int]:
    """Give the lengths of an image's three axes; of a single slice the last is 1."""
    first, second, third = (*image.shape, 1)[:3]
    return first, second, third


def nibabel() -> Any:
    """Give nibabel. Raises KshotError if it is not installed."""
    try:
        import nibabel
    except ImportError as error:
        raise KshotError("NIfTI and DICOM need nibabel and pydicom: pip install 'kshot[medical]'.") from error
    return nibabel
