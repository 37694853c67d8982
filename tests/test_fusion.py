import torch

from kshot.models.fusion import BothPasses, Fusion


def test_a_fresh_fusion_passes_the_second_pass_on():
    logits = torch.randn(2, 2, 6, 6)
    torch.testing.assert_close(Fusion()(logits, torch.rand(2, 1, 3, 3)), logits.softmax(1))


def test_base_classes_are_added_to_the_background_only():
    fusion = Fusion()
    with torch.no_grad():
        fusion.conv_a.weight.copy_(torch.tensor([0.5, 2.0]).view(1, 2, 1, 1))
        fusion.conv_b.weight.fill_(3.0)
    logits, base = torch.randn(1, 2, 4, 4), torch.rand(1, 1, 4, 4)
    background, foreground = logits.softmax(1).split(1, 1)
    fused = fusion(logits, base)
    torch.testing.assert_close(fused[:, :1], 0.5 * 3 * background + 2 * base)
    torch.testing.assert_close(fused[:, 1:], 3 * foreground)
    assert sum(p.numel() for p in fusion.parameters()) == 3


def test_a_fresh_fusion_of_both_passes_is_their_mean_in_logits():
    first, second = torch.randn(2, 2, 6, 6), torch.randn(2, 2, 6, 6)
    fused = BothPasses()(first, second, torch.rand(2, 1, 3, 3))
    margin = ((first + second)[:, 1] - (first + second)[:, 0]) / 2
    torch.testing.assert_close(fused[:, 1] - fused[:, 0], margin)


def test_a_fusion_of_both_passes_learns_to_follow_the_better_one():
    torch.manual_seed(0)
    fusion = BothPasses()
    optimiser = torch.optim.Adam(fusion.parameters(), 2e-2)
    for _ in range(150):
        target = torch.randint(0, 2, (4, 12, 12))
        good = torch.stack([1.0 - 2 * target, 2 * target - 1.0], dim=1) + torch.randn(4, 2, 12, 12)
        fused = fusion(torch.randn(4, 2, 12, 12), good, torch.rand(4, 1, 6, 6))
        loss = torch.nn.functional.cross_entropy(fused, target)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    alone = torch.nn.functional.cross_entropy(good, target)
    assert loss < alone


def test_extreme_maps_stay_finite():
    first = torch.tensor([80.0, -80.0]).view(1, 2, 1, 1).expand(1, 2, 4, 4).clone().requires_grad_()
    fused = BothPasses()(first, -first, torch.tensor([0.0, 1.0]).view(1, 1, 1, 2))
    fused.sum().backward()
    assert fused.isfinite().all()
    assert first.grad.isfinite().all()
