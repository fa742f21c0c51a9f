"""Slide "Likelihood curves": the fixed permutations that the 1×1 convolution replaces."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from glowlite._tensors import check_channels, same_for_all


class Permutation(nn.Module):
    """A fixed reordering of the channels (RealNVP's reverse, and shuffle; Glow §3.2, fig. 3).

    forward:  y[:, k] = x[:, indices[k]]
    inverse:  x[:, indices[k]] = y[:, k]
    log-det:  0
    initial:  `reverse(c)` or `shuffle(c, generator)`; nothing to learn

    The order is a buffer: a shuffle that is not saved with the weights is another model.
    """

    indices: Tensor

    def __init__(self, indices: Tensor) -> None:
        """Raises ValueError unless indices holds each of 0 … C − 1 once."""
        super().__init__()
        if not indices.is_meta and indices.sort().values.tolist() != list(range(len(indices))):
            raise ValueError(
                f"indices is {indices.tolist()}; each of 0 … C − 1 must stand in it once"
            )
        self.register_buffer("indices", indices.to(torch.long))

    @classmethod
    def reverse(cls, channels: int) -> Permutation:
        """The last channel first."""
        return cls(torch.arange(channels - 1, -1, -1))

    @classmethod
    def shuffle(cls, channels: int, generator: torch.Generator | None = None) -> Permutation:
        """One random order, drawn now and kept."""
        return cls(torch.randperm(channels, generator=generator))

    def matrix(self) -> tuple[Tensor, Tensor]:
        """The permutation as a matrix, shape (C, C), and its log|det| = 0 in float64."""
        eye = torch.eye(len(self.indices), device=self.indices.device)
        return eye[self.indices], eye.new_zeros((), dtype=torch.float64)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """(N, C, H, W) -> (N, C, H, W), log-det (N,) float64. Raises ValueError for another C."""
        check_channels(x, len(self.indices))
        return x[:, self.indices], same_for_all(0.0, x)

    def inverse(self, y: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, C, H, W). Raises ValueError for another C."""
        check_channels(y, len(self.indices), "y")
        return y[:, self.indices.argsort()]

    def extra_repr(self) -> str:
        return f"{len(self.indices)}"
