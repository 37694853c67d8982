"""The public API: load a model, show it a few labelled images, segment others."""

import copy
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, Literal, NamedTuple, Self, overload

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from kshot.errors import ImageError, MaskError, ModelError, NotFittedError, reason_of
from kshot.io.images import ImageSource, MaskSource, list_images, read_image, read_label_map, read_mask
from kshot.io.mask_values import object_classes
from kshot.methods.acceleration import Engine, Precision, accelerate
from kshot.methods.base import Method
from kshot.methods.config import ModelConfig
from kshot.methods.episode import EpisodeRunner, move, select
from kshot.methods.hub import DEFAULT_MODEL
from kshot.methods.saving import build_method, imagenet_backbone, load_model, save_model
from kshot.methods.tiling import Box, Window, around, blend, check_tile, cut, tile_for
from kshot.results import MAX_CLASSES, OBJECT, SegmentationResult, choose_label_values
from kshot.transforms import Resize
from kshot.types import FloatMap, Support

LabelledImages = Iterable[tuple[ImageSource, MaskSource]]
"""Images of one class, each with its mask."""

ManyImages = Iterable[ImageSource]

ReadPart = Callable[[Box], tuple[Image.Image, NDArray[np.bool_] | None]]
"""Reads a part of an image: the image, and where it has data, (height, width); None: everywhere."""


class ClassSupport(NamedTuple):
    """The encoded labelled images of a class, and what the method learned from them (`Segmenter.learn`).

    negatives: images without the object.
    """

    shots: tuple[Support, ...]
    negatives: tuple[Support, ...] = ()
    adapted: Any = None


