"""Five failures of the network that ships, for docs/failures.md: `make pictures`.

python demo/failures.py PICTURE
"""

import sys
from pathlib import Path

from demo import annotated, photograph
from kshot import Segmenter
from kshot.batch import sheet_row
from kshot.pictures import contact_sheet, overlay, save_picture

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
    rows = []
    for name, query_name in FAILURES.items():
        support, mask = annotated(name)
        query = photograph(query_name)
        explanation = segmenter.fit(support, mask).explain(query)
        rows.append(sheet_row(overlay(support, mask), query, explanation))
    save_picture(contact_sheet(rows), picture)
    print(f"Look at {picture}")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
