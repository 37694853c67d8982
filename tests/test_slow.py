"""Real images and large networks; `make test-slow`."""

import re
import subprocess
import sys
import time

import numpy as np
import pytest
import rasterio
import torch
from make_data import iou, randomise_norms, scene
from make_rasters import write_map
from PIL import Image, ImageOps
from rasterio.transform import from_origin

from kshot.io.geotiff import open_geotiff
from kshot.io.raster_options import RasterOptions
from kshot.methods.config import ModelConfig
from kshot.methods.two_pass import TwoPass
from kshot.models.backbones import Backbone
from kshot.models.base_learner import PSPNet
from kshot.models.imagenet_weights import load_backbone
from kshot.models.losses import training_losses
from kshot.segmenter import Segmenter
from kshot.transforms import Resize
from kshot.types import Support

pytestmark = pytest.mark.slow


def test_two_pass_learns_a_real_episode_in_every_step(demo):
    """The support is a image, the query its mirror image; each loss must fall and each mask fit."""
    size = 161
    support, support_mask = demo.annotated_image("person")
    query, query_mask = ImageOps.mirror(support), support_mask[:, ::-1].copy()
    cls = load_backbone("efficientnet_lite0")
    sem = load_backbone("efficientnet_lite0", output_stride=8)
    method = TwoPass(cls, sem, None)
    target = Resize(size).support_mask(query_mask)[0].long()
    query_features = method.features(Resize(size).image(query))
    one_shot = Support(method.features(Resize(size).image(support)), Resize(size).support_mask(support_mask))
    optimiser = torch.optim.Adam([p for p in method.parameters() if p.requires_grad], lr=1e-3)
    history = []
    for _ in range(40):
        terms = training_losses(method.train().match(query_features, one_shot), target)
        optimiser.zero_grad()
        sum(terms.values()).backward()
        optimiser.step()
        history.append({name: term.item() for name, term in terms.items()})
    assert set(history[0]) == {"cls", "sem", "combined", "second"}
    for name in history[0]:
        assert history[-1][name] < 0.6 * history[0][name], name
    config = ModelConfig(method="two-pass", backbone="efficientnet_lite0", image_size=size)
    segmenter = Segmenter(config, method.eval(), torch.device("cpu"))
    explanation = segmenter.fit(support, support_mask).predict(query)
    for found in (explanation.first_pass > 0.5, explanation.second_pass > 0.5, explanation.mask):
        assert iou(found, query_mask) > 0.6


def test_resnet50_at_the_published_size():
    torch.manual_seed(0)
    base_learner = PSPNet("resnet50", 15)
    method = TwoPass(Backbone("resnet50"), base_learner.backbone, base_learner.head).eval()
    randomise_norms(method)
    images, mask = torch.rand(2, 1, 3, 400, 400), torch.zeros(1, 1, 400, 400)
    mask[..., 100:300, 100:300] = 1
    start = time.process_time()
    with torch.inference_mode():
        query, support = method.features(images[0]), method.features(images[1])
        sizes = [stage[0].shape[1:3] for stage in query.cls.unit]
        assert sizes == [stage[0].shape[1:3] for stage in query.sem.unit]
        assert sizes == [(50, 50), (25, 25), (13, 13)]
        prediction = method.match(query, Support(support, mask))
    print(f"{time.process_time() - start:.1f} s of processor time")
    assert prediction.final.shape == (1, 2, 100, 100)
    assert all(step.isfinite().all() for step in prediction if step is not None)


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")  # of the test itself
def test_a_hundred_megapixels_fit_into_2_gigabytes(tmp_path):
    pixels = np.tile(np.asarray(scene(width=250, height=250)[0]), (40, 40, 1))
    Image.fromarray(pixels).save(tmp_path / "large.jpg")
    peak = peak_of_segmenting(tmp_path, "large.jpg")
    assert peak < 2 * 2**20
    with Image.open(tmp_path / "out" / "large_mask.png") as found:
        assert found.size == (10000, 10000)


