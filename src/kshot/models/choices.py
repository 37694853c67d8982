"""The network's settings that configs and recipes name. Imports no torch, so that these load at once."""

from typing import Literal

CHANNELS = (16, 64, 128)
"""Channels of the 4-D encoder after each of a stage's three convolutions, as published. The last is its
output."""

MaskPosition = Literal["after", "before"]
"""Where the support mask enters the correlation; see `hypercorrelation`."""

FusionKind = Literal["paper", "both-passes"]
"""What the fusion merges with the base map; see `fusion`."""

KAPPA = 0.1
"""Weight of the Shannon term in the combined loss (paper, below eq. 8)."""
