"""Frozen features on disk: each image's are computed once, and a training step reads them back.

One file an image, half precision, in a folder for each backbone. Its name follows from the weights, the size
and the photograph's bytes: any number of runs can share a cache, and it outlives a copy of the dataset.
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

LEFT_BEHIND = 3600.0
"""Seconds after which a file that is not whole belongs to nobody any more."""


class Budget:
    """How many bytes a cache may still write, over all its folders."""

    def __init__(self, root: Path, limit: int) -> None:
        self.root = root
        clear_leftovers(root)
        kept = (file for file in root.rglob("*.safetensors") if not file.name.startswith(TEMPORARY_PREFIX))
        self.left = limit - sum(file.stat().st_size for file in kept)

    def take(self, size: int) -> bool:
        """Take what a file needs; False if there is not so much left."""
        if size > self.left:
            return False
        self.left -= size
        return True


def clear_leftovers(root: Path) -> None:
    """Remove what killed runs were just writing; what is young may be another run's, which goes on."""
    for path in root.rglob(f"{TEMPORARY_PREFIX}*.safetensors"):
        with suppress(FileNotFoundError):
            if time.time() - path.stat().st_mtime > LEFT_BEHIND:
                path.unlink()


class FeatureCache:
    """One backbone's features at one size.

    compute: makes the features of an image (1, 3, H, W). key: digests of weights and transform. What does not
    fit into the budget is computed again at every use: correct, and `num_computed` tells.
    """

    def __init__(self, compute: Callable[[Tensor], Features], key: str, budget: Budget) -> None:
        self.folder = budget.root / hashlib.sha256(key.encode()).hexdigest()[:16]
        self.num_computed = 0
        self._compute, self._budget = compute, budget

    def read(self, photograph: Path, flipped: bool, image: Callable[[], Tensor]) -> Features:
        """Give a photograph's features in half precision; `image` is asked for if they are not there.

        flipped: of its mirror image. A damaged file is made anew.
        """
        path = self.folder / _file_name(photograph, flipped)
        try:
            return load_file(path)
        except FileNotFoundError:
            pass
        except SafetensorError:
            path.unlink(missing_ok=True)  # another process may have been quicker
        picture = image()
        with torch.no_grad():
            features = self._compute(picture.flip(-1) if flipped else picture)
        self.num_computed += 1
        halved = {name: value.half().contiguous().cpu() for name, value in features.items()}
        if self._budget.take(sum(value.nbytes for value in halved.values())):
            write_bytes(save(halved), path)
        return halved


def pyramid_to_features(pyramid: FeaturePyramid) -> Features:
    """Name a pyramid's taps, stage by stage."""
    return {f"{s}.{t:02}": tap for s, taps in enumerate(pyramid.stages) for t, tap in enumerate(taps)}


def features_to_pyramid(features: Features) -> FeaturePyramid:
    """Put a pyramid together again; what heads read is not kept."""
    stages = tuple(
        tuple(features[name] for name in sorted(features) if name.startswith(f"{stage}."))
        for stage in range(3)
    )
    return FeaturePyramid(stages, None)


def _file_name(photograph: Path, flipped: bool) -> str:
    digest = hashlib.sha256(photograph.read_bytes()).hexdigest()
    return f"{digest[:24]}{'_flipped' * flipped}.safetensors"
