"""Is a run that is shared out, killed and begun again the same as one run? And what do many images cost?

    python benchmarks/scale.py [--count N] [--into docs/scale.md]

Run it from the repository's root; nothing else may run meanwhile. N small photographs, cut out of
scikit-image's, are segmented by one process, by two shards at once, by two of which one is killed half-way
and begun again, and by Ray, of whose two workers one is killed. Each process has one thread. Then larger ones
are segmented with each model's own settings, for the cost of one: that of a run, less that of the same run
with nothing to do.
"""

import argparse
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
from PIL import Image
from skimage import data

from kshot.io.files import write_text
from kshot.io.overlays import mask_image
from kshot.io.provenance import record_provenance
from kshot.predict.outputs import Outputs
from kshot.predict.resume_log import JOURNAL_FILE
from kshot.predict.shards import WHOLE, Shard
from kshot.reproduction.table_writers import insert_between

RESULT = Path("benchmarks/results/scale.json")
SMALL, IMAGE_SIZE = (120, 160), 97
"""(Height, width) of the photographs of the runs that are compared, and the network's side in pixels."""
LARGE, COUNTS = (360, 480), {"prototype": 200, "two-pass": 24}
"""(Height, width) of the photographs whose cost is measured, and how many each model segments, at most N."""
MILLIONS = 10
KSHOT = [sys.executable, "-c", "from kshot.cli.main import main; main()"]


def main() -> None:
    """Measure, if a number of photographs is given, and write the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--count", type=int, help="photographs; measures anew")
    parser.add_argument("--into", type=Path)
    given = parser.parse_args()
    if given.count is not None:
        with tempfile.TemporaryDirectory() as folder:
            os.environ |= {"OMP_NUM_THREADS": "1", "RAY_DEDUP_LOGS": "0"}
            write_text(json.dumps(measure(Path(folder), given.count), indent=1) + "\n", RESULT)
    if given.into is not None:
        text = insert_between(given.into.read_text(), "table-scale", tables(json.loads(RESULT.read_text())))
        write_text(text, given.into)


def measure(folder: Path, count: int) -> dict[str, Any]:
    """Run all; `folder` is empty."""
    found: dict[str, Any] = {
        "provenance": record_provenance([]).model_dump() | {"command": "make scale"},
        "count": count,
        "size": SMALL,
        "image_size": IMAGE_SIZE,
    }
    write_photographs(folder / "small", count, SMALL)
    found["listing"] = list_photographs(folder / "small", folder / "listed")
    command = segment(folder / "small", "--image-size", str(IMAGE_SIZE))
    for name, run in (("one", one_process), ("two", two_shards), ("killed", killed_shard), ("ray", on_ray)):
        out = folder / name
        found[name] = run([*command, "--out", str(out)], out) | check(out)
        print(name, found[name], flush=True)
    found["costs"] = {model: cost_of(model, min(count, most), folder) for model, most in COUNTS.items()}
    return found


def write_photographs(folder: Path, count: int, size: tuple[int, int]) -> None:
    """Cut photographs out of scikit-image's, and one with coins for a support."""
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


def list_photographs(folder: Path, out: Path) -> dict[str, float]:
    """Measure what it takes to list a photograph: seconds of a processor, and bytes of memory."""
    start = time.process_time()
    number = len(Outputs.plan([folder], out).queries)
    seconds = time.process_time() - start
    tracemalloc.start()
    Outputs.plan([folder], out)
    size = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return {"seconds": seconds / number, "bytes": size / number}


def segment(photographs: Path, *options: str) -> list[str]:
    """Give the command, but for its results' folder."""
    support = [str(photographs.parent / name) for name in ("coins.png", "coins_mask.png")]
    return [*KSHOT, "segment", "--device", "cpu", "--support", *support, *options, str(photographs)]


def start(command: list[str]) -> subprocess.Popen[str]:
    """Start a process; nobody listens to it."""
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, text=True)


def finish(process: subprocess.Popen[str], status: int = 0) -> float:
    """Wait for a process; return the processor's seconds that it took. It must have ended with `status`."""
    _, ended, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(ended)
    assert process.returncode == status, process.args
    return usage.ru_utime + usage.ru_stime


def one_process(command: list[str], out: Path) -> dict[str, Any]:
    """Segment all in one process."""
    finish(start(command))
    return {"images_a_second": rate(out)}


def two_shards(command: list[str], out: Path) -> dict[str, Any]:
    """Segment all with two shards at once."""
    for process in [start([*command, "--shard", f"{number}/2"]) for number in (1, 2)]:
        finish(process)
    return {"images_a_second": rate(out)}


def rate(out: Path) -> float:
    """Give the masks that were written in a second, from the first to the last."""
    times = [mask.stat().st_mtime for mask in out.rglob("*_mask.png")]
    return (len(times) - 1) / (max(times) - min(times))


def killed_shard(command: list[str], out: Path) -> dict[str, Any]:
    """Kill one of two shards half-way, and run its command again when the other is done."""
    total = sum(Shard(2, 2).takes(Path(photograph.stem)) for photograph in Path(command[-3]).iterdir())
    commands = [[*command, "--shard", f"{number}/2"] for number in (1, 2)]
    other, killed = map(start, commands)
    while len(journal(out, Shard(2, 2))) < total // 2:
        assert killed.poll() is None
        time.sleep(0.005)
    killed.kill()
    finish(killed, -signal.SIGKILL)
    finish(other)
    before, killed_at = written(out), len(journal(out, Shard(2, 2)))
    finish(start(commands[1]))
    return {"killed_at": killed_at, "of": total, "kept": kept(out, before)}


