import numpy as np
import pytest
import torch

from kshot.training.regions import AREA, find_region

SIZE = 60


def photograph(*bands):
    """Features (C, 12, 12) of a photograph of upright bands, each of a kind of its own."""
    kinds = torch.eye(8)
    columns = [kinds[kind] for kind in bands for _ in range(12 // len(bands))]
    return torch.stack(columns, dim=1)[:, None].expand(-1, 12, -1)


def draw(*photographs, draws=40):
    """Draw often; give the masks, (N, SIZE, SIZE) each."""
    features = torch.stack(photographs) + 0.01 * torch.rand(len(photographs), 8, 12, 12)
    drawn = (find_region(features, SIZE, np.random.default_rng(seed)) for seed in range(draws))
    return [masks for masks in drawn if masks is not None]


def test_a_region_is_the_same_kind_of_thing_in_both():
    torch.manual_seed(0)
    # Kinds 0 and 1 are in both photographs, on other sides; 2 is only in the first, 3 only in the second.
    drawn = draw(photograph(0, 1, 2), photograph(1, 3, 0))
    # Left, middle and right of each photograph.
    shown = {tuple(map(tuple, masks[:, SIZE // 2, [9, 29, 49]].tolist())) for masks in drawn}
    assert ((1, 0, 0), (0, 0, 1)) in shown  # kind 0
    assert ((0, 1, 0), (1, 0, 0)) in shown  # kind 1
    whole = [m for m in drawn if m[0, SIZE // 2, 9] and m[1, SIZE // 2, 49]]
    exact = torch.zeros(2, SIZE, SIZE)
    exact[0, :, :20] = exact[1, :, 40:] = 1
    agreement = max((m == exact).float().mean().item() for m in whole)
    assert agreement > 0.9


def test_regions_cover_neither_nearly_nothing_nor_nearly_all():
    torch.manual_seed(1)
    for masks in draw(torch.rand(8, 12, 12), torch.rand(8, 12, 12)):
        area = masks.float().mean(dim=(1, 2))
        assert ((area >= AREA[0]) & (area <= AREA[1])).all()
        assert set(masks.unique().tolist()) == {0, 1}


def test_photographs_that_share_nothing_have_no_region():
    torch.manual_seed(2)
    first, second = photograph(0, 1, 2), photograph(3, 4, 5)
    alone = [find_region(torch.stack([first, second]), SIZE, np.random.default_rng(n)) for n in range(40)]
    # Two kinds of different photographs are as alike as two of one, so a cluster that begins at neither
    # can take both; with a cluster for each there is nothing to draw.
    assert sum(masks is None for masks in alone) > 20


@pytest.mark.parametrize("side", [3, 17])
def test_the_draw_is_the_seeds_alone(side):
    features = torch.rand(2, 8, side, side)
    one, again = (find_region(features, SIZE, np.random.default_rng(5)) for _ in range(2))
    assert (one is None) == (again is None)
    if one is not None:
        assert torch.equal(one, again)