def peak_of_segmenting(folder, image):
    """Segment one image of a folder in tiles; give the process's peak in kB."""
    picture, mask = scene()
    picture.save(folder / "support.png")
    Image.fromarray(mask).save(folder / "mask.png")
    program = (
        "import sys; from kshot.cli.main import main\n"
        "try: main(sys.argv[1:])\n"
        "except SystemExit: print(open('/proc/self/status').read())"
    )
    options = ["--support", "support.png", "mask.png", image, "--out", "out", "--tile", "1000"]
    options += ["--also", "probability"] if image.endswith(".tif") else []
    command = [sys.executable, "-W", "error::RuntimeWarning", "-c", program, "segment", *options]
    done = subprocess.run(command, cwd=folder, check=True, capture_output=True, text=True)
    (peak,) = re.findall(r"VmHWM:\s+(\d+) kB", done.stdout)
    return int(peak)


def test_a_map_of_a_hundred_megapixels_fits_into_2_gigabytes(tmp_path):
    """Written and read by windows; what is found is what the same disc is found as, 1600 times."""
    place = from_origin(500_000, 5_400_000, 0.5, 0.5)
    profile = {"crs": "EPSG:32633", "transform": place, "tiled": True, "compress": "deflate", "nodata": 0}
    size = {"width": 10000, "height": 10000, "count": 3, "dtype": "uint16"}
    disc = np.asarray(scene(width=250, height=250)[0]).transpose(2, 0, 1).astype(np.uint16) * 100 + 1
    with rasterio.open(tmp_path / "large.tif", "w", driver="GTiff", **profile, **size) as large:
        for top in range(0, 10000, 250):
            large.write(np.tile(disc, (1, 1, 40)), window=((top, top + 250), (0, 10000)))
    assert peak_of_segmenting(tmp_path, "large.tif") < 2 * 2**20
    for kind in ("mask", "probability"):
        with rasterio.open(tmp_path / "out" / f"large_{kind}.tif") as found:
            assert (found.crs.to_epsg(), found.transform, found.shape) == (32633, place, (10000, 10000))


@pytest.mark.parametrize("name", ["gland", "person"])
def test_a_map_in_tiles_agrees_with_one_that_is_read_whole(demo, tmp_path, name):
    """Both see a pixel at the same scale: two thirds of the image at two thirds of the network's side."""
    picture, mask = demo.annotated_image(name)
    side = max(picture.size)
    picture = picture.resize((side, side))
    mask = np.asarray(Image.fromarray(mask).resize((side, side)))
    path = write_map(tmp_path / "map.tif", np.asarray(picture).transpose(2, 0, 1))
    fitted = Segmenter.from_pretrained(image_size=385).fit(picture, mask)
    whole = fitted.predict(picture)
    tiled = Segmenter.from_pretrained(image_size=257, tile=2 * side // 3)
    with open_geotiff(path, RasterOptions()) as source:
        strips = list(tiled.predict_strips(source.size, source.read))
    assert len(strips) > 1
    assert iou(np.concatenate([strip.mask for strip in strips]), whole.mask) > 0.9
    fused = np.concatenate([strip.probability for strip in strips])
    assert np.abs(fused - whole.probability).mean() < 0.05


def test_openvino_and_torch_agree_with_the_shipped_network(demo):
    support, support_mask = demo.annotated_image("person")
    query = ImageOps.mirror(support)
    plain, fast = (
        Segmenter.from_pretrained("two-pass", device="cpu", engine=engine)
        .fit(support, support_mask)
        .predict(query)
        for engine in ("torch", "openvino")
    )
    for step in ("probability", "first_pass", "second_pass", "base_map"):
        np.testing.assert_allclose(getattr(fast, step), getattr(plain, step), rtol=0, atol=1e-4)
    assert (fast.mask == plain.mask).mean() > 0.9999
