import csv
import json

import numpy as np
import pytest
import rasterio
from make_data import colour_segmenter, iou, scene
from make_rasters import discs, red_on_green, write_map
from PIL import Image
from test_cli import run

from kshot.io.geotiff import open_geotiff
from kshot.io.raster_options import RasterOptions
from kshot.predict.segment_geotiff import segment_geotiff
from kshot.segmenter import Segmenter

SIZE = (230, 170)
MASK = discs(SIZE, [(40, 40), (100, 120), (200, 60)])
SUPPORT = discs((80, 80), [(40, 40)])


@pytest.fixture
def colours(monkeypatch):
    """Take the model that finds the support's colour, whatever the command asks for."""
    monkeypatch.setattr(
        Segmenter, "from_pretrained", lambda name, *, tile=None, **_: colour_segmenter(tile=tile)
    )


@pytest.fixture
def maps(tmp_path):
    """A labelled map of 16 bits, and one to segment, whose corner has no data."""
    write_map(tmp_path / "a.tif", red_on_green(SUPPORT, 9000).astype(np.uint16))
    write_map(tmp_path / "a_mask.tif", SUPPORT[None].astype(np.uint8))
    bands = red_on_green(MASK, 9000).astype(np.uint16)
    bands[:, :45, :45] = 0
    write_map(tmp_path / "big.tif", bands, nodata=0, compress="deflate")
    return tmp_path


@pytest.mark.parametrize("tile", [33, 64, 300])
def test_strips_are_what_the_whole_gives(maps, tile):
    fitted = colour_segmenter(tile=tile).fit(scene()[0], scene()[1])
    with open_geotiff(maps / "big.tif", RasterOptions()) as source:
        picture, valid = source.read((0, 0, SIZE[1], SIZE[0]))
        strips = list(fitted.predict_strips(SIZE, source.read))
    whole = fitted.predict(picture)
    fused = np.concatenate([strip.probability for strip in strips])
    np.testing.assert_array_equal(np.isnan(fused), ~valid)
    np.testing.assert_array_equal(fused[valid], whole.probability[valid])
    np.testing.assert_array_equal(np.concatenate([strip.mask for strip in strips]), whole.mask & valid)
    assert all(len(strip.mask) <= tile for strip in strips)


@pytest.mark.usefixtures("colours")
def test_a_geotiff_becomes_a_geotiff_at_the_same_place(maps, capsys):
    out, support = maps / "out", ["--support", maps / "a.tif", maps / "a_mask.tif"]
    options = ["--tile", 64, "--also", "probability", "--out", out]
    assert run("segment", *support, maps / "big.tif", *options) == 0
    assert {path.name for path in out.iterdir()} == {
        *(f"big_{kind}" for kind in ("mask.tif", "probability.tif", "overlay.png")),
        *("contact_sheet.png", "confidence.csv", "settings.json", "done.jsonl"),
    }
    with (
        rasterio.open(maps / "big.tif") as source,
        rasterio.open(out / "big_mask.tif") as mask,
        rasterio.open(out / "big_probability.tif") as probability,
    ):
        for one in (mask, probability):
            assert (one.crs, one.transform, one.shape) == (source.crs, source.transform, source.shape)
            np.testing.assert_array_equal(one.dataset_mask(), source.dataset_mask())
        found, valid = mask.read(1), source.dataset_mask() > 0
        assert set(np.unique(found)) == {0, 1, 255}
        assert iou((found == 1)[valid], MASK[valid]) > 0.8
        np.testing.assert_array_equal(probability.read(1)[valid] > 0.7, (found == 1)[valid])
        assert probability.dtypes == ("float32",)
    (line,) = csv.DictReader((out / "confidence.csv").read_text().splitlines())
    assert 0.7 < float(line["confidence"]) <= 1
    share = 100 * (found == 1).mean()
    assert f"{share:.1f} % object" in capsys.readouterr().out
    with Image.open(out / "big_overlay.png") as overlay:
        assert overlay.size == SIZE[::-1]
    assert run("segment", *support, maps / "big.tif", *options) == 0
    assert "1 of 1 images were already done" in capsys.readouterr().out
    again = ["--support", maps / "big.tif", out / "big_mask.tif"]  # a result is a mask that can be read
    assert run("segment", *again, maps / "a.tif", "--out", maps / "again") == 0
    with rasterio.open(maps / "again" / "a_mask.tif") as mask:
        assert iou(mask.read(1) == 1, SUPPORT) > 0.8


