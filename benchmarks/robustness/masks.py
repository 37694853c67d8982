"""Masks in all forms against an oracle, written from the rules of the README with numpy and Pillow only."""

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageFilter

from benchmarks.robustness.rows import Outcome, Row
from kshot.errors import MaskError
from kshot.io.images import read_label_map, read_mask
from kshot.models.losses import training_losses
from kshot.types import IGNORE_INDEX, Prediction

Values = NDArray[Any]
Size = tuple[int, int]

CLASSES = {"cup": 1, "plate": 2, "spoon": 40}

MAX_CLASS_NUMBER = 20
"""Largest class number beside which 255 is to be ignored, unless a palette shows its meaning."""

CONTENTS = (
    "one value",
    "one value and 255",
    "0 and 255",
    "two values",
    "two values and 255",
    "several classes",
    "empty",
    "all foreground",
    "all 255",
    "blurred",
)
FORMS = (
    "array",
    "tensor",
    "PIL image",
    "png",
    "palette png",
    "palette image",
    "bmp",
    "tif",
    "jpg",
    "16-bit png",
    "1-bit png",
    "bools",
    "RGB png",
    "RGBA png",
    "grey png with alpha",
)


class Drawn(NamedTuple):
    """A mask as given by a user. values: its intended values (H, W), of the type in which they are stored.

    palette: colours (256, 3) of a palette image.
    """

    source: Any
    values: Values
    palette: NDArray[Any] | None = None


def random_masks(folder: Path, count: int = 1000) -> Outcome:
    """Read random masks and compare with the oracle."""
    random, num_equal, refused = np.random.default_rng(0), 0, 0
    for index in range(count):
        size = (int(random.integers(1, 40)), int(random.integers(1, 40)))
        drawn = _draw(random, size, FORMS[index % len(FORMS)], folder)
        requested = size if random.random() < 0.85 else (size[1], size[0] + int(random.integers(2)))
        has_classes = random.random() < 0.3
        expected = _expected_labels(drawn, requested) if has_classes else _expected_mask(drawn, requested)
        try:
            found: Any = (
                read_label_map(drawn.source, requested, CLASSES)
                if has_classes
                else {"object": read_mask(drawn.source, requested)}
            )
        except MaskError:
            found = None
        num_equal += _is_equal(found, expected)
        refused += expected is None
    figure = f"{num_equal:,} of {count:,} cases equal to the oracle, which refuses {refused:,}"
    return Outcome(figure, num_equal == count)


def ignored_pixels(folder: Path, count: int = 100) -> Outcome:
    """Compute the gradient of each loss where the mask is 255."""
    torch.manual_seed(0)
    nonzero = dict.fromkeys(Prediction._fields[:5], 0)
    for _ in range(count):
        target = torch.randint(0, 2, (2, 12, 12))
        ignored = torch.rand(2, 12, 12) < 0.3
        target[ignored] = IGNORE_INDEX
        steps = {name: torch.randn(2, 2, 12, 12, requires_grad=True) for name in nonzero}
        sum(training_losses(Prediction(**steps), target).values()).backward()
        for name, logits in steps.items():
            assert logits.grad is not None
            nonzero[name] += bool((logits.grad.movedim(1, -1)[ignored] != 0).any())
    others = [name for name, times in nonzero.items() if times]
    figure = f"{count} masks: exactly 0 in {', '.join(sorted(set(nonzero) - set(others))) or 'no loss'}"
    return Outcome(f"{figure}; not in {', '.join(others)}" if others else figure, not others)


def _expected_mask(drawn: Drawn, size: Size) -> dict[str, Values] | None:
    """Return the expected mask; None for an error."""
    if drawn.values.shape != size:
        return None
    values = drawn.values
    found = np.unique(values).tolist()
    objects = [value for value in found if value != 0]
    if values.dtype == np.bool_:
        return {"object": values} if objects else None
    if not objects or 0 not in found or (len(objects) == 1 and _is_inverted(drawn.palette, objects[0])):
        return None
    is_deep = values.dtype.itemsize in (2, 4)
    if len(objects) == 2 and objects[1] == IGNORE_INDEX:
        first, has_palette = objects[0], drawn.palette is not None
        if first == 1 or (not is_deep and (has_palette or first <= MAX_CLASS_NUMBER)):
            objects = [first]
    if len(objects) > 1:
        return {"object": values > 0} if is_deep and _is_label_image(values, objects) else None
    return {"object": values == objects[0]}


def _is_inverted(palette: NDArray[Any] | None, value: int) -> bool:
    """Return whether a palette shows the object as a darker grey than the background."""
    if palette is None:
        return False
    background, shown = palette[0].tolist(), palette[value].tolist()
    return len({*background}) == len({*shown}) == 1 and background[0] > shown[0]


