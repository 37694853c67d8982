"""Train the two-pass method from random weights and compare it with prototypes: `make train-demo`.

    python demo/train_demo.py [--voc DIR] [--out DIR]

It takes minutes. Without VOC, the data are synthetic: blobs cropped from scikit-image's sample images are
pasted onto other ones. The class of a blob is the image that it was cropped from; clutter has no class. Both
methods are evaluated on five classes that were not trained on. This is not a benchmark, but has every step of
a real training. With VOC 2012 it is a short training on PASCAL-5i's fold 0, evaluated on the held-out
classes: cats, horses and sofas.
"""

import argparse
import shutil
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageEnhance, ImageFilter
from skimage import data

from kshot.cli.main import main as kshot

BASE = (
    "brick",
    "gravel",
    "coffee",
    "retina",
    "immunohistochemistry",
    "text",
    "coins",
    "rocket",
    "page",
    "cell",
)
CLUTTER = ("camera", "moon", "clock", "colorwheel")
NOVEL = ("grass", "chelsea", "astronaut", "hubble_deep_field", "motorcycle")
NUM_IMAGES = {"base": 200, "novel": 100}
SIDE, OBJECTS, CLUTTERING = 192, 2, 2
SMALL = ("--set", "backbone=efficientnet_lite0", "--device", "cpu")


def settings(*pairs: str) -> list[str]:
    """Return the options of a command that change settings, given as NAME=VALUE."""
    return [option for pair in pairs for option in ("--set", pair)]


def main(out: Path, voc: Path | None) -> None:
    """Pretrain, train, and evaluate both methods on classes that were not trained on."""
    shutil.rmtree(out, ignore_errors=True)
    if voc is None:
        trained_on, tested_on = write_pasted(out)
        chosen, phases = (
            settings("exclude_holdout=false", "num_val_images=20"),
            settings("phases.0.epochs=3", "phases.1.epochs=1"),
        )
        selected = settings("select_on=null")
    else:
        trained_on, tested_on = read_voc(out, voc)
        chosen = settings("exclude_holdout=true")
        phases = settings("phases.0.epochs=1.5", "phases.1.epochs=0.25")
        selected = settings("select_on=base")
    learner, model = out / "base_learner", out / "two-pass"
    run("pretrain", "--out", learner, *settings("crop=129"), *phases, *chosen, *trained_on, *SMALL)
    options = ["--base-learner", learner, *settings("sharpen_mask=true", "sizes=600@129"), *selected]
    options += settings(f"cache={out / 'features'}", "validate_episodes=60")
    run("train", "--out", model, *options, *trained_on, *SMALL)
    for name, more in (("prototype", ()), (model, ())):
        result = out / f"{Path(name).name}.json"
        run("evaluate", "--model", name, *tested_on, *more, *settings("image_size=129"), "--json", result)
    run("compare", out / "prototype.json", out / "two-pass.json")
    print(f"The curves are in {model / 'curves.png'}")


def read_voc(out: Path, voc: Path) -> tuple[list[str], list[str]]:
    """Draw episodes of the held-out classes; return the options to train and to evaluate."""
    manifest = str(out / "held_out.json")
    places = ["--data", "pascal", "--root", str(voc)]
    drawn = ["--holdout", "--protocol", "balanced", "--episodes", "300", "--root", str(voc)]
    run("episodes", "--data", "pascal", *drawn, "--seed", "1", "--out", manifest)
    return places, [*places, "--manifest", manifest]


def write_pasted(out: Path) -> tuple[list[str], list[str]]:
    """Write images of base and of novel classes; return the options to train and to evaluate."""
    images = {name: sample_image(name) for name in (*BASE, *NOVEL, *CLUTTER)}
    for part, names in (("base", BASE), ("novel", NOVEL)):
        random = np.random.default_rng(len(part))
        for folder in ("images", "masks"):
            (out / part / folder).mkdir(parents=True)
        (out / part / "classes.txt").write_text("\n".join(names) + "\n")
        for number in range(NUM_IMAGES[part]):
            classes, clutter = ([images[n] for n in chosen] for chosen in (names, CLUTTER))
            image, labels = paste(random, classes, clutter)
            image.save(out / part / "images" / f"{number:03}.png")
            labels.save(out / part / "masks" / f"{number:03}.png")
    episodes = ["--protocol", "balanced", "--episodes", "300", *settings("seeds=0")]
    return ["--data", str(out / "base")], ["--data", str(out / "novel"), *episodes]


def paste(
    random: np.random.Generator, classes: list[Image.Image], clutter: list[Image.Image]
) -> tuple[Image.Image, Image.Image]:
    """Paste blobs of clutter and of some classes onto clutter; return the image and its class numbers."""

    def any_clutter() -> Image.Image:
        return crop(random, clutter[random.integers(len(clutter))])

    image, labels = any_clutter().filter(ImageFilter.GaussianBlur(3)), Image.new("L", (SIDE, SIDE))
    for _ in range(CLUTTERING):
        image.paste(any_clutter(), mask=draw_blob(random))
    for class_id in random.choice(len(classes), OBJECTS, replace=False):
        blob = draw_blob(random)
        image.paste(crop(random, classes[class_id]), mask=blob)
        labels.paste(int(class_id) + 1, mask=blob)
    return image, labels


def crop(random: np.random.Generator, image: Image.Image) -> Image.Image:
    """Crop a random square, rotated, with random brightness and saturation."""
    side = int(min(image.size) * random.uniform(0.4, 0.9))
    left, top = (int(random.integers(length - side + 1)) for length in image.size)
    square = image.crop((left, top, left + side, top + side)).resize((SIDE, SIDE))
    square = ImageEnhance.Brightness(square.rotate(90 * int(random.integers(4)))).enhance(
        random.uniform(0.6, 1.4)
    )
    return ImageEnhance.Color(square).enhance(random.uniform(0.0, 1.5))


def draw_blob(random: np.random.Generator) -> Image.Image:
    """Draw the mask of a smooth random blob."""
    angles = np.linspace(0, 2 * np.pi, 40, endpoint=False)
    radii = random.uniform(0.12, 0.24) * SIDE * np.ones_like(angles)
    for wave in (2, 3, 5):
        radii *= 1 + random.uniform(0, 0.25) * np.sin(wave * angles + random.uniform(0, 2 * np.pi))
    x, y = random.uniform(0.2, 0.8, 2) * SIDE
    blob = Image.new("1", (SIDE, SIDE))
    outline = zip(x + radii * np.cos(angles), y + radii * np.sin(angles), strict=True)
    ImageDraw.Draw(blob).polygon([(float(a), float(b)) for a, b in outline], fill=1)
    return blob


def sample_image(name: str) -> Image.Image:
    """Return one of scikit-image's sample images, in RGB."""
    pixels = data.stereo_motorcycle()[0] if name == "motorcycle" else getattr(data, name)()
    return Image.fromarray(pixels).convert("RGB")


def run(*arguments: object) -> None:
    """Run a kshot command; exit if it fails."""
    print("\nkshot", *arguments, flush=True)
    try:
        kshot([str(argument) for argument in arguments])
    except SystemExit as done:
        if done.code:
            raise


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Train the two-pass method in minutes.")
    parser.add_argument("--voc", type=Path, help="folder VOC2012, to train on real images")
    parser.add_argument("--out", type=Path, default=Path("runs/train-demo"))
    arguments = parser.parse_args()
    main(arguments.out, arguments.voc)
