"""The public API: load a model, show it a few labelled images, segment others."""

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self, cast, overload

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from kshot.errors import ImageError, MaskError, ModelError, NotFittedError, reason_of
from kshot.io.images import (
    ImageSource,
    MaskSource,
    read_image,
    read_label_map,
    read_mask,
)
from kshot.methods.engine import Engine, Precision, accelerate
from kshot.methods.hub import DEFAULT_MODEL, AnyMethod, ModelConfig, load_model, save_model
from kshot.methods.prototype import Prototype
from kshot.methods.tiling import Box, FloatMap, Window, around, blend, check_tile, cut, tile_for
from kshot.transforms import Resize
from kshot.types import IGNORE_INDEX, Method, Segmentation, Support

LabelMap = NDArray[np.uint8]

LabelledImages = Iterable[tuple[ImageSource, MaskSource]]
"""Images of one class, each with its mask."""

ReadPart = Callable[[Box], tuple[Image.Image, NDArray[np.bool_] | None]]
"""Reads a part of an image: the picture, and where it shows anything, (height, width); None: everywhere."""

MAX_CLASSES = IGNORE_INDEX - 1
"""Of a label map, where 0 is the background and 255 means "ignore"."""


@dataclass(frozen=True, eq=False)
class Explanation:
    """How an answer came about; every map is (H, W) in the image's own size.

    mask: bool, the answer. fused: its foreground probability in [0, 1]. first_pass, second_pass: the
    foreground probability after each pass; base_map: the probability of a base class. They are None
    where the method has no such step. With several supports the maps are means, the mask a vote.
    """

    mask: NDArray[np.bool_]
    fused: FloatMap
    first_pass: FloatMap | None
    second_pass: FloatMap | None
    base_map: FloatMap | None

    @property
    def confidence(self) -> float:
        """How sure the answer is, 0 to 1: the mask's mean probability; 0 if nothing was found.

        It ranks answers, so that a person looks at the worst first; it is no estimate of IoU.
        """
        return float(self.fused[self.mask].mean()) if self.mask.any() else 0.0


@dataclass(frozen=True, eq=False)
class LabelExplanation:
    """How an answer for several classes came about.

    labels: uint8 (H, W), 0 on the background and n on the n-th class. classes: each class's own answer, by
    name. Where masks overlap the class with the highest probability has the pixel; of equal ones the first.
    """

    labels: LabelMap
    classes: dict[str, Explanation]

    @property
    def confidence(self) -> float:
        """How sure the answer is, 0 to 1: the mean probability of each labelled pixel's own class."""
        own = [one.fused[self.labels == label] for label, one in enumerate(self.classes.values(), 1)]
        labelled = np.concatenate(own)
        return float(labelled.mean()) if labelled.size else 0.0


