"""Scores of a model on episodes: mIoU, FB-IoU, their intervals, and comparisons of two results."""

from typing import TYPE_CHECKING

from kshot.lazy import lazy_names

if TYPE_CHECKING:
    from kshot.evaluation.comparison import Difference, compare
    from kshot.evaluation.evaluator import ManifestCounts, evaluate
    from kshot.evaluation.metrics import Counts, Scores, bootstrap, count_pixels, interval, score_episodes
    from kshot.evaluation.results import Result, read_result, summary, write_result
    from kshot.evaluation.score import score_model
    from kshot.evaluation.suite import Runner, SegmenterRunner, evaluate_suite
    from kshot.evaluation.thresholds import score_thresholds

__all__ = [
    "Counts", "Difference", "ManifestCounts", "Result", "Runner", "Scores", "SegmenterRunner",
    "bootstrap", "compare", "count_pixels", "evaluate", "evaluate_suite", "interval", "read_result",
    "score_episodes", "score_model", "score_thresholds", "summary", "write_result",
]  # fmt: skip

__getattr__ = lazy_names(
    __name__,
    {
        "kshot.evaluation.comparison": "Difference compare",
        "kshot.evaluation.evaluator": "ManifestCounts evaluate",
        "kshot.evaluation.metrics": "Counts Scores bootstrap count_pixels interval score_episodes",
        "kshot.evaluation.results": "Result read_result summary write_result",
        "kshot.evaluation.score": "score_model",
        "kshot.evaluation.suite": "Runner SegmenterRunner evaluate_suite",
        "kshot.evaluation.thresholds": "score_thresholds",
    },
)
