"""Reproducible episodes and scores, and no network access on import."""

import subprocess
import sys
from pathlib import Path

import numpy as np
from PIL import Image

from benchmarks.robustness.rows import Outcome, Row
from benchmarks.robustness.samples import scene
from kshot.data.folder import Folder
from kshot.data.manifest import draw_manifest
from kshot.data.protocols import preset
from kshot.evaluation.evaluator import EpisodeReader, read_ahead
from kshot.evaluation.score import score_model
from kshot.segmenter import Segmenter
from kshot.transforms import Resize

WORKERS = (0, 1, 2)
IMAGE_SIZE = 97

SOCKETS = """
import sys
opened = []
sys.addaudithook(lambda event, arguments: opened.append(event) if event.startswith("socket.") else None)
import kshot
for name in kshot.__all__:
    getattr(kshot, name)
from kshot.segmenter import Segmenter
Segmenter.from_pretrained()
print(len(opened), *opened)
"""
"""Includes the lazy imports of kshot and the default model."""


def workers(folder: Path, count: int = 60) -> Outcome:
    """Sample, load and score the episodes of one seed with several numbers of workers."""
    for kind in ("images", "masks"):
        (folder / kind).mkdir()
    for index in range(12):
        image, mask = scene(left=5 + 6 * index, top=3 * index)
        image.save(folder / "images" / f"{index}.png")
        Image.fromarray(mask.astype(np.uint8) * np.uint8(1 + index % 2)).save(
            folder / "masks" / f"{index}.png"
        )
    (folder / "classes.txt").write_text("even\nodd\n")
    dataset, segmenter = Folder(folder), Segmenter.from_pretrained("prototype", image_size=IMAGE_SIZE)
    protocol = preset("balanced", "folder").model_copy(update={"num_episodes": count, "seeds": (7,)})
    read, scores, manifests = [], [], []
    for number in WORKERS:
        manifest = draw_manifest(dataset.fold(), protocol, 1, 7)
        reader = EpisodeReader(dataset, manifest.episodes, Resize(IMAGE_SIZE, protocol.fit))
        read.append([(files.episode, *files.images) for files in read_ahead(reader, number)])
        result = score_model(segmenter, dataset, [manifest], protocol, num_workers=number)
        manifests.append(manifest.sha256)
        scores.append((result.miou, result.fb_iou, *result.class_iou.values()))
    are_equal = len(set(manifests)) == 1 and all(one == read[0] for one in read)
    difference = float(np.abs(np.array(scores) - scores[0]).max())
    figure = (
        f"{count} episodes with {', '.join(map(str, WORKERS))} workers: "
        f"{'identical' if are_equal else 'different'} lists, metrics differ by {difference:g}"
    )
    return Outcome(figure, are_equal and difference <= 1e-6)


def sockets(folder: Path) -> Outcome:
    """Import kshot in a new process that counts its socket events."""
    done = subprocess.run([sys.executable, "-c", SOCKETS], cwd=folder, capture_output=True, text=True)
    if done.returncode:
        return Outcome("the import failed", False)
    number, *events = done.stdout.split()
    return Outcome(f"{number} sockets {' '.join(events)}".strip(), number == "0")


ROWS = (
    Row(
        "workers",
        "same seed, different numbers of workers",
        "episode list identical, metrics equal to 1e-6",
        workers,
    ),
    Row("sockets", "`import kshot` and loading the default model", "0 sockets", sockets),
)