@dataclass(frozen=True, eq=False)
class Segmenter:
    """A few-shot segmentation model, and the supports that it has read. Immutable.

    Images are paths, PIL images, (H, W, 3) or (H, W) arrays, or (3, H, W) tensors; `kshot.io.images` says
    more, of masks in `read_mask`. Answers are numpy arrays in the image's own size.
    """

    config: ModelConfig
    method: AnyMethod
    device: torch.device
    supports: tuple[Support, ...] = ()
    negatives: tuple[Support, ...] = ()
    """Images without the object, whose masks are empty."""
    tile: int | None = None
    """Side in pixels of the windows in which large images are read; None: images are read whole."""
    long_side: int | None = None
    """Pixels that the longer side of a large image has when it is cut into windows; None: its own."""
    accelerated: Method | None = None
    """What computes in the method's place, if anything."""

    @property
    def transform(self) -> Resize:
        """How images and masks are resized to the network's square."""
        return Resize(self.config.image_size)

    @property
    def runner(self) -> Method:
        """What computes: the method itself, or what `kshot.methods.engine` made of it."""
        return cast(Method, self.method) if self.accelerated is None else self.accelerated

    @classmethod
    def from_pretrained(
        cls,
        name_or_dir: str | Path = DEFAULT_MODEL,
        *,
        image_size: int | None = None,
        backbone: str | None = None,
        backbone_weights: str | Path | None = None,
        tile: int | None = None,
        long_side: int | None = None,
        device: str = "auto",
        engine: Engine = "torch",
        precision: Precision = "fp32",
    ) -> Self:
        """Load a model that ships with kshot, a model's folder, or OWNER/NAME on the hub.

        image_size: side in pixels at which the network works; None takes the model's own.
        backbone: another backbone than the model's own; prototype takes any, trained models none.
        backbone_weights: a file with the ImageNet backbone's weights, for machines without a network.
        tile: side in pixels of the windows in which larger images are read, to see their detail; supports are
        then cropped to a window around the object. None reads images whole.
        long_side: images with a longer side than this are seen as if it had so many pixels, in windows of
        `tile`, or else of the network's own size: so that things look as large whatever the camera. Answers
        are in the image's own size all the same.
        device: "auto" takes CUDA, else MPS, else the CPU; or any name that torch knows.
        engine: "openvino" reads images faster, on a CPU, with the same results. precision: "bf16" computes
        with 16 bits what takes long, on a CPU that can; one pixel in some hundreds then comes out otherwise.
        Raises ModelError or WeightsError that say what is missing, and where to put it.
        """
        config, method = load_model(name_or_dir, backbone, backbone_weights)
        if image_size is not None:
            config = _with_image_size(config, image_size)
        tile = config.image_size if tile is None and long_side is not None else tile
        check_tile(tile, long_side)
        chosen = choose_device(device)
        method = method.to(chosen).eval()
        accelerated = accelerate(method, engine, precision, chosen)
        return cls(config, method, chosen, tile=tile, long_side=long_side, accelerated=accelerated)

    @overload
    def fit(
        self,
        support_images: ImageSource | Iterable[ImageSource],
        support_masks: MaskSource | Iterable[MaskSource],
    ) -> Self: ...

    @overload
    def fit(self, support_images: Mapping[str, LabelledImages]) -> "LabelSegmenter": ...

    def fit(
        self,
        support_images: ImageSource | Iterable[ImageSource] | Mapping[str, LabelledImages],
        support_masks: MaskSource | Iterable[MaskSource] | None = None,
    ) -> "Self | LabelSegmenter":
        """Read one or more labelled images, and return a new segmenter that knows them.

        A mask of nothing but 0 beside one that marks the object makes its image a negative: nothing in it is
        the object. Models of the method prototype take them; docs/mistakes.md says what they are worth.
        Several classes: give a dictionary of their names, each with its pairs of an image and a mask; the
        answer is a LabelSegmenter.
        Raises ImageError or MaskError for a support that cannot be used, ModelError for a negative that the
        model cannot learn from; `self` never changes.
        """
        if isinstance(support_images, Mapping):
            if support_masks is not None:
                raise MaskError("A dictionary of classes holds the masks too: leave out support_masks.")
            return LabelSegmenter(self._fit_classes(support_images))
        if support_masks is None:
            raise MaskError("There are no masks. Give one for each support image.")
        return self._fit_pairs(_pairs(support_images, support_masks))

    def fit_label_maps(
        self,
        support_images: ImageSource | Iterable[ImageSource],
        label_maps: MaskSource | Iterable[MaskSource],
        classes: Mapping[str, int],
    ) -> "LabelSegmenter":
        """Read images whose masks hold several classes, say palette pictures.

        classes: each class's name and its value in the masks; the answer's labels are 1, 2, … in this order.
        A mask of nothing but 0 is a negative of each class; see `fit`.
        Raises ImageError or MaskError for a support that cannot be used, or a class that none shows.
        """
        pairs: dict[str, list[tuple[ImageSource, MaskSource]]] = {name: [] for name in classes}
        for image, label_map in _pairs(support_images, label_maps):
            picture = read_image(image)
            found = read_label_map(label_map, (picture.height, picture.width), classes)
            for name in found or classes:
                pairs[name].append(
                    (picture, found.get(name, np.zeros((picture.height, picture.width), bool)))
                )
        return self.fit(pairs)

    def predict(self, image: ImageSource) -> NDArray[np.bool_]:
        """Segment an image: bool (H, W), True on the object."""
        return self.explain(image).mask

    def predict_proba(self, image: ImageSource) -> FloatMap:
        """Give the foreground probability of each pixel of an image: float32 (H, W) in [0, 1]."""
        return self.explain(image).fused

    def explain(self, image: ImageSource) -> Explanation:
        """Segment an image and keep the steps: first pass, second pass, base map, fused, mask.

        Of an image in tiles fused is blended where they meet, the mask follows from it without a vote, and
        no step is kept. Raises NotFittedError before the first `fit`, ImageError for what cannot be read.
        """
        if not self.supports:
            raise NotFittedError("The segmenter has no supports. Call fit(images, masks) first.")
        return _explain([self], read_image(image))[0]

    def read_query(self, picture: Image.Image) -> Any:
        """Read a picture whole: its features, which `match` takes; they are the same for all supports."""
        with torch.inference_mode():
            return self.runner.features(self._to_batch(picture))

    def match(self, query: Any, picture: Image.Image) -> Explanation:
        """Segment a picture whose features are read; see `explain`."""
        size = picture.height, picture.width
        with torch.inference_mode():
            if self.negatives:  # `fit` takes them for no other method
                prototype = cast(Prototype, self.method)
                return _to_explanation(prototype.segment(query, self.supports, size, self.negatives))
            return _to_explanation(self.runner.segment(query, self.supports, size))

    def save(self, folder: str | Path) -> None:
        """Write the model, without its supports, to a folder that `from_pretrained` reads back."""
        whole = {"base_learner": None, "base_learner_sha256": None}
        save_model(self.config.model_copy(update=whole), self.method, Path(folder))

    def _fit_classes(self, classes: Mapping[str, LabelledImages]) -> "dict[str, Segmenter]":
        if not 1 <= len(classes) <= MAX_CLASSES:
            raise MaskError(f"There are {len(classes)} classes; a label map holds 1 to {MAX_CLASSES}.")
        fitted = {}
        for name, given in classes.items():
            fitted[name] = self._fit_pairs(given, f" of class '{name}'")
        return fitted

    def _fit_pairs(self, pairs: Iterable[tuple[ImageSource, MaskSource]], whose: str = "") -> Self:
        supports, negatives = list[Support](), list[Image.Image]()
        for image, mask in pairs:
            picture = read_image(image)
            foreground = read_mask(mask, (picture.height, picture.width), may_be_empty=True)
            if foreground.any():
                supports.append(self._read_support(image, picture, foreground))
            else:
                negatives.append(picture)
        if not supports and not negatives:
            raise ImageError(f"There are no support images{whose}. Give at least one with its mask.")
        if not supports:
            raise MaskError(
                f"Every mask{whose} is empty: all pixels are 0. Mark the object with 1 or 255 in one of them."
            )
        read = tuple(one for picture in negatives for one in self.read_negative(picture))
        return replace(self, supports=tuple(supports), negatives=read)

    def _read_support(
        self, image: ImageSource, picture: Image.Image, foreground: NDArray[np.bool_]
    ) -> Support:
        left, top, right, bottom = box = around(foreground, self.tile_for((picture.height, picture.width)))
        if box != (0, 0, picture.width, picture.height):  # a copy of all would cost much
            picture, foreground = picture.crop(box), foreground[top:bottom, left:right]
        mask = self.transform.support_mask(foreground)
        if not mask.any():
            of_which = f" of '{image}'" if isinstance(image, str | os.PathLike) else ""
            raise MaskError(
                f"The object in the support mask{of_which} is too small: its {int(foreground.sum())} pixels "
                f"of {picture.width} x {picture.height} vanish at {self.config.image_size} x "
                f"{self.config.image_size}. Raise image_size (--image-size), or crop around the object."
            )
        return Support(self._support_features(picture), mask.to(self.device))

    @property
    def takes_negatives(self) -> bool:
        """Whether the model learns from images without the object."""
        return isinstance(self.method, Prototype)

    def read_negative(self, picture: Image.Image) -> list[Support]:
        """Read an image without the object, each of its windows, in which the object would be seen.

        Raises ModelError for a model that cannot learn from it.
        """
        if not self.takes_negatives:
            raise ModelError(
                f"An image without the object (its mask is empty) is nothing that {self.config.method} can "
                "learn from. Leave it out, or choose the model prototype."
            )
        empty = torch.zeros(1, 1, self.config.image_size, self.config.image_size, device=self.device)
        size = picture.height, picture.width
        windows = cut(size, self.tile_for(size))
        return [Support(self._support_features(picture.crop(window.box)), empty) for window in windows]

    def _support_features(self, picture: Image.Image) -> Any:
        with torch.inference_mode():
            return self.runner.support_features(self._to_batch(picture))

    def tile_for(self, size: tuple[int, int]) -> int | None:
        """Give the side in pixels of the windows in which an image of `size` is read; None: whole."""
        return tile_for(size, self.tile, self.long_side)

    def _to_batch(self, picture: Image.Image) -> Tensor:
        return self.transform.image(picture).to(self.device)


