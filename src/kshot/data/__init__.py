"""Benchmarks: images, ground truth, folds, protocols, and the episodes that are drawn from them."""

from typing import TYPE_CHECKING

from kshot.lazy import lazy_names

if TYPE_CHECKING:
    from kshot.data.base import DATASETS, Benchmark, Dataset, register_dataset
    from kshot.data.benchmarks import open_dataset, read_fold
    from kshot.data.coco import Coco
    from kshot.data.episodes import EpisodeDataset, EpisodeTensors
    from kshot.data.folder import CocoMini, Folder
    from kshot.data.folds import novel_classes
    from kshot.data.fss1000 import FSS1000
    from kshot.data.manifest import Manifest, draw_manifest, draw_manifests, read_manifest, write_manifest
    from kshot.data.pascal import Pascal
    from kshot.data.protocols import PROTOCOLS, Protocol, preset
    from kshot.data.sampling import Episode, Fold, draw_episodes

__all__ = [
    "DATASETS", "FSS1000", "PROTOCOLS", "Benchmark", "Coco", "CocoMini", "Dataset", "Episode",
    "EpisodeDataset", "EpisodeTensors", "Fold", "Folder", "Manifest", "Pascal", "Protocol",
    "draw_episodes", "draw_manifest", "draw_manifests", "novel_classes", "open_dataset", "preset",
    "read_fold", "read_manifest", "register_dataset", "write_manifest",
]  # fmt: skip

__getattr__ = lazy_names(
    __name__,
    {
        "kshot.data.base": "DATASETS Benchmark Dataset register_dataset",
        "kshot.data.benchmarks": "open_dataset read_fold",
        "kshot.data.coco": "Coco",
        "kshot.data.episodes": "EpisodeDataset EpisodeTensors",
        "kshot.data.folder": "CocoMini Folder",
        "kshot.data.folds": "novel_classes",
        "kshot.data.fss1000": "FSS1000",
        "kshot.data.manifest": "Manifest draw_manifest draw_manifests read_manifest write_manifest",
        "kshot.data.pascal": "Pascal",
        "kshot.data.protocols": "PROTOCOLS Protocol preset",
        "kshot.data.sampling": "Episode Fold draw_episodes",
    },
)
