"""Step 6 of the network: merge the second pass with the base map, against false positives."""

import torch
from torch import Tensor, nn

from kshot.network.hypercorrelation import resize


class Fusion(nn.Module):
    """Two 1x1 convolutions, three weights in all, that start as the identity on the second pass.

    Deviation: eqs. 14 and 15 print foreground and background swapped; the paper's text and BAM, which
    it follows, add base classes to the *background*, and so does this.
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
