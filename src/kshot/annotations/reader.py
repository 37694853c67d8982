"""The door for annotations: a file or a folder of whatever tool, told by what is in it."""

from pathlib import Path
from typing import Any

from kshot.annotations.coco import read_coco
from kshot.annotations.cvat import read_cvat
from kshot.annotations.folders import read_mask_folders
from kshot.annotations.json_files import read_json
from kshot.annotations.label_studio import read_label_studio
from kshot.annotations.labelled_images import Annotations, Pictures, gather
from kshot.annotations.labelme import read_labelme
from kshot.errors import DataError

FORMATS = "COCO instances, LabelMe, Label Studio's JSON, or CVAT for images 1.1"


def read_annotations(path: Path, images: Path | None = None) -> Annotations:
    """Read what a tool has annotated: a file, a folder of LabelMe's, or folders of photographs and masks.

    images: where the photographs are; else beside the file, or in images/ there.
    No photograph is opened yet. Raises DataError for what is no annotations, or not as it must be.
    """
    if not path.exists():
        raise DataError(f"There is no file or folder {path}.")
    if not path.is_dir():
        return _read_file(path, images)
    masks = read_mask_folders(path)
    if masks is None:
        return _read_folder(path, images)
    if images is not None:
        raise DataError(f"{path} holds its photographs itself. Leave out --support-images.")
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
    photographs = []
    for file in files:
        content: Any = None if file.suffix.lower() == ".xml" else read_json(file)
        if not _is_labelme(content):
            raise DataError(f"{folder} holds several files, and {file.name} is not LabelMe's. Give one file.")
        photographs.append(read_labelme(content, file, Pictures.of(file, images)))
    return gather(photographs, [], folder)


def _read_file(path: Path, images: Path | None) -> Annotations:
    pictures = Pictures.of(path, images)
    with path.open("rb") as file:
        start = file.read(1024).removeprefix(b"\xef\xbb\xbf").lstrip()
    if start.startswith(b"<"):
        return read_cvat(path.read_bytes(), path, pictures)
    content = read_json(path)
    if isinstance(content, dict) and {"images", "annotations", "categories"} <= content.keys():
        return read_coco(content, path, pictures)
    if _is_labelme(content):
        return gather([read_labelme(content, path, pictures)], [], path)
    if isinstance(content, list) and content and isinstance(content[0], dict) and "data" in content[0]:
        return read_label_studio(content, path, pictures)
    raise DataError(f"{path} is in no format that kshot reads. Give {FORMATS}.")


def _is_labelme(content: Any) -> bool:
    return isinstance(content, dict) and {"shapes", "imagePath"} <= content.keys()