@dataclass(frozen=True, eq=False)
class LabelSegmenter:
    """A model that knows several classes; `Segmenter.fit` makes it from a dictionary.

    segmenters: one for each class, by name, in the order of their labels 1, 2, …
    """

    segmenters: dict[str, Segmenter]

    @property
    def class_names(self) -> tuple[str, ...]:
        """The classes, in the order of their labels."""
        return tuple(self.segmenters)

    def predict(self, image: ImageSource) -> LabelMap:
        """Segment an image: uint8 (H, W), 0 on the background and n on the n-th class."""
        return self.explain(image).labels

    def predict_proba(self, image: ImageSource) -> FloatMap:
        """Give each class's foreground probability: float32 (classes, H, W), each by itself in [0, 1]."""
        return np.stack([one.fused for one in self.explain(image).classes.values()])

    def explain(self, image: ImageSource) -> LabelExplanation:
        """Segment an image and keep each class's steps; the image is read once for all of them.

        Raises ImageError for what cannot be read.
        """
        found = _explain(list(self.segmenters.values()), read_image(image))
        return LabelExplanation(decide_labels(found), dict(zip(self.segmenters, found, strict=True)))


def explain_strips(
    segmenter: Segmenter | LabelSegmenter, size: tuple[int, int], read: ReadPart
) -> Iterator[Explanation | LabelExplanation]:
    """Segment an image of `size` that is read part by part; its answer comes in strips, from the top down.

    Where the image shows nothing its probability is NaN, and nothing is found. The strips, put together, are
    what `explain` gives for the same pixels, but no more than a few rows of tiles are ever in memory.
    """
    if isinstance(segmenter, Segmenter):
        yield from (strip for (strip,) in _explain_strips([segmenter], size, read))
        return
    names = segmenter.class_names
    for strips in _explain_strips(list(segmenter.segmenters.values()), size, read):
        yield LabelExplanation(decide_labels(strips), dict(zip(names, strips, strict=True)))


