"""Which of many runs takes which images, without any of them knowing of the others."""

import hashlib
import os
import re
from dataclasses import dataclass
from pathlib import Path

from kshot.errors import KshotError


@dataclass(frozen=True)
class Shard:
    """One of `count` shares of the images, the `number`-th, from 1 on; of one share it is all of them.

    A share is decided by each image's name alone, by its digest. So shares are disjoint and together
    complete, whatever the order in which a file system lists its files and however far the other runs are,
    and an image that is added moves no other into another share. Shares are about equally large, not exactly.
    """

    number: int = 1
    count: int = 1

    def takes(self, name: Path) -> bool:
        """Say whether the image of this name, relative to the folder that was given, is in the share."""
        digest = hashlib.sha256(os.fsencode(name.as_posix())).digest()
        return int.from_bytes(digest[:8], "big") % self.count == self.number - 1

    def named(self, file_name: str) -> str:
        """Name a file of which every share has its own: confidence.csv is confidence_1of8.csv."""
        if self.count == 1:
            return file_name
        stem, dot, suffix = file_name.rpartition(".")
        return f"{stem}_{self.number}of{self.count}{dot}{suffix}"


WHOLE = Shard()
"""All images."""


def parse_shard(text: str) -> Shard:
    """Read `3/8`, the third of eight shares. Raises KshotError for what is no share."""
    found = re.fullmatch(r"([0-9]{1,9})/([0-9]{1,9})", text)
    if found is None or not 1 <= int(found[1]) <= int(found[2]):
        raise KshotError(
            f"--shard says '{text}'; it must be I/N with I from 1 to N, such as 3/8 for the third of eight "
            "shares."
        )
    return Shard(int(found[1]), int(found[2]))
