"""The field's test protocols as named presets: how many episodes, how they are drawn, where they are scored.

Numbers under different protocols must not share a row; `docs/benchmarks.md` says what differs.
"""

from typing import Literal

from pydantic import BaseModel, ConfigDict

from kshot.data.folds import FOLDED
from kshot.data.sampling import Rule
from kshot.errors import DataError


class Protocol(BaseModel):
    """How a benchmark is tested."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    rule: Rule
    """How episodes are drawn; see `sampling`."""
    num_episodes: int
    """Episodes of each seed."""
    seeds: tuple[int, ...]
    image_size: int | None
    """Side in pixels of the network's square input; None: the model's own."""
    fit: Literal["squash", "pad"]
    """Whether an image is squashed to the square, or keeps its aspect and is padded."""
    scored_at: Literal["network", "original"]
    """The size in which prediction and ground truth are compared: the square, or the photograph's own."""


PROTOCOLS = ("hsnet", "bam", "pfenet", "balanced")

BAM_SEEDS = (510, 365, 382, 322, 988)
"""What numpy's RandomState(123).randint(0, 1000, 5) gives: BAM draws its five test seeds that way."""

BALANCED_SEEDS = (0, 1, 2)


def preset(name: str, benchmark: str) -> Protocol:
    """Give a named protocol for a benchmark: pascal, coco, fss1000, or one with no published protocol.

    Raises DataError for an unknown protocol, or one that was never defined on this benchmark.
    """
    if name == "hsnet":
        count = 2400 if benchmark == "fss1000" else 1000
        return _protocol(name, "hsnet", count, (0,), 400, "squash", "network")
    if name == "balanced":
        return _protocol(name, "balanced", 1000, BALANCED_SEEDS, None, "squash", "original")
    if name not in PROTOCOLS:
        raise DataError(f"There is no protocol '{name}'. Choose one of {', '.join(PROTOCOLS)}.")
    if benchmark not in FOLDED:
        raise DataError(f"Protocol '{name}' is defined on pascal and coco only. Use hsnet or balanced.")
    size = 641 if benchmark == "coco" else 473
    if name == "bam":
        return _protocol(name, "image-list", 1000, BAM_SEEDS, size, "pad", "original")
    count = 20_000 if benchmark == "coco" else 5000
    return _protocol(name, "image-list", count, (321,), size, "pad", "original")


def default_protocol(benchmark: str) -> str:
    """Name the protocol of a benchmark unless another is asked for."""
    return "hsnet" if benchmark in (*FOLDED, "fss1000") else "balanced"


def _protocol(
    name: str,
    rule: Rule,
    num_episodes: int,
    seeds: tuple[int, ...],
    image_size: int | None,
    fit: Literal["squash", "pad"],
    scored_at: Literal["network", "original"],
) -> Protocol:
    return Protocol(
        name=name,
        rule=rule,
        num_episodes=num_episodes,
        seeds=seeds,
        image_size=image_size,
        fit=fit,
        scored_at=scored_at,
    )
