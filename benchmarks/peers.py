"""Peers: common ways to segment from a few labelled images, with the interface of kshot's models.

`benchmarks/dev_suite.py` scores them on the same episodes. Both learn a pixel classifier from the support
set alone, and need scikit-learn; the random forest needs scikit-image too.
"""

import warnings
from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
import sklearn
import torch
from numpy.typing import NDArray
from PIL import Image
from skimage.feature import multiscale_basic_features
from sklearn.ensemble import RandomForestClassifier
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import Tensor
from torch.nn import functional as F

from kshot.evaluation.suite import Mask
from kshot.methods.tiling import FloatMap
from kshot.models.backbones import Backbone
from kshot.models.imagenet_weights import load_backbone
from kshot.transforms import Resize
from kshot.types import IGNORE_INDEX, GroundTruth

THRESHOLD = 0.5


class Classifier(Protocol):
    """What scikit-learn's classifiers of two classes offer."""

    def predict_proba(self, X: NDArray[np.float32]) -> NDArray[Any]:
        """Return the probability of each class: (N, 2)."""


class Constant:
    """The classifier of a support set in which all pixels are of one class."""

    def __init__(self, label: int) -> None:
        self.label = label

    def predict_proba(self, X: NDArray[np.float32]) -> NDArray[Any]:
        """Return probability 1 for the only class."""
        return np.eye(2, dtype=np.float32)[np.full(len(X), self.label)]


class LogisticPeer:
    """Logistic regression on a pretrained network's features, one position of the grid a sample.

    This is the linear probe, the simplest use of a pretrained backbone. The features are those of the last
    block at strides 8, 16 and 32, resized to the grid of stride 8.
    """

    name = "logistic"

    def __init__(self, backbone: Backbone | None = None, image_size: int = 257) -> None:
        self.backbone = load_backbone("efficientnet_lite2") if backbone is None else backbone
        self.transform = Resize(image_size)
        self.settings = {
            "stands for": "linear probe",
            "backbone": self.backbone.name,
            "image_size": image_size,
            "taps": "last of strides 8, 16, 32",
            "max_iter": 200,
            "scikit-learn": sklearn.__version__,
        }

    def encode(self, image: Image.Image, *, as_query: bool) -> Tensor:
        """Compute the features of each position: (h, w, C)."""
        with torch.inference_mode():
            taps = [stage[-1] for stage in self.backbone(self.transform.image(image)).stages]
            size = taps[0].shape[-2:]
            resized = [F.interpolate(tap, size, mode="bilinear", align_corners=False) for tap in taps]
            return torch.cat(resized, dim=1)[0].permute(1, 2, 0).contiguous()

    def fit(self, encoded: Sequence[Tensor], masks: Sequence[GroundTruth]) -> Classifier:
        """Learn from all positions of the support images whose ground truth is known."""
        samples = [
            grid_samples(features.numpy(), mask) for features, mask in zip(encoded, masks, strict=True)
        ]
        regression = LogisticRegression(class_weight="balanced", max_iter=200)
        return fit_classifier(make_pipeline(StandardScaler(), regression), samples)

    def predict(self, fitted: Classifier, encoded: Tensor, size: tuple[int, int]) -> tuple[Mask, FloatMap]:
        """Classify each position, and resize the probability."""
        return classify(fitted, encoded.numpy(), size)


