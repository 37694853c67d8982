"""Find the images, GeoTIFFs and volumes to segment in files and folders."""

from collections import defaultdict
from pathlib import Path

from kshot.errors import ImageError
from kshot.io.filetypes import is_dicom, is_nifti
from kshot.io.folders import find_files
from kshot.io.images import list_images


def list_queries(paths: list[Path], results: Path) -> list[tuple[Path, Path]]:
    """Return the queries in files and folders, each with a relative path that names its results.

    Folders are searched recursively, except for `results`. DICOM files of one folder are one volume, unless
    each is a series of its own, as radiographs are; then each is a query.
    Raises ImageError for a path that does not exist or a folder with nothing to segment.
    """
    found: list[tuple[Path, Path]] = []
    for path in paths:
        if not path.is_dir():
            found += [(path, _with_one_suffix(Path(path.name)))] if _is_volume(path) else list_images([path])
            continue
        volumes = _find_volumes(path, results)
        try:
            found += list_images([path], results=results)
        except ImageError:
            if not volumes:
                raise
        found += volumes
    return found


def _is_volume(path: Path) -> bool:
    return path.is_file() and (is_nifti(path) or is_dicom(path))


def _find_volumes(folder: Path, results: Path) -> list[tuple[Path, Path]]:
    found: list[tuple[Path, Path]] = []
    slices: dict[Path, list[Path]] = defaultdict(list)
    for path in filter(_is_volume, find_files(folder, results).files):
        if is_nifti(path):
            found.append((path, _with_one_suffix(path.relative_to(folder))))
        else:
            slices[path.parent].append(path)
    for parent, paths in slices.items():
        if _are_separate_series(paths):
            found += [(path, path.relative_to(folder)) for path in paths]
        else:
            relative = Path(folder.resolve().name) if parent == folder else parent.relative_to(folder)
            found.append((parent, relative.with_name(f"{relative.name}.dcm")))
    return found


def _are_separate_series(paths: list[Path]) -> bool:
    from kshot.io.dicom import series_id

    return len({series_id(path) for path in paths}) == len(paths)


def _with_one_suffix(relative: Path) -> Path:
    """Return `a.nii` for `a.nii.gz`, since results are named without the suffix."""
    return relative.with_suffix("") if relative.name.lower().endswith(".nii.gz") else relative
