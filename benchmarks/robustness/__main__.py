"""What kshot does on bad days. `make robustness`.

    python -m benchmarks.robustness [NAME ...] [--into docs/robustness.md]

Run it from the repository's root. Each row of the table is lived through anew, in a folder of its own that is
deleted afterwards; with names, only those rows are, and the others keep what they measured before. Exit
status: 0 if all rows that could be measured are met, else 1.
"""

import argparse
import json
import sys
import tempfile
import time
import traceback
from pathlib import Path
from typing import Any

from benchmarks.robustness import (
    annotations,
    bombs,
    broken_images,
    disk,
    file_names,
    image_modes,
    interruptions,
    masks,
    processes,
    seeds,
    server_load,
    server_security,
    server_uploads,
    sizes,
    weights,
)
from benchmarks.robustness.rows import CannotRun, Found, Row, table
from kshot.io.files import write_text
from kshot.io.provenance import record_provenance
from kshot.reproduction.table_writers import insert_between

RESULT = Path("benchmarks/results/robustness.json")

MODULES = (
    broken_images,
    image_modes,
    bombs,
    masks,
    sizes,
    file_names,
    annotations,
    weights,
    disk,
    interruptions,
    processes,
    server_uploads,
    server_security,
    server_load,
    seeds,
)
"""In the table's order. A further module needs its rows in ROWS, and a place here."""

ROWS = {row.name: row for module in MODULES for row in module.ROWS}


def main() -> None:
    """Measure the rows that are asked for, and write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"default all: {', '.join(ROWS)}")
    parser.add_argument("--into", type=Path, help="Put the table between its markers in this document")
    given = parser.parse_args()
    if unknown := set(given.names) - set(ROWS):
        parser.error(f"There is no row '{min(unknown)}'. Rows are {', '.join(ROWS)}.")
    found: dict[str, Any] = json.loads(RESULT.read_text()) if RESULT.exists() else {}
    for name in given.names or ROWS:
        found[name] = run(ROWS[name])
        print(f"{name}: {found[name]['figure']}", flush=True)
        found = {name: found[name] for name in ROWS if name in found}
        write_text(json.dumps(found, indent=1) + "\n", RESULT)
    if given.into is not None:
        text = insert_between(given.into.read_text(), "table-robustness", table(found.values()))
        write_text(text, given.into)
    sys.exit(any(one["is_met"] is False for one in found.values()))


def run(row: Row) -> dict[str, Any]:
    """Measure a row, in a folder of its own. One that breaks off is not met, and does not stop the others."""
    start, provenance = time.monotonic(), record_provenance([])
    with tempfile.TemporaryDirectory(prefix="kshot-robustness-") as folder:
        try:
            found = row.measure(Path(folder))
        except CannotRun as reason:
            found = Found(f"not run: {reason}", None)
        except Exception as error:
            traceback.print_exc()
            found = Found(f"broke off: {type(error).__name__}", False)
    provenance = provenance.model_copy(update={"command": "make robustness"}).after(time.monotonic() - start)
    told = {"case": row.case, "expected": row.expected, "figure": found.figure, "is_met": found.is_met}
    return told | {"provenance": provenance.model_dump()}


if __name__ == "__main__":
    main()
