"""The result of a segmentation, by hand-made arrays."""

import numpy as np
import pytest
from PIL import Image

from kshot.io.images import read_mask
from kshot.results import SegmentationResult, choose_label_values


def one_class(mask, probability, name="object"):
    return SegmentationResult.of_one_class(
        np.array(mask, dtype=bool), np.array(probability, dtype=np.float32), name
    )


def test_the_likeliest_class_has_the_pixel_and_no_mask_none():
    first = one_class([[1, 1, 1, 0, 0]], [[0.6, 0.9, 0.7, 0.45, 0.0]])
    second = one_class([[1, 1, 0, 0, 1]], [[0.8, 0.9, 0.9, 0.40, 0.0]])
    # 2 is likelier; equal, so the first; only 1 is in a mask; none; a vote without any probability.
    merged = SegmentationResult.merge({"a": first, "b": second})
    assert merged.labels.tolist() == [[2, 1, 1, 0, 2]]
    assert merged.mask.tolist() == [[True, True, True, False, True]]
    assert merged.of_class("b").mask.tolist() == [[True, False, False, False, True]]
    np.testing.assert_array_equal(merged.of_class("b").probability, second.probability)
    assert merged.shares == {"a": 0.4, "b": 0.4}
    with pytest.raises(KeyError, match="no class 'c', but a, b"):
        merged.of_class("c")


def test_probabilities_of_several_classes_sum_to_1_with_the_background():
    random = np.random.default_rng(0)
    each = {name: one_class(p > 0.5, p) for name in "abc" for p in [random.random((5, 6))]}
    merged = SegmentationResult.merge(each)
    assert merged.probability.shape == (4, 5, 6)
    np.testing.assert_allclose(merged.probability.sum(axis=0), 1, rtol=1e-5)
    np.testing.assert_array_equal(merged.probability.argmax(axis=0), merged.labels)
    # Beside a class that is out of the question the other one keeps its probability.
    p = random.random((5, 6))
    alone = SegmentationResult.merge({"a": one_class(p > 0.5, p), "b": one_class(p > 2, 0 * p)})
    np.testing.assert_allclose(alone.probability[1], p, atol=1e-4)


def test_confidence_is_the_mean_probability_of_the_mask():
    probability = np.array([[0.9, 0.7], [0.2, 0.6]])
    assert one_class([[1, 1], [0, 0]], probability).confidence == pytest.approx(0.8)
    assert one_class([[0, 0], [0, 0]], probability * 0.4).confidence == pytest.approx(
        1 - 0.4 * probability.max()
    )
    assert "nothing found" in repr(one_class([[0, 0], [0, 0]], probability * 0.4))


def test_confidence_of_several_classes_is_that_of_each_pixels_own_class():
    labels = np.array([[1, 1], [2, 0]], dtype=np.uint8)
    levels = np.stack([np.full((2, 2), value, dtype=np.float32) for value in (0.9, 0.6)])
    assert SegmentationResult(labels, levels, ("a", "b")).confidence == pytest.approx((0.9 + 0.9 + 0.6) / 3)
    assert SegmentationResult(labels * 0, levels, ("a", "b")).confidence == pytest.approx(1 - levels.max())


def test_instances_are_connected_parts_with_box_area_score_and_outline():
    mask = np.zeros((40, 50), dtype=bool)
    mask[2:10, 3:13] = mask[20:35, 30:34] = mask[0, 49] = True
    result = one_class(mask, np.where(mask, 0.75, 0.25), "cell")
    first, second = result.instances()
    assert (first.class_name, first.box, first.area) == ("cell", (3, 2, 13, 10), 80)
    assert first.score == pytest.approx(0.75)
    assert first.mask.shape == (8, 10)
    assert len(first.polygon) == 4
    assert second.box == (30, 20, 34, 35)
    assert len(result.instances(min_area=1)) == 3


def test_a_result_is_an_array_a_image_and_a_file(tmp_path):
    mask = np.zeros((20, 30), dtype=bool)
    mask[5:9, 5:9] = True
    image = Image.new("RGB", (30, 20), "green")
    result = one_class(mask, mask * 0.9).with_source(image)
    np.testing.assert_array_equal(np.asarray(result), mask)
    result.save(tmp_path / "mask.png")
    np.testing.assert_array_equal(read_mask(tmp_path / "mask.png", (20, 30)), mask)
    drawn = np.asarray(result.plot())
    assert (drawn != np.asarray(image)).any(axis=-1).sum() == 16
    assert "30 x 20: object 2.7 %; confidence 0.90" in repr(result)
    with pytest.raises(ValueError, match="does not know its image"):
        one_class(mask, mask).plot()
    both = SegmentationResult.merge({"a": result, "b": one_class(~mask, ~mask)})
    both.save(tmp_path / "labels.png")
    with Image.open(tmp_path / "labels.png") as file:
        np.testing.assert_array_equal(np.asarray(file), both.labels)
    np.testing.assert_array_equal(np.asarray(both), both.labels)


def test_labels_have_the_values_that_classes_were_given():
    a, b = one_class([[1, 1, 0]], [[0.9, 0.6, 0.1]]), one_class([[0, 1, 0]], [[0.1, 0.8, 0.1]])
    result = SegmentationResult.merge({"giraffe": a, "zebra": b}, {"giraffe": 24, "zebra": 23})
    assert result.labels.tolist() == [[24, 23, 0]]
    assert result.counts == {"giraffe": 1, "zebra": 1}
    assert result.confidence == pytest.approx(0.85)
    assert result.of_class("zebra").mask.tolist() == [[False, True, False]]
    assert result.thin(1).class_values == SegmentationResult.stack([result] * 2, 2).class_values == (24, 23)
    assert [(one.class_name, one.area) for one in result.instances(min_area=1)] == [
        ("giraffe", 1),
        ("zebra", 1),
    ]


def test_values_that_a_label_map_cannot_hold_are_numbered(caplog):
    assert choose_label_values({"a": 254, "b": 1}) == {"a": 254, "b": 1}
    assert choose_label_values({"a": None, "b": None}) == {"a": 1, "b": 2}
    assert choose_label_values({"a": 24}) == {"a": 1}  # one class is a mask
    assert not caplog.records
    assert choose_label_values({"a": 300, "b": 3}) == {"a": 1, "b": 2}
    assert "300: a=1, b=2" in caplog.text
