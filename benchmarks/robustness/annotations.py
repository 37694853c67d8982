"""Invalid annotation files in JSON."""

import json
import math
from collections import Counter
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from benchmarks.robustness.isolated import Crashed, run_isolated
from benchmarks.robustness.rows import CannotRun, Outcome, Row
from benchmarks.robustness.samples import scene
from kshot.annotations.reader import read_annotations
from kshot.errors import KshotError

HEIGHT, WIDTH = 90, 120
"""Size of the annotated image."""

GIGABYTE = 2**30

NUMBERS = st.one_of(
    st.floats(-10, 130),
    st.integers(-10, 130),
    st.floats(),
    st.integers(),
    st.sampled_from([math.nan, math.inf, 1e300, -1e300, 10**400, 10**9]),
)
POINTS = st.lists(st.tuples(NUMBERS, NUMBERS), max_size=8)
CROSSING = st.lists(st.tuples(st.floats(0, WIDTH), st.floats(0, HEIGHT)), min_size=4, max_size=30)
"""Random points, whose polygons are nearly always self-intersecting."""

JUNK = st.recursive(
    st.one_of(st.none(), st.booleans(), NUMBERS, st.text(max_size=20)),
    lambda inner: st.one_of(
        st.lists(inner, max_size=4),
        st.dictionaries(st.sampled_from(["size", "counts", "points", "x"]), inner, max_size=3),
    ),
    max_leaves=10,
)
DEPTHS = st.sampled_from([10, 100, 400, 900, 3_000, 100_000])


@st.composite
def documents(draw: st.DrawFn) -> str:
    """Draw a COCO, LabelMe or Label Studio document with invalid outlines, values or nesting."""
    points = draw(st.one_of(CROSSING, POINTS))
    flat = [value for point in points for value in point]
    counts = draw(st.one_of(st.lists(st.integers(-5, HEIGHT * WIDTH), max_size=5), st.text(max_size=20)))
    outline = draw(st.sampled_from([[flat], {"size": [HEIGHT, WIDTH], "counts": counts}]))
    content = draw(st.sampled_from([_coco(outline), _labelme(points), _label_studio(points)]))
    if draw(st.integers(0, 2)) == 0:
        content = _with(content, draw(st.sampled_from(list(_places(content)))), draw(JUNK))
    text = json.dumps(content)
    if draw(st.integers(0, 9)) == 0:
        depth = draw(DEPTHS)
        number = draw(st.sampled_from([str(WIDTH), '"points"', '"segmentation"']))
        text = text.replace(number, "[" * depth + number + "]" * depth, 1)
    return text


def random_files(folder: Path, count: int = 1000) -> Outcome:
    """Read random files and rasterize their annotations."""
    scene(width=WIDTH, height=HEIGHT)[0].save(folder / "image.png")
    path, counts = folder / "annotations.json", Counter[str]()

    @settings(
        max_examples=count,
        derandomize=True,
        database=None,
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(documents())
    def read(text: str) -> None:
        path.write_text(text, errors="surrogatepass")
        counts[_what_happens(path)] += 1

    read()
    crashes = sum(number for what, number in counts.items() if what.startswith("traceback"))
    figure = (
        f"{counts.total():,} cases: {crashes} tracebacks, {counts['refused']} refused in one line, "
        f"{counts['read']} read"
    )
    return Outcome(figure, counts.total() >= count and not crashes)


def huge_file(folder: Path) -> Outcome:
    """Read a file of 1 GB with 0.5 GB of free memory."""
    path = folder / "huge.json"
    with path.open("wb") as file:
        file.write(b'{"images": [')
        file.truncate(GIGABYTE)  # a sparse file takes no disk space
    try:
        what = run_isolated(read_with_little_memory, path)
    except Crashed as error:
        what = str(error)
    return Outcome(f"{what} in one line" if what == "refused" else what, what == "refused")


def _what_happens(path: Path) -> str:
    """Read a file and rasterize all its annotations; return what happened."""
    try:
        for annotated in read_annotations(path).images:
            _, masks = annotated.read()
            if any(mask.shape != (HEIGHT, WIDTH) for mask in masks.values()):
                return "traceback: a mask of another size"
    except KshotError as error:
        return "refused" if "\n" not in str(error) else f"traceback: of several lines, {error}"
    except Exception as error:
        return f"traceback: {error!r}"
    return "read"


def read_with_little_memory(path: Path) -> str:
    """Read a file with memory for half of it. Raises CannotRun where memory cannot be limited."""
    held = Path("/proc/self/statm")
    if not held.exists():
        raise CannotRun("limiting memory needs /proc, which only Linux has")
    import resource  # not available on Windows

    limit = int(held.read_text().split()[0]) * resource.getpagesize() + GIGABYTE // 2
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    return _what_happens(path)


def _coco(outline: Any) -> dict[str, Any]:
    return {
        "images": [{"id": 1, "file_name": "image.png", "height": HEIGHT, "width": WIDTH}],
        "annotations": [{"id": 1, "image_id": 1, "category_id": 1, "segmentation": outline, "iscrowd": 0}],
        "categories": [{"id": 1, "name": "thing"}],
    }


def _labelme(points: list[tuple[Any, Any]]) -> dict[str, Any]:
    shape = {"label": "thing", "points": points, "shape_type": "polygon"}
    size = {"imageHeight": HEIGHT, "imageWidth": WIDTH}
    return {"version": "5.5.0", "shapes": [shape], "imagePath": "image.png", "imageData": None, **size}


def _label_studio(points: list[tuple[Any, Any]]) -> list[dict[str, Any]]:
    value = {"points": points, "polygonlabels": ["thing"]}
    size = {"original_width": WIDTH, "original_height": HEIGHT}
    region = {"type": "polygonlabels", "value": value, **size}
    return [{"data": {"image": "image.png"}, "annotations": [{"result": [region]}]}]


def _places(content: Any, at: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Return the paths to all parts of a document."""
    found = [at] if at else []
    if isinstance(content, dict | list):
        items = content.items() if isinstance(content, dict) else enumerate(content)
        for key, value in items:
            found += _places(value, (*at, key))
    return found


def _with(content: Any, at: tuple[Any, ...], junk: Any) -> Any:
    """Replace one part of a document."""
    if not at:
        return junk
    copy = content.copy() if isinstance(content, dict) else list(content)
    copy[at[0]] = _with(content[at[0]], at[1:], junk)
    return copy


ROWS = (
    Row(
        "annotations",
        "annotation JSON: polygons out of range or self-intersecting, NaN, deep nesting",
        "1,000 random cases, 0 tracebacks",
        random_files,
    ),
    Row("huge-json", "annotation JSON of 1 GB with 0.5 GB of free memory", "0 tracebacks", huge_file),
)
