"""A run's folder: its recipe, log, checkpoint, curves, metrics and card."""

import json
import time
from pathlib import Path
from typing import Any

from kshot.benchmark.provenance import Provenance
from kshot.errors import DataError
from kshot.pictures import replacing

RECIPE, LOG, CHECKPOINT, METRICS, CARD = (
    "recipe.json",
    "log.jsonl",
    "checkpoint.pt",
    "metrics.json",
    "README.md",
)


class RunFolder:
    """Where one training writes; nothing is written outside of it.

    recipe: its settings as JSON. Raises DataError if another run lives there already.
    """

    def __init__(self, path: Path, recipe: str, *, resume: bool) -> None:
        self.path = path
        self.recipe = recipe
        if not resume and (path / RECIPE).exists():
            raise DataError(f"{path} holds a run already. Go on with --resume, or give another --out.")
        if not resume:
            write_text(path / RECIPE, recipe)

    @property
    def checkpoint(self) -> Path:
        """The place of the checkpoint."""
        return self.path / CHECKPOINT

    def log(self, entry: dict[str, Any]) -> None:
        """Add a line to the log, with the time of day in seconds."""
        with (self.path / LOG).open("a") as file:
            file.write(json.dumps({**entry, "time": round(time.time(), 1)}) + "\n")

    def read_log(self) -> list[dict[str, Any]]:
        """Read the log; a last line that a killed run left unfinished is passed over."""
        if not (self.path / LOG).exists():
            return []
        entries = []
        for line in (self.path / LOG).read_text().splitlines():
            try:
                entries.append(json.loads(line))
            except ValueError:
                continue
        return entries

    def validations(self, name: str) -> list[float]:
        """Give a score of all validations after the first step, in their order."""
        found = [entry["validation"] for entry in self.read_log() if "validation" in entry and entry["step"]]
        return [scores[name] for scores in found]

    def forget_after(self, phase: int, step: int) -> None:
        """Cut what a killed run logged after its last checkpoint, for it will happen again."""
        kept = [entry for entry in self.read_log() if (entry["phase"], entry["step"]) <= (phase, step)]
        write_text(self.path / LOG, "".join(json.dumps(entry) + "\n" for entry in kept))

    def write_metrics(self, metrics: dict[str, Any], provenance: Provenance) -> None:
        """Write what the run came to, and where it comes from."""
        content = {**metrics, "provenance": provenance.model_dump()}
        write_text(self.path / METRICS, json.dumps(content, indent=2) + "\n")


def write_text(path: Path, text: str) -> None:
    """Write a small file, whole or not at all."""
    with replacing(path) as temporary:
        temporary.write_text(text)
