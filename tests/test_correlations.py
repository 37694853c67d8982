import pytest
import torch
from make_data import random_pyramid, square_mask

from kshot.errors import DataError
from kshot.models.hypercorrelation import NORM_EPS, normalize_features
from kshot.reproduction.correlations import correlation_maps, depth_maps


def test_correlation_maps_equal_loops_over_positions():
    query, support = (
        random_pyramid(sizes=((4, 5), (3, 3), (2, 2))),
        random_pyramid(sizes=((6, 4), (3, 2), (2, 2))),
    )
    mask = square_mask(batch=2, size=(24, 24)) * torch.tensor([1.0, 0.5]).view(2, 1, 1, 1)
    maps = correlation_maps(normalize_features(query), normalize_features(support), mask)
    taps = [
        (q, s)
        for stages in zip(query.stages, support.stages, strict=True)
        for q, s in zip(*stages, strict=True)
    ]
    assert len(maps) == len(taps) == 6
    for values, (q, s) in zip(maps, taps, strict=True):
        rows, columns = s.shape[-2:]
        for b in range(2):
            for h in range(q.shape[2]):
                for w in range(q.shape[3]):
                    total = weight = 0.0
                    for u in range(rows):
                        for v in range(columns):
                            cell = mask[b, 0].reshape(rows, 24 // rows, columns, 24 // columns)[u, :, v]
                            one, other = q[b, :, h, w], s[b, :, u, v]
                            cosine = one @ other / (one.norm() + NORM_EPS) / (other.norm() + NORM_EPS)
                            total += cosine.clamp(min=0) * cell.mean()
                            weight += cell.mean()
                    assert values[b, h, w].item() == pytest.approx(float(total / weight), abs=1e-5)


def test_an_image_correlates_most_with_its_own_object():
    pyramid = normalize_features(random_pyramid(batch=1, sizes=((8, 8), (4, 4), (2, 2))))
    mask = torch.zeros(1, 1, 8, 8)
    mask[..., 3, 5] = 1
    first = correlation_maps(pyramid, pyramid, mask)[0][0]
    assert first.argmax() == 3 * 8 + 5
    assert first[3, 5].item() == pytest.approx(1, abs=1e-3)


def test_an_empty_mask_is_an_error():
    pyramid = normalize_features(random_pyramid(batch=1))
    with pytest.raises(DataError, match="mask is empty"):
        correlation_maps(pyramid, pyramid, torch.zeros(1, 1, 32, 32))


def test_depth_maps_are_the_last_taps_at_the_query_s_size():
    pyramid = normalize_features(random_pyramid(batch=1, taps=(2, 3, 1)))
    mask = square_mask()
    maps = correlation_maps(pyramid, pyramid, mask)
    for per_stage, numbers in ((1, [2, 5, 6]), (2, [1, 2, 4, 5, 6])):
        chosen = depth_maps(pyramid, pyramid, mask, (45, 60), taps_per_stage=per_stage)
        strides = {1: 8, 2: 8, 4: 16, 5: 16, 6: 32}
        assert [m.depth.replace("\u00a0", " ") for m in chosen] == [
            f"Tap {k}, stride {strides[k]}" for k in numbers
        ]
        for k, (_, values) in zip(numbers, chosen, strict=True):
            assert values.shape == (45, 60)
            assert values[0, 0] == pytest.approx(maps[k - 1][0, 0, 0].item(), abs=1e-6)  # corners on corners
            assert values[-1, -1] == pytest.approx(maps[k - 1][0, -1, -1].item(), abs=1e-6)
