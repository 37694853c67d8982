"""Write the examples of the `kshot serve` page, from scikit-image's sample images: `make page`."""

from pathlib import Path

import kshot
from demo import annotated_image
from kshot.io.files import save_image
from kshot.io.overlays import mask_image

FOLDER = Path(kshot.__file__).parent / "web" / "static" / "examples"

# Name of the example, and its annotation.
EXAMPLES = {"coins": "coins", "cat": "eye"}


def main() -> None:
    """Write an image and its mask for each example."""
    for name, annotation in EXAMPLES.items():
        image, mask = annotated_image(annotation)
        save_image(image, FOLDER / f"{name}.jpg")
        save_image(mask_image(mask), FOLDER / f"{name}_mask.png")


if __name__ == "__main__":
    main()
