"""Fusion: merge the passes with the base map, against false positives (eqs. 14-15)."""

import torch
from torch import Tensor, nn

from kshot.models.hypercorrelation import resize

HIDDEN = 8
"""Channels between the two layers of BothPasses."""

MIN_PROBABILITY = 1e-4
"""Lower bound of probabilities, and of a share of the image, before their logarithm."""


class Fusion(nn.Module):
    """Two 1x1 convolutions with three weights in all, initialized to the identity on the second pass.

    Deviation: eqs. 14 and 15 print foreground and background swapped. The paper's text and BAM, which it
    follows, add the base classes to the *background*; so does this class.
    """

    def __init__(self) -> None:
        super().__init__()
        self.conv_a = nn.Conv2d(2, 1, 1, bias=False)
        self.conv_b = nn.Conv2d(1, 1, 1, bias=False)
        with torch.no_grad():
            self.conv_a.weight.copy_(torch.tensor([1.0, 0.0]).view(1, 2, 1, 1))
            self.conv_b.weight.fill_(1.0)

    def forward(self, second_logits: Tensor, base_map: Tensor) -> Tensor:
        """Fuse logits (B, 2, H, W) and a base map (B, 1, h, w) into logits (B, 2, H, W)."""
        background, foreground = second_logits.softmax(dim=1).chunk(2, dim=1)
        base_map = resize(base_map, second_logits.shape[-2:])
        background = self.conv_a(torch.cat([self.conv_b(background), base_map], dim=1))
        return torch.cat([background, self.conv_b(foreground)], dim=1)


class BothPasses(nn.Module):
    """Merge the first pass, the second pass and the base map per pixel; not in the paper.

    The second pass is better on large objects and the first on small ones, so the share of the image that the
    first pass marks is an input, too. Initialized to the mean of both passes' logits.
    """

    def __init__(self) -> None:
        super().__init__()
        self.hidden = nn.Conv2d(4, HIDDEN, 1)
        self.out = nn.Conv2d(HIDDEN, 1, 1)
        nn.init.zeros_(self.out.weight)
        assert self.out.bias is not None
        nn.init.zeros_(self.out.bias)

    def forward(self, first_logits: Tensor, second_logits: Tensor, base_map: Tensor) -> Tensor:
        """Fuse both passes' logits (B, 2, H, W) and a base map (B, 1, h, w) into logits (B, 2, H, W)."""
        first, second = (logits[:, 1:] - logits[:, :1] for logits in (first_logits, second_logits))
        base = resize(base_map, second.shape[-2:]).clamp(MIN_PROBABILITY, 1 - MIN_PROBABILITY).logit()
        share = first.sigmoid().mean(dim=(-2, -1), keepdim=True).clamp(min=MIN_PROBABILITY).log()
        inputs = torch.cat([first, second, base, share.expand_as(first)], dim=1)
        merged = (first + second) / 2 + self.out(self.hidden(inputs / 4).relu())
        return torch.cat([-merged / 2, merged / 2], dim=1)
