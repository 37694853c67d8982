"""Weight files that contain code, belong to another network, or are damaged."""

import pickle
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file

from benchmarks.robustness.rows import Outcome, Row
from kshot.errors import KshotError, WeightsError
from kshot.methods.config import ModelConfig
from kshot.methods.saving import build_method, imagenet_backbone, load_model, save_model
from kshot.models.backbones import Backbone
from kshot.models.imagenet_weights import load_backbone
from kshot.training.base_learner_files import load_base_learner
from kshot.training.checkpoint import read_checkpoint

TINY = "test_resnet"
"""timm's smallest ResNet."""


class Malice:
    """An object that creates a file when it is unpickled."""

    def __init__(self, created: Path) -> None:
        self.created = created

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[str, str]]:
        return open, (str(self.created), "w")


def malicious_pickles(folder: Path) -> Outcome:
    """Put pickles that run code in place of every weight file that kshot reads."""
    model, backbone = _write_model(folder)
    created = folder / "created by the pickle"
    state = {"weight": torch.zeros(2), "malice": Malice(created)}
    writers: list[Callable[[Path], object]] = [
        lambda path: path.write_bytes(pickle.dumps(state)),
        lambda path: torch.save(state, path),
        lambda path: torch.save(state, path, _use_new_zipfile_serialization=False),
    ]
    base_learner = folder / "base_learner"
    base_learner.mkdir()
    about = '{"backbone": "test_resnet", "base_classes": ["cat"], "trained_on": "nothing"}'
    (base_learner / "config.json").write_text(about)
    loaders: dict[Path, Callable[[Path], object]] = {
        model / "model.safetensors": lambda _: load_model(model, backbone_weights=backbone),
        base_learner / "model.safetensors": lambda _: load_base_learner(base_learner),
        folder / "backbone.pth": lambda path: load_backbone(TINY, path),
        folder / "backbone.bin": lambda path: load_backbone(TINY, path),
        folder / "checkpoint.pt": lambda path: read_checkpoint(path, ""),
    }
    refused = executed = 0
    for path, read in loaders.items():
        for write in writers:
            write(path)
            try:
                with warnings.catch_warnings(action="ignore"):  # torch warns about the pickle protocol
                    read(path)
            except WeightsError:
                refused += 1
            executed += created.exists()
            created.unlink(missing_ok=True)
    pickle.loads(pickle.dumps(state))["malice"].close()
    tried = len(loaders) * len(writers)
    figure = f"{executed} executions in {tried} files, {refused} refused"
    return Outcome(figure, created.exists() and not executed and refused == tried)


def wrong_keys(folder: Path) -> Outcome:
    """Load weights with missing, unknown or renamed keys, or other shapes and types."""
    model, backbone = _write_model(folder)
    path = model / "model.safetensors"
    state = load_file(path)
    first = next(key for key, value in state.items() if value.ndim > 1)
    rest = {key: value for key, value in state.items() if key != first}
    wrong = {
        "missing": rest,
        "unknown": state | {"other": torch.zeros(1)},
        "renamed": rest | {f"module.{first}": state[first]},
        "of another shape": rest | {first: state[first][:1].clone()},
        "of another type": rest | {first: state[first].double()},
        "nothing": {},
        "another network": Backbone(TINY).trunk.state_dict(),
    }
    refused = []
    for what, broken in wrong.items():
        save_file(broken, path)
        try:
            load_model(model, backbone_weights=backbone)
        except WeightsError as error:
            if str(path) in str(error):
                refused.append(what)
    return Outcome(f"{len(refused)}/{len(wrong)} refused with the file name", len(refused) == len(wrong))


def flipped_bytes(folder: Path, count: int = 1000) -> Outcome:
    """Change one byte anywhere in a model's weight file, and load it."""
    model, backbone = _write_model(folder)
    path, random, found = model / "model.safetensors", np.random.default_rng(0), 0
    whole = path.read_bytes()
    for place in random.integers(len(whole), size=count):
        damaged = bytearray(whole)
        damaged[place] ^= int(random.integers(1, 256))
        path.write_bytes(damaged)
        try:
            load_model(model, backbone_weights=backbone)
        except KshotError:
            found += 1
    path.write_bytes(whole)
    load_model(model, backbone_weights=backbone)  # the intact file is accepted
    return Outcome(f"{found:,}/{count:,} detected", found == count)


def _write_model(folder: Path) -> tuple[Path, Path]:
    """Write a small hsnet with random weights and its backbone; return both paths."""
    torch.manual_seed(0)
    backbone = folder / "backbone.safetensors"
    save_file(Backbone(TINY).trunk.state_dict(), backbone)
    config = ModelConfig(method="hsnet", backbone=TINY, image_size=65, channels=(4, 8, 12))
    method = build_method(config, partial(imagenet_backbone, config, backbone))
    save_model(config, method, folder / "model")
    return folder / "model", backbone


ROWS = (
    Row("pickles", "a malicious pickle in place of weights", "0 executions", malicious_pickles),
    Row("keys", "weights with wrong keys", "refused", wrong_keys),
    Row("flipped-bytes", "a flipped byte in a model's weights", "1,000/1,000 detected", flipped_bytes),
)
