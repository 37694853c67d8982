"""The training losses (eqs. 9 and 16)."""

from torch import Tensor
from torch.nn import functional as F

from kshot.models.choices import KAPPA
from kshot.models.hypercorrelation import resize
from kshot.types import IGNORE_INDEX, Prediction


def training_losses(
    prediction: Prediction, query_mask: Tensor, kappa: float = KAPPA, dice_weight: float = 0.0
) -> dict[str, Tensor]:
    """Compute the loss terms of a prediction; the total loss is their sum.

    A term is the mean over episodes of the mean over pixels, so it does not depend on which episodes share a
    batch. query_mask: (B, H, W) long, 0 background, 1 foreground, 255 ignored; logits are resized to it.
    kappa: weight of the Shannon term. dice_weight: weight of a Dice term in every term (not in the paper),
    which scores an object's pixels relative to its size, as mIoU does.
    Returns `final`, and `cls`, `sem`, `combined`, `second` if the method has that step.
    """
    logits = {
        "cls": prediction.cls,
        "sem": prediction.sem,
        "combined": prediction.combined,
        "second": prediction.second,
    }
    # A network whose final logits are one of its steps must not count that step twice.
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
    return _mean_over_labeled(per_pixel, query_mask)


def shannon(logits: Tensor, query_mask: Tensor) -> Tensor:
    """Return the mean of sum p log p over labeled pixels, the paper's L_Sh: minus the entropy in nats, <= 0.

    The combined loss subtracts it, so it adds entropy; minimizing that polarizes the first pass.
    logits: (B, 2, H, W). query_mask: (B, H, W), 255 ignored.
    """
    per_pixel = (logits.softmax(dim=1) * logits.log_softmax(dim=1)).sum(dim=1)
    return _mean_over_labeled(per_pixel * (query_mask != IGNORE_INDEX), query_mask)


def dice(logits: Tensor, query_mask: Tensor) -> Tensor:
    """Compute 1 - 2 sum(p y) / (sum p + sum y), the mean over episodes, in [0, 1] (Milletari et al. 2016).

    logits: (B, 2, H, W). query_mask: (B, H, W), 255 ignored. One is added to numerator and denominator, so
    that an image without the object has a gradient, too.
    """
    is_labeled = (query_mask != IGNORE_INDEX).flatten(1)
    probability = logits.softmax(dim=1)[:, 1].flatten(1) * is_labeled
    target = (query_mask == 1).flatten(1).to(probability.dtype)
    intersection = (probability * target).sum(dim=1)
    return (1 - (2 * intersection + 1) / (probability.sum(dim=1) + target.sum(dim=1) + 1)).mean()


def _mean_over_labeled(per_pixel: Tensor, query_mask: Tensor) -> Tensor:
    """Average (B, H, W) over labeled pixels, then over episodes; values are 0 at ignored pixels."""
    num_labeled = (query_mask != IGNORE_INDEX).flatten(1).sum(dim=1).clamp(min=1)
    return (per_pixel.flatten(1).sum(dim=1) / num_labeled).mean()
