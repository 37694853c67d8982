"""A pixel classifier that is fitted to a support set in about a second.

Logistic regression on `models.pixel_features`, with random Fourier features of the filters (Rahimi & Recht
2007), so that it can tell textures apart that no plane separates. It also says how far it can be trusted: the
variance of its logits under the Laplace approximation (MacKay 1992) is large for images that are unlike the
support images, and makes the logits smaller.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple, Self

import torch
from torch import Tensor
from torch.nn import functional as F

from kshot.models.pixel_features import GRID, NUM_FILTERS, PixelFeatures

SAMPLES = 2500
"""Largest number of positions of object and of background, each, that are learned from."""

NUM_FOURIER = 256
FOURIER_SCALE = 0.25
"""Number and frequency of the random Fourier features; the frequency is that of standardized filters."""

RIDGE = 1e-3
"""Weight of the squared weights beside the mean loss."""

STEPS = 30
"""Largest number of steps of L-BFGS."""

EVIDENCE = 1000.0
"""Number of independent samples that a support set counts as: neighbouring pixels repeat each other."""

PART = 2048
"""Positions that are classified at once."""

PROBE_STEP = 8
"""Distance of the positions of the grid at which the variance is computed."""


class Scale(NamedTuple):
    """Mean (C,) of features, and what they are divided by."""

    mean: Tensor
    divisor: Tensor

    def __call__(self, rows: Tensor) -> Tensor:
        """Scale features (N, C)."""
        return (rows - self.mean) / self.divisor


class PixelClassifier(NamedTuple):
    """A fitted classifier.

    weights: of filters and Fourier features together, then of each tap. factor: Cholesky factor of the loss's
    second derivatives; filter_factor: that of a classifier of the filters alone.
    """

    filter_scale: Scale
    deep_scales: tuple[Scale, ...]
    frequencies: Tensor
    phases: Tensor
    weights: tuple[Tensor, ...]
    bias: Tensor
    factor: Tensor
    filter_factor: Tensor

    @classmethod
    def fit(
        cls, features: Sequence[PixelFeatures], masks: Sequence[Tensor], known: Sequence[Tensor]
    ) -> Self | None:
        """Learn from images (1, …) and their masks (1, 1, H, W) in [0, 1]; None if all of it is one class.

        known: (1, 1, GRID, GRID) bool for each image; False where the mask says nothing.
        """
        labels = torch.cat([F.adaptive_avg_pool2d(mask, GRID).flatten() for mask in masks])
        chosen = choose(labels, torch.cat([one.flatten() for one in known]))
        if chosen is None:
            return None
        target = labels[chosen]
        image, position = chosen // GRID**2, chosen % GRID**2
        filters = torch.cat([one.filters.flatten(2)[0].T for one in features])[chosen]
        deep = [
            _rows([one.deep[tap] for one in features], image, position)
            for tap in range(len(features[0].deep))
        ]
        spread = filters.std(dim=0)
        filter_scale = Scale(filters.mean(dim=0), spread + 0.01 * spread.mean() + 1e-6)
        deep_scales = tuple(
            Scale(rows.mean(dim=0), (rows - rows.mean(dim=0)).pow(2).sum(dim=1).mean().sqrt() + 1e-6)
            for rows in deep
        )
        frequencies, phases = fourier(filters)
        inputs = [expand(filter_scale(filters), frequencies, phases)]
        inputs += [scale(rows) for scale, rows in zip(deep_scales, deep, strict=True)]
        weight = target / target.sum() / 2 + (1 - target) / (1 - target).sum() / 2
        weights, bias, factor = logistic(torch.cat(inputs, dim=1), target, weight)
        _, _, filter_factor = logistic(filter_scale(filters) / math.sqrt(NUM_FILTERS), target, weight)
        parts = tuple(torch.split(weights, [one.shape[1] for one in inputs]))
        return cls(filter_scale, deep_scales, frequencies, phases, parts, bias, factor, filter_factor)

    def logits(self, features: PixelFeatures) -> Tensor:
        """Classify images: (B, 1, GRID, GRID), as if object and background were equally likely."""
        rows = features.filters.flatten(2).transpose(1, 2).flatten(0, 1)
        # In parts that fit into the processor's cache, which is four times as fast.
        scores = torch.cat([self._expand(part) @ self.weights[0] for part in torch.split(rows, PART)])
        found = (scores + self.bias).view(-1, 1, GRID, GRID)
        for tap, scale, weights in zip(features.deep, self.deep_scales, self.weights[1:], strict=True):
            scores = scale(tap.flatten(2).transpose(1, 2)) @ weights
            scores = scores.view(-1, 1, *tap.shape[-2:])
            found = found + F.interpolate(scores, (GRID, GRID), mode="bilinear", align_corners=False)
        return found / (1 + math.pi / 8 * self._variance(features) / EVIDENCE).sqrt().view(-1, 1, 1, 1)

    def strangeness(self, features: PixelFeatures) -> Tensor:
        """Return how unlike the support images' colours and textures those of images are: (B,)."""
        rows = features.filters[..., PROBE_STEP // 2 :: PROBE_STEP, PROBE_STEP // 2 :: PROBE_STEP]
        scaled = self.filter_scale(rows.flatten(2).transpose(1, 2)) / math.sqrt(NUM_FILTERS)
        return self._mean_variance(scaled, self.filter_factor)

    def _expand(self, filters: Tensor) -> Tensor:
        return expand(self.filter_scale(filters), self.frequencies, self.phases)

    def _variance(self, features: PixelFeatures) -> Tensor:
        """Return the mean variance of an image's logits: (B,)."""
        places = torch.arange(PROBE_STEP // 2, GRID, PROBE_STEP, device=self.bias.device)
        position = (GRID * places[:, None] + places).flatten()
        found = []
        for index, filters in enumerate(features.filters):
            inputs = [self._expand(filters.flatten(1).T[position])]
            for tap, scale in zip(features.deep, self.deep_scales, strict=True):
                inputs.append(scale(_rows([tap[index : index + 1]], torch.zeros_like(position), position)))
            found.append(self._mean_variance(torch.cat(inputs, dim=1)[None], self.factor))
        return torch.cat(found)

    @staticmethod
    def _mean_variance(rows: Tensor, factor: Tensor) -> Tensor:
        """Return the mean variance of logits of inputs (B, N, C): (B,)."""
        solved = torch.linalg.solve_triangular(factor, rows.transpose(1, 2), upper=False)
        variance: Tensor = solved.pow(2).sum(dim=1).mean(dim=1)
        return variance


def choose(labels: Tensor, known: Tensor) -> Tensor | None:
    """Choose positions to learn from, of labels (N,) in [0, 1]: (M,); None if one class has none.

    known: (N,) bool, the positions to choose from. A position of which the object covers a twentieth counts
    as its own, so that small objects are not lost.
    """
    generator = torch.Generator().manual_seed(0)
    chosen = []
    for own in (labels >= 0.05, labels < 0.05):
        places = (own & known).nonzero()[:, 0]
        if not len(places):
            return None
        order = torch.randperm(len(places), generator=generator)[:SAMPLES].to(places.device)
        chosen.append(places[order])
    return torch.cat(chosen)


def fourier(like: Tensor) -> tuple[Tensor, Tensor]:
    """Draw frequencies (NUM_FILTERS, NUM_FOURIER) and phases (NUM_FOURIER,), always the same."""
    generator = torch.Generator().manual_seed(0)
    frequencies = FOURIER_SCALE * torch.randn(NUM_FILTERS, NUM_FOURIER, generator=generator)
    phases = 2 * math.pi * torch.rand(NUM_FOURIER, generator=generator)
    return frequencies.to(like), phases.to(like)


def expand(filters: Tensor, frequencies: Tensor, phases: Tensor) -> Tensor:
    """Put Fourier features beside standardized filters (…, NUM_FILTERS); both have a mean square of 1."""
    waves = torch.cos(filters @ frequencies + phases) * math.sqrt(2 / NUM_FOURIER)
    return torch.cat([filters / math.sqrt(NUM_FILTERS), waves], dim=-1)


def logistic(inputs: Tensor, target: Tensor, weight: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Fit a logistic regression: weights (C,), bias (1,), and the Cholesky factor (C, C) of the Hessian.

    inputs: (N, C). target: (N,) in [0, 1]. weight: (N,), with a sum of 1.
    """
    with torch.inference_mode(False), torch.enable_grad():
        inputs, target, weight = inputs.clone(), target.clone(), weight.clone()  # no inference tensors
        weights = torch.zeros(inputs.shape[1], device=inputs.device, requires_grad=True)
        bias = torch.zeros(1, device=inputs.device, requires_grad=True)
        optimiser = torch.optim.LBFGS(
            [weights, bias], max_iter=STEPS, history_size=8, line_search_fn="strong_wolfe"
        )

        def loss() -> Tensor:
            optimiser.zero_grad()
            errors = F.binary_cross_entropy_with_logits(inputs @ weights + bias, target, reduction="none")
            total = (weight * errors).sum() + RIDGE / 2 * weights.pow(2).sum()
            total.backward()  # type: ignore[no-untyped-call]
            return total

        optimiser.step(loss)  # type: ignore[no-untyped-call]
    with torch.no_grad():
        probability = (inputs @ weights + bias).sigmoid()
        curvature = (weight * probability * (1 - probability))[:, None]
        hessian = inputs.T @ (inputs * curvature)
        hessian += RIDGE * torch.eye(len(hessian), device=hessian.device)
        return weights.detach(), bias.detach(), torch.linalg.cholesky(hessian)


def _rows(taps: Sequence[Tensor], image: Tensor, position: Tensor) -> Tensor:
    """Interpolate taps (1, C, h, w), one for each image, at positions of the grid: (N, C)."""
    centers = torch.stack([position % GRID, position // GRID], dim=1)
    places = (2 * centers + 1) / GRID - 1
    found = taps[0].new_empty(len(position), taps[0].shape[1])
    for index, tap in enumerate(taps):
        own = image == index
        sampled = F.grid_sample(
            tap, places[own][None, None].to(tap.dtype), padding_mode="border", align_corners=False
        )
        found[own] = sampled[0, :, 0].T
    return found
