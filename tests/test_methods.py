"""The contract that every method keeps, and what only the matching ones do."""

import json
from pathlib import Path

import pytest
import torch
from make_data import (
    FEW_CHANNELS,
    MATCHING_METHODS,
    METHODS,
    NUM_BASE_CLASSES,
    square_mask,
    tiny_backbone,
    tiny_method,
)
from torch.nn import functional as F

from kshot.errors import ModelError
from kshot.methods.hsnet import HSNet
from kshot.methods.two_pass import sharpen
from kshot.models.backbones import Backbone
from kshot.models.hypercorrelation import correlate
from kshot.models.losses import training_losses
from kshot.types import Prediction, Segmentation, Support

GOLDEN = Path(__file__).parent / "golden" / "methods.json"


def read_supports(method, count=1, size=(96, 96), batch=1, seed=5):
    generator = torch.Generator().manual_seed(seed)
    supports = []
    for index in range(count):
        mask = square_mask(batch, size).roll(8 * index, dims=-1)
        images = torch.rand(batch, 3, *size, generator=generator)
        supports.append(Support(method.features(images), mask))
    return supports


def query_images(batch=1, size=(96, 96), seed=9):
    return torch.rand(batch, 3, *size, generator=torch.Generator().manual_seed(seed))


def numbers_of(name):
    """Mean and deviation of each output of a network whose weights and inputs are formulas."""
    method = tiny_method(name)
    with torch.no_grad():
        for index, (_, parameter) in enumerate(sorted(method.named_parameters())):
            ramp = torch.arange(parameter.numel(), dtype=torch.float64)
            values = 1.5 / parameter[0].numel() ** 0.5 * torch.sin(ramp * 0.7 + index)
            parameter.copy_((values + (0.3 if parameter.ndim == 1 else 0)).view(parameter.shape))
        grid = torch.linspace(0, 1, 2 * 3 * 96 * 96).view(2, 3, 96, 96)
        query, support = (0.5 + 0.5 * torch.sin(frequency * grid) for frequency in (900, 700))
        prediction = method(query, support, square_mask(2))
    return {
        field: [value.double().mean().item(), value.double().std().item()]
        for field, value in prediction._asdict().items()
        if value is not None
    }


def differ(a, b):
    return (a - b).abs().max().item()


@pytest.mark.parametrize("name", METHODS)
class TestContract:
    @pytest.mark.parametrize("shots", [1, 5])
    def test_a_result_has_the_requested_size_and_finite_probabilities(self, name, shots):
        method = tiny_method(name, channels=FEW_CHANNELS)
        with torch.no_grad():
            query = method.features(query_images(batch=2))
            result = method.segment(query, read_supports(method, shots, batch=2), (50, 37))
        assert isinstance(result, Segmentation)
        assert result.mask.shape == result.probability.shape == (2, 50, 37)
        assert result.mask.dtype == torch.bool
        assert ((result.probability >= 0) & (result.probability <= 1)).all()

    def test_the_order_of_supports_does_not_matter(self, name):
        method = tiny_method(name, channels=FEW_CHANNELS)
        with torch.no_grad():
            query, supports = method.features(query_images()), read_supports(method, 5)
            forwards = method.segment(query, supports, (96, 96))
            backwards = method.segment(query, supports[::-1], (96, 96))
        assert torch.equal(forwards.mask, backwards.mask)
        assert differ(forwards.probability, backwards.probability) < 1e-5

    def test_a_batch_equals_its_singles(self, name):
        method = tiny_method(name, channels=FEW_CHANNELS)
        images, support_images = query_images(3), query_images(3, seed=10)
        mask = torch.stack([square_mask()[0].roll(9 * n, dims=-2) for n in range(3)])
        with torch.no_grad():
            together = method.segment(
                method.features(images), [Support(method.features(support_images), mask)], (96, 96)
            )
            for n in range(3):
                one = slice(n, n + 1)
                support = Support(method.features(support_images[one]), mask[one])
                alone = method.segment(method.features(images[one]), [support], (96, 96))
                assert differ(alone.probability, together.probability[one]) < 1e-5

    @pytest.mark.parametrize("size", [(33, 57), (1, 1), (40, 128), (160, 97)])
    def test_one_instance_takes_images_of_any_size(self, name, size):
        method = tiny_method(name, channels=FEW_CHANNELS)
        with torch.no_grad():
            before = method.segment(method.features(query_images()), read_supports(method), (96, 96))
            mask = torch.ones(1, 1, *size)
            support = Support(method.features(query_images(size=size, seed=3)), mask)
            result = method.segment(method.features(query_images(size=size)), [support], size)
            after = method.segment(method.features(query_images()), read_supports(method), (96, 96))
        assert result.mask.shape == (1, *size)
        assert result.probability.isfinite().all()
        assert torch.equal(before.probability, after.probability)

    @pytest.mark.parametrize("kind", ["empty", "full", "one pixel"])
    def test_degenerate_masks_produce_finite_numbers(self, name, kind):
        method = tiny_method(name, channels=FEW_CHANNELS)
        mask = torch.full((1, 1, 96, 96), float(kind == "full"))
        if kind == "one pixel":
            mask[..., 50, 51] = 1
        with torch.no_grad():
            support = Support(method.features(query_images(seed=3)), mask)
            result = method.segment(method.features(query_images()), [support], (96, 96))
        assert result.probability.isfinite().all()


