"""Record how a number was made: command, commit, versions and machine."""

import os
import platform
import re
import subprocess
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

from pydantic import BaseModel, ConfigDict

import kshot

PACKAGES = ("kshot", "torch", "timm", "numpy", "pillow")
HIDDEN_OPTIONS = ("--root", "--json", "--backbone-weights")
HIDDEN_SETTINGS = ("cache", "dev_root")
"""Options and settings whose values are paths on the user's machine."""


class Provenance(BaseModel):
    """When, with which code and on which machine a number was made."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    date: str
    command: str
    commit: str | None
    """Commit of kshot's checkout, with "+changes" if it was not clean; None if kshot is installed."""
    versions: dict[str, str]
    machine: str
    seconds: float = 0.0

    def with_duration(self, seconds: float) -> "Provenance":
        """Return a copy with the run time in seconds."""
        return self.model_copy(update={"seconds": round(seconds, 1)})


def record_provenance(arguments: Sequence[str]) -> Provenance:
    """Return the current provenance. Call it at the start of a run, before the checkout can change."""
    return Provenance(
        date=datetime.now(UTC).isoformat(timespec="seconds"),
        command=" ".join(["kshot", *_hide_paths(arguments)]),
        commit=_commit(),
        versions={"python": platform.python_version()} | {name: version(name) for name in PACKAGES},
        machine=f"{_processor()}, {os.cpu_count()} cores, {platform.system()}",
    )


def _hide_paths(arguments: Sequence[str]) -> list[str]:
    hidden = {index + 1 for index, argument in enumerate(arguments) if argument in HIDDEN_OPTIONS}
    shown = ["PLACE" if index in hidden else argument for index, argument in enumerate(arguments)]
    starts = tuple(f"{name}=" for name in (*HIDDEN_OPTIONS, *HIDDEN_SETTINGS))
    return [f"{one.split('=')[0]}=PLACE" if one.startswith(starts) else one for one in shown]


def _commit() -> str | None:
    here = Path(kshot.__file__).parent

    def git(*arguments: str) -> str:
        return subprocess.run(
            ["git", "-C", str(here), *arguments], capture_output=True, text=True, check=True
        ).stdout.strip()

    try:
        if not git("ls-files", "__init__.py"):
            return None  # kshot is installed inside another project's checkout
        return git("rev-parse", "HEAD") + (
            "+changes" if git("status", "--porcelain", "-uno", "--", ".") else ""
        )
    except (OSError, subprocess.CalledProcessError):
        return None


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    found = re.search(r"model name\s*:\s*(.+)", info.read_text()) if info.exists() else None
    return found[1] if found else platform.processor() or platform.machine()
