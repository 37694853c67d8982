"""Train the shipped models on a GPU that is available for minutes: shrink the images, train, keep weights.

    python benchmarks/gpu.py pack --voc DIR --coco-mini DIR --clothing DIR --out gpu-data
    python benchmarks/gpu.py run --data gpu-data --out runs/gpu --minutes 9 [--workers 14]

Run from the repository's root. `pack` writes all images with a longer side of at most 321 px, less than 60 MB
in total. `run` trains a base learner, then `two-pass-general` with it; a short trial of each determines how
many steps fit into the time. Keep all of --out except for the checkpoints.
"""

import argparse
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

from harness import kshot, settings
from PIL import Image

from kshot.io.images import read_image

LONG_SIDE = 321
QUALITY = 80
SHARES = {"base": 0.3, "general": 0.6}
"""Shares of the time; the rest is for loading, validation and the trials."""
TRIAL_STEPS = 30
BATCH = "16"


def main() -> None:
    """Pack, or train."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    verbs = parser.add_subparsers(dest="verb", required=True)
    packing = verbs.add_parser("pack")
    for name in ("voc", "coco-mini", "clothing", "out"):
        packing.add_argument(f"--{name}", type=Path, required=True)
    running = verbs.add_parser("run")
    running.add_argument("--data", type=Path, required=True)
    running.add_argument("--out", type=Path, required=True)
    running.add_argument("--minutes", type=float, default=9.0)
    running.add_argument("--workers", type=int, default=14)
    given = parser.parse_args()
    if given.verb == "pack":
        for name in ("voc", "coco_mini", "clothing"):
            pack(getattr(given, name), given.out / name)
        size = sum(file.stat().st_size for file in given.out.rglob("*") if file.is_file())
        print(f"{size / 2**20:.1f} MiB in {given.out}")
    else:
        run(given.data, given.out, given.minutes, given.workers)


def pack(source: Path, target: Path) -> None:
    """Copy a data set with smaller images; masks are resized by nearest neighbour and keep their values."""
    for file in sorted(path for path in source.rglob("*") if path.is_file()):
        place = target / file.relative_to(source)
        place.parent.mkdir(parents=True, exist_ok=True)
        if file.suffix == ".png":
            with Image.open(file) as mask:
                shrink(mask, Image.Resampling.NEAREST).save(place, optimize=True)
        elif file.suffix in (".jpg", ".jpeg"):
            shrink(read_image(file), Image.Resampling.LANCZOS).save(place, quality=QUALITY)
        elif file.stat().st_size < 2**20:  # class lists, not annotations at the original size
            shutil.copy(file, place)


def shrink(image: Image.Image, how: Image.Resampling) -> Image.Image:
    """Shrink an image so that its longer side is at most LONG_SIDE."""
    factor = min(1.0, LONG_SIDE / max(image.size))
    return image.resize((round(image.width * factor), round(image.height * factor)), how)


def run(data: Path, out: Path, minutes: float, workers: int) -> None:
    """Train both parts, each for its share of the time."""
    machine = settings("precision=auto", f"workers={workers}", f"batch={BATCH}")
    common = ["--root", str(data / "voc"), *machine]
    learner = [*common, "--recipe", "lite-two-pass", "--start-from", "two-pass"]
    images = len(list((data / "voc" / "JPEGImages").iterdir()))

    def base(steps: int, folder: Path) -> list[str]:
        epochs = settings(f"phases.0.epochs={steps * int(BATCH) / images}")
        return ["pretrain", *learner, *epochs, "--out", str(folder)]

    general = [*common, "--recipe", "lite-general", "--base-learner", str(out / "base")]
    general += ["--extra-data", f"coco-mini-60={data / 'coco_mini'}", "--extra-data", str(data / "clothing")]
    general += [*settings("select_on=null", "validate_episodes=50"), "--start-from", "two-pass-plus"]

    def meta(steps: int, folder: Path) -> list[str]:
        stages = settings(f"sizes={steps * 4 // 5}@257,{steps - steps * 4 // 5}@321")
        often = settings(f"validate_every={max(steps // 3, 1)}")
        return ["train", *general, *stages, *often, "--out", str(folder)]

    for name, command in (("base", base), ("general", meta)):
        kshot(*command(count_steps(command, 60 * minutes * SHARES[name]), out / name))


def count_steps(command: Callable[[int, Path], list[str]], seconds: float) -> int:
    """Return the number of steps that fit into the time, from a short trial."""
    with TemporaryDirectory() as folder:
        trial = Path(folder) / "trial"
        kshot(*command(TRIAL_STEPS, trial))
        log = [json.loads(line) for line in (trial / "log.jsonl").read_text().splitlines()]
        last = [entry for entry in log if "seconds_per_step" in entry][-1]
    return max(int(seconds / last["seconds_per_step"]), TRIAL_STEPS)


if __name__ == "__main__":
    main()
