import numpy as np
import pytest
from PIL import Image

from kshot.predict.stats import Sketch, Tally, probabilities_of, values_of
from kshot.segmenter import Explanation, LabelExplanation

RANDOM = np.random.default_rng(0)


def explanation(rows):
    fused = RANDOM.random((rows, 23), np.float32)
    fused[0, 0] = np.nan
    return Explanation(fused > 0.5, fused, None, None, None)


def joined(parts):
    return Explanation(
        *(np.concatenate([getattr(p, n) for p in parts]) for n in ("mask", "fused")), *[None] * 3
    )


@pytest.mark.parametrize("step", [1, 3, 8])
def test_strips_give_the_sketch_and_the_numbers_of_the_whole(step):
    parts = [explanation(rows) for rows in (7, 1, 2, 9, 4)]
    whole, sketch, tally = joined(parts), Sketch(step), Tally()
    for part in parts:
        sketch.add(part)
        tally.add(part)
    shown = sketch.whole()
    np.testing.assert_array_equal(shown.mask, whole.mask[::step, ::step])
    np.testing.assert_array_equal(shown.fused, np.nan_to_num(whole.fused[::step, ::step]))
    answer = tally.answer(Image.new("RGB", (1, 1)), shown)
    assert answer.shares == {"foreground": pytest.approx(whole.mask.mean())}
    assert answer.confidence == pytest.approx(whole.confidence)


def test_of_several_classes_each_is_told():
    parts = [explanation(4), explanation(4)]
    labels = np.where(parts[0].mask, 1, np.where(parts[1].mask, 2, 0)).astype(np.uint8)
    both = LabelExplanation(labels, dict(zip("ab", parts, strict=True)))
    tally, sketch = Tally(), Sketch(2)
    tally.add(both)
    sketch.add(both)
    assert tally.answer(None, both).shares == {"a": (labels == 1).mean(), "b": (labels == 2).mean()}
    np.testing.assert_array_equal(values_of(sketch.whole()), labels[::2, ::2])
    assert probabilities_of(both).shape == (2, 4, 23)


def test_where_nothing_was_found_the_confidence_is_0():
    nothing = Explanation(np.zeros((2, 2), bool), np.zeros((2, 2), np.float32), None, None, None)
    tally = Tally()
    tally.add(nothing)
    assert tally.answer(None, nothing)[2:] == ({"foreground": 0}, 0)
