"""Several shots in matching networks: one pass for each shot, and a vote (Min et al. 2021)."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from kshot.models.hypercorrelation import resize
from kshot.types import Prediction, Segmentation


def segment_by_vote(
    predictions: Sequence[Prediction], size: tuple[int, int], threshold: float
) -> Segmentation:
    """Return the vote of each shot's mask (probability above `threshold`) at `size` = (height, width).

    Maps other than the mask are means over the shots.
    """
    # Summed one by one: at an image's full size, all shots at once would take gigabytes.
    votes = probability = torch.zeros((), device=predictions[0].final.device)
    for prediction in predictions:
        one = foreground(resize(prediction.final, size))[:, 0]
        votes = votes + (one > threshold)
        probability = probability + one / len(predictions)
    return Segmentation(
        mask=decide(votes),
        probability=probability.clamp(max=1),
        first_pass=_mean([p.combined for p in predictions], foreground, size),
        second_pass=_mean([p.second for p in predictions], foreground, size),
        base_map=_mean([p.base_map for p in predictions], lambda base_map: base_map, size),
    )


def decide(votes: Tensor) -> Tensor:
    """Decide each pixel from its number of votes (B, H, W): foreground from half the image's largest.

    Returns (B, H, W) bool; an image without any vote is all background.
    """
    largest = votes.amax(dim=(-2, -1), keepdim=True)
    return (votes > 0) & (votes * 2 >= largest)


def foreground(logits: Tensor) -> Tensor:
    """Return the foreground probability (B, 1, H, W) of logits (B, 2, H, W)."""
    return logits.softmax(dim=1)[:, 1:]


def _mean(
    maps: Sequence[Tensor | None], to_probability: Callable[[Tensor], Tensor], size: tuple[int, int]
) -> Tensor | None:
    """Return the mean of a step over the shots, resized; None if the method has no such step."""
    present = [to_probability(one) for one in maps if one is not None]
    return resize(torch.stack(present).mean(dim=0), size)[:, 0] if present else None
