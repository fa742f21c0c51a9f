"""Slide "Actnorm": a scale and a shift per channel."""

from __future__ import annotations

import numpy as np

from reference._arrays import Array, as_images, as_parameter, per_example


class ActNorm:
    """A scale and a bias per channel (slide "Actnorm"; Glow §3.1, Table 1).

    forward:  y_ij = s ⊙ x_ij + b
    inverse:  x_ij = (y_ij − b) / s
    log-det:  h · w · sum(log|s|)
    initial:  s = 1/σ and b = −μ/σ, with μ and σ the mean and standard deviation of each channel
              over the first batch and all pixels, so that y starts with mean 0 and variance 1

    The authors' code computes s·(x + b) instead; the two forms hold the same maps, with
    different values in b.
    """

    def __init__(self, s: Array, b: Array) -> None:
        """Take `s` and `b`, each of shape (C,), float64.

        Raises:
            TypeError: not float64.
            ValueError: shapes differ, a value is not finite, or an s is zero.
        """
        self.s = as_parameter(s, "s", (None,))
        self.b = as_parameter(b, "b", self.s.shape)
        if (self.s == 0).any():
            channels = np.flatnonzero(self.s == 0).tolist()
            raise ValueError(f"s is zero in channels {channels}; a zero scale cannot be undone")

    @classmethod
    def from_data(cls, x: Array) -> ActNorm:
        """The data-dependent initial values, from one batch (N, H, W, C).

        Raises:
            ValueError: a channel is constant, so that no scale gives it unit variance.
        """
        x = as_images(x)
        mean, std = x.mean(axis=(0, 1, 2)), x.std(axis=(0, 1, 2))
        constant = np.ptp(x, axis=(0, 1, 2)) == 0
        if constant.any():
            raise ValueError(
                f"x has zero variance in channels {np.flatnonzero(constant).tolist()}; "
                "actnorm cannot be initialised from a constant channel: use more or noisier data"
            )
        return cls(1 / std, -mean / std)

    def forward(self, x: Array) -> tuple[Array, Array]:
        """(N, H, W, C) -> (N, H, W, C), log-det (N,). Raises ValueError on another C."""
        x = as_images(x, channels=len(self.s))
        n, h, w, _ = x.shape
        return self.s * x + self.b, per_example(h * w * np.log(np.abs(self.s)).sum(), n)

    def inverse(self, y: Array) -> Array:
        """(N, H, W, C) -> (N, H, W, C). Raises ValueError on another C."""
        return (as_images(y, "y", channels=len(self.s)) - self.b) / self.s
