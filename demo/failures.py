"""Draw the image of docs/failures.md: `make pictures`.

    python demo/failures.py FILE

Five failures of the shipped two-pass model.
"""

import sys
from pathlib import Path

from demo import sample_image, segment
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
"""The labelled object, and the image in which it is segmented."""


def main(out: Path) -> None:
    """Draw each with both passes."""
    segmenter = Segmenter.from_pretrained("two-pass")
    found = [segment(segmenter, name, sample_image(query)) for name, query in FAILURES.items()]
    save_image(contact_sheet([row for _, row in found]), out)
    print(f"Wrote {out}")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
