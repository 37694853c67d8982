"""The same annotated image as each tool would write it, with the files around it."""

import base64
import json
from itertools import pairwise

import numpy as np
from make_data import two_things
from PIL import Image
from pycocotools import mask as coco_mask

HEIGHT, WIDTH = 90, 180
DISC = (20, 20, 65, 65)
"""Left, top, right and bottom pixels of `two_things`' red disc."""
SQUARE = (110, 25, 150, 65)

TOOLS = (
    "coco",
    "coco-counts",
    "coco-string",
    "labelme",
    "labelme-masks",
    "labelme-embedded",
    "cvat",
    "cvat-masks",
    "label-studio",
    "label-studio-brush",
    "folder",
    "folder-of-classes",
    "side-by-side",
    "voc",
)


def ground_truths():
    """Return the masks of both classes. In VOC's names they are a bus and a car."""
    _, labels = two_things()
    return {"disc": labels == 1, "square": labels == 2}


def corners(box):
    """Return a box of pixels as a polygon around them."""
    left, top, right, bottom = box
    return [(left, top), (right + 1, top), (right + 1, bottom + 1), (left, bottom + 1)]


def circle(box, points=90):
    """Return the disc in a box of pixels as a polygon."""
    left, top, right, bottom = box
    x, y, radius = (left + right + 1) / 2, (top + bottom + 1) / 2, (right + 1 - left) / 2
    turns = np.exp(2j * np.pi * np.arange(points) / points)
    return [(x + radius * turn.real, y + radius * turn.imag) for turn in turns.tolist()]


def run_lengths(mask):
    """Count runs, the background's first, in the mask's own order."""
    flat = mask.ravel().astype(int)
    edges = np.flatnonzero(np.diff(flat, prepend=0))
    return np.diff(np.concatenate([[0], edges, [flat.size]])).tolist()


def write_annotated(root, tool):
    """Write an image and its annotations as a tool does; return the path of the annotations."""
    image, labels = two_things()
    kind = tool.partition("-")[0]
    if kind in ("folder", "side", "voc"):
        return _write_folders(root, tool, image, labels)
    (root / "images").mkdir(parents=True)
    if tool != "labelme-embedded":
        image.save(root / "images" / "table.png")
    if kind == "cvat":
        (root / "annotations.xml").write_text(cvat_text(masks=tool == "cvat-masks"))
        return root / "annotations.xml"
    write = {"coco": coco_content, "labelme": labelme_content, "label": label_studio_content}[kind]
    path = root / {"coco": "instances_default.json", "labelme": "table.json", "label": "project-1.json"}[kind]
    path.write_text(json.dumps(write(tool)))
    return path


