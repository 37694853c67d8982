import ast
import re
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from make_data import METHODS, TINY, iou, scene, tiny_method, write_tiny_backbone
from PIL import Image

from kshot import KshotError, Segmenter, __version__
from kshot.cli.main import main
from kshot.export import onnx as export_module
from kshot.export.onnx import Graph, _example, export_onnx
from kshot.methods.config import ModelConfig
from kshot.transforms import Resize
from kshot.types import Support

onnxruntime = pytest.importorskip("onnxruntime")

SIDE = 65


def segmenter_of(name, side=SIDE):
    config = ModelConfig(method="prototype", backbone=TINY, image_size=side, threshold=0.45)
    return Segmenter(config, tiny_method(name), torch.device("cpu"))


def episode(batch, shots, side=SIDE, kind="rectangles"):
    query, images = torch.rand(batch, 3, side, side), torch.rand(shots, 3, side, side)
    masks = torch.full((shots, 1, side, side), float(kind == "full"))
    if kind == "rectangles":
        for shot in range(shots):
            masks[shot, :, 5 : 12 + 9 * shot, 8 + 3 * shot : 40] = 1
    return query, images, masks


def segment_one_by_one(method, query, images, masks):
    """Segment each query by itself, as Segmenter does."""
    with torch.inference_mode():
        supports = [
            Support(method.support_features(image[None]), mask[None])
            for image, mask in zip(images, masks, strict=True)
        ]
        return [
            method.segment(method.features(one[None]), supports, tuple(query.shape[-2:])) for one in query
        ]


def run_graph(path, query, images, masks):
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    feed = {"query": query, "support_images": images, "support_masks": masks}
    return session.run(["probability", "mask"], {name: value.numpy() for name, value in feed.items()})


@pytest.mark.parametrize(
    ("name", "shots", "kind"),
    [(name, 3, "rectangles") for name in METHODS]
    + [(name, *case) for name in ("prototype", "two-pass") for case in ((1, "empty"), (1, "full"))],
)
def test_a_graph_computes_what_a_segmenter_does(name, shots, kind, monkeypatch):
    monkeypatch.setattr(torch.compiler, "is_exporting", lambda: True)  # the path that is traced
    method = tiny_method(name)
    given = episode(2, shots, kind=kind)
    with torch.inference_mode():
        outputs = Graph(method)(*given)
    monkeypatch.undo()
    for number, expected in enumerate(segment_one_by_one(method, *given)):
        torch.testing.assert_close(outputs.probability[number], expected.probability[0], atol=1e-5, rtol=0)
        assert (outputs.mask[number] == expected.mask[0]).float().mean() > 0.99


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """A tiny prototype, exported by the command, and the segmenter that it was."""
    folder = tmp_path_factory.mktemp("export")
    weights = write_tiny_backbone(folder / "backbone.safetensors")
    segmenter_of("prototype").save_pretrained(folder / "model")
    out = folder / "new" / "prototype.onnx"
    options = ["--format", "onnx", "--backbone-weights", str(weights), "--out", str(out)]
    with pytest.raises(SystemExit) as caught:
        main(["export", str(folder / "model"), *options])
    assert not caught.value.code
    return out, Segmenter.from_pretrained(folder / "model", backbone_weights=weights, device="cpu")


@pytest.mark.parametrize(("batch", "shots"), [(1, 1), (2, 1), (1, 3), (2, 3)])
@pytest.mark.parametrize("kind", ["rectangles", "empty", "full"])
def test_onnxruntime_computes_torchs_numbers(exported, batch, shots, kind):
    path, segmenter = exported
    given = episode(batch, shots, kind=kind)
    probability, mask = run_graph(path, *given)
    assert mask.dtype == bool
    for number, expected in enumerate(segment_one_by_one(segmenter.method, *given)):
        np.testing.assert_allclose(probability[number], expected.probability[0].numpy(), atol=1e-4)
        assert (mask[number] == expected.mask[0].numpy()).mean() > 0.99


def test_the_file_says_what_it_is(exported):
    session = onnxruntime.InferenceSession(exported[0])
    about = session.get_modelmeta().custom_metadata_map
    assert about["model"] == "model"
    assert about["method"] == "prototype"
    assert about["image_size"] == str(SIDE)
    assert about["threshold"] == "0.45"
    assert about["kshot_version"] == __version__
    assert all("0" in about[put.name] for put in session.get_inputs() if put.name != "support_images")
    shapes = {put.name: put.shape for put in (*session.get_inputs(), *session.get_outputs())}
    assert shapes["query"] == ["batch", 3, SIDE, SIDE]
    assert shapes["support_images"] == ["shots", 3, SIDE, SIDE]
    assert shapes["support_masks"] == ["shots", 1, SIDE, SIDE]
    assert shapes["probability"] == shapes["mask"] == ["batch", SIDE, SIDE]
    assert [path.name for path in exported[0].parent.iterdir()] == ["prototype.onnx"]


