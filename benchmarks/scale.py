"""Check that sharded, killed and resumed runs give the same masks as one run, and measure the cost per image.

    python benchmarks/scale.py [--count N] [--into docs/scale.md]

Run from the repository's root on an otherwise idle machine. N small images, cropped from scikit-image's, are
segmented by one process; by two shards in parallel; by two shards of which one is killed half-way and
resumed; and by Ray, of whose two workers one is killed. Each process has one thread. Then larger images are
segmented with each model's own settings. The cost of one image is that of a run, minus that of a run with
nothing to do.
"""

import hashlib
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
from harness import (
    RESULTS,
    insert_table,
    make_parser,
    markdown_table,
    provenance,
    read_json,
    write_json,
)
from PIL import Image
from skimage import data

from kshot.io.overlays import mask_image
from kshot.predict.outputs import Outputs
from kshot.predict.resume_log import RESUME_LOG_FILE
from kshot.predict.shards import WHOLE, Shard

RESULT = RESULTS / "scale.json"
SMALL, IMAGE_SIZE = (120, 160), 97
"""(Height, width) of the images of the compared runs, and the network's side in pixels."""
LARGE, COUNTS = (360, 480), {"prototype": 200, "two-pass": 24}
"""(Height, width) of the images whose cost is measured, and how many each model segments, at most N."""
MILLIONS = 10
KSHOT = [sys.executable, "-c", "from kshot.cli.main import main; main()"]


def main() -> None:
    """Measure if --count is given, and write the tables."""
    parser = make_parser(__doc__, into=True)
    parser.add_argument("--count", type=int, metavar="N", help="number of images; measures again")
    given = parser.parse_args()
    if given.count is not None:
        with tempfile.TemporaryDirectory() as folder:
            os.environ |= {"OMP_NUM_THREADS": "1", "RAY_DEDUP_LOGS": "0"}
            write_json(measure(Path(folder), given.count), RESULT)
    insert_table(given.into, "table-scale", tables(read_json(RESULT)))


def measure(folder: Path, count: int) -> dict[str, Any]:
    """Run everything in an empty folder."""
    found: dict[str, Any] = {
        "provenance": provenance("make scale"),
        "count": count,
        "size": SMALL,
        "image_size": IMAGE_SIZE,
    }
    write_images(folder / "small", count, SMALL)
    found["listing"] = list_images(folder / "small", folder / "listed")
    command = segment(folder / "small", "--image-size", str(IMAGE_SIZE))
    for name, run in (("one", one_process), ("two", two_shards), ("killed", killed_shard), ("ray", on_ray)):
        out = folder / name
        found[name] = run([*command, "--out", str(out)], out) | check(out)
        print(name, found[name], flush=True)
    found["costs"] = {model: cost_of(model, min(count, most), folder) for model, most in COUNTS.items()}
    return found


def write_images(folder: Path, count: int, size: tuple[int, int]) -> None:
    """Crop images from scikit-image's, and one of coins as the support image."""
    folder.mkdir()
    whole = [data.astronaut(), data.coffee(), data.rocket(), data.immunohistochemistry(), data.retina()]
    draw, (height, width) = np.random.default_rng(0), size
    for number in range(count):
        source = whole[number % len(whole)]
        top, left = (int(draw.integers(0, n - m + 1)) for n, m in zip(source.shape, size, strict=False))
        cut = Image.fromarray(source[top : top + height, left : left + width])
        cut.save(folder / f"{number:06}.jpg", quality=90)
    coins = data.coins()[:120, :160]
    Image.fromarray(coins).save(folder.parent / "coins.png")
    mask_image(coins > 120).save(folder.parent / "coins_mask.png")


def list_images(folder: Path, out: Path) -> dict[str, float]:
    """Measure processor seconds and bytes of memory per image for listing the images."""
    start = time.process_time()
    number = len(Outputs.from_paths([folder], out).queries)
    seconds = time.process_time() - start
    tracemalloc.start()
    Outputs.from_paths([folder], out)
    size = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return {"seconds": seconds / number, "bytes": size / number}