def _write_folders(root, tool, image, labels):
    images, masks = {
        "side-by-side": ("photos", "truth"),
        "voc": ("JPEGImages", "SegmentationClass"),
    }.get(tool, ("images", "masks"))
    (root / images).mkdir(parents=True)
    image.save(root / images / "table.png")
    if tool == "folder-of-classes":
        for name, mask in ground_truths().items():
            (root / masks / name).mkdir(parents=True)
            Image.fromarray(mask).save(root / masks / name / "table.png")
        return root
    (root / masks).mkdir()
    if tool != "voc":
        (root / "classes.txt").write_text("disc\nsquare\n")
    values = np.choose(labels, [0, 6, 7]).astype(np.uint8) if tool == "voc" else labels.copy()
    values[:2] = 255
    mask = Image.fromarray(values).convert("P")
    mask.putpalette([value for index in range(256) for value in (index, 255 - index, index // 2)])
    mask.save(root / masks / "table.png")
    return root


def coco_content(tool="coco"):
    """Return what CVAT and Roboflow export as COCO; a crowd lies over the whole image."""
    masks = ground_truths()
    outlines = {"disc": [np.ravel(circle(DISC)).tolist()], "square": [np.ravel(corners(SQUARE)).tolist()]}
    if tool == "coco-counts":
        counts = {name: run_lengths(mask.T) for name, mask in masks.items()}
        outlines = {name: {"size": [HEIGHT, WIDTH], "counts": found} for name, found in counts.items()}
    if tool == "coco-string":
        runs = {name: coco_mask.encode(np.asfortranarray(mask, np.uint8)) for name, mask in masks.items()}
        texts = {name: found["counts"].decode() for name, found in runs.items()}
        outlines = {name: {"size": [HEIGHT, WIDTH], "counts": text} for name, text in texts.items()}
    crowd = {"size": [HEIGHT, WIDTH], "counts": [0, HEIGHT * WIDTH]}
    annotation = {"image_id": 7, "area": 1.0, "bbox": [0, 0, 1, 1]}
    return {
        "info": {"description": ""},
        "licenses": [],
        "categories": [
            {"id": 3, "name": "square", "supercategory": ""},
            {"id": 2, "name": "disc", "supercategory": ""},
            {"id": 5, "name": "nowhere", "supercategory": ""},
        ],
        "images": [
            {"id": 7, "file_name": "table.png", "height": HEIGHT, "width": WIDTH, "license": 0},
            {"id": 8, "file_name": "not_annotated.png", "height": 5, "width": 5},
        ],
        "annotations": [
            annotation | {"id": 1, "category_id": 2, "iscrowd": 0, "segmentation": outlines["disc"]},
            annotation | {"id": 2, "category_id": 3, "iscrowd": 0, "segmentation": outlines["square"]},
            annotation | {"id": 3, "category_id": 3, "iscrowd": 1, "segmentation": crowd},
        ],
    }


def labelme_content(tool="labelme"):
    """Return what LabelMe writes."""
    left, top, right, bottom = DISC
    centre = ((left + right) / 2, (top + bottom) / 2)
    shapes = [
        ("circle", [centre, (centre[0], bottom)], None),
        ("polygon", [(110, 25), (150, 25), (150, 65), (110, 65)], None),
    ]
    if tool == "labelme-masks":
        shapes = []
        for (left, top, right, bottom), mask in zip((DISC, SQUARE), ground_truths().values(), strict=True):
            piece = png_text(mask[top : bottom + 1, left : right + 1])
            shapes.append(("mask", [(left, top), (right, bottom)], piece))
    image = png_text(np.asarray(two_things()[0])) if tool == "labelme-embedded" else None
    return {
        "version": "5.5.0",
        "flags": {},
        "shapes": [
            {
                "label": name,
                "points": [list(point) for point in points],
                "group_id": None,
                "description": "",
                "shape_type": kind,
                "flags": {},
                "mask": mask,
            }
            for name, (kind, points, mask) in zip(("disc", "square"), shapes, strict=True)
        ],
        "imagePath": "images\\table.png",
        "imageData": image,
        "imageHeight": HEIGHT,
        "imageWidth": WIDTH,
    }


def png_text(values):
    """Return an array as a PNG in base64."""
    from io import BytesIO

    content = BytesIO()
    Image.fromarray(values).save(content, "PNG")
    return base64.b64encode(content.getvalue()).decode()


def cvat_text(masks=False):
    """Return what CVAT exports as 'CVAT for images 1.1'."""
    left, top, right, bottom = SQUARE
    common = 'source="manual" occluded="0" z_order="0"'
    shapes = (
        f'<ellipse label="disc" {common} cx="43.00" cy="43.00" rx="23.00" ry="23.00"></ellipse>'
        f'<box label="square" {common} xtl="{left}.00" ytl="{top}.00" xbr="{right + 1}.00" '
        f'ybr="{bottom + 1}.00"></box>'
    )
    if masks:
        shapes = ""
        for (left, top, right, bottom), (name, mask) in zip(
            (DISC, SQUARE), ground_truths().items(), strict=True
        ):
            piece = mask[top : bottom + 1, left : right + 1]
            rle = ", ".join(map(str, run_lengths(piece)))
            shapes += (
                f'<mask label="{name}" {common} rle="{rle}" left="{left}" top="{top}" '
                f'width="{piece.shape[1]}" height="{piece.shape[0]}"></mask>'
            )
    labels = "".join(f"<label><name>{name}</name><type>any</type></label>" for name in ("square", "disc"))
    return (
        '<?xml version="1.0" encoding="utf-8"?>\n<annotations><version>1.1</version>'
        f"<meta><task><id>1</id><name>t</name><labels>{labels}</labels></task></meta>"
        f'<image id="0" name="table.png" width="{WIDTH}" height="{HEIGHT}">{shapes}'
        '<tag label="indoors" source="manual"></tag></image>'
        '<image id="1" name="empty.png" width="5" height="5"></image></annotations>'
    )


def packed(values):
    """Pack values as rle-pack does, all of them as runs of at most 256."""
    values = np.asarray(values).ravel()
    bits = f"{values.size:032b}{7:05b}" + f"{7:04b}" * 4
    edges = [0, *(np.flatnonzero(np.diff(values.astype(int))) + 1).tolist(), values.size]
    for start, stop in pairwise(edges):
        for first in range(start, stop, 256):
            bits += f"100{min(256, stop - first) - 1:08b}{int(values[start]):08b}"
    bits += "0" * (-len(bits) % 8)
    return [int(bits[place : place + 8], 2) for place in range(0, len(bits), 8)]


def label_studio_content(tool="label-studio"):
    """Return what Label Studio exports as JSON: cancelled and older annotations, and the one that counts."""
    x, y = 100 / WIDTH, 100 / HEIGHT
    disc = {"x": 43 * x, "y": 43 * y, "radiusX": 23 * x, "radiusY": 23 * y, "rotation": 0}
    square = {"x": 110 * x, "y": 25 * y, "width": 41 * x, "height": 41 * y, "rotation": 0}
    values = {"disc": ("ellipselabels", disc), "square": ("rectanglelabels", square)}
    if tool == "label-studio-brush":
        strokes = {n: packed(np.repeat(mask * np.uint8(255), 4)) for n, mask in ground_truths().items()}
        values = {n: ("brushlabels", {"format": "rle", "rle": rle}) for n, rle in strokes.items()}
    result = [
        {
            "id": f"r{name}",
            "from_name": "label",
            "to_name": "image",
            "type": kind,
            "origin": "manual",
            "original_width": WIDTH,
            "original_height": HEIGHT,
            "image_rotation": 0,
            "value": value | {kind: [name]},
        }
        for name, (kind, value) in values.items()
    ]
    wrong = [result[0] | {"value": result[0]["value"] | {result[0]["type"]: ["wrong"]}}]
    choice = {"type": "choices", "value": {"choices": ["good"]}, "from_name": "q", "to_name": "image"}
    times = [f"2024-05-0{day}T10:00:00.000000Z" for day in (1, 2, 3)]
    annotations = [
        {"id": 2, "was_cancelled": False, "updated_at": times[1], "result": [choice, *result]},
        {"id": 1, "was_cancelled": False, "updated_at": times[0], "result": wrong},
        {"id": 3, "was_cancelled": True, "updated_at": times[2], "result": wrong},
    ]
    return [
        {
            "id": 1,
            "annotations": annotations,
            "file_upload": "0123abcd-table.png",
            "predictions": [{"result": wrong}],
            "data": {"image": "/data/upload/1/0123abcd-table.png", "note": "a note"},
            "project": 1,
        },
        {"id": 2, "annotations": [], "data": {"image": "/data/upload/1/0123abcd-other.png"}},
    ]
