import torch

from kshot.methods.voting import decide, segment_by_vote
from kshot.types import Prediction


def test_votes_are_divided_by_each_images_own_largest():
    masks = torch.tensor(
        [
            [[[1, 1, 0, 0]], [[1, 1, 1, 0]]],
            [[[1, 1, 0, 0]], [[1, 0, 0, 0]]],
            [[[1, 0, 0, 0]], [[0, 0, 0, 0]]],
            [[[1, 0, 1, 0]], [[0, 0, 0, 0]]],
        ],
        dtype=torch.bool,
    )
    # The first image's largest vote is 4 of 4, so 2 are enough; the second's is 2, so 1 is.
    assert decide(masks.sum(0)).tolist() == [[[True, True, False, False]], [[True, True, True, False]]]


def test_without_any_vote_all_is_background():
    assert not decide(torch.zeros(2, 3, 3)).any()


def test_one_shot_is_its_own_mask():
    mask = torch.rand(2, 5, 5) > 0.5
    assert torch.equal(decide(mask.int()), mask)


def test_maps_are_means_over_the_shots_and_steps_that_lack_stay_none():
    logits = {n: torch.randn(1, 2, 3, 3) for n in range(2)}
    result = segment_by_vote([Prediction(final=one, second=one) for one in logits.values()], (3, 3), 0.5)
    probabilities = torch.stack([logits[n].softmax(1)[:, 1] for n in range(2)])
    torch.testing.assert_close(result.probability, probabilities.mean(0))
    torch.testing.assert_close(result.second_pass, probabilities.mean(0))
    assert torch.equal(result.mask, (probabilities > 0.5).any(0))  # 1 of 2 votes is half of 2
    assert result.first_pass is None
    assert result.base_map is None
