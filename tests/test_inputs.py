from pathlib import Path

import numpy as np
import pytest
from make_data import scene
from make_rasters import write_nifti, write_slice

from kshot.errors import ImageError
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