def _is_label_image(values: Values, objects: list[int]) -> bool:
    """Return whether the values of 16 or 32 bits are ids: no white, and mostly equal neighbours."""
    if objects[-1] == 2 ** (8 * values.dtype.itemsize) - 1 or (objects[-1] == 255 and 254 not in objects):
        return False
    pairs = [
        (one, other)
        for first, second in ((values[1:], values[:-1]), (values[:, 1:], values[:, :-1]))
        for one, other in zip(first.ravel().tolist(), second.ravel().tolist(), strict=True)
        if one and other
    ]
    return 2 * sum(one == other for one, other in pairs) >= len(pairs)


def _expected_labels(drawn: Drawn, size: Size) -> dict[str, Values] | None:
    """Return the expected masks of several classes; None for an error."""
    if drawn.values.shape != size:
        return None
    if set(np.unique(drawn.values).tolist()) - {0, IGNORE_INDEX, *CLASSES.values()}:
        return None
    masks = {name: drawn.values == value for name, value in CLASSES.items()}
    return {name: mask for name, mask in masks.items() if mask.any()}


def _is_equal(found: dict[str, Values] | None, expected: dict[str, Values] | None) -> bool:
    if found is None or expected is None:
        return found is expected
    return found.keys() == expected.keys() and all(
        found[name].dtype == np.bool_ and np.array_equal(found[name], expected[name]) for name in found
    )


def _draw(random: np.random.Generator, size: Size, form: str, folder: Path) -> Drawn:
    """Draw a random mask in a given form."""
    values = _draw_values(random, size, CONTENTS[random.integers(len(CONTENTS))])
    path = folder / f"mask.{form.split()[-1]}"
    match form:
        case "array":
            kind = random.choice(["uint8", "int16", "uint16", "int64", "uint64"])
            return Drawn(values.astype(kind), values.astype(kind))
        case "tensor":
            return Drawn(torch.from_numpy(values), values)
        case "PIL image":
            return Drawn(Image.fromarray(values), values)
        case "bools":
            return Drawn(values > 0, values > 0)
        case "palette image":
            image = _with_palette(values, random)
            return Drawn(image, values, _palette(image))
        case "palette png":
            image = _with_palette(values, random)
            image.save(path)
            return Drawn(path, values, _palette(image))
        case "16-bit png":
            values = values.astype(np.uint16) * np.uint16(random.integers(1, 200))
            Image.fromarray(values).save(path)
        case "1-bit png":
            Image.fromarray(values > 0).save(path)
            values = (values > 0).astype(np.uint8)
        case "RGB png" | "RGBA png":
            Image.fromarray(values).convert(form.split()[0]).save(path)
        case "grey png with alpha":
            path = folder / "mask.png"
            Image.fromarray(values).convert("LA").save(path)
        case "jpg":
            Image.fromarray(values).save(path, quality=int(random.integers(50, 96)))
            with Image.open(path) as stored:
                values = np.asarray(stored)  # after JPEG compression
        case _:
            Image.fromarray(values).save(path)
    return Drawn(path, values)


def _draw_values(random: np.random.Generator, size: Size, content: str) -> NDArray[np.uint8]:
    """Draw boxes with the values of a content on a background of 0."""
    first, second = (
        int(value) for value in random.choice([*CLASSES.values(), 3, 128, 254], 2, replace=False)
    )
    values = np.zeros(size, dtype=np.uint8)
    match content:
        case "all foreground":
            values[:] = first
        case "all 255":
            values[:] = 255
        case "blurred":
            _draw_box(random, values, 255)
            blurred = Image.fromarray(values).filter(ImageFilter.GaussianBlur(1))
            values = np.asarray(blurred).copy()
        case "empty":
            pass
        case _:
            box_values = {
                "one value": [first],
                "one value and 255": [first, 255],
                "0 and 255": [255],
                "two values": [first, second],
                "two values and 255": [255, first, second],
                "several classes": [*CLASSES.values(), 255],
            }
            for value in box_values[content]:
                _draw_box(random, values, value)
    return values


def _draw_box(random: np.random.Generator, values: NDArray[np.uint8], value: int) -> None:
    """Draw a random box, clipped to the mask."""
    top, left = (int(random.integers(length)) for length in values.shape)
    height, width = (int(random.integers(1, length + 1)) for length in values.shape)
    values[top : top + height, left : left + width] = value


def _with_palette(values: NDArray[np.uint8], random: np.random.Generator) -> Image.Image:
    image = Image.fromarray(values).convert("P")
    image.putpalette(random.integers(0, 256, 768).tolist())
    return image


def _palette(image: Image.Image) -> NDArray[Any]:
    return np.array(image.getpalette()).reshape(-1, 3)


ROWS = (
    Row(
        "masks",
        "masks: other size, empty, all foreground, 255, palettes, colours, anti-aliased, JPEG",
        "never resized or thresholded, palette indices kept: equal to an oracle in 1,000 random cases",
        random_masks,
    ),
    Row("ignored", "ignored pixels of a mask, in training", "gradient exactly 0", ignored_pixels),
)
