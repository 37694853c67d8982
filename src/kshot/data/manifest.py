"""Manifests: a benchmark's episodes in a file, so that two people can run exactly the same ones."""

import hashlib
import json
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from kshot.data.base import Dataset
from kshot.data.benchmarks import read_fold
from kshot.data.protocols import Protocol
from kshot.data.sampling import Episode, Fold, draw_episodes, needed_images
from kshot.errors import DataError, fault_of
from kshot.io.files import write_text


class Manifest(BaseModel):
    """Episodes, and how they were drawn."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    format: Literal[1] = 1
    """Version of the file's layout."""
    benchmark: str
    split: str
    fold: int
    shots: int
    protocol: str
    seed: int
    classes: dict[int, str]
    """The classes that episodes were drawn from, by id. mIoU is the mean over these."""
    left_out: dict[str, int] = {}
    """Skipped classes, which have too few images for an episode, with their numbers of images."""
    restricted_to: int | None = None
    """Number of images that the draw was restricted to, if some of the benchmark's were missing."""
    sha256: str
    """Digest of the episodes; see `episodes_sha256`."""
    episodes: tuple[Episode, ...]


def draw_manifest(
    fold: Fold, protocol: Protocol, shots: int, seed: int, present: Dataset | None = None
) -> Manifest:
    """Draw a protocol's episodes. Classes with too few images are skipped, and named in the manifest.

    present: draw only from images that this dataset has on disk.
    Raises DataError if shots, seed or number of episodes are out of range, or no class has enough images.
    """
    restricted_to = None
    if present is not None:
        names = {name for name, _ in fold.queries}
        found = {name for name in names if present.image_path(name).exists()}
        fold, restricted_to = fold.keep(found), len(found)
    too_small = fold.too_small(shots)
    usable = fold.large_enough(shots)
    if too_small and not usable.images:
        name, number = max(too_small.items(), key=lambda item: item[1])
        raise DataError(
            f"No class has enough images: {needed_images(shots)}, and '{name}' has most, {number}. "
            "Use fewer shots, or add images."
        )
    episodes = draw_episodes(usable, protocol.rule, shots, protocol.num_episodes, seed)
    return make_manifest(usable, episodes, protocol.name, seed, too_small, restricted_to)


def draw_manifests(
    data: str, protocol: Protocol, *, fold: int = 0, shots: int = 1, split: str | None = None
) -> list[Manifest]:
    """Draw a benchmark's episodes for each seed of a protocol. split: default is the test split."""
    pairs = read_fold(data, fold, split)
    return [draw_manifest(pairs, protocol, shots, seed) for seed in protocol.seeds]


def make_manifest(
    fold: Fold,
    episodes: list[Episode],
    protocol: str,
    seed: int,
    left_out: dict[str, int],
    restricted_to: int | None = None,
) -> Manifest:
    """Return the manifest of episodes that were drawn from a fold."""
    return Manifest(
        benchmark=fold.benchmark,
        split=fold.split,
        fold=fold.number,
        shots=len(episodes[0].supports),
        protocol=protocol,
        seed=seed,
        classes={c: fold.class_names[c] for c in fold.images},
        left_out=left_out,
        restricted_to=restricted_to,
        sha256=episodes_sha256(episodes),
        episodes=tuple(episodes),
    )


def episodes_sha256(episodes: list[Episode] | tuple[Episode, ...]) -> str:
    """Return the sha256 of the episodes' JSON with sorted keys and without spaces."""
    text = json.dumps([_to_json(e) for e in episodes], sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def write_manifest(manifest: Manifest, path: Path) -> None:
    """Write a manifest as JSON, one episode a line. The write is atomic."""
    head = manifest.model_dump(mode="json", exclude={"episodes"})
    lines = ",\n".join("    " + json.dumps(_to_json(episode)) for episode in manifest.episodes)
    text = json.dumps(head, indent=2).removesuffix("\n}") + ',\n  "episodes": [\n' + lines + "\n  ]\n}\n"
    write_text(text, path)


def read_manifest(path: Path) -> Manifest:
    """Read and check a manifest. Raises DataError that says what is wrong in it."""
    try:
        content = json.loads(path.read_text())
        content["episodes"] = [_from_json(episode) for episode in content["episodes"]]
        manifest = Manifest.model_validate(content)
    except FileNotFoundError:
        raise DataError(f"There is no manifest {path}. Write one with `kshot episodes`.") from None
    except ValidationError as error:
        raise DataError(f"{path} is no manifest: {fault_of(error)}.") from error
    except (ValueError, KeyError, TypeError, OSError) as error:
        raise DataError(f"{path} is no manifest ({type(error).__name__}: {error}).") from error
    _check(manifest, path)
    return manifest


def _check(manifest: Manifest, path: Path) -> None:
    if episodes_sha256(manifest.episodes) != manifest.sha256:
        raise DataError(f"The episodes in {path} do not match its sha256: the file was changed.")
    for index, episode in enumerate(manifest.episodes):
        wrong = None
        if episode.query in episode.supports:
            wrong = f"its query {episode.query} is among its supports"
        elif len(episode.supports) != manifest.shots:
            wrong = f"it has {len(episode.supports)} supports, not {manifest.shots}"
        elif episode.class_id not in manifest.classes:
            wrong = f"its class {episode.class_id} is not among the manifest's classes"
        if wrong:
            raise DataError(f"Episode {index} in {path} cannot be run: {wrong}.")
    if not manifest.episodes:
        raise DataError(f"Manifest {path} has no episodes.")


def _to_json(episode: Episode) -> dict[str, Any]:
    return {"class_id": episode.class_id, "query": episode.query, "supports": list(episode.supports)}


def _from_json(episode: dict[str, Any]) -> Episode:
    return Episode(episode["class_id"], episode["query"], tuple(episode["supports"]))
