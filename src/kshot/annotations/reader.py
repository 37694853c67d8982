"""Read annotations of any supported format: the content of a file or folder decides which it is."""

from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

from kshot.annotations.annotated_images import Annotations, collect
from kshot.annotations.coco import read_coco
from kshot.annotations.cvat import read_cvat
from kshot.annotations.folders import read_mask_folders
from kshot.annotations.image_locator import ImageLocator
from kshot.annotations.label_studio import read_label_studio
from kshot.annotations.labelme import read_labelme
from kshot.annotations.summary import Omissions
from kshot.errors import DataError
from kshot.io.file_names import files_below
from kshot.io.files import read_json

FORMATS = "COCO instances, LabelMe, Label Studio's JSON, or CVAT for images 1.1"


def read_annotations(path: Path, images: Path | None = None) -> Annotations:
    """Read an annotation file, a folder of LabelMe files, or folders of images and masks.

    images: folder of the images; None: beside the file, or in images/ there. Images are opened only when
    they are used. Raises DataError for an unknown format or an invalid file.
    """
    if not path.exists():
        raise DataError(f"There is no file or folder {path}.")
    if not path.is_dir():
        return _read_file(path, images)
    masks = read_mask_folders(path)
    if masks is None:
        return _read_folder(path, images)
    if images is not None:
        raise DataError(f"{path} holds its images itself. Leave out --support-images.")
    return masks


def _read_folder(folder: Path, images: Path | None) -> Annotations:
    """Read the LabelMe files in a folder and its subfolders, or else its one other annotation file."""
    paths = [path for path in files_below(folder) if path.suffix.lower() in (".json", ".xml")]
    if not paths:
        raise DataError(
            f"Folder {folder} holds no annotations: neither images/ and masks/, nor VOC's folders, nor files "
            f"of {FORMATS}."
        )
    if len(paths) == 1:
        return _read_file(paths[0], images)
    omissions = Omissions()
    listed = Counter[str]()
    annotated = []
    others = []
    first_error: DataError | None = None
    for path in paths:
        try:
            content: Any = None if _is_xml(path) else read_json(path)
            if _is_labelme(content):
                locator = ImageLocator.for_file(path, images, listed)
                annotated.append(read_labelme(content, path, locator, omissions))
            else:
                others.append(path)
        except DataError as error:
            first_error = first_error or error
            omissions.add("file", "that cannot be read", str(error))
    if annotated:
        omissions.add_all("file", "of another kind", others)
        return collect(annotated, [], folder, omissions)
    known = [path for path in others if _is_xml(path) or _is_document(read_json(path))]
    if len(known) == 1:
        omissions.add_all("file", "of another kind", (path for path in others if path not in known))
        read = _read_file(known[0], images)
        return replace(read, summary=read.summary.plus(omissions))
    if first_error is not None and not known:
        raise first_error
    found = ", ".join(str(path.relative_to(folder)) for path in (known or others)[:3])
    raise DataError(
        f"{folder} holds {len(known)} annotation files ({found}), not one. Give the file to read."
    )


def _read_file(path: Path, images: Path | None) -> Annotations:
    locator = ImageLocator.for_file(path, images)
    if _is_xml(path):
        return read_cvat(path.read_bytes(), path, locator)
    content = read_json(path)
    if _is_coco(content):
        return read_coco(content, path, locator)
    if _is_labelme(content):
        omissions = Omissions()
        return collect([read_labelme(content, path, locator, omissions)], [], path, omissions)
    if _is_label_studio(content):
        return read_label_studio(content, path, locator)
    raise DataError(f"{path} is in no format that kshot reads. Give {FORMATS}.")


def _is_document(content: Any) -> bool:
    return _is_coco(content) or _is_label_studio(content)


def _is_xml(path: Path) -> bool:
    try:
        file = path.open("rb")
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}.") from error
    with file:
        return file.read(1024).removeprefix(b"\xef\xbb\xbf").lstrip().startswith(b"<")


def _is_coco(content: Any) -> bool:
    return isinstance(content, dict) and {"images", "annotations", "categories"} <= content.keys()


def _is_label_studio(content: Any) -> bool:
    return (
        isinstance(content, list) and bool(content) and isinstance(content[0], dict) and "data" in content[0]
    )


def _is_labelme(content: Any) -> bool:
    return isinstance(content, dict) and {"shapes", "imagePath"} <= content.keys()
