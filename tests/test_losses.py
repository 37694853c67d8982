import math

import pytest
import torch
from torch.nn import functional as F

from kshot.models.choices import KAPPA
from kshot.models.losses import dice, shannon, training_losses
from kshot.types import IGNORE_INDEX, Prediction

ALL_KNOWN = torch.zeros(1, 4, 4, dtype=torch.long)


def logits_of(probability):
    return torch.log(torch.tensor([1 - probability, probability])).view(1, 2, 1, 1).expand(1, 2, 4, 4)


def test_shannon_by_hand():
    assert shannon(logits_of(0.5), ALL_KNOWN).item() == pytest.approx(-math.log(2))
    assert shannon(logits_of(0.9), ALL_KNOWN).item() == pytest.approx(
        0.9 * math.log(0.9) + 0.1 * math.log(0.1)
    )
    assert shannon(
        torch.tensor([80.0, -80.0]).view(1, 2, 1, 1), ALL_KNOWN[:, :1, :1]
    ).item() == pytest.approx(0)


def test_entropy_lowers_as_the_prediction_polarises():
    entropies = [-shannon(logits_of(p), ALL_KNOWN).item() for p in (0.5, 0.6, 0.8, 0.95, 0.999)]
    assert entropies == sorted(entropies, reverse=True)


def test_the_combined_term_rewards_polarised_predictions():
    """Where half the pixels are wrong either way, only the Shannon term moves the logits apart."""
    logits = torch.tensor([0.2, -0.2]).view(1, 2, 1, 1).repeat(1, 1, 2, 2).requires_grad_()
    target = torch.zeros(1, 2, 2, dtype=torch.long)
    with_shannon = training_losses(Prediction(final=logits * 1, combined=logits), target)["combined"]
    assert with_shannon.item() == pytest.approx(
        F.cross_entropy(logits, target).item() - KAPPA * shannon(logits, target).item(), abs=1e-6
    )
    (gradient,) = torch.autograd.grad(-KAPPA * shannon(logits, target), logits)
    moved = logits - gradient
    assert -shannon(moved, target) < -shannon(logits, target)


def test_another_weight_of_the_shannon_term_changes_the_combined_loss_alone():
    maps = {name: torch.randn(1, 2, 4, 4) for name in ("final", "cls", "combined")}
    without, with_it = (training_losses(Prediction(**maps), ALL_KNOWN, kappa) for kappa in (0.0, 0.7))
    assert (with_it["combined"] - without["combined"]).item() == pytest.approx(
        -0.7 * shannon(maps["combined"], ALL_KNOWN).item()
    )
    assert all(torch.equal(with_it[name], without[name]) for name in ("final", "cls"))


def test_there_are_five_terms_with_equal_weights():
    maps = {name: torch.randn(2, 2, 6, 6) for name in ("final", "cls", "sem", "combined", "second")}
    target = torch.randint(0, 2, (2, 12, 12))
    terms = training_losses(Prediction(**maps), target)
    assert list(terms) == ["cls", "sem", "combined", "second", "final"]
    for name, logits in maps.items():
        resized = F.interpolate(logits, (12, 12), mode="bilinear", align_corners=True)
        expected = F.cross_entropy(resized, target)
        if name == "combined":
            expected = expected - KAPPA * shannon(resized, target)
        torch.testing.assert_close(terms[name], expected)


def test_a_step_that_is_the_prediction_counts_once():
    logits, target = torch.randn(1, 2, 4, 4), torch.zeros(1, 4, 4, dtype=torch.long)
    assert list(training_losses(Prediction(final=logits), target)) == ["final"]
    assert list(training_losses(Prediction(final=logits, second=logits), target)) == ["second"]


def test_ignored_pixels_have_no_gradient():
    logits = torch.randn(1, 2, 4, 4, requires_grad=True)
    target = torch.zeros(1, 4, 4, dtype=torch.long)
    target[0, 1] = IGNORE_INDEX
    for name, term in training_losses(Prediction(final=logits * 1, combined=logits), target).items():
        (gradient,) = torch.autograd.grad(term, logits, retain_graph=True)
        assert (gradient[0, :, 1] == 0).all(), name
        assert (gradient[0, :, 0] != 0).all(), name


def test_an_episode_counts_the_same_however_many_of_its_pixels_are_known():
    """So that it does not matter which episodes share a batch, or a process."""
    logits, masks = torch.randn(3, 2, 8, 8), torch.randint(0, 2, (3, 8, 8))
    masks[0, :7] = IGNORE_INDEX
    masks[2] = IGNORE_INDEX
    for name in ("final", "combined"):

        def loss(part, name=name):
            prediction = Prediction(final=logits[part] * 1, combined=logits[part])
            return training_losses(prediction, masks[part])[name]

        alone = [loss(slice(i, i + 1)) for i in range(3)]
        torch.testing.assert_close(loss(slice(None)), torch.stack(alone).mean())
        assert alone[2] == 0  # nothing is known, and nothing is learned


def test_dice_by_hand():
    target = torch.tensor([[[1, 1, 0, 0], [0, 0, 0, 255]]])
    probability = torch.tensor([[[0.9, 0.4, 0.2, 0.0], [0.1, 0.0, 0.0, 1.0]]])
    logits = torch.stack([(1 - probability).clamp(min=1e-9).log(), probability.clamp(min=1e-9).log()], dim=1)
    expected = 1 - (2 * (0.9 + 0.4) + 1) / ((0.9 + 0.4 + 0.2 + 0.1) + 2 + 1)
    assert dice(logits, target).item() == pytest.approx(expected, abs=1e-6)
    two = torch.cat([logits, logits]), torch.cat([target, torch.zeros_like(target)])
    empty = 1 - 1 / (0.9 + 0.4 + 0.2 + 0.1 + 1.0 + 1)
    assert dice(*two).item() == pytest.approx((expected + empty) / 2, abs=1e-6)


def test_dice_is_added_to_every_term_by_its_weight():
    maps = {name: torch.randn(1, 2, 4, 4) for name in ("final", "cls", "combined")}
    without, with_it = (training_losses(Prediction(**maps), ALL_KNOWN, dice_weight=w) for w in (0.0, 0.7))
    for name, logits in maps.items():
        difference = (with_it[name] - without[name]).item()
        assert difference == pytest.approx(0.7 * dice(logits, ALL_KNOWN).item(), abs=1e-6)
