"""Storage of frozen features on disk, for the cache that training steps read.

One file for each image, half precision, in a folder for each backbone. The path follows from the weights, the
size and the image's bytes, so runs can share a cache, and copies of a dataset too.
"""

import hashlib
import time
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor

from kshot.io.files import TEMPORARY_PREFIX, write_bytes
from kshot.models.backbones import FeaturePyramid
from kshot.models.feature_cache import Budget

Features = dict[str, Tensor]
"""Tensors of one image, (1, C, h, w), by name."""

STALE_SECONDS = 3600.0
"""Age at which an unfinished file can no longer belong to a running process."""


class ImageKey(NamedTuple):
    """An image's file. flipped: the mirror image is meant."""

    path: Path
    flipped: bool = False


class DiskBudget(Budget):
    """Number of bytes that files may still take, in all folders of `root` together."""

    def __init__(self, root: Path, limit: int) -> None:
        self.root = root
        clear_leftovers(root)
        files = (file for file in root.rglob("*.safetensors") if not file.name.startswith(TEMPORARY_PREFIX))
        super().__init__(limit - sum(file.stat().st_size for file in files))


def clear_leftovers(root: Path) -> None:
    """Remove unfinished files of killed runs; a young file may belong to a run that is still writing it."""
    for path in root.rglob(f"{TEMPORARY_PREFIX}*.safetensors"):
        with suppress(FileNotFoundError):
            if time.time() - path.stat().st_mtime > STALE_SECONDS:
                path.unlink()


class DiskStorage:
    """Features of one backbone at one size. settings: a text with the digest of its weights and its size."""

    def __init__(self, settings: str, budget: DiskBudget) -> None:
        self.folder = budget.root / hashlib.sha256(settings.encode()).hexdigest()[:16]
        self._budget = budget

    def read(self, key: ImageKey) -> Features | None:
        """Return an image's features in half precision; None if they are missing or their file is damaged."""
        path = self._path(key)
        try:
            return load_file(path)
        except FileNotFoundError:
            return None
        except SafetensorError:
            path.unlink(missing_ok=True)  # another process may have removed it already
            return None

    def write(self, key: ImageKey, features: Features) -> Features:
        """Write an image's features, if they fit; return them in half precision."""
        halved = {name: value.half().contiguous().cpu() for name, value in features.items()}
        if self._budget.take(sum(value.nbytes for value in halved.values())):
            write_bytes(save(halved), self._path(key))
        return halved

    def _path(self, key: ImageKey) -> Path:
        digest = hashlib.sha256(key.path.read_bytes()).hexdigest()
        return self.folder / f"{digest[:24]}{'_flipped' * key.flipped}.safetensors"


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