class ForestPeer:
    """A random forest on colour, edges and texture around each pixel.

    It represents ilastik's pixel classification and the trainable segmentation of Fiji and scikit-image,
    which are common in microscopy. Number and depth of the trees are those of scikit-image's example.
    """

    name = "forest"
    longest_side = 512
    samples_of_class = 5_000

    def __init__(self) -> None:
        self.settings = {
            "stands for": "ilastik, trainable segmentation",
            "features": "multiscale_basic_features, sigma 1 to 16",
            "longest_side": self.longest_side,
            "samples_of_class": self.samples_of_class,
            "n_estimators": 50,
            "max_depth": 10,
            "scikit-learn": sklearn.__version__,
        }

    def encode(self, image: Image.Image, *, as_query: bool) -> Tensor:
        """Compute the features of each pixel: (h, w, C), the image's longer side at most 512."""
        scale = min(1.0, self.longest_side / max(image.size))
        size = max(1, round(image.width * scale)), max(1, round(image.height * scale))
        pixels = np.asarray(image.convert("RGB").resize(size, Image.Resampling.BILINEAR))
        features = multiscale_basic_features(
            pixels,
            intensity=True,
            edges=True,
            texture=True,
            sigma_min=1,
            sigma_max=16,
            workers=1,
            channel_axis=-1,
        )
        return torch.from_numpy(features.astype(np.float32))

    def fit(self, encoded: Sequence[Tensor], masks: Sequence[GroundTruth]) -> Classifier:
        """Learn from at most 10,000 pixels of each support image, half of them the object's."""
        random = np.random.default_rng(0)
        samples = []
        for features, mask in zip(encoded, masks, strict=True):
            found, labels = grid_samples(features.numpy(), mask)
            drawn = self._balanced(labels, random)
            samples.append((found[drawn], labels[drawn]))
        # Each tree draws as many pixels as one support image gives: five of them would take minutes.
        number = sum(len(labels) for _, labels in samples)
        forest = RandomForestClassifier(
            n_estimators=50,
            max_depth=10,
            max_samples=min(number, 2 * self.samples_of_class),
            class_weight="balanced",
            n_jobs=1,
            random_state=0,
        )
        return fit_classifier(forest, samples)

    def predict(self, fitted: Classifier, encoded: Tensor, size: tuple[int, int]) -> tuple[Mask, FloatMap]:
        """Classify each pixel, and resize the probability."""
        return classify(fitted, encoded.numpy(), size)

    def _balanced(self, labels: NDArray[np.int64], random: np.random.Generator) -> NDArray[np.int64]:
        places = [np.flatnonzero(labels == label) for label in (0, 1)]
        return np.concatenate(
            [random.choice(own, min(len(own), self.samples_of_class), replace=False) for own in places]
        )


def grid_samples(
    features: NDArray[np.float32], mask: GroundTruth
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Pair features (h, w, C) with labels from a mask (H, W): (N, C) and (N,), 1 on the object.

    A position belongs to the object if at least half of its known pixels do; positions without a known pixel
    are excluded. If no position belongs to the object, the one with the largest share does, and likewise for
    the background, so that no class vanishes on a coarse grid.
    """
    size = features.shape[:2]
    known = _average(mask != IGNORE_INDEX, size).ravel()
    share = _average(mask == 1, size).ravel()[known > 0] / known[known > 0]
    labels = (share >= 0.5).astype(np.int64)
    if not labels.any() and share.max() > 0:
        labels[share.argmax()] = 1
    elif labels.all() and share.min() < 1:
        labels[share.argmin()] = 0
    return features.reshape(-1, features.shape[-1])[known > 0], labels


def _average(mask: Mask, size: tuple[int, ...]) -> NDArray[np.float32]:
    return F.adaptive_avg_pool2d(torch.from_numpy(mask).float()[None, None], size)[0, 0].numpy()


def fit_classifier(
    classifier: Any, samples: Sequence[tuple[NDArray[np.float32], NDArray[np.int64]]]
) -> Classifier:
    """Fit to the samples of all support images; if all are of one class, always predict that class."""
    features, labels = (np.concatenate(parts) for parts in zip(*samples, strict=True))
    if labels.min() == labels.max():
        return Constant(int(labels[0]))
    with warnings.catch_warnings():  # the number of steps is a setting, not a failure
        warnings.simplefilter("ignore", ConvergenceWarning)
        fitted: Classifier = classifier.fit(features, labels)
    return fitted


def classify(
    classifier: Classifier, features: NDArray[np.float32], size: tuple[int, int]
) -> tuple[Mask, FloatMap]:
    """Return the mask and the probability of features (h, w, C), resized to (H, W)."""
    height, width, channels = features.shape
    probability = classifier.predict_proba(features.reshape(-1, channels))[:, 1]
    grid = torch.from_numpy(probability.astype(np.float32)).view(1, 1, height, width)
    resized = F.interpolate(grid, size, mode="bilinear", align_corners=False)[0, 0].numpy()
    return resized > THRESHOLD, resized
