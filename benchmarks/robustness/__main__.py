"""Measure how kshot handles broken files, full disks and killed processes: `make robustness`.

    python -m benchmarks.robustness [NAME ...] [--into docs/robustness.md]

Run it from the repository's root. Each row of the table is measured in its own temporary folder. With names,
only those rows are measured, and the others keep their earlier results. Exit status: 0 if all rows that could
be measured are met, else 1.
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
    fuzzing,
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
from benchmarks.robustness.rows import CannotRun, Outcome, Row, table
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
    fuzzing,
    weights,
    disk,
    interruptions,
    processes,
    server_uploads,
    server_security,
    server_load,
    seeds,
)
"""In the order of the table. Add new modules here; each defines its ROWS."""

ROWS = {row.name: row for module in MODULES for row in module.ROWS}


def main() -> None:
    """Measure the chosen rows and write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"default all: {', '.join(ROWS)}")
    parser.add_argument("--into", type=Path, help="Put the table between its markers in this document")
    arguments = parser.parse_args()
    if unknown := set(arguments.names) - set(ROWS):
        parser.error(f"No row '{min(unknown)}'. Choose from {', '.join(ROWS)}.")
    results: dict[str, Any] = json.loads(RESULT.read_text()) if RESULT.exists() else {}
    for name in arguments.names or ROWS:
        results[name] = run(ROWS[name])
        print(f"{name}: {results[name]['figure']}", flush=True)
        results = {name: results[name] for name in ROWS if name in results}
        write_text(json.dumps(results, indent=1) + "\n", RESULT)
    if arguments.into is not None:
        text = insert_between(arguments.into.read_text(), "table-robustness", table(results.values()))
        write_text(text, arguments.into)
    sys.exit(any(one["is_met"] is False for one in results.values()))


def run(row: Row) -> dict[str, Any]:
    """Measure a row in its own folder. An unexpected error counts as not met and does not stop the others."""
    start, provenance = time.monotonic(), record_provenance([])
    with tempfile.TemporaryDirectory(prefix="kshot-robustness-") as folder:
        try:
            outcome = row.measure(Path(folder))
        except CannotRun as reason:
            outcome = Outcome(f"not run: {reason}", None)
        except Exception as error:
            traceback.print_exc()
            outcome = Outcome(f"error: {type(error).__name__}", False)
    provenance = provenance.model_copy(update={"command": "make robustness"}).with_duration(
        time.monotonic() - start
    )
    measured = {
        "case": row.case,
        "expected": row.expected,
        "figure": outcome.figure,
        "is_met": outcome.is_met,
    }
    return measured | {"provenance": provenance.model_dump()}


if __name__ == "__main__":
    main()
