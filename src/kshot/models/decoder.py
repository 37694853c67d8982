"""The decoder: from an encoded map to background and foreground logits (eqs. 6-8)."""

from torch import Tensor, nn
from torch.nn import functional as F


class Decoder(nn.Module):
    """Dec1 has the 128 input channels of one match, Dec2 the 256 of two."""

    def __init__(self, in_channels: int) -> None:
        super().__init__()
        self.coarse = nn.Sequential(
            nn.Conv2d(in_channels, 128, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(128, 64, 3, padding=1),
            nn.ReLU(),
        )
        self.fine = nn.Sequential(nn.Conv2d(64, 64, 3, padding=1), nn.ReLU(), nn.Conv2d(64, 2, 3, padding=1))

    def forward(self, encoded: Tensor) -> Tensor:
        """Decode (B, C, H, W) to logits (B, 2, 2H, 2W), background first."""
        x = self.coarse(encoded)
        x = F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=True)
        logits: Tensor = self.fine(x)
        return logits
