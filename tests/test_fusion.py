import torch

from kshot.network.fusion import Fusion


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
