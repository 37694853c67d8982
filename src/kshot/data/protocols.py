"""The field's test protocols as named presets: number of episodes, how they are drawn, size at scoring.

Never put numbers of different protocols into one row; `docs/benchmarks.md` lists the differences.
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
    """Episodes for each seed."""
    seeds: tuple[int, ...]
    image_size: int | None
    """Side of the network's square input in pixels; None: the model's own size."""
    fit: Literal["squash", "pad"]
    """Squash the image to the square, or keep its aspect ratio and pad it."""
    scored_at: Literal["network", "original"]
    """Size at which prediction and ground truth are compared: the network's square, or the image's own."""


PROTOCOLS = ("hsnet", "bam", "pfenet", "balanced")

BAM_SEEDS = (510, 365, 382, 322, 988)
"""BAM's five test seeds: the values of numpy's RandomState(123).randint(0, 1000, 5)."""

BALANCED_SEEDS = (0, 1, 2)

SELECTION_NOTES = {
    "base": "checkpoint chosen on held-out base classes",
    "novel": "checkpoint chosen on the novel classes themselves, the field's habit",
}
"""Notes printed beside the numbers of a model, by its config's `selected_on`."""


def preset(name: str, benchmark: str) -> Protocol:
    """Return a named protocol for a benchmark: pascal, coco, fss1000, or one without a published protocol.

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
    """Return the name of a benchmark's default protocol."""
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
