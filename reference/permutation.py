"""Slide "Likelihood curves": the fixed permutations that the 1×1 convolution replaces."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from reference._arrays import Array, as_images, as_order


class Permutation:
    """A fixed reordering of the channels (RealNVP's reverse, and shuffle; Glow §3.2 and fig. 3).

    forward:  y[…, k] = x[…, indices[k]]
    inverse:  x[…, indices[k]] = y[…, k]
    log-det:  0
    initial:  `reverse(c)` or `shuffle(c, rng)`; nothing to learn

    It is the 1×1 convolution whose W is a permutation matrix.
    """

    def __init__(self, indices: ArrayLike) -> None:
        """Take the order of the channels, a permutation of 0 … C−1.

        Raises:
            ValueError: `indices` is not such a permutation.
        """
        self.indices = as_order(indices, "indices")

    @classmethod
    def reverse(cls, c: int) -> Permutation:
        """The channels back to front, c−1 … 0."""
        return cls(np.arange(c)[::-1])

    @classmethod
    def shuffle(cls, c: int, rng: np.random.Generator) -> Permutation:
        """A uniformly random order of c channels, drawn from `rng` and kept."""
        return cls(rng.permutation(c))

    def forward(self, x: Array) -> tuple[Array, Array]:
        """(N, H, W, C) -> (N, H, W, C), zeros (N,). Raises ValueError on another C."""
        x = as_images(x, channels=len(self.indices))
        return x[..., self.indices], np.zeros(len(x))

    def inverse(self, y: Array) -> Array:
        """(N, H, W, C) -> (N, H, W, C). Raises ValueError on another C."""
        return as_images(y, "y", channels=len(self.indices))[..., np.argsort(self.indices)]