def segment(images: Path, *options: str) -> list[str]:
    """Return the command without its output folder."""
    support = [str(images.parent / name) for name in ("coins.png", "coins_mask.png")]
    return [*KSHOT, "segment", "--device", "cpu", "--support", *support, *options, str(images)]


def start(command: list[str]) -> subprocess.Popen[str]:
    """Start a process and discard its output."""
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, text=True)


def finish(process: subprocess.Popen[str], status: int = 0) -> float:
    """Wait for a process that must end with `status`; return its processor seconds."""
    _, ended, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(ended)
    assert process.returncode == status, process.args
    return usage.ru_utime + usage.ru_stime


def one_process(command: list[str], out: Path) -> dict[str, Any]:
    """Segment all in one process."""
    finish(start(command))
    return {"images_a_second": rate(out)}


def two_shards(command: list[str], out: Path) -> dict[str, Any]:
    """Segment all with two shards in parallel."""
    for process in [start([*command, "--shard", f"{number}/2"]) for number in (1, 2)]:
        finish(process)
    return {"images_a_second": rate(out)}


def rate(out: Path) -> float:
    """Return the masks written per second, from the first to the last."""
    times = [mask.stat().st_mtime for mask in out.rglob("*_mask.png")]
    return (len(times) - 1) / (max(times) - min(times))


def killed_shard(command: list[str], out: Path) -> dict[str, Any]:
    """Kill one of two shards half-way, and run its command again after the other is done."""
    total = sum(Shard(2, 2).takes(Path(path.stem)) for path in Path(command[-3]).iterdir())
    commands = [[*command, "--shard", f"{number}/2"] for number in (1, 2)]
    other, killed = map(start, commands)
    while len(records_of(out, Shard(2, 2))) < total // 2:
        assert killed.poll() is None
        time.sleep(0.005)
    killed.kill()
    finish(killed, -signal.SIGKILL)
    finish(other)
    before, killed_at = written(out), len(records_of(out, Shard(2, 2)))
    finish(start(commands[1]))
    return {"killed_at": killed_at, "of": total, "kept": kept(out, before)}


def on_ray(command: list[str], out: Path) -> dict[str, Any]:
    """Segment two shards with Ray, and kill one of its workers half-way."""
    found: dict[str, Any] = {}
    running = subprocess.Popen(
        [*command, "--ray", "2"], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )
    assert running.stdout is not None
    for line in running.stdout:
        progress = re.search(r"pid=(\d+)\S* (\d+)/(\d+) ", line)
        if progress and not found and int(progress[2]) >= int(progress[3]) // 2:
            os.kill(int(progress[1]), signal.SIGKILL)
            before = written(out)
            found = {"killed_at": int(progress[2]), "of": int(progress[3])}
    finish(running)
    return found | {"kept": kept(out, before)}


def records_of(out: Path, shard: Shard) -> list[dict[str, Any]]:
    """Return the records of a shard's resume log, without an unfinished last line."""
    path = out / shard.named(RESUME_LOG_FILE)
    lines = path.read_text().splitlines(keepends=True) if path.exists() else []
    return [json.loads(line) for line in lines if line.endswith("}\n")]


def all_records(out: Path) -> list[dict[str, Any]]:
    """Return all records of a folder."""
    return [one for shard in (WHOLE, Shard(1, 2), Shard(2, 2)) for one in records_of(out, shard)]


def written(out: Path) -> dict[str, int]:
    """Return the inode of each finished mask, which changes if the mask is written again."""
    return {one["results"]: (out / f"{one['results']}_mask.png").stat().st_ino for one in all_records(out)}


def kept(out: Path, before: dict[str, int]) -> bool:
    """Check that the masks that were finished before are still the same files."""
    after = written(out)
    return all(after[name] == number for name, number in before.items())


def check(out: Path) -> dict[str, Any]:
    """Return a digest of all masks, and counts of masks, repeated records and leftover files."""
    masks = sorted(out.rglob("*_mask.png"))
    digest = hashlib.sha256()
    for mask in masks:
        digest.update(mask.relative_to(out).as_posix().encode() + b"\0" + mask.read_bytes())
    names = [one["results"] for one in all_records(out)]
    return {
        "masks": len(masks),
        "sha256": digest.hexdigest(),
        "done_twice": len(names) - len(set(names)),
        "left_over": len(list(out.glob(".kshot-*"))),
    }


