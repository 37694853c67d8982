"""How matching networks use several shots: one whole pass for each, and a vote (Min et al. 2021)."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from kshot.episode import Prediction, Segmentation, Support
from kshot.network.hypercorrelation import resize


def segment_by_vote(
    predict: Callable[[Support], Prediction], supports: Sequence[Support], size: tuple[int, int]
) -> Segmentation:
    """Predict with each support alone, at `size` = (height, width), and let the masks vote.

    Maps other than the mask are means over the shots.
    """
    predictions = [predict(support) for support in supports]

    def mean(maps: Sequence[Tensor | None]) -> Tensor | None:
        present = [resize(one, size)[:, 0] for one in maps if one is not None]
        return torch.stack(present).mean(dim=0) if present else None

    probabilities = torch.stack([foreground(resize(p.final, size))[:, 0] for p in predictions])
    return Segmentation(
        mask=vote(probabilities > 0.5),
        probability=probabilities.mean(dim=0),
        first_pass=mean([p.combined if p.combined is None else foreground(p.combined) for p in predictions]),
        second_pass=mean([p.second if p.second is None else foreground(p.second) for p in predictions]),
        base_map=mean([p.base_map for p in predictions]),
    )


def vote(masks: Tensor) -> Tensor:
    """Decide each pixel from K binary masks (K, B, H, W): foreground from half the image's largest vote.

    Returns (B, H, W) bool; an image without any vote is all background.
    """
    votes = masks.sum(dim=0)
    largest = votes.amax(dim=(-2, -1), keepdim=True)
    return (votes > 0) & (votes * 2 >= largest)


def foreground(logits: Tensor) -> Tensor:
    """Give the foreground probability (B, 1, H, W) of logits (B, 2, H, W)."""
    return logits.softmax(dim=1)[:, 1:]