class Segmenter:
    """A few-shot segmentation model with its support set.

    Images are paths, PIL images, (H, W, 3) or (H, W) arrays, or (3, H, W) tensors; `kshot.io.images` says
    more, also of masks. Results have the image's own size.

    `fit` replaces the support set. To serve several support sets with one model, `clone` it: clones share the
    networks. class_values: the value of each class of the support set in label maps.
    """

    def __init__(
        self,
        config: ModelConfig,
        method: Method,
        device: torch.device,
        *,
        tile: int | None = None,
        long_side: int | None = None,
        accelerated: Method | None = None,
    ) -> None:
        self.config = config
        self.method = method
        self.device = device
        self.tile = tile
        self.long_side = long_side
        self.accelerated = accelerated
        self.support_set: dict[str, ClassSupport] = {}
        self.class_values: dict[str, int] = {}

    @property
    def runner(self) -> EpisodeRunner:
        """What encodes and segments images of the network's size."""
        method = self.method if self.accelerated is None else self.accelerated
        return EpisodeRunner(method, Resize(self.config.image_size), self.device)

    @property
    def class_names(self) -> tuple[str, ...]:
        """The classes of the support set, in the order in which they were given; none before `fit`."""
        return tuple(self.support_set)

    def __repr__(self) -> str:
        classes = ", ".join(self.class_names) or "not fitted"
        return f"Segmenter({self.config.method}, {self.config.image_size} px, {self.device}: {classes})"

    @classmethod
    def from_pretrained(
        cls,
        name_or_path: str | Path = DEFAULT_MODEL,
        *,
        image_size: int | None = None,
        backbone: str | None = None,
        backbone_weights: str | Path | None = None,
        tile: int | None = None,
        long_side: int | None = None,
        device: str = "auto",
        engine: Engine = "torch",
        precision: Precision = "fp32",
        revision: str | None = None,
        token: str | None = None,
        cache_dir: str | Path | None = None,
    ) -> Self:
        """Load a model that ships with kshot, a model's folder, or OWNER/NAME on the Hugging Face hub.

        image_size: side in pixels at which the network works; None takes the model's own.
        backbone: another backbone than the model's own; prototype takes any, trained models none.
        backbone_weights: file with the ImageNet backbone's weights, for machines without a network.
        tile: side in pixels of the windows in which larger images are segmented, to see their detail; support
        images are then cropped to a window around the object. None segments images whole.
        long_side: images whose longer side has more pixels are segmented as if it had this many, in windows
        of `tile`, by default of the network's size. Results keep the image's own size.
        device: "auto" takes CUDA, else MPS, else the CPU; or any name that torch knows.
        engine: "openvino" extracts features faster on a CPU, with the same results. precision: "bf16"
        computes the slow parts with 16 bits on a CPU that can; about one pixel in some hundreds differs.
        revision, token, cache_dir: as on the Hugging Face hub.
        Raises ModelError or WeightsError that say what is missing, and where to put it.
        """
        config, method = load_model(
            name_or_path, backbone, backbone_weights, revision=revision, token=token, cache_dir=cache_dir
        )
        if image_size is not None:
            config = _with_image_size(config, image_size)
        tile = config.image_size if tile is None and long_side is not None else tile
        check_tile(tile, long_side)
        chosen = choose_device(device)
        method = method.to(chosen).eval()
        accelerated = accelerate(method, engine, precision, chosen)
        return cls(config, method, chosen, tile=tile, long_side=long_side, accelerated=accelerated)

    @classmethod
    def from_config(
        cls, config: ModelConfig, *, backbone_weights: str | Path | None = None, device: str = "auto"
    ) -> Self:
        """Build the method of a config, with ImageNet weights in its backbone and random learned weights.

        backbone_weights, device: as in `from_pretrained`.
        """
        chosen = choose_device(device)
        method = build_method(config, partial(imagenet_backbone, config, backbone_weights))
        return cls(config, method.to(chosen).eval(), chosen)

    def save_pretrained(self, folder: str | Path) -> None:
        """Write the model, without its support set, to a folder that `from_pretrained` reads."""
        whole = {"base_learner": None, "base_learner_sha256": None}
        save_model(self.config.model_copy(update=whole), self.method, Path(folder))

    def clone(self) -> Self:
        """Return a segmenter with the same networks and support set, for another `fit`."""
        return copy.copy(self)

    def to(self, device: str | torch.device) -> Self:
        """Move networks and support set to a device. Raises ModelError if that cannot be used."""
        chosen = choose_device(str(device))
        if self.accelerated is not None and chosen.type != "cpu":
            raise ModelError(f"The model was loaded for the CPU (engine, precision), not for '{chosen}'.")
        self.method.to(chosen)
        self.device = chosen
        self.support_set = move(self.support_set, chosen)
        return self

    @overload
    def fit(
        self,
        images: ImageSource | ManyImages,
        masks: MaskSource | Iterable[MaskSource],
        *,
        classes: Mapping[str, int] | None = None,
    ) -> Self: ...

    @overload
    def fit(
        self, images: Mapping[str, LabelledImages], *, classes: Mapping[str, int] | None = None
    ) -> Self: ...

    def fit(
        self,
        images: ImageSource | ManyImages | Mapping[str, LabelledImages],
        masks: MaskSource | Iterable[MaskSource] | None = None,
        *,
        classes: Mapping[str, int] | None = None,
    ) -> Self:
        """Encode one or more labelled images as the support set, and return the segmenter.

        One class: images and their masks. Several classes: images and label maps, and `classes`, each class's
        name and its value there and in the results ("background" names the background's, if it is not 0); or
        a dictionary of the classes' names, each with its pairs of image and mask, and optionally `classes`,
        their values in the results.
        An all-zero mask makes its image a negative example of every class (prototype only); at least one mask
        of each class must mark it. Raises ImageError or MaskError for a support that cannot be used,
        ModelError for a negative that the method cannot use; the old support set then stays.
        """
        if isinstance(images, Mapping):
            if masks is not None:
                raise MaskError("A dictionary of classes holds the masks too: leave out masks.")
            if classes is not None and set(classes) != set(images):
                raise MaskError(f"classes names {', '.join(classes)}, but images {', '.join(images)}.")
            pairs: Mapping[str, LabelledImages] = images
        elif masks is None:
            raise MaskError("There are no masks. Give one for each support image.")
        elif classes is not None:
            pairs = _pairs_by_class(_pairs(images, masks), classes)
        else:
            pairs = {OBJECT: _pairs(images, masks)}
        values = choose_label_values({name: classes[name] if classes else None for name in pairs})
        self.support_set, self.class_values = self._encode(pairs), values
        return self

    @overload
    def predict(  # type: ignore[overload-overlap]
        self, images: ImageSource, *, batch_size: int = 1
    ) -> SegmentationResult: ...

    @overload
    def predict(
        self, images: ManyImages, *, stream: Literal[False] = False, batch_size: int = 1
    ) -> list[SegmentationResult]: ...

    @overload
    def predict(
        self, images: ManyImages, *, stream: Literal[True], batch_size: int = 1
    ) -> Iterator[SegmentationResult]: ...

    def predict(
        self, images: ImageSource | ManyImages, *, stream: bool = False, batch_size: int = 1
    ) -> SegmentationResult | list[SegmentationResult] | Iterator[SegmentationResult]:
        """Segment one image, or many: a folder, a list, or an array or tensor with one more axis.

        One image gives a result, many give a list, or with `stream` an iterator that reads them one by one.
        batch_size: images whose features are extracted at once, which pays on a GPU.
        An image that is segmented in tiles keeps no steps; its mask follows from the blended probability.
        Raises NotFittedError before `fit`, ImageError for a file that cannot be read, TypeError for what is
        not an image.
        """
        self._check_fitted()
        if _is_one_image(images):
            one: ImageSource = images  # type: ignore[assignment]
            return self._predict_one(one, read_image(one))
        results = self._predict_many(_each_image(images), batch_size)
        return results if stream else list(results)

    def predict_strips(self, size: tuple[int, int], read: ReadPart) -> Iterator[SegmentationResult]:
        """Segment an image of `size` = (height, width) that is read part by part; return it in strips.

        Where the image has no data its probability is NaN, and nothing is found. The strips together are what
        `predict` returns for the same pixels, but only a few rows of tiles are in memory at a time.
        """
        tile = self.tile_for(size) or max(size)
        if max(size) <= tile:
            yield self._predict_part(*read((0, 0, size[1], size[0])))
            return

        def probabilities(window: Window) -> Sequence[FloatMap]:
            return list(self._predict_part(*read(window.box)).class_probabilities)

        for maps in blend(size, tile, len(self.class_names), probabilities):
            maps.clip(0, 1, out=maps)
            by_class = {
                name: SegmentationResult.of_one_class(one > self.method.threshold, one, name)
                for name, one in zip(self.class_names, maps, strict=True)
            }
            yield self._merge(by_class)

    def encode_query(self, image: Image.Image) -> Any:
        """Extract the features of a whole image, for `predict_encoded`; they do not depend on supports."""
        return self.runner.encode_query(image)

    def predict_encoded(self, query: Any, size: tuple[int, int]) -> SegmentationResult:
        """Segment an image of `size` = (height, width) whose features are extracted; see `predict`."""
        self._check_fitted()
        runner = self.runner
        return self._merge(
            {
                name: runner.segment(query, own.shots, size, own.negatives, own.adapted)
                for name, own in self.support_set.items()
            }
        )

    def encode_support(self, image: Image.Image, mask: NDArray[np.bool_], name: str = "") -> Support:
        """Encode an image whose mask (H, W) marks the object; with tiles, a window around the object.

        name: of the image, for the error. Raises MaskError if the object vanishes at the network's size.
        """
        left, top, right, bottom = box = around(mask, self.tile_for((image.height, image.width)))
        if box != (0, 0, image.width, image.height):  # a copy of a whole large image costs much
            image, mask = image.crop(box), mask[top:bottom, left:right]
        if not self.runner.transform.mask(mask).any():
            raise MaskError(
                f"The object in the support mask{f' of {name}' if name else ''} is too small: its "
                f"{int(mask.sum())} pixels of {image.width} x {image.height} vanish at "
                f"{self.config.image_size} x {self.config.image_size}. Raise image_size (--image-size), or "
                "crop around the object."
            )
        return self.runner.encode_support(image, mask)

    def encode_negative(self, image: Image.Image) -> tuple[Support, ...]:
        """Encode an image without the object: each of the windows in which the object would be seen.

        Raises ModelError for a method that cannot use it.
        """
        if not self.method.supports_negatives:
            raise ModelError(
                f"An image without the object (its mask is empty) is of no use to the method "
                f"{self.config.method}. Leave it out, or choose the model prototype."
            )
        size = image.height, image.width
        return tuple(
            self.runner.encode_support(part, np.zeros((part.height, part.width), np.bool_))
            for part in (image.crop(window.box) for window in cut(size, self.tile_for(size)))
        )

    def learn(self, shots: Sequence[Support], negatives: Sequence[Support] = ()) -> ClassSupport:
        """Let the method adapt to the encoded labelled images of a class."""
        return ClassSupport(tuple(shots), tuple(negatives), self.runner.adapt(shots, negatives))

    def tile_for(self, size: tuple[int, int]) -> int | None:
        """Return the side in pixels of the windows of an image of `size`; None if it is segmented whole."""
        return tile_for(size, self.tile, self.long_side)

    def _merge(self, by_class: dict[str, SegmentationResult]) -> SegmentationResult:
        if len(by_class) > 1:
            return SegmentationResult.merge(by_class, self.class_values)
        ((name, only),) = by_class.items()
        return only if name == only.class_names[0] else only.named(name)

    def _check_fitted(self) -> None:
        if not self.support_set:
            raise NotFittedError("fit() has not been called: call segmenter.fit(images, masks) first.")

    def _encode(self, classes: Mapping[str, LabelledImages]) -> dict[str, ClassSupport]:
        if not 1 <= len(classes) <= MAX_CLASSES:
            raise MaskError(f"There are {len(classes)} classes; a label map holds 1 to {MAX_CLASSES}.")
        known: dict[int, tuple[ImageSource, tuple[Support, ...]]] = {}  # negatives of an earlier class
        return {name: self._encode_class(name, pairs, known) for name, pairs in classes.items()}

    def _encode_class(
        self, name: str, pairs: LabelledImages, known: dict[int, tuple[ImageSource, tuple[Support, ...]]]
    ) -> ClassSupport:
        of_which = "" if name == OBJECT else f" of class '{name}'"
        shots, empty = list[Support](), list[tuple[ImageSource, Image.Image]]()
        for source, mask in pairs:
            image = read_image(source)
            foreground = read_mask(mask, (image.height, image.width), may_be_empty=True)
            if foreground.any():
                shots.append(self.encode_support(image, foreground, _path_of(source)))
            else:
                empty.append((source, image))
        if not shots and not empty:
            raise ImageError(f"There are no support images{of_which}. Give at least one with its mask.")
        if not shots:
            raise MaskError(
                f"Every mask{of_which} is empty: all pixels are 0. Mark the object with 1 or 255 in one "
                "of them."
            )
        negatives = list[Support]()
        for source, image in empty:
            if id(source) not in known:
                known[id(source)] = source, self.encode_negative(image)
            negatives += known[id(source)][1]
        return self.learn(shots, negatives)

    def _predict_one(self, source: ImageSource, image: Image.Image) -> SegmentationResult:
        size = image.height, image.width
        strips = self.predict_strips(size, lambda box: (image.crop(box), None))
        return SegmentationResult.stack(strips, image.height).with_source(source)

    def _predict_many(self, sources: Iterable[ImageSource], batch_size: int) -> Iterator[SegmentationResult]:
        if batch_size < 1:
            raise ValueError(f"batch_size is {batch_size}; it must be at least 1.")
        remaining = iter(sources)
        while batch := list(islice(remaining, batch_size)):
            images = [read_image(source) for source in batch]
            sizes = [(image.height, image.width) for image in images]
            if len(batch) == 1 or any(max(size) > (self.tile_for(size) or max(size)) for size in sizes):
                yield from map(self._predict_one, batch, images)
                continue
            features = self.runner.encode_query(*images)
            for place, (source, size) in enumerate(zip(batch, sizes, strict=True)):
                own = select(features, slice(place, place + 1))
                yield self.predict_encoded(own, size).with_source(source)

    def _predict_part(self, image: Image.Image, has_data: NDArray[np.bool_] | None) -> SegmentationResult:
        found = self.predict_encoded(self.encode_query(image), (image.height, image.width))
        if has_data is not None and not has_data.all():
            found.labels[~has_data] = 0
            found.class_probabilities[:, ~has_data] = np.nan
        return found


