"""The folder of a run: recipe, log, checkpoint, curves, metrics and card."""

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from kshot.errors import DataError
from kshot.io.files import TEMPORARY_PREFIX, append_text, write_text
from kshot.io.provenance import Provenance
from kshot.methods.hub import WEIGHTS_FILE

RECIPE, LOG, CHECKPOINT, METRICS, CARD, CURVES, EVENTS = (
    "recipe.json",
    "log.jsonl",
    "checkpoint.pt",
    "metrics.json",
    "README.md",
    "curves.png",
    "tensorboard",
)
SKIPPED_STEPS = "skipped_steps.jsonl"
"""A line for each skipped step: its episodes or images, and the weights whose gradients were not finite."""

RUN_FILES = (CHECKPOINT, METRICS)
"""Files that mark a folder as taken. Without them it holds at most the start of a run that cannot be resumed,
even if a first validation wrote weights."""


DrawCurves = Callable[[list[dict[str, Any]], Path], None]
"""Draws the curves of a run's log into a file."""


class RunFolder:
    """The folder that a training writes to; only its feature cache is elsewhere.

    recipe: settings as JSON. is_main: whether this process writes. tensorboard: write event files too.
    draw_curves: called after each validation; None draws nothing.
    Raises DataError if another run is in the folder, or tensorboard is missing.
    """

    def __init__(
        self,
        path: Path,
        recipe: str,
        *,
        resume: bool,
        is_main: bool = True,
        tensorboard: bool = False,
        draw_curves: DrawCurves | None = None,
    ) -> None:
        self.path, self.recipe, self.is_main = path, recipe, is_main
        self.draw_curves = draw_curves
        if not resume and is_main and self._is_taken():
            raise DataError(f"{path} holds a run already. Continue it with --resume, or give another --out.")
        self.events = _event_writer(path / EVENTS) if tensorboard and is_main else None

    @property
    def checkpoint(self) -> Path:
        """Path of the checkpoint."""
        return self.path / CHECKPOINT

    def begin(self) -> None:
        """Write the recipe and an empty log, once all inputs are loaded: a failed start leaves nothing."""
        if self.is_main:
            self._clear_leftovers()
            write_text(self.recipe + "\n", self.path / RECIPE)
            write_text("", self.path / LOG)

    def log(self, entry: dict[str, Any]) -> None:
        """Append a line to the log, with the time in seconds since 1970; draw curves after a validation."""
        if not self.is_main:
            return
        append_text(json.dumps({**entry, "time": round(time.time(), 1)}) + "\n", self.path / LOG)
        if self.events is not None:
            for kind in ("losses", "validation"):
                for name, value in entry.get(kind, {}).items():
                    self.events.add_scalar(f"phase {entry['phase']}/{kind}/{name}", value, entry["step"])
        if "validation" in entry and self.draw_curves is not None:
            self.draw_curves(self.read_log(), self.path / CURVES)

    def read_log(self) -> list[dict[str, Any]]:
        """Return the entries of the log without a last line that a killed run left unfinished."""
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
        """Return a score of all validations after the first step that have it, in their order."""
        return [scores[name] for scores in self._validations() if name in scores]

    def best_validation(self, name: str) -> dict[str, float]:
        """Return the scores of the validation with the highest `name`, the last of equals, or {}."""
        found = [scores for scores in self._validations() if name in scores]
        return max(reversed(found), key=lambda scores: scores[name], default={})

    def _validations(self) -> list[dict[str, float]]:
        return [entry["validation"] for entry in self.read_log() if "validation" in entry and entry["step"]]

    def truncate_after(self, phase: int, step: int) -> None:
        """Drop the log entries of a killed run after its last checkpoint: these steps will be repeated."""
        if self.is_main:
            self._clear_leftovers()
            kept = [entry for entry in self.read_log() if (entry["phase"], entry["step"]) <= (phase, step)]
            write_text("".join(json.dumps(entry) + "\n" for entry in kept), self.path / LOG)

    def _is_taken(self) -> bool:
        if any((self.path / name).exists() for name in RUN_FILES):
            return True
        # Weights without a recipe are a model that no run here wrote.
        return (self.path / WEIGHTS_FILE).exists() and not (self.path / RECIPE).exists()

    def _clear_leftovers(self) -> None:
        """Remove unfinished files of a killed run."""
        for path in self.path.glob(f"{TEMPORARY_PREFIX}*"):
            path.unlink()

    def log_skipped(self, entry: dict[str, Any]) -> None:
        """Append a skipped step to its file."""
        if self.is_main:
            append_text(json.dumps(entry) + "\n", self.path / SKIPPED_STEPS)

    def finish(self, metrics: dict[str, Any], card: str, provenance: Provenance) -> None:
        """Write the card and the metrics; these are a run's last files."""
        if self.is_main:
            content = {**metrics, "provenance": provenance.model_dump()}
            write_text(card, self.path / CARD)
            write_text(json.dumps(content, indent=2) + "\n", self.path / METRICS)


def _event_writer(path: Path) -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise DataError("The setting tensorboard needs its package: pip install tensorboard.") from error
    return SummaryWriter(path)
