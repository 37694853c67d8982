"""Cache of frozen features on disk: computed once for each image, then read by each training step.

One file for each image, half precision, in a folder for each backbone. The path follows from the weights, the
size and the image's bytes, so runs can share a cache, and copies of a dataset too.
"""

import hashlib
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor

from kshot.io.files import TEMPORARY_PREFIX, write_bytes
from kshot.models.backbones import FeaturePyramid

Features = dict[str, Tensor]
"""Tensors of one image, (1, C, h, w), by name."""

STALE_SECONDS = 3600.0
"""Age at which an unfinished file can no longer belong to a running process."""


class Budget:
    """Number of bytes that a cache may still write, in all its folders together."""

    def __init__(self, root: Path, limit: int) -> None:
        self.root = root
        clear_leftovers(root)
        files = (file for file in root.rglob("*.safetensors") if not file.name.startswith(TEMPORARY_PREFIX))
        self.left = limit - sum(file.stat().st_size for file in files)

    def take(self, size: int) -> bool:
        """Take a file's size from the budget; return False if it does not fit."""
        if size > self.left:
            return False
        self.left -= size
        return True


def clear_leftovers(root: Path) -> None:
    """Remove unfinished files of killed runs; a young file may belong to a run that is still writing it."""
    for path in root.rglob(f"{TEMPORARY_PREFIX}*.safetensors"):
        with suppress(FileNotFoundError):
            if time.time() - path.stat().st_mtime > STALE_SECONDS:
                path.unlink()


class FeatureCache:
    """One backbone's features at one size.

    compute: returns the features of an image (1, 3, H, W). key: digests of weights and transform. Features
    that do not fit into the budget are computed at every use; `num_computed` counts all computations.
    """

    def __init__(self, compute: Callable[[Tensor], Features], key: str, budget: Budget) -> None:
        self.folder = budget.root / hashlib.sha256(key.encode()).hexdigest()[:16]
        self.num_computed = 0
        self._compute, self._budget = compute, budget

    def read(self, image_path: Path, flipped: bool, load: Callable[[], Tensor]) -> Features:
        """Return an image's features in half precision; `load` returns the image if they are not cached.

        flipped: features of the mirror image. A damaged file is written again.
        """
        path = self.folder / _file_name(image_path, flipped)
        try:
            return load_file(path)
        except FileNotFoundError:
            pass
        except SafetensorError:
            path.unlink(missing_ok=True)  # another process may have removed it already
        image = load()
        with torch.no_grad():
            features = self._compute(image.flip(-1) if flipped else image)
        self.num_computed += 1
        halved = {name: value.half().contiguous().cpu() for name, value in features.items()}
        if self._budget.take(sum(value.nbytes for value in halved.values())):
            write_bytes(save(halved), path)
        return halved


def pyramid_to_features(pyramid: FeaturePyramid) -> Features:
    """Return a pyramid's taps by name, stage by stage."""
    return {f"{s}.{t:02}": tap for s, taps in enumerate(pyramid.stages) for t, tap in enumerate(taps)}


def features_to_pyramid(features: Features) -> FeaturePyramid:
    """Return the pyramid of named taps, without the last map, which only heads need."""
    stages = tuple(
        tuple(features[name] for name in sorted(features) if name.startswith(f"{stage}."))
        for stage in range(3)
    )
    return FeaturePyramid(stages, None)


def _file_name(image_path: Path, flipped: bool) -> str:
    digest = hashlib.sha256(image_path.read_bytes()).hexdigest()
    return f"{digest[:24]}{'_flipped' * flipped}.safetensors"
