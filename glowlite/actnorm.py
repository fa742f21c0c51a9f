"""Slide "Actnorm": a scale and a shift per channel."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from glowlite._tensors import check_channels, same_for_all

LOG_SCALE_FACTOR = 3.0
"""The authors store log s divided by 3, so one learning rate moves scales three times as fast."""

SMALLEST_STD = 1e-4
"""A channel that varies less than this is scaled as if it varied this much: s ≤ 10⁴."""


class ActNorm(nn.Module):
    """A scale and a bias per channel (slide "Actnorm"; Glow §3.1, Table 1).

    forward:  y_ij = s ⊙ x_ij + b, with s = exp(3·logs)
    inverse:  x_ij = (y_ij − b) / s
    log-det:  h · w · sum(log s)
    initial:  s = 1, b = 0; after `initialize(x)`: s = 1/σ, b = −μ/σ, μ and σ the mean and
              standard deviation of each channel over the batch and all pixels

    Nothing happens on the first call: initialisation is a call of its own (`FlowModel.initialize`
    makes it for a whole model), so a loaded model, a sampling call or a second process never
    re-initialises in silence, and no forward pass has to ask the device for a flag.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.logs = nn.Parameter(torch.zeros(channels))
        self.b = nn.Parameter(torch.zeros(channels))

    @property
    def log_s(self) -> Tensor:
        """log s, shape (C,), float64: it is multiplied by h·w, and so are its rounding errors."""
        return LOG_SCALE_FACTOR * self.logs.double()

    def scale_and_bias(self) -> tuple[Tensor, Tensor]:
        """s and b, ready to meet (N, C, H, W)."""
        return self.log_s.exp().to(self.b.dtype).view(1, -1, 1, 1), self.b.view(1, -1, 1, 1)

    @torch.no_grad()
    def initialize(self, x: Tensor) -> None:
        """Set s and b so that y has mean 0 and variance 1 per channel over x, (N, C, H, W).

        A channel with σ below 1e-4 (a constant one, say) gets s = 10⁴ rather than infinity.
        Raises ValueError for another number of channels.
        """
        check_channels(x, len(self.b))
        var, mean = torch.var_mean(x, dim=(0, 2, 3), correction=0)
        s = var.sqrt().clamp_min(SMALLEST_STD).reciprocal()
        self.logs.copy_(s.log() / LOG_SCALE_FACTOR)
        self.b.copy_(-mean * s)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """(N, C, H, W) -> (N, C, H, W), log-det (N,) float64. Raises ValueError for another C."""
        check_channels(x, len(self.b))
        s, b = self.scale_and_bias()
        return s * x + b, same_for_all(math.prod(x.shape[2:]) * self.log_s.sum(), x)

    def inverse(self, y: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, C, H, W). Raises ValueError for another C."""
        check_channels(y, len(self.b), "y")
        s, b = self.scale_and_bias()
        return (y - b) / s

    def extra_repr(self) -> str:
        return f"{self.b.numel()}"