@pytest.mark.usefixtures("colours")
def test_classes_become_labels_and_a_band_each(maps):
    labels = np.where(SUPPORT, 7, 0).astype(np.uint8)
    labels[60:, 60:] = 9  # the green
    write_map(maps / "labels.tif", labels[None])
    support = ["--support", maps / "a.tif", maps / "labels.tif", "--classes", "field=9,roof=7"]
    options = [maps / "a.tif", "--out", maps / "out", "--also", "probability"]
    assert run("segment", *support, *options) == 0
    with rasterio.open(maps / "out" / "a_labels.tif") as found:
        assert iou(found.read(1) == 7, SUPPORT) > 0.8
        assert iou(found.read(1) == 9, ~SUPPORT) > 0.8
        assert found.colormap(1)[7][:3] == (240, 110, 30)
    with rasterio.open(maps / "out" / "a_probability.tif") as probability:
        assert probability.descriptions == ("field", "roof")


@pytest.mark.usefixtures("colours")
def test_a_geotiff_that_cannot_be_read_stops_nothing(maps, capsys):
    (maps / "maps").mkdir()
    for name in ("a.tif", "big.tif"):
        (maps / name).rename(maps / "maps" / name)
    content = (maps / "maps" / "a.tif").read_bytes()
    (maps / "maps" / "cut.tif").write_bytes(content[: len(content) // 2])
    support = ["--support", maps / "maps" / "a.tif", maps / "a_mask.tif"]
    assert run("segment", *support, maps / "maps", "--out", maps / "out", "--bands", "3,2,1") == 1
    (failure,) = map(json.loads, (maps / "out" / "failures.jsonl").read_text().splitlines())
    assert "cut.tif" in failure["reason"]
    assert (maps / "out" / "a_mask.tif").exists()
    assert not list((maps / "out").glob(".*"))
    capsys.readouterr()
    options = ["--out", maps / "out2", "--also", "coco"]
    assert run("segment", *support, maps / "maps" / "a.tif", *options) == 2
    assert "geojson, gpkg for GeoTIFFs" in capsys.readouterr().err


def test_nothing_is_found_where_a_geotiff_has_no_data(tmp_path):
    path = write_map(tmp_path / "map.tif", np.zeros((3, 50, 90), np.uint8), nodata=0)
    fitted = colour_segmenter(tile=40).fit(scene()[0], ~scene()[1])
    summary = segment_geotiff(fitted, path, tmp_path / "map", ["thing"], RasterOptions())
    assert summary.shares == {"object": 0}
    with rasterio.open(tmp_path / "map_mask.tif") as mask:
        assert (mask.read(1) == 255).all()


@pytest.mark.usefixtures("colours")
def test_images_and_geotiffs_in_one_folder_do_not_change_each_other(maps):
    for name in ("images", "geotiffs", "both"):
        (maps / name).mkdir()
    picture = Image.fromarray(np.kron(np.asarray(scene()[0]), np.ones((10, 10, 1), np.uint8)))
    wide = write_map(maps / "wide.tif", np.tile(red_on_green(MASK, 9000), (1, 1, 7)).astype(np.uint16))
    for folder in ("images", "both"):
        picture.save(maps / folder / "photo.png")
    for folder in ("geotiffs", "both"):
        (maps / folder / "wide.tif").write_bytes(wide.read_bytes())
    support = ["--support", maps / "a.tif", maps / "a_mask.tif"]
    for folder in ("images", "geotiffs", "both"):
        assert run("segment", *support, maps / folder, "--out", maps / f"{folder}_out") == 0
    for alone, name in (("images", "photo_mask.png"), ("geotiffs", "wide_mask.tif")):
        both = (maps / "both_out" / name).read_bytes()
        assert both == (maps / f"{alone}_out" / name).read_bytes()
    tiled = ["--tile", 1000, "--out", maps / "tiled_out"]
    assert run("segment", *support, maps / "both", *tiled) == 0
    assert (maps / "tiled_out" / "wide_mask.tif").read_bytes() == (
        maps / "both_out" / "wide_mask.tif"
    ).read_bytes()
    assert (maps / "tiled_out" / "photo_mask.png").read_bytes() != (
        maps / "both_out" / "photo_mask.png"
    ).read_bytes()
