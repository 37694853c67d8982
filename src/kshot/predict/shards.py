"""Divide images among runs that do not know of each other."""

import hashlib
import os
import re
from dataclasses import dataclass
from pathlib import Path

from kshot.errors import KshotError


@dataclass(frozen=True)
class Shard:
    """Share `number` of `count` shares of the images, counted from 1.

    The digest of an image's name alone decides its share. So shares are disjoint and complete, whatever the
    order of files and the progress of other runs, and a new image does not move others. Shares have about
    equal size.
    """

    number: int = 1
    count: int = 1

    def takes(self, name: Path) -> bool:
        """Return whether an image is in the share. name: of its results, relative to their folder."""
        digest = hashlib.sha256(os.fsencode(name.as_posix())).digest()
        return int.from_bytes(digest[:8], "big") % self.count == self.number - 1

    def named(self, file_name: str) -> str:
        """Return the name of this share's own file: confidence_1of8.csv for confidence.csv."""
        if self.count == 1:
            return file_name
        stem, dot, suffix = file_name.rpartition(".")
        return f"{stem}_{self.number}of{self.count}{dot}{suffix}"


WHOLE = Shard()
"""All images."""


def parse_shard(text: str) -> Shard:
    """Parse `3/8`, the third of eight shares. Raises KshotError for other text."""
    found = re.fullmatch(r"([0-9]{1,9})/([0-9]{1,9})", text)
    if found is None or not 1 <= int(found[1]) <= int(found[2]):
        raise KshotError(
            f"--shard is '{text}'; it must be I/N with I from 1 to N, such as 3/8 for the third of eight "
            "shares."
        )
    return Shard(int(found[1]), int(found[2]))