def cost_of(model: str, number: int, folder: Path) -> dict[str, Any]:
    """Measure the cost of one larger image with a model's own settings."""
    place, out = folder / f"large-{model}", folder / f"out-{model}"
    write_images(place, number, LARGE)
    command = [*segment(place, "--model", model), "--out", str(out)]
    run, again = finish(start(command)), finish(start(command))

    def size(paths: Any) -> float:
        return sum(path.stat().st_size for path in paths) / number

    lines = [len(json.dumps(one)) + 1 for one in all_records(out) if one["row"] is None]
    found = {
        "count": number,
        "size": LARGE,
        "image_size": json.loads((out / "settings.json").read_text())["image_size"],
        "cpu": (run - again) / number,
        "start": again,
        "photograph": size(place.iterdir()),
        "mask": size(out.glob("*_mask.png")),
        "overlay": size(out.glob("*_overlay.png")),
        "journal": sum(lines) / max(1, len(lines)),
    }
    print(model, found, flush=True)
    return found


def tables(found: dict[str, Any]) -> str:
    """Return the result as two tables."""
    return f"{table_of_runs(found)}\n\n{table_of_costs(found)}"


def table_of_runs(found: dict[str, Any]) -> str:
    """Return the table of the compared runs."""
    count, (height, width) = found["count"], found["size"]
    rows = []
    for name, text in (
        ("one", "one process"),
        ("two", "two shards in parallel"),
        ("killed", "two shards, one killed at {killed_at} of its {of} images and resumed"),
        ("ray", "Ray, two shards, a worker killed at {killed_at} of its {of} images"),
    ):
        run = found[name]
        speed = f"{run['images_a_second']:.1f}" if "images_a_second" in run else ""
        digest = f"`{run['sha256'][:16]}…`"
        rows.append((text.format(**run), digest, f"{run['masks']:,}", run["done_twice"], speed))
    header = ("run", "sha256 of all masks", "masks", "done twice", "images per second")
    return (
        f"{markdown_table(header, rows, words=2)}\n\n"
        f"{count:,} images of {width} x {height} pixels, `prototype` at {found['image_size']} px, one thread "
        f"per process, on {found['provenance']['machine']}. Images per second: first mask to last."
    )


def table_of_costs(found: dict[str, Any]) -> str:
    """Return the table of the cost of ten million images, with its arithmetic."""
    number = MILLIONS * 1_000_000
    rows = []
    for model, cost in found["costs"].items():
        hours = number * cost["cpu"] / 3600
        name, each = f"processor, `{model}` at {cost['image_size']} px", f"{cost['cpu']:.3f} s"
        rows.append((name, each, f"{number:,} x {each} / 3,600 = {hours:,.0f} hours"))
    first = found["costs"]["prototype"]
    for kind, text in (
        ("photograph", "image, JPEG"),
        ("mask", "mask"),
        ("overlay", "overlay"),
        ("journal", "line in `done.jsonl`"),
    ):
        size, total = first[kind], number * first[kind] / 1e9
        rows.append((text, f"{size:,.0f} B", f"{number:,} x {size:,.0f} B = {total:,.0f} GB"))
    listing, (height, width) = found["listing"], first["size"]
    minutes, gigabytes = number * listing["seconds"] / 60, number * listing["bytes"] / 1e9
    return (
        f"{markdown_table(('', 'one image', 'ten million'), rows, words=1)}\n\n"
        f"{first['count']} images of {width} x {height} pixels, sizes with `prototype`. Starting a shard "
        f"takes another {first['start']:.0f} s of processor time and lists all images of the run: "
        f"{1e6 * listing['seconds']:.0f} µs and {listing['bytes']:,.0f} B for each, so {minutes:.0f} minutes "
        f"and {gigabytes:.0f} GB of memory for ten million."
    )


if __name__ == "__main__":
    main()
