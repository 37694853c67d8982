"""Count what a reader of annotations found, and what it left out: nothing in a file vanishes silently."""

import logging
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

logger = logging.getLogger(__name__)

MAX_EXAMPLES = 20
"""Examples kept of each kind of omission: the first ones."""


@dataclass(frozen=True)
class LeftOut:
    """Parts of one kind that were not used.

    noun and why: what they are, such as "outline" and "of fewer than 3 points". examples: the first ones.
    """

    noun: str
    why: str
    count: int
    examples: tuple[str, ...] = ()

    def __str__(self) -> str:
        return f"{count_text(self.count, self.noun)} {self.why}"


@dataclass(frozen=True)
class Summary:
    """What was read. notes: what a reader had to assume, one sentence each.

    `str` of it is one line, such as "12 images, 40 objects of 3 classes; left out: 5 files (.heic)".
    """

    images: int
    objects: int
    classes: int
    left_out: tuple[LeftOut, ...] = ()
    notes: tuple[str, ...] = ()

    def __str__(self) -> str:
        numbers = (
            f"{count_text(self.images, 'image')}, {count_text(self.objects, 'object')} of "
            f"{count_text(self.classes, 'class')}"
        )
        return f"{numbers}; left out: {self.left_out_text}" if self.left_out else numbers

    @property
    def left_out_text(self) -> str:
        """All kinds that were left out, with their counts."""
        return ", ".join(map(str, self.left_out))

    def plus(self, omissions: "Omissions") -> "Summary":
        """Return this summary with more that was left out."""
        return replace(self, left_out=(*self.left_out, *omissions.left_out()))

    def log(self, source: Path) -> None:
        """Log the notes and the summary, a line each, and what was left out at level DEBUG."""
        for note in self.notes:
            logger.info(note)
        logger.info(f"{source}: {self}")
        for line in self.details():
            logger.debug(line)

    def details(self) -> Iterator[str]:
        """Yield a line for each example of what was left out."""
        for kind in self.left_out:
            for example in kind.examples:
                yield f"Left out: {kind.noun} {kind.why}: {example}"
            if more := kind.count - len(kind.examples):
                yield f"Left out: {count_text(more, kind.noun)} more {kind.why}"


@dataclass
class Omissions:
    """Collects what one reader leaves out, in the order of the first of each kind."""

    examples: dict[tuple[str, str], list[str]] = field(default_factory=dict)
    counts: dict[tuple[str, str], int] = field(default_factory=dict)

    def add(self, noun: str, why: str, example: str = "") -> None:
        """Count one more. example: which one it is."""
        kind = noun, why
        self.counts[kind] = self.counts.get(kind, 0) + 1
        kept = self.examples.setdefault(kind, [])
        if example and len(kept) < MAX_EXAMPLES:
            kept.append(example if example.isprintable() else repr(example))

    def add_all(self, noun: str, why: str, examples: Iterable[object]) -> None:
        """Count one for each example."""
        for example in examples:
            self.add(noun, why, str(example))

    def left_out(self) -> tuple[LeftOut, ...]:
        """Return all kinds with their counts."""
        return tuple(LeftOut(*kind, count, tuple(self.examples[kind])) for kind, count in self.counts.items())


def count_text(count: int, noun: str) -> str:
    """Return a number with its noun, such as "1 class" or "2 classes"."""
    plural = f"{noun}es" if noun.endswith(("s", "x")) else f"{noun}s"
    return f"{count} {noun if count == 1 else plural}"