def _path_of(source: ImageSource) -> str:
    return f"'{source}'" if isinstance(source, str | os.PathLike) else ""


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


def _pairs_by_class(
    pairs: Iterable[tuple[ImageSource, MaskSource]], classes: Mapping[str, int]
) -> dict[str, list[tuple[ImageSource, MaskSource]]]:
    """Split label maps into masks; a label map without any class makes its image a negative of each."""
    names = tuple(object_classes(classes))
    found: dict[str, list[tuple[ImageSource, MaskSource]]] = {name: [] for name in names}
    for source, label_map in pairs:
        image = read_image(source)
        masks = read_label_map(label_map, (image.height, image.width), classes)
        empty = np.zeros((image.height, image.width), np.bool_)
        for name in masks or names:
            found[name].append((image, masks.get(name, empty)))
    return found


def _is_one_image(given: Any) -> bool:
    if isinstance(given, np.ndarray | Tensor):
        return given.ndim <= 3
    if isinstance(given, str | os.PathLike):
        return not Path(given).is_dir()
    return isinstance(given, Image.Image)


def _each_image(given: Any) -> Iterator[ImageSource]:
    """Iterate over the images of a folder, or of anything that can be iterated."""
    if isinstance(given, str | os.PathLike):
        return (path for path, _ in list_images([Path(given)]))
    if isinstance(given, bytes | Mapping) or not isinstance(given, Iterable):
        raise TypeError(
            f"predict() got {type(given).__name__}; it takes a path, a PIL image, an array or a tensor, or a "
            "folder, a list or another iterable of those."
        )
    return iter(given)