def _explain(segmenters: Sequence[Segmenter], picture: Image.Image) -> list[Explanation]:
    """Segment a picture with segmenters of one model, reading each of its windows once for all of them."""
    size = picture.height, picture.width
    strips = _explain_strips(segmenters, size, lambda box: (picture.crop(box), None))
    found = next(strips)
    if len(found[0].mask) == size[0]:
        return found
    whole = [
        Explanation(np.empty(size, bool), np.empty(size, np.float32), None, None, None) for _ in segmenters
    ]
    top = 0
    while found:
        rows = slice(top, top + len(found[0].mask))
        for one, strip in zip(whole, found, strict=True):
            one.mask[rows], one.fused[rows] = strip.mask, strip.fused
        top, found = rows.stop, next(strips, [])
    return whole


def _explain_strips(
    segmenters: Sequence[Segmenter], size: tuple[int, int], read: ReadPart
) -> Iterator[list[Explanation]]:
    tile, threshold = segmenters[0].tile_for(size) or max(size), segmenters[0].method.threshold
    if max(size) <= tile:
        yield _explain_part(segmenters, *read((0, 0, size[1], size[0])))
        return

    def answer(window: Window) -> list[FloatMap]:
        return [one.fused for one in _explain_part(segmenters, *read(window.box))]

    for maps in blend(size, tile, len(segmenters), answer):
        yield [Explanation(one > threshold, one.clip(0, 1, out=one), None, None, None) for one in maps]