@pytest.mark.parametrize("name", MATCHING_METHODS)
class TestMatching:
    def episode(self, name, batch=2):
        method = tiny_method(name, channels=FEW_CHANNELS)
        # A mask that is nowhere 0, so that it leaves something at each position that a stride keeps.
        mask = 0.2 + 0.8 * square_mask(batch)
        inputs = [query_images(batch), query_images(batch, seed=10), mask]
        if name == "two-pass":
            inputs.append(torch.arange(batch) % NUM_BASE_CLASSES)
        return method, inputs

    def test_train_and_eval_return_the_same_type(self, name):
        method, inputs = self.episode(name)
        trained, evaluated = method.train()(*inputs), method.eval()(*inputs)
        assert type(trained) is type(evaluated) is Prediction
        for a, b in zip(trained, evaluated, strict=True):
            assert (a is None) == (b is None)
            assert a is None or a.shape == b.shape

    def test_gradients_reach_every_trainable_weight_and_nothing_else(self, name):
        method, inputs = self.episode(name)
        prediction = method.train()(*inputs)
        sum(training_losses(prediction, square_mask(2)[:, 0].long()).values()).backward()
        for key, parameter in method.named_parameters():
            frozen = any(part in key for part in ("backbone.", "base_head."))
            assert parameter.requires_grad != frozen, key
            if frozen:
                assert parameter.grad is None, key
            else:
                assert parameter.grad.isfinite().all(), key
                assert parameter.grad.abs().sum() > 0, key

    def test_training_mode_does_not_touch_frozen_statistics(self, name):
        method, inputs = self.episode(name)
        before = {key: value.clone() for key, value in method.state_dict().items()}
        method.train()(*inputs)
        assert all(torch.equal(before[key], value) for key, value in method.state_dict().items())

    def test_numbers_stay_what_they_were(self, name):
        """A refactoring must not move them; `python tests/make_golden.py` writes new ones."""
        found, golden = numbers_of(name), json.loads(GOLDEN.read_text())[name]
        assert found.keys() == golden.keys()
        for field, numbers in found.items():
            assert numbers == pytest.approx(golden[field], abs=1e-3 * golden[field][1]), field


def two_pass_and_features():
    method = tiny_method("two-pass")
    (support,) = read_supports(method, batch=2)
    return method, method.features(query_images(2)), support


@pytest.mark.parametrize("name", METHODS)
def test_features_of_supports_only_predict_the_same(name):
    method = tiny_method(name, channels=FEW_CHANNELS)
    images, mask = query_images(batch=2), square_mask(2)
    with torch.inference_mode():
        query = method.features(query_images(batch=2, seed=5))
        results = [
            method.segment(query, [Support(read(images), mask)] * 2, (96, 96)).probability
            for read in (method.features, method.support_features)
        ]
    torch.testing.assert_close(*results, rtol=0, atol=1e-5)


def test_the_soft_mask_scales_the_second_correlation():
    _, query, _ = two_pass_and_features()
    soft = torch.rand(2, 1, 24, 24)
    full, faint = (correlate(query.sem, query.sem, m) for m in (soft, 0.01 * soft))
    for a, b in zip(full, faint, strict=True):
        torch.testing.assert_close(b.volume(), 0.01 * a.volume())


def test_the_second_pass_depends_on_the_first_and_its_gradient_reaches_dec2():
    method, query, support = two_pass_and_features()
    prediction = method.match(query, support)
    prediction.second.square().sum().backward()
    for parameter in method.matcher.joint_decoder.parameters():
        assert parameter.grad.abs().sum() > 0
    ones = torch.ones(2, 1, 24, 24)
    bright, dark = method.second_pass(query, [ones, 0.01 * ones])
    assert differ(bright, dark) > 1e-3


def test_the_second_pass_uses_the_queries_own_features_only():
    method, query, support = two_pass_and_features()
    prediction = method.match(query, support)
    soft = prediction.combined.softmax(1)[:, 1:]
    encoded = method.matcher.encoder(correlate(query.sem, query.sem, soft))
    torch.testing.assert_close(prediction.second, method.matcher.decoder(encoded))


