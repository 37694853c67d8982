"""Make the image list of coco-mini-60 from the 384 images of coco-mini.

    python benchmarks/coco_mini_60.py DIR

coco-mini is a collection of 384 COCO images with masks of class numbers (`images/`, `masks/`). The benchmark
keeps the 60 COCO classes that VOC does not have, and for each the images with at least 2048 pixels of it, as
the field's lists do.
"""

import hashlib
import lzma
import sys
from pathlib import Path

import numpy as np
from PIL import Image

from kshot.data.check import MIN_OBJECT
from kshot.data.folds import COCO_CLASSES, VOC_CLASSES_OF_COCO

HERE = Path(__file__).parent
LIST = HERE.parent / "src/kshot/data/splits/coco_mini_60.txt.xz"


def make_list(root: Path) -> str:
    """Return one line per class: its id, and the images that show enough of it."""
    images: dict[int, list[str]] = {c: [] for c, n in enumerate(COCO_CLASSES) if n not in VOC_CLASSES_OF_COCO}
    for path in sorted((root / "masks").glob("*.png")):
        sizes = np.bincount(np.asarray(Image.open(path)).ravel(), minlength=256)
        for class_id, names in images.items():
            if sizes[class_id + 1] >= MIN_OBJECT:
                names.append(path.stem)
    return "".join(f"{class_id} {' '.join(names)}".strip() + "\n" for class_id, names in images.items())


def main(root: Path) -> None:
    """Write the list, and print its digest for `lists.py`."""
    text = make_list(root).encode()
    LIST.write_bytes(lzma.compress(text, preset=9))
    print(f"{LIST}: sha256 of the text {hashlib.sha256(text).hexdigest()}")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
