"""The examples, with thin stand-ins for their tools.

label-studio-ml conflicts with kshot's other dependencies, and napari needs fifty packages.
"""

import json
import sys
from types import SimpleNamespace

import numpy as np
import pytest
from conftest import ROOT, load_module
from make_annotations import label_studio_content
from make_data import iou, two_things

from kshot import MaskError
from kshot.annotations.reader import read_annotations


class Base:
    """Stand-in for LabelStudioMLBase 2: values by project, a configuration, files of tasks."""

    def __init__(self, folder, config, kept):
        self.folder, self.parsed_label_config, self.kept = folder, config, kept
        self.setup()

    def get(self, key):
        return self.kept.get(key)

    def set(self, key, value):
        assert isinstance(value, str)
        self.kept[key] = value

    def get_local_path(self, url, task_id=None):
        assert task_id
        return str(self.folder / url.rpartition("/")[2])


@pytest.fixture
def backend(tmp_path, monkeypatch):
    """Return a function that creates backends of one project, as each request does."""
    monkeypatch.setitem(sys.modules, "label_studio_ml", SimpleNamespace())
    monkeypatch.setitem(sys.modules, "label_studio_ml.model", SimpleNamespace(LabelStudioMLBase=Base))
    monkeypatch.syspath_prepend(ROOT / "examples/label_studio_backend")
    module = load_module(ROOT / "examples/label_studio_backend/model.py")
    for name, (red, blue) in {"0123abcd-table": (20, 110), "0123abcd-other": (100, 20)}.items():
        two_things(red, blue, seed=red)[0].save(tmp_path / f"{name}.png")
    kept = {}

    def make(kind):
        control = {
            "type": kind,
            "to_name": ["image"],
            "inputs": [{"type": "Image", "value": "image"}],
            "labels": ["disc", "square"],
        }
        choice = {"type": "Choices", "to_name": ["image"], "inputs": [], "labels": ["good"]}
        return module.KshotBackend(tmp_path, {"q": choice, "label": control}, kept)

    return make


def event(number=0):
    """Return what the webhook sends for a new annotation."""
    task = label_studio_content()[0]
    return {"annotation": task["annotations"][number], "task": task, "project": {"id": 1}}


@pytest.mark.parametrize("kind", ["BrushLabels", "PolygonLabels"])
def test_label_studios_tasks_are_predicted_from_those_that_are_annotated(backend, tmp_path, kind):
    tasks = label_studio_content()
    assert [found["result"] for found in backend(kind).predict(tasks)] == [[], []]
    backend(kind).fit("ANNOTATION_CREATED", event())
    predictions = json.loads(json.dumps(backend(kind).predict(tasks, context=None)))
    assert all(0.5 < found["score"] <= 1 for found in predictions)
    assert {region["type"] for region in predictions[1]["result"]} == {kind.lower()}
    annotated = [task | {"annotations": [found]} for task, found in zip(tasks, predictions, strict=True)]
    (tmp_path / "export.json").write_text(json.dumps(annotated))  # as if a user had accepted them
    _, masks = read_annotations(tmp_path / "export.json").images[1].read()
    ground_truth = two_things(100, 20, seed=100)[1]
    assert iou(masks["disc"], ground_truth == 1) > 0.5
    assert iou(masks["square"], ground_truth == 2) > 0.5


def test_annotations_are_changed_skipped_and_deleted(backend):
    def supports():
        return {label: len(pairs) for label, pairs in backend("BrushLabels").examples().items()}

    backend("BrushLabels").fit("START_TRAINING", {"project": {"id": 1}})
    assert not supports()
    backend("BrushLabels").fit("ANNOTATION_CREATED", event(0))
    backend("BrushLabels").fit("ANNOTATION_UPDATED", event(0))
    assert supports() == {"disc": 1, "square": 1}
    backend("BrushLabels").fit("ANNOTATION_CREATED", event(1))
    assert supports() == {"disc": 1, "square": 1, "wrong": 1}
    backend("BrushLabels").fit("ANNOTATION_CREATED", event(2))  # a skipped task
    backend("BrushLabels").fit("ANNOTATION_DELETED", event(1))
    assert supports() == {"disc": 1, "square": 1}


def test_a_broken_image_does_not_affect_others(backend, tmp_path):
    (tmp_path / "0123abcd-other.png").write_bytes(b"nothing")
    broken = event()
    broken["task"]["data"]["image"] = "/data/upload/1/0123abcd-other.png"
    broken["annotation"]["id"] = 7
    backend("BrushLabels").fit("ANNOTATION_CREATED", broken)
    backend("BrushLabels").fit("ANNOTATION_CREATED", event())
    first, second = backend("BrushLabels").predict(label_studio_content())
    assert first["result"]
    assert second == {"result": [], "score": 0.0}


def layer(data, name="layer", limits=(0, 255)):
    """Return a stand-in for a napari layer."""
    data = np.asarray(data)
    return SimpleNamespace(
        data=data, name=name, rgb=data.ndim == 3, contrast_limits=limits, scale=[1, 1], translate=[0, 0]
    )


@pytest.fixture(scope="module")
def napari_kshot():
    return load_module(ROOT / "examples/napari_kshot.py")


def test_naparis_other_images_get_the_painted_labels(napari_kshot):
    image, labels = two_things()
    query, ground_truth = two_things(100, 20, seed=3)
    first, painted = layer(image), layer(np.asarray(labels, np.int32) * 300)  # values above 255
    other = layer(np.dstack([query, np.full(ground_truth.shape, 255, np.uint8)]), "other")
    viewer = SimpleNamespace(layers=[first, other])
    ((found, about, kind),) = napari_kshot.segment_others(viewer, first, painted)
    assert kind == "labels"
    assert about["name"] == "other by kshot"
    assert set(np.unique(found)) == {0, 300, 600}
    assert iou(found == 300, ground_truth == 1) > 0.5
    assert iou(found == 600, ground_truth == 2) > 0.5


def test_naparis_pixels_are_read_as_they_are_shown(napari_kshot):
    ramp = np.linspace(100, 300, 12, dtype=np.uint16).reshape(3, 4)
    shown = napari_kshot.to_uint8(layer(ramp, limits=(100, 300)))
    assert shown.dtype == np.uint8
    assert (shown.min(), shown.max()) == (0, 255)
    colours = np.random.default_rng(0).random((4, 5, 3))
    np.testing.assert_array_equal(napari_kshot.to_uint8(layer(colours)), (255 * colours).round())
    stack = SimpleNamespace(data=np.zeros((2, 4, 5)), rgb=False, name="stack", contrast_limits=(0, 1))
    with pytest.raises(ValueError, match=r"stack has the shape \(2, 4, 5\)"):
        napari_kshot.to_uint8(stack)
    with pytest.raises(MaskError):
        napari_kshot.fit(np.zeros((9, 9, 3), np.uint8), np.zeros((9, 9), int), 65)