def test_a_sharpened_mask_by_hand():
    probability = torch.tensor([[0.1, 0.5, 0.2], [0.0, 0.25, 0.4]]).view(1, 1, 2, 3)
    by_hand = torch.tensor([[0.04, 1.0, 0.16], [0.0, 0.25, 0.64]]).view(1, 1, 2, 3)
    torch.testing.assert_close(sharpen(probability), by_hand)
    both = sharpen(torch.cat([0.2 * probability, torch.zeros_like(probability)]))
    torch.testing.assert_close(both, torch.cat([by_hand, torch.zeros_like(by_hand)]))  # each by its own


def test_the_second_pass_sharpens_its_mask_where_the_model_says_so():
    method, query, support = two_pass_and_features()
    as_in_the_paper = method.match(query, support)
    method.sharpen_mask = True
    prediction = method.match(query, support)
    torch.testing.assert_close(prediction.combined, as_in_the_paper.combined)
    expected = method.second_pass(query, [sharpen(prediction.combined.softmax(1)[:, 1:])])[0]
    torch.testing.assert_close(prediction.second, expected)
    assert differ(prediction.second, as_in_the_paper.second) > 1e-4


def test_the_base_map_excludes_the_episodes_class_in_training_only():
    method, query, support = two_pass_and_features()
    probabilities = query.base_logits.softmax(1)[:, 1:]
    everything = probabilities.sum(1, keepdim=True)
    classes = torch.tensor([0, 3])
    own = torch.stack([probabilities[n, c] for n, c in enumerate(classes)]).unsqueeze(1)
    evaluated = method.eval().match(query, support, classes).base_map
    torch.testing.assert_close(evaluated, everything)
    trained = method.train().match(query, support, classes).base_map
    torch.testing.assert_close(trained, everything - own)
    with pytest.raises(ModelError, match="needs episode_class"):
        method.match(query, support)


def test_without_a_base_learner_the_second_pass_is_the_prediction():
    method = tiny_method("two-pass-without-base")
    prediction = method(query_images(), query_images(seed=3), square_mask())
    assert prediction.final is prediction.second
    assert prediction.base_map is None


def test_the_support_affects_the_prediction_only_under_its_mask():
    method = tiny_method("hsnet-cls")
    query = method.features(query_images())
    with torch.no_grad():
        first, second = (
            method.match(query, Support(method.features(query_images(seed=seed)), torch.zeros(1, 1, 96, 96)))
            for seed in (1, 2)
        )
    assert torch.equal(first.final, second.final)


def test_backbones_of_different_depth_are_refused():
    with pytest.raises(ModelError, match="different taps"):
        HSNet(tiny_backbone(), Backbone("resnet18", output_stride=8))
    with pytest.raises(ModelError, match="has no backbone"):
        HSNet()


def test_prototypes_by_hand():
    method = tiny_method("prototype")
    (support,) = read_supports(method)
    query = method.features(query_images())
    logits = method.logits(query, [support])
    expected = 0
    for stage in (1, 2):
        features, compared = support.features.stages[stage][-1][0], query.stages[stage][-1][0]
        weight = F.adaptive_avg_pool2d(support.mask[0], features.shape[-2:])[0]
        means = [(features * w).sum((1, 2)) / w.sum() for w in (1 - weight, weight)]
        cosines = torch.stack([F.cosine_similarity(compared, m[:, None, None], dim=0) for m in means])
        size = query.stages[1][-1].shape[-2:]
        expected = expected + F.interpolate(cosines[None], size, mode="bilinear", align_corners=True) / 2
    torch.testing.assert_close(logits, 20 * expected, rtol=1e-3, atol=1e-3)


def test_a_negative_is_one_more_background_by_hand():
    method = tiny_method("prototype")
    query, (support, *others) = method.features(query_images()), read_supports(method, 3)
    negatives = [Support(one.features, torch.zeros_like(one.mask)) for one in others]
    background, foreground = method.logits(query, [support])[0]
    logits = [background]
    for negative in negatives:
        maps = []
        for stage in (1, 2):
            mean = negative.features.stages[stage][-1].mean(dim=(-2, -1))[0]
            cosine = torch.einsum(
                "chw,c->hw", F.normalize(query.stages[stage][-1][0], dim=0), F.normalize(mean, dim=0)
            )
            size = query.stages[1][-1].shape[-2:]
            maps.append(F.interpolate(cosine[None, None], size, mode="bilinear", align_corners=True)[0, 0])
        logits.append(20 * (maps[0] + maps[1]) / 2)
    found = method.logits(query, [support], negatives)[0]
    torch.testing.assert_close(found[0], torch.stack(logits).amax(dim=0), atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(found[1], foreground)
    assert (found[0] > background).any()