def on_ray(command: list[str], out: Path) -> dict[str, Any]:
    """Let Ray segment two shares, and kill one of its workers half-way."""
    found: dict[str, Any] = {}
    running = subprocess.Popen(
        [*command, "--ray", "2"], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )
    assert running.stdout is not None
    for line in running.stdout:
        told = re.search(r"pid=(\d+)\S* (\d+)/(\d+) ", line)
        if told and not found and int(told[2]) >= int(told[3]) // 2:
            os.kill(int(told[1]), signal.SIGKILL)
            before = written(out)
            found = {"killed_at": int(told[2]), "of": int(told[3])}
    finish(running)
    return found | {"kept": kept(out, before)}


def journal(out: Path, shard: Shard) -> list[dict[str, Any]]:
    """Give a shard's records; half a line, of a process that was killed or is at work, is none."""
    path = out / shard.named(JOURNAL_FILE)
    lines = path.read_text().splitlines(keepends=True) if path.exists() else []
    return [json.loads(line) for line in lines if line.endswith("}\n")]


def journals(out: Path) -> list[dict[str, Any]]:
    """Give all records of a folder."""
    return [one for shard in (WHOLE, Shard(1, 2), Shard(2, 2)) for one in journal(out, shard)]


def written(out: Path) -> dict[str, int]:
    """Say which file each mask is that is done: another one of its name has another number."""
    return {one["results"]: (out / f"{one['results']}_mask.png").stat().st_ino for one in journals(out)}


def kept(out: Path, before: dict[str, int]) -> bool:
    """Say whether the masks that were done before are the same files."""
    after = written(out)
    return all(after[name] == number for name, number in before.items())


def check(out: Path) -> dict[str, Any]:
    """Digest all masks, and count them and what the journals say."""
    masks = sorted(out.rglob("*_mask.png"))
    digest = hashlib.sha256()
    for mask in masks:
        digest.update(mask.relative_to(out).as_posix().encode() + b"\0" + mask.read_bytes())
    names = [one["results"] for one in journals(out)]
    return {
        "masks": len(masks),
        "sha256": digest.hexdigest(),
        "done_twice": len(names) - len(set(names)),
        "left_over": len(list(out.glob(".kshot-*"))),
    }


def cost_of(model: str, number: int, folder: Path) -> dict[str, Any]:
    """Measure what one larger photograph costs with a model's own settings."""
    place, out = folder / f"large-{model}", folder / f"out-{model}"
    write_photographs(place, number, LARGE)
    command = [*segment(place, "--model", model), "--out", str(out)]
    run, again = finish(start(command)), finish(start(command))

    def size(paths: Any) -> float:
        return sum(path.stat().st_size for path in paths) / number

    lines = [len(json.dumps(one)) + 1 for one in journals(out) if one["row"] is None]
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
    """Write the result as two tables, with the arithmetic of the second."""
    return "\n".join([*table_of_runs(found), "", *table_of_costs(found)])


def table_of_runs(found: dict[str, Any]) -> list[str]:
    """Write what the runs gave."""
    count, (height, width) = found["count"], found["size"]
    lines = [
        "| run | masks | done twice | sha256 of all masks | images a second |",
        "|---|---:|---:|---|---:|",
    ]
    for name, text in (
        ("one", "one process"),
        ("two", "two shards at once"),
        ("killed", "two shards, one killed at {killed_at} of its {of} images and begun again"),
        ("ray", "Ray, two shares, a worker killed at {killed_at} of its {of} images"),
    ):
        run = found[name]
        speed = f"{run['images_a_second']:.1f}" if "images_a_second" in run else ""
        counts = f"{run['masks']:,} | {run['done_twice']}"
        lines.append(f"| {text.format(**run)} | {counts} | `{run['sha256'][:16]}…` | {speed} |")
    return [
        *lines,
        "",
        f"{count:,} photographs of {width} x {height} pixels, `prototype` at {found['image_size']} px, each "
        f"process with one thread on {found['provenance']['machine']}. Images a second are those between the "
        "first mask and the last.",
    ]


def table_of_costs(found: dict[str, Any]) -> list[str]:
    """Write what ten million photographs cost."""
    number = MILLIONS * 1_000_000
    lines = ["| | one photograph | ten million |", "|---|---:|---:|"]
    for model, cost in found["costs"].items():
        hours = number * cost["cpu"] / 3600
        lines.append(
            f"| processor, `{model}` at {cost['image_size']} px | {cost['cpu']:.3f} s | {number:,} x "
            f"{cost['cpu']:.3f} s / 3,600 = {hours:,.0f} hours |"
        )
    first = found["costs"]["prototype"]
    for kind, text in (
        ("photograph", "the photograph, JPEG"),
        ("mask", "its mask"),
        ("overlay", "its overlay"),
        ("journal", "its line in `done.jsonl`"),
    ):
        size, total = first[kind], number * first[kind] / 1e9
        lines.append(f"| {text} | {size:,.0f} B | {number:,} x {size:,.0f} B = {total:,.0f} GB |")
    listing, (height, width) = found["listing"], first["size"]
    minutes, gigabytes = number * listing["seconds"] / 60, number * listing["bytes"] / 1e9
    return [
        *lines,
        "",
        f"{first['count']} photographs of {width} x {height} pixels, sizes with `prototype`. Each start of a "
        f"shard takes {first['start']:.0f} s of a processor besides, and lists all photographs of the run: "
        f"{1e6 * listing['seconds']:.0f} µs and {listing['bytes']:,.0f} B for each, so {minutes:.0f} minutes "
        f"and {gigabytes:.0f} GB of memory for ten million.",
    ]


if __name__ == "__main__":
    main()
