"""Make the picture of docs/failures.md: `make pictures`.

    python demo/failures.py PICTURE

Five failures of the network that ships.
"""

import sys
from pathlib import Path

from demo import photograph, segmented
from kshot import Segmenter
from kshot.io.files import save_image
from kshot.io.overlays import contact_sheet

FAILURES = {
    "eye": "chelsea",
    "coins": "coins",
    "rocket": "rocket",
    "gland": "immunohistochemistry",
    "motorcycle": "coffee",
}
"""What is labelled, and the photograph in which it is looked for."""


def main(picture: Path) -> None:
    """Show each with both passes."""
    segmenter = Segmenter.from_pretrained("two-pass")
    found = [segmented(segmenter, name, photograph(query)) for name, query in FAILURES.items()]
    save_image(contact_sheet([row for _, row in found]), picture)
    print(f"Look at {picture}")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
