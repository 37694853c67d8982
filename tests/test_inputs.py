import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from make_data import scene
from make_rasters import write_nifti, write_slice

from kshot.errors import ImageError
from kshot.io.overlays import mask_image
from kshot.predict.inputs import list_queries

LEVELS = np.zeros((4, 5), np.uint16)


def test_folders_are_searched_for_all_kinds(tmp_path):
    photos = tmp_path / "photos"
    for folder in ("ct", "xray", "out"):
        (photos / folder).mkdir(parents=True)
    scene()[0].save(photos / "a.png")
    for number in range(3):
        write_slice(photos / "ct" / f"IM{number}", LEVELS, height=number)
        write_slice(photos / "xray" / f"{number}.dcm", LEVELS, series=f"1.{number}")
    for name in ("brain.nii.gz", "out/brain_mask.nii.gz"):
        write_nifti(photos / name, LEVELS[..., None])
    found = [(str(p.relative_to(photos)), str(name)) for p, name in list_queries([photos], photos / "out")]
    assert sorted(found) == [
        ("a.png", "a.png"),
        ("brain.nii.gz", "brain.nii"),
        ("ct", "ct.dcm"),
        *((f"xray/{n}.dcm", f"xray/{n}.dcm") for n in range(3)),
    ]
    single = list_queries([photos / "ct", photos / "ct" / "IM1", photos / "brain.nii.gz"], photos / "out")
    assert [name for _, name in single] == [Path("ct.dcm"), Path("IM1"), Path("brain.nii")]
    with pytest.raises(ImageError, match="holds no images"):
        list_queries([photos / "out"], photos / "out")
    with pytest.raises(ImageError, match="no file or folder"):
        list_queries([photos / "gone"], photos / "out")


SCRIPT = """
import sys
from kshot.annotations import reader, writers
from kshot.cli.main import main
try:
    main(sys.argv[1:])
except SystemExit as end:
    assert not end.code
readers = {"io.geotiff", "io.nifti", "io.dicom"}
readers |= {f"predict.{name}" for name in ("segment_geotiff", "segment_volume", "raster_supports")}
readers = {f"kshot.{name}" for name in readers} | {"rasterio", "nibabel", "pydicom"}
print("imported:", *readers & set(sys.modules))
"""


def test_ordinary_images_need_no_reader_of_geotiffs_and_volumes(tmp_path):
    (tmp_path / "queries").mkdir()
    picture, mask = scene()
    picture.save(tmp_path / "support.jpg")
    picture.save(tmp_path / "queries" / "a.jpg")
    mask_image(mask).save(tmp_path / "mask.png")
    command = ["segment", "--support", "support.jpg", "mask.png", "queries", "--out", "out"]
    command += ["--image-size", "97"]
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, *command], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert (tmp_path / "out" / "a_mask.png").exists()
    assert done.stdout.splitlines()[-1] == "imported:"
