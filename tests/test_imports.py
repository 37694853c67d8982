"""What is imported when. One process of its own, since an import of torch takes seconds."""

import json
import subprocess
import sys

import pytest
from make_data import scene

from kshot.io.overlays import mask_image

SCRIPT = """
import json, pkgutil, sys
import kshot.cli.main, kshot.data, kshot.evaluation, kshot.export, kshot.methods, kshot.models, kshot.training

def imported():
    return sorted(set(sys.modules))

assert list(kshot.export.EXPORTERS) == ["onnx"]
steps = {"packages": imported()}
for module in pkgutil.iter_modules(kshot.training.__path__, "kshot.training."):
    __import__(module.name)
steps["training"] = imported()
from kshot.training import train
from kshot.evaluation import compare
assert callable(train) and callable(compare)
from kshot.annotations import reader, writers
try:
    kshot.cli.main.main(sys.argv[1:])
except SystemExit as end:
    assert not end.code
steps["segment"] = imported()
print(json.dumps(steps))
"""


@pytest.fixture(scope="module")
def steps(tmp_path_factory):
    """The modules that are imported after each step of the script."""
    folder = tmp_path_factory.mktemp("images")
    (folder / "queries").mkdir()
    image, mask = scene()
    image.save(folder / "support.jpg")
    image.save(folder / "queries" / "a.jpg")
    mask_image(mask).save(folder / "mask.png")
    command = ["segment", "--support", "support.jpg", "mask.png", "queries", "--out", "out"]
    command += ["--image-size", "97"]
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, *command], cwd=folder, capture_output=True, text=True, check=True
    )
    assert (folder / "out" / "a_mask.png").exists()
    return {step: set(modules) for step, modules in json.loads(done.stdout.splitlines()[-1]).items()}


def test_public_packages_load_torch_only_when_their_names_are_used(steps):
    assert "torch" not in steps["packages"]
    assert "torch" in steps["training"]


def test_training_imports_no_reporting_and_no_matplotlib(steps):
    unwanted = "kshot.evaluation.", "kshot.reproduction", "matplotlib"
    needed = {"kshot.evaluation.metrics", "kshot.evaluation.selection"}
    assert {name for name in steps["training"] - steps["packages"] if name.startswith(unwanted)} <= needed


def test_ordinary_images_need_no_reader_of_geotiffs_and_volumes(steps):
    readers = {"io.geotiff", "io.nifti", "io.dicom"}
    readers |= {f"predict.{name}" for name in ("segment_geotiff", "segment_volume", "raster_supports")}
    assert not steps["segment"] & ({f"kshot.{n}" for n in readers} | {"rasterio", "nibabel", "pydicom"})
