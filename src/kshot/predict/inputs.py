"""Files and folders -> pictures, maps and scans to segment."""

from collections import defaultdict
from pathlib import Path

from kshot.errors import ImageError
from kshot.io.dicom import series_id
from kshot.io.filetypes import is_dicom, is_nifti
from kshot.io.images import list_images


def list_queries(paths: list[Path], results: Path) -> list[tuple[Path, Path]]:
    """Expand files and folders to what is segmented, each with a relative path that names its results.

    Folders are searched to their depths, but for `results`. A folder whose own DICOM files belong together is
    one scan; files of which each is a series of its own, as radiographs are, are one each.
    Raises ImageError for a path that does not exist or a folder with nothing to segment.
    """
    found: list[tuple[Path, Path]] = []
    for path in paths:
        if not path.is_dir():
            found += [(path, _named(Path(path.name)))] if _is_scan(path) else list_images([path])
            continue
        scans = _scans_in(path, results.resolve())
        try:
            found += list_images([path], results=results)
        except ImageError:
            if not scans:
                raise
        found += scans
    return found


def _is_scan(path: Path) -> bool:
    return path.is_file() and (is_nifti(path) or is_dicom(path))


def _scans_in(folder: Path, left_out: Path) -> list[tuple[Path, Path]]:
    found: list[tuple[Path, Path]] = []
    slices: dict[Path, list[Path]] = defaultdict(list)
    for path in sorted(folder.rglob("*")):
        if not _is_scan(path) or left_out in path.resolve().parents:
            continue
        if is_nifti(path):
            found.append((path, _named(path.relative_to(folder))))
        else:
            slices[path.parent].append(path)
    for place, paths in slices.items():
        if len({series_id(path) for path in paths}) == len(paths):
            found += [(path, path.relative_to(folder)) for path in paths]
        else:
            within = Path(folder.resolve().name) if place == folder else place.relative_to(folder)
            found.append((place, within.with_name(f"{within.name}.dcm")))
    return found


def _named(relative: Path) -> Path:
    """Leave one suffix: results are named without it."""
    return relative.with_suffix("") if relative.name.lower().endswith(".nii.gz") else relative