def test_the_documents_python_runs_without_kshot_and_torch(exported, tmp_path, monkeypatch):
    path, segmenter = exported
    page = (Path(__file__).parent.parent / "docs/export.md").read_text()
    (block,) = re.findall(r"```python\n(.*?)```", page, flags=re.S)
    tree = list(ast.walk(ast.parse(block)))
    imported = {alias.name for node in tree if isinstance(node, ast.Import) for alias in node.names}
    imported |= {node.module for node in tree if isinstance(node, ast.ImportFrom)}
    assert imported == {"numpy", "onnxruntime", "PIL"}
    monkeypatch.chdir(tmp_path)
    Path("prototype.onnx").write_bytes(path.read_bytes())
    image, mask = scene()
    image.save("cup.jpg", quality=95)
    Image.fromarray(mask).save("cup_mask.png")
    segmenter = segmenter.fit("cup.jpg", "cup_mask.png")
    for size in ((SIDE, SIDE), (150, 90)):
        scene(150, 90, left=60)[0].resize(size).save("table.jpg", quality=95)
        names = {}
        exec(block, names)
        expected = segmenter.predict("table.jpg")
        atol = 1e-4 if size == (SIDE, SIDE) else 0.1
        np.testing.assert_allclose(names["probability"], expected.probability, atol=atol)
        with Image.open("table_mask.png") as written:
            assert iou(np.asarray(written), expected.mask) > 0.95


def test_a_graph_that_differs_is_not_written(tmp_path, monkeypatch):
    program = SimpleNamespace(model=SimpleNamespace(metadata_props={}), save=lambda path: path.touch())
    monkeypatch.setattr(export_module, "_trace", lambda *_: program)
    for difference in (2e-4, float("nan")):
        monkeypatch.setattr(export_module, "_difference", lambda *_, found=difference: found)
        with pytest.raises(KshotError, match=r"graph of mine differs from torch by (2\.0e-04|nan)"):
            export_onnx(segmenter_of("prototype"), "mine", tmp_path / "model.onnx")
        assert not list(tmp_path.iterdir())


def test_what_is_missing_is_said_before_anything_is_computed(tmp_path, monkeypatch):
    with pytest.raises(KshotError, match="is a folder"):
        export_onnx(segmenter_of("prototype"), "mine", tmp_path)
    monkeypatch.setattr(export_module, "find_spec", lambda name: None if name == "onnxscript" else 1)
    with pytest.raises(KshotError, match="pip install onnxscript"):
        export_onnx(segmenter_of("prototype"), "mine", tmp_path / "model.onnx")


def test_the_example_holds_every_kind_of_mask():
    assert [float(mask.mean()) for mask in _example(64)[2]][:2] == [0, 1]
    assert 0 < _example(2)[2][2].mean() < 1


@pytest.mark.slow
@pytest.mark.parametrize(("name", "side"), [("prototype", 97), ("hsnet-both", 64), ("two-pass", 96)])
def test_every_method_can_be_exported(name, side, tmp_path):
    segmenter = segmenter_of(name, side)
    assert export_onnx(segmenter, name, tmp_path / "model.onnx") < 1e-5
    for batch, shots, kind in [(1, 1, "empty"), (1, 3, "full"), (2, 1, "rectangles")]:
        given = episode(batch, shots, side, kind)
        probability, _ = run_graph(tmp_path / "model.onnx", *given)
        for number, expected in enumerate(segment_one_by_one(segmenter.method, *given)):
            np.testing.assert_allclose(probability[number], expected.probability[0].numpy(), atol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("side", [257, 400])
def test_the_default_model_on_real_images(side, tmp_path):
    data = pytest.importorskip("skimage.data")
    segmenter = Segmenter.from_pretrained(image_size=side, device="cpu")
    assert export_onnx(segmenter, "prototype", tmp_path / "model.onnx") < 1e-4
    pictures = [data.chelsea(), data.astronaut(), data.coffee(), data.rocket()]
    images = torch.cat([Resize(side).image(Image.fromarray(image)) for image in pictures])
    for shots, queries in [(1, images[3:]), (3, images[2:])]:
        masks = episode(1, shots, side)[2]
        probability, _ = run_graph(tmp_path / "model.onnx", queries, images[:shots], masks)
        for number, expected in enumerate(
            segment_one_by_one(segmenter.method, queries, images[:shots], masks)
        ):
            np.testing.assert_allclose(probability[number], expected.probability[0].numpy(), atol=1e-4)
