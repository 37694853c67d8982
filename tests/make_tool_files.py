"""Small annotation files as tools write them, one function a format: a box in an image of 10 x 12."""

import json

import numpy as np
from make_annotations import packed, png_text, run_lengths
from PIL import Image

HEIGHT, WIDTH = 10, 12
LEFT, TOP, RIGHT, BOTTOM = 3, 2, 9, 6
CORNERS = [(LEFT, TOP), (RIGHT, TOP), (RIGHT, BOTTOM), (LEFT, BOTTOM)]
FLAT = [value for point in CORNERS for value in point]

BOX = np.zeros((HEIGHT, WIDTH), dtype=bool)
BOX[TOP:BOTTOM, LEFT:RIGHT] = True
INCLUSIVE = np.zeros((HEIGHT, WIDTH), dtype=bool)
INCLUSIVE[TOP : BOTTOM + 1, LEFT : RIGHT + 1] = True  # as LabelMe draws: with the pixels of all corners
NONE = np.zeros((HEIGHT, WIDTH), dtype=bool)


def image(root, name="a.png"):
    """Write the image; return its path."""
    (root / name).parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (WIDTH, HEIGHT), (90, 80, 70)).save(root / name)
    return root / name


def write(root, name, content):
    """Write a file of text, bytes or JSON; return its path."""
    (root / name).parent.mkdir(parents=True, exist_ok=True)
    if isinstance(content, bytes):
        (root / name).write_bytes(content)
    else:
        text = content if isinstance(content, str) else json.dumps(content)
        (root / name).write_text(text, encoding="utf-8")
    return root / name


def coco_object(**fields):
    """Return a COCO annotation of the box."""
    return {"id": 1, "image_id": 1, "category_id": 1, "segmentation": [FLAT], "iscrowd": 0} | fields


def coco_counts(mask=BOX, **fields):
    """Return a COCO annotation of run lengths."""
    counts = {"size": [HEIGHT, WIDTH], "counts": run_lengths(mask.T)}
    return coco_object(segmentation=counts) | fields


def coco(root, *objects, files=("a.png",), **fields):
    """Write a COCO file. files: of the images 1, 2, …"""
    sizes = {"height": HEIGHT, "width": WIDTH}
    images = [{"id": n, "file_name": name} | sizes for n, name in enumerate(files, 1)]
    content = {"images": images, "annotations": list(objects), "categories": [{"id": 1, "name": "a"}]}
    return write(root, "instances.json", content | fields)


def labelme_shape(kind="polygon", points=CORNERS, label="a", **fields):
    """Return a shape of LabelMe."""
    return {"label": label, "points": [list(point) for point in points], "shape_type": kind} | fields


def labelme(root, *shapes, file="a.json", **fields):
    """Write a LabelMe file."""
    sizes = {"imageHeight": HEIGHT, "imageWidth": WIDTH}
    content = {"version": "5.5.0", "shapes": list(shapes), "imagePath": "a.png", "imageData": None}
    return write(root, file, content | sizes | fields)


def studio_region(kind="polygonlabels", value=None, labels=("a",), **fields):
    """Return a region of Label Studio; its outline is the box."""
    points = [[100 * x / WIDTH, 100 * y / HEIGHT] for x, y in CORNERS]
    sizes = {"original_width": WIDTH, "original_height": HEIGHT, "image_rotation": 0}
    value = {"points": points} if value is None else value
    own = {kind: list(labels)} if kind.endswith("labels") else {}
    return {"id": "r1", "type": kind, "value": value | own} | sizes | fields


def studio_rectangle():
    """Return the value of a rectangle that is the box."""
    x, y = 100 / WIDTH, 100 / HEIGHT
    return {
        "x": LEFT * x,
        "y": TOP * y,
        "width": (RIGHT - LEFT) * x,
        "height": (BOTTOM - TOP) * y,
        "rotation": 0,
    }


def studio_strokes(mask=BOX):
    """Return the value of brush strokes."""
    return {"format": "rle", "rle": packed(np.repeat(mask * np.uint8(255), 4))}


def studio_bitmask(mask=BOX):
    """Return the value of a bitmask: black on a transparent background."""
    pixels = np.zeros((*mask.shape, 4), dtype=np.uint8)
    pixels[mask, 3] = 255
    return {"imageDataURL": f"data:image/png;base64,{png_text(pixels)}"}


def studio(root, *regions, address="/data/upload/1/0123abcd-a.png", **fields):
    """Write an export of Label Studio with one task."""
    annotations = [{"result": list(regions), "was_cancelled": False}]
    return write(root, "export.json", [{"data": {"image": address}, "annotations": annotations} | fields])


CVAT_BOX = f'<box label="a" xtl="{LEFT}" ytl="{TOP}" xbr="{RIGHT}" ybr="{BOTTOM}"/>'


def cvat(root, *shapes, name="a.png"):
    """Write a file of CVAT for images 1.1."""
    head = f'<image id="0" name="{name}" width="{WIDTH}" height="{HEIGHT}">'
    return write(root, "annotations.xml", f"<annotations>{head}{''.join(shapes)}</image></annotations>")


def indices(number=1, mask=BOX):
    """Return a palette mask in which the box has a number."""
    found = Image.fromarray(np.where(mask, number, 0).astype(np.uint8)).convert("P")
    found.putpalette([value for index in range(256) for value in (index, 255 - index, 0)])
    return found


def colours(colour=(128, 0, 0), mask=BOX):
    """Return an RGB mask in which the box has a colour."""
    pixels = np.zeros((*mask.shape, 3), dtype=np.uint8)
    pixels[mask] = colour
    return Image.fromarray(pixels)


def folders(root, mask, images="images", masks="masks", file="a.png", **files):
    """Write folders of an image and its mask, and files beside them, by name without their suffix .txt."""
    image(root / images)
    (root / masks).mkdir(parents=True, exist_ok=True)
    mask.save(root / masks / file)
    for name, content in files.items():
        write(root, f"{name}.txt", content)
    return root


def voc(root, mask, **files):
    """Write VOC's folders."""
    return folders(root, mask, "JPEGImages", "SegmentationClass", **files)