def _pairs(
    images: ImageSource | Iterable[ImageSource], masks: MaskSource | Iterable[MaskSource]
) -> list[tuple[Any, Any]]:
    """Pair images with their masks; one of each, or as many."""
    given = _as_list(images, 3)
    theirs = _as_list(masks, 3 if _is_one_mask(masks, len(given)) else 2)
    if not given:
        raise ImageError("There are no support images. Give at least one image and its mask.")
    if len(given) != len(theirs):
        raise MaskError(f"{len(given)} support images need as many masks, but there are {len(theirs)}.")
    return list(zip(given, theirs, strict=True))


def _is_one_mask(masks: Any, num_images: int) -> bool:
    """Return whether an array of three axes is a mask (H, W, channels), not one (H, W) for each image."""
    if not isinstance(masks, np.ndarray | Tensor) or masks.ndim != 3:
        return False
    return masks.shape[2] in (1, 3, 4) and masks.shape[0] != num_images


def _as_list(given: Any, dimensions: int) -> list[Any]:
    """Make a list of what may be one item: a path, a picture, or an array of at most `dimensions` axes."""
    if isinstance(given, np.ndarray | Tensor):
        is_one = given.ndim <= dimensions
    else:
        is_one = isinstance(given, str | os.PathLike | Image.Image)
    return [given] if is_one else list(given)