def _explain_part(
    segmenters: Sequence[Segmenter], picture: Image.Image, shows: NDArray[np.bool_] | None
) -> list[Explanation]:
    query = segmenters[0].read_query(picture)
    found = [segmenter.match(query, picture) for segmenter in segmenters]
    if shows is not None and not shows.all():
        for one in found:
            one.mask[~shows], one.fused[~shows] = False, np.nan
    return found


def decide_labels(explanations: Sequence[Explanation]) -> LabelMap:
    """Give each pixel to the class with the highest probability among those whose masks hold it.

    Returns uint8 (H, W): 0 where no mask is, n for the n-th class; of equal probabilities the first wins.
    """
    shown = np.stack([np.where(one.mask, one.fused, -1) for one in explanations])
    labels = np.where((shown >= 0).any(axis=0), shown.argmax(axis=0) + 1, 0)
    return labels.astype(np.uint8)


def choose_device(name: str = "auto") -> torch.device:
    """Turn a device's name into a device; "auto" is CUDA, else MPS, else the CPU.

    Raises ModelError for a device that this machine doesn't have.
    """
    if name == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise ModelError(
            f"Device '{name}' cannot be used here ({reason_of(error)}). Use 'auto' or 'cpu'."
        ) from error
    return device


def _with_image_size(config: ModelConfig, image_size: int) -> ModelConfig:
    if image_size < 1:
        raise ModelError(f"image_size is {image_size}; it must be a positive number of pixels.")
    return config.model_copy(update={"image_size": image_size})


def _pairs(
    images: ImageSource | Iterable[ImageSource], masks: MaskSource | Iterable[MaskSource]
) -> list[tuple[Any, Any]]:
    """Pair images with their masks; one of each, or as many."""
    given, theirs = _as_list(images, 3), _as_list(masks, 2)
    if not given:
        raise ImageError("There are no support images. Give at least one image and its mask.")
    if len(given) != len(theirs):
        raise MaskError(f"{len(given)} support images need as many masks, but there are {len(theirs)}.")
    return list(zip(given, theirs, strict=True))


def _as_list(given: Any, dimensions: int) -> list[Any]:
    """Make a list of what may be one item: a path, a picture, or an array of at most `dimensions` axes."""
    if isinstance(given, np.ndarray | Tensor):
        is_one = given.ndim <= dimensions
    else:
        is_one = isinstance(given, str | os.PathLike | Image.Image)
    return [given] if is_one else list(given)


def _to_explanation(answer: Segmentation) -> Explanation:
    def to_array(maps: Tensor | None) -> FloatMap | None:
        return None if maps is None else maps[0].float().cpu().numpy()

    fused = to_array(answer.probability)
    assert fused is not None
    return Explanation(
        mask=answer.mask[0].cpu().numpy(),
        fused=fused,
        first_pass=to_array(answer.first_pass),
        second_pass=to_array(answer.second_pass),
        base_map=to_array(answer.base_map),
    )
