"""The data of a session: object classes, images and predictions."""

from dataclasses import dataclass
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from kshot.io.overlays import OVERLAY_COLOUR
from kshot.results import MAX_CLASSES

Role = Literal["support", "query"]
MapName = Literal["probability", "first_pass", "second_pass"]

MAX_NAME_BYTES = 200
"""Kept UTF-8 bytes of an image's name. File systems allow 255, and the archive appends suffixes."""


class ObjectClass(BaseModel):
    """An object class to segment."""

    model_config = ConfigDict(frozen=True)

    value: int = Field(ge=1, le=MAX_CLASSES, description="Pixel value of the class in label maps.")
    name: str = Field(min_length=1, max_length=60)
    colour: str = Field(pattern="^#[0-9a-f]{6}$", description="#rrggbb, used in overlays and palettes.")

    @property
    def rgb(self) -> tuple[int, int, int]:
        """Return the colour as (red, green, blue), each 0 to 255."""
        red, green, blue = bytes.fromhex(self.colour[1:])
        return red, green, blue


FIRST_CLASS = ObjectClass(value=1, name="object", colour="#" + bytes(OVERLAY_COLOUR).hex())


@dataclass(frozen=True)
class StoredResult:
    """A prediction whose pixels are stored in files named after `version`.

    version: of the session when the prediction was made. maps: probability maps of each class in
    `class_values`.
    """

    version: int
    confidence: float
    maps: tuple[MapName, ...]
    class_values: tuple[int, ...]


@dataclass
class SessionImage:
    """An uploaded image. Once a user labels it, it is a support image whatever its role.

    name: as uploaded; for display, never a path. size: (height, width). label_version: counts the user's
    label changes. is_negative: its labels contain no class. problem: why it cannot be used. hint: why its
    labels may not help.
    """

    id: str
    name: str
    role: Role
    size: tuple[int, int]
    num_bytes: int
    is_labelled: bool = False
    is_negative: bool = False
    label_version: int = 0
    result: StoredResult | None = None
    problem: str | None = None
    hint: str | None = None


def display_name(name: str) -> str:
    """Return the last part of an uploaded name, with printable characters only."""
    last = name.replace("\\", "/").rpartition("/")[2]
    printable = "".join(letter for letter in last if letter.isprintable())
    return printable.encode()[-MAX_NAME_BYTES:].decode(errors="ignore").strip(" .") or "image"
