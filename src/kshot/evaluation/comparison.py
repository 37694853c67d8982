"""The difference of two methods on the same episodes, with its interval."""

from dataclasses import dataclass

from kshot.errors import DataError
from kshot.evaluation.metrics import Interval, interval
from kshot.evaluation.results import Result, resample


@dataclass(frozen=True)
class Difference:
    """The fractions A, B and B - A, with the 95 % interval of B - A (paired bootstrap over episodes)."""

    name: str
    a: float
    b: float
    difference: float
    interval: Interval


def compare(a: Result, b: Result) -> list[Difference]:
    """Compare two results by mIoU, FB-IoU and class. Raises DataError unless the episodes are the same."""
    _check_same(a, b)
    sample_a, sample_b = resample(a.runs, tuple(a.classes), b.runs)
    names = ["miou", "fb_iou", *a.classes.values()]
    values_a = [a.miou, a.fb_iou, *a.class_iou.values()]
    values_b = [b.miou, b.fb_iou, *b.class_iou.values()]
    return [
        Difference(name, value_a, value_b, value_b - value_a, interval(sample_b[:, i] - sample_a[:, i]))
        for i, (name, value_a, value_b) in enumerate(zip(names, values_a, values_b, strict=True))
    ]


def _check_same(a: Result, b: Result) -> None:
    for what, of_a, of_b in (
        ("benchmark", a.benchmark, b.benchmark),
        ("fold", a.fold, b.fold),
        ("number of shots", a.shots, b.shots),
        ("set of episodes (sha256)", a.manifests, b.manifests),
        ("size at which they were scored", a.scored_at, b.scored_at),
        ("classes", a.classes, b.classes),
    ):
        if of_a != of_b:
            raise DataError(
                f"The two results cannot be compared: their {what} differs ({_short(of_a)} and "
                f"{_short(of_b)}). Run `kshot evaluate` with the same protocol, or the same --manifest."
            )
    if a.scored_at == "network" and a.image_size != b.image_size:
        raise DataError(
            f"The two results cannot be compared: they were scored at {a.image_size} and at {b.image_size} "
            "pixels. Run both with the same --set image_size, or with --set scored_at=original."
        )


def _short(value: object) -> str:
    if isinstance(value, tuple):
        return ", ".join(str(part)[:12] for part in value)
    return str(value)
