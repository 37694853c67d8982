"""Step 7 of the network, in training only: the losses (paper, eqs. 9 and 16)."""

from torch import Tensor
from torch.nn import functional as F

from kshot.models.hypercorrelation import resize
from kshot.types import IGNORE_INDEX, Prediction

KAPPA = 0.1
"""The paper's weight of the Shannon term in the combined loss (below eq. 8)."""


def losses(
    prediction: Prediction, query_mask: Tensor, kappa: float = KAPPA, dice_weight: float = 0.0
) -> dict[str, Tensor]:
    """Compute each loss term of a prediction; their sum, with equal weights, is to be minimised.

    A term is the mean over the episodes of their means over pixels, so that it does not matter which
    episodes share a batch. query_mask: (B, H, W) long, 0 background, 1 foreground, 255 ignored. Logits are
    resized to it. kappa: weight of the Shannon term. dice_weight: of a Dice term in each of them (not in the
    paper), which counts an object's pixels as mIoU does: a share of it, however small it is.
    Returns `final` always; `cls`, `sem`, `combined`, `second` where the method has that step.
    """
    logits = {
        "cls": prediction.cls,
        "sem": prediction.sem,
        "combined": prediction.combined,
        "second": prediction.second,
    }
    # A network whose answer is one of its steps would else count that step twice.
    if all(step is not prediction.final for step in logits.values()):
        logits["final"] = prediction.final
    terms = {}
    for name, step in logits.items():
        if step is not None:
            step = resize(step.float(), query_mask.shape[-2:])
            terms[name] = _cross_entropy(step, query_mask)
            if dice_weight:
                terms[name] = terms[name] + dice_weight * dice(step, query_mask)
            if name == "combined":
                terms[name] = terms[name] - kappa * shannon(step, query_mask)
    return terms


def _cross_entropy(logits: Tensor, query_mask: Tensor) -> Tensor:
    per_pixel = F.cross_entropy(logits, query_mask, ignore_index=IGNORE_INDEX, reduction="none")
    return _mean_over_known(per_pixel, query_mask)


def shannon(logits: Tensor, query_mask: Tensor) -> Tensor:
    """Mean over known pixels of sum p log p, the paper's L_Sh: minus the entropy in nats, so never above 0.

    The combined loss subtracts it, that is, adds entropy; minimised, it polarises the first pass.
    logits: (B, 2, H, W). query_mask: (B, H, W), 255 where nothing is known, nor wanted.
    """
    per_pixel = (logits.softmax(dim=1) * logits.log_softmax(dim=1)).sum(dim=1)
    return _mean_over_known(per_pixel * (query_mask != IGNORE_INDEX), query_mask)


def dice(logits: Tensor, query_mask: Tensor) -> Tensor:
    """Compute 1 - 2 sum(p y) / (sum p + sum y), the mean over episodes, in [0, 1] (Milletari et al. 2016).

    logits: (B, 2, H, W). query_mask: (B, H, W), 255 where nothing is known. A pixel is added above and below,
    so that an image without the object has a gradient too.
    """
    known = (query_mask != IGNORE_INDEX).flatten(1)
    probability = logits.softmax(dim=1)[:, 1].flatten(1) * known
    target = (query_mask == 1).flatten(1).to(probability.dtype)
    both = (probability * target).sum(dim=1)
    return (1 - (2 * both + 1) / (probability.sum(dim=1) + target.sum(dim=1) + 1)).mean()


def _mean_over_known(per_pixel: Tensor, query_mask: Tensor) -> Tensor:
    """Average values (B, H, W) that are 0 at ignored pixels over the others, then over the episodes."""
    known = (query_mask != IGNORE_INDEX).flatten(1).sum(dim=1).clamp(min=1)
    return (per_pixel.flatten(1).sum(dim=1) / known).mean()
