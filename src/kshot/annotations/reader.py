"""Read annotations of any supported format: the content of a file or folder decides which it is."""

from pathlib import Path
from typing import Any

from kshot.annotations.annotated_images import Annotations, ImageLocator, collect
from kshot.annotations.coco import read_coco
from kshot.annotations.cvat import read_cvat
from kshot.annotations.folders import read_mask_folders
from kshot.annotations.label_studio import read_label_studio
from kshot.annotations.labelme import read_labelme
from kshot.errors import DataError
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
    files = sorted(path for path in folder.iterdir() if path.suffix.lower() in (".json", ".xml"))
    if not files:
        raise DataError(
            f"Folder {folder} holds no annotations: neither images/ and masks/, nor VOC's folders, nor files "
            f"of {FORMATS}."
        )
    if len(files) == 1:
        return _read_file(files[0], images)
    annotated = []
    for file in files:
        content: Any = None if file.suffix.lower() == ".xml" else read_json(file)
        if not _is_labelme(content):
            raise DataError(f"{folder} holds several files, and {file.name} is not LabelMe's. Give one file.")
        annotated.append(read_labelme(content, file, ImageLocator.for_file(file, images)))
    return collect(annotated, [], folder)


def _read_file(path: Path, images: Path | None) -> Annotations:
    locator = ImageLocator.for_file(path, images)
    with path.open("rb") as file:
        start = file.read(1024).removeprefix(b"\xef\xbb\xbf").lstrip()
    if start.startswith(b"<"):
        return read_cvat(path.read_bytes(), path, locator)
    content = read_json(path)
    if isinstance(content, dict) and {"images", "annotations", "categories"} <= content.keys():
        return read_coco(content, path, locator)
    if _is_labelme(content):
        return collect([read_labelme(content, path, locator)], [], path)
    if isinstance(content, list) and content and isinstance(content[0], dict) and "data" in content[0]:
        return read_label_studio(content, path, locator)
    raise DataError(f"{path} is in no format that kshot reads. Give {FORMATS}.")


def _is_labelme(content: Any) -> bool:
    return isinstance(content, dict) and {"shapes", "imagePath"} <= content.keys()
