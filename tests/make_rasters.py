"""Small maps and scans for the tests, written by the libraries that define their formats."""

import numpy as np


def discs(size, centres, radius=12):
    """Draw discs: a bool mask (H, W)."""
    rows, columns = np.mgrid[: size[0], : size[1]]
    mask = np.zeros(size, bool)
    for row, column in centres:
        mask |= (rows - row) ** 2 + (columns - column) ** 2 < radius**2
    return mask


def red_on_green(mask, high=255):
    """Paint a mask red on green: (3, H, W), its levels up to `high`."""
    background = np.array([0.1, 0.5, 0.1])[:, None, None] * np.ones(mask.shape)
    background[:, mask] = np.array([0.9, 0.15, 0.1])[:, None]
    return background * high


def write_map(path, bands, *, left=500_000.0, crs="EPSG:32633", **profile):
    """Write bands (C, H, W) as a GeoTIFF of half a metre a pixel."""
    import rasterio
    from rasterio.transform import from_origin

    profile = {"transform": from_origin(left, 5_400_000, 0.5, 0.5), "tiled": True, **profile}
    count, height, width = bands.shape
    with rasterio.open(
        path,
        "w",
        driver="GTiff",
        count=count,
        height=height,
        width=width,
        dtype=bands.dtype,
        crs=crs,
        **profile,
    ) as dataset:
        dataset.write(bands)
    return path


OBLIQUE = np.array([[0.0, -0.8, 0.1, 12.0], [0.0, 0.1, 3.0, -40.0], [-0.7, 0.0, 0.0, 30.0], [0, 0, 0, 1.0]])
"""An affine whose axes run downwards, to the left and to the front, and are not quite at right angles."""


def ball(size=(30, 26, 20), centre=(14, 12, 9), radius=7):
    """Return a ball's voxels: bool (X, Y, Z)."""
    places = np.stack(np.meshgrid(*map(np.arange, size), indexing="ij"))
    return ((places - np.reshape(centre, (3, 1, 1, 1))) ** 2).sum(axis=0) < radius**2


def write_nifti(path, voxels, affine=OBLIQUE):
    """Write voxels as NIfTI, in millimetres and seconds."""
    import nibabel

    image = nibabel.Nifti1Image(voxels, affine)
    image.header.set_xyzt_units("mm", "sec")
    nibabel.save(image, path)
    return path


def write_slice(path, levels, *, height=0.0, series="1.2.3", **fields):
    """Write levels (rows, columns), uint16, as one axial DICOM slice; `height` in mm."""
    from pydicom.dataset import Dataset, FileMetaDataset
    from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid

    one = Dataset()
    one.SOPClassUID, one.SOPInstanceUID = CTImageStorage, generate_uid(entropy_srcs=[str(path)])
    one.SeriesInstanceUID, one.Modality = series, "CT"
    one.Rows, one.Columns = levels.shape
    one.SamplesPerPixel, one.PhotometricInterpretation = 1, "MONOCHROME2"
    one.BitsAllocated = one.BitsStored = 16
    one.HighBit, one.PixelRepresentation = 15, 0
    one.RescaleSlope, one.RescaleIntercept = 1, -1024
    one.PixelSpacing, one.SliceThickness = [0.5, 0.75], 2
    one.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
    one.ImagePositionPatient = [-10, -20, height]
    for name, value in fields.items():
        setattr(one, name, value)
    one.PixelData = levels.astype("<u2").tobytes()
    one.file_meta = FileMetaDataset()
    one.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    one.save_as(path, enforce_file_format=True)
    return path
