"""Make the examples that the page of `kshot serve` offers, of scikit-image's photographs: `make page`."""

from pathlib import Path

import kshot
from demo import annotated
from kshot.io.files import save_image
from kshot.io.overlays import mask_image

FOLDER = Path(kshot.__file__).parent / "web" / "static" / "examples"

# The page's example, and the annotation that it shows.
EXAMPLES = {"coins": "coins", "cat": "eye"}


def main() -> None:
    """Write a photograph and its mask for each example."""
    for name, annotation in EXAMPLES.items():
        picture, mask = annotated(annotation)
        save_image(picture, FOLDER / f"{name}.jpg")
        save_image(mask_image(mask), FOLDER / f"{name}_mask.png")


if __name__ == "__main__":
    main()
