from collections import Counter

import numpy as np
import pytest
import torch
from make_data import TINY, tiny_method, write_pascal
from safetensors.torch import save_file
from test_cli import run

from kshot.data.base_classes import train_fold
from kshot.data.pascal import Pascal
from kshot.evaluation.evaluator import evaluate
from kshot.evaluation.metrics import score_episodes
from kshot.evaluation.selection import selection_manifest
from kshot.evaluation.thresholds import THRESHOLDS, score_thresholds
from kshot.methods.config import ModelConfig
from kshot.methods.saving import read_config, save_model
from kshot.segmenter import Segmenter
from kshot.transforms import Resize

CLASSES = ("cat", "dog", "horse", "sofa")


def image_pairs(class_id):
    """Return four images of one base class only, with its id."""
    queries = train_fold("pascal", 0, exclude_holdout=False).queries
    classes = Counter(name for name, _ in queries)
    return [(name, c) for name, c in queries if c == class_id and classes[name] == 1][:4]


@pytest.fixture
def voc(tmp_path):
    """Photographs of two base classes."""
    return write_pascal(tmp_path, image_pairs(7) + image_pairs(11))


def make_segmenter(name, threshold=0.5):
    method = tiny_method(name)
    method.threshold = threshold
    config = ModelConfig(method=name.split("-cls")[0], backbone=TINY, base_classes=CLASSES, image_size=65)
    return Segmenter(config, method, torch.device("cpu"))


@pytest.mark.parametrize("threshold", [THRESHOLDS[0], 0.5, THRESHOLDS[-1]])
def test_each_threshold_scores_what_evaluate_says_of_a_model_with_it(voc, threshold):
    dataset = Pascal(voc)
    found = score_thresholds(make_segmenter("prototype"), dataset, "pascal", 0, 6)
    assert tuple(found) == THRESHOLDS
    manifest, _ = selection_manifest(train_fold("pascal", 0, exclude_holdout=False), 6, dataset)
    segmenter = make_segmenter("prototype", threshold)
    counted = evaluate(segmenter, dataset, [manifest], Resize(65), at_original_size=True)[0]
    ids = np.array([episode.class_id for episode in manifest.episodes])
    assert found[threshold] == score_episodes(counted.counts, ids, (7, 11)).miou


def test_the_base_map_excludes_the_episodes_class(tmp_path):
    """H_cls calls everything a cat, or else background: dogs are suppressed for it, cats must not be."""
    segmenter = make_segmenter("two-pass")
    method = segmenter.method
    with torch.no_grad():
        bias = method.base_head.classify[-1].bias
        bias[1 + CLASSES.index("cat")], bias[0] = 100.0, 50.0
        method.fusion.conv_a.weight[:] = torch.tensor([1.0, 9.0]).view(1, 2, 1, 1)
    found = {}
    for name, class_id in (("cat", 7), ("dog", 11)):
        only = Pascal(write_pascal(tmp_path / name, image_pairs(class_id)))
        found[name] = score_thresholds(segmenter, only, "pascal", 0, 3)[0.1]
    assert found["cat"] > 0
    assert found["dog"] == 0


def test_the_best_threshold_is_written_into_the_model(voc, tmp_path, capsys):
    method, folder, weights = tiny_method("prototype"), tmp_path / "model", tmp_path / "tiny.safetensors"
    save_file(method.cls_backbone.trunk.state_dict(), weights)
    config = ModelConfig(method="prototype", backbone=TINY, image_size=65, threshold=0.3)
    save_model(config, method, folder)
    options = ["--data", "pascal", "--root", voc, "--episodes", 6, "--backbone-weights", weights]
    assert run("tune-threshold", folder, *options) == 0
    scores = score_thresholds(
        Segmenter.from_pretrained(folder, backbone_weights=weights), Pascal(voc), "pascal", 0, 6
    )
    best = max(scores, key=scores.get)
    assert read_config(folder / "config.json").threshold == best
    assert Segmenter.from_pretrained(folder, backbone_weights=weights).method.threshold == best
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == len(THRESHOLDS)
    assert f"{best:.2f} {100 * scores[best]:5.1f} % mIoU chosen" in lines
    assert any(line.startswith("0.30") and line.endswith("before") for line in lines)
