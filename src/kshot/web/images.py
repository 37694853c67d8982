"""What a session is about: classes, photographs, and the model's answers."""

from dataclasses import dataclass
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from kshot.io.overlays import OVERLAY_COLOUR
from kshot.segmenter import MAX_CLASSES

Role = Literal["support", "query"]
Step = Literal["probability", "first_pass", "second_pass"]

MAX_NAME = 200
"""Bytes of a photograph's name that are kept, in UTF-8: file systems take 255, and the zip adds some."""


class ObjectClass(BaseModel):
    """A kind of thing to find."""

    model_config = ConfigDict(frozen=True)

    value: int = Field(ge=1, le=MAX_CLASSES, description="Its value in masks of several classes.")
    name: str = Field(min_length=1, max_length=60)
    colour: str = Field(pattern="^#[0-9a-f]{6}$", description="#rrggbb, in overlays and palettes.")

    @property
    def rgb(self) -> tuple[int, int, int]:
        """Its colour's levels."""
        red, green, blue = bytes.fromhex(self.colour[1:])
        return red, green, blue


FIRST_CLASS = ObjectClass(value=1, name="object", colour="#" + bytes(OVERLAY_COLOUR).hex())


@dataclass(frozen=True)
class Result:
    """What the model said of a photograph: its pixels are in files named by `version`.

    version: the session's when it was made. steps: the maps that exist of each class in `values`.
    """

    version: int
    confidence: float
    steps: tuple[Step, ...]
    values: tuple[int, ...]


@dataclass
class Photograph:
    """One photograph. With labels that somebody drew it is a support, whatever it came as.

    name: what its sender calls it; text to show, never a path. size: (height, width). drawings: how often its
    labels were drawn. is_negative: whether they say that it shows no class at all. problem: why it could not
    be used, for people. hint: why little is to be expected of its labels, if that is so.
    """

    id: str
    name: str
    role: Role
    size: tuple[int, int]
    num_bytes: int
    is_drawn: bool = False
    is_negative: bool = False
    drawings: int = 0
    result: Result | None = None
    problem: str | None = None
    hint: str | None = None


def plain_name(name: str) -> str:
    """Keep a name's last part, in printable letters."""
    last = name.replace("\\", "/").rpartition("/")[2]
    printable = "".join(letter for letter in last if letter.isprintable())
    return printable.encode()[-MAX_NAME:].decode(errors="ignore").strip(" .") or "photograph"
