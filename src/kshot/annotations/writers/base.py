"""What a format consists of: files of each image, and files of the whole run."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kshot.io.extras import import_extra
from kshot.results import Instance, SegmentationResult

if TYPE_CHECKING:
    from kshot.io.geotiff import GeoTiff

ImageContent = Callable[[str, SegmentationResult, Sequence[Instance]], bytes]
"""Returns a file's content. Arguments: the image's path relative to the file, its result, its instances."""

Entry = Callable[[str, SegmentationResult, Sequence[Instance]], Any]
"""Returns an image's part of the files of the run, as JSON. Arguments: its path in the given folder, …"""

RunContent = Callable[[Iterable[Any], Mapping[str, int]], bytes]
"""Returns a file's content. Arguments: the entries of all images, and each class's value."""

ClassContent = Callable[[Mapping[str, int]], bytes]
"""Returns a file's content, which depends on the classes alone."""


@dataclass(frozen=True)
class Format:
    """A format for ordinary images.

    image_files: by their names, in which `{name}` stands for the image. run_files, class_files: by their
    names. modules: libraries that it needs, of the extra `formats`.
    """

    image_files: Mapping[str, ImageContent] = field(default_factory=dict)
    entry: Entry | None = None
    run_files: Mapping[str, RunContent] = field(default_factory=dict)
    class_files: Mapping[str, ClassContent] = field(default_factory=dict)
    modules: tuple[str, ...] = ("skimage",)

    def check_libraries(self) -> None:
        """Raise KshotError if a library is missing. Call it before a long run."""
        for module in self.modules:
            import_extra(module, f"Writing annotations needs {module}", "formats")


@dataclass(frozen=True)
class MapFormat:
    """A format for GeoTIFFs: one file each, with map coordinates.

    file: its name, in which `{name}` stands for the map. write: takes the path, the map and its instances.
    """

    file: str
    write: "Callable[[Path, GeoTiff, Sequence[Instance]], None]"
    modules: tuple[str, ...]

    def check_libraries(self) -> None:
        """Raise KshotError if a library is missing. Call it before a long run."""
        for module in self.modules:
            import_extra(module, f"Maps of vectors need {module}", "geo")
