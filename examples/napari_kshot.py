"""A napari widget: label one image, and segment the others with kshot.

Run `python examples/napari_kshot.py one.png two.png`, paint labels on the first image, and press Run.
"""

import sys
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from kshot import Segmenter

if TYPE_CHECKING:
    import napari.layers
    import napari.types

load_model = cache(Segmenter.from_pretrained)


def segment_others(
    viewer: "napari.Viewer",
    image: "napari.layers.Image",
    labels: "napari.layers.Labels",
    image_size: int = 400,
) -> "list[napari.types.LayerDataTuple]":
    """Segment all other image layers with `image` and `labels` as support; return a Labels layer for each."""
    segmenter, values = fit(to_uint8(image), np.asarray(labels.data), image_size)
    others = [layer for layer in viewer.layers if type(layer) is type(image) and layer is not image]
    return [
        (
            values[segmenter.predict(to_uint8(other)).labels],
            {"name": f"{other.name} by kshot", "scale": other.scale, "translate": other.translate},
            "labels",
        )
        for other in others
    ]


def fit(pixels, labels, image_size):
    """Fit a segmenter to painted labels (H, W); return it and the painted value of each predicted label."""
    painted = np.unique(labels[labels > 0])
    numbers = np.searchsorted(painted, labels) + 1
    numbers[labels <= 0] = 0
    classes = {str(value): number for number, value in enumerate(painted.tolist(), 1)}
    segmenter = load_model(image_size=image_size).clone().fit(pixels, numbers, classes=classes)
    return segmenter, np.concatenate([[0], painted])


def to_uint8(layer):
    """Return a layer's pixels as displayed, uint8: RGB, or grey scaled by the contrast limits."""
    data = np.asarray(layer.data)
    if layer.rgb:
        data = data[..., :3]
    if data.ndim != 3 if layer.rgb else data.ndim != 2:
        raise ValueError(
            f"Layer {layer.name} has the shape {data.shape}. Give one image: (H, W), or (H, W, 3) for RGB."
        )
    if data.dtype == np.uint8 and layer.rgb:
        return data
    low, high = (
        (0, 1 if data.dtype.kind == "f" else np.iinfo(data.dtype).max) if layer.rgb else layer.contrast_limits
    )
    return (255 * ((data - low) / (high - low)).clip(0, 1)).round().astype(np.uint8)


def main():
    """Open the images given as arguments, with the widget beside them."""
    import napari

    viewer = napari.Viewer()
    for path in map(Path, sys.argv[1:]):
        viewer.add_image(np.asarray(Image.open(path)), name=path.stem)
    viewer.add_labels(np.zeros(viewer.layers[0].data.shape[:2], np.uint8), name="labels")
    viewer.window.add_function_widget(segment_others, magic_kwargs={"call_button": "Run"})
    napari.run()


if __name__ == "__main__":
    main()
