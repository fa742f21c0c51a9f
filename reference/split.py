"""Slide "Split": half of the channels leaves the flow, and a prior says what it should look like.

A Gaussian prior p(z | h) = N(z; μ(h), σ(h)²) is itself a flow of one step: ε = (z − μ) / σ is a
standard normal number, and −Σ log σ is the log-determinant of going there. So a split with its
learned prior is an affine coupling in disguise, and the latents of the whole model are the
whitened ε, at every level drawn from the same N(0, 1).
"""

from __future__ import annotations

import numpy as np

from reference._arrays import Array, as_images, as_parameter, halves, per_example
from reference.network import Network, as_network, conv2d, run


class Split:
    """Whiten the second half of the channels given the first (slide "Split"; RealNVP §3.6; Glow
    fig. 2b).

    forward:  h, z = halves(x);  (μ, log σ) = prior(h);  ε = (z − μ) / σ;  y = concat(h, ε)
    inverse:  z = μ(h) + σ(h) ⊙ ε;  x = concat(h, z)
    log-det:  −sum(log σ), per example
    initial:  the prior's last layer is zero: μ = 0, σ = 1

    The layer keeps both halves in y, so it can be checked like any other; the model then takes ε
    away as a latent and goes on with h. `prior=None` is the fixed N(0, 1): ε = z, log-det 0.
    """

    def __init__(self, prior: Network | None = None) -> None:
        """Take prior: (N, H, W, C/2) -> (N, H, W, C), its channels being (μ, log σ).

        Raises TypeError if it is neither callable nor None.
        """
        self.prior = prior if prior is None else as_network(prior, "prior")

    def _mean_and_log_sd(self, h: Array) -> tuple[Array, Array]:
        if self.prior is None:
            return np.zeros(h.shape), np.zeros(h.shape)
        return halves(run(self.prior, h, 2 * h.shape[-1], "prior"))

    def forward(self, x: Array) -> tuple[Array, Array]:
        """(N, H, W, C) -> (N, H, W, C), log-det (N,). Raises ValueError if C is odd."""
        h, z = halves(as_images(x))
        mean, log_sd = self._mean_and_log_sd(h)
        eps = (z - mean) * np.exp(-log_sd)
        return np.concatenate([h, eps], axis=-1), -per_example(log_sd, len(x))

    def inverse(self, y: Array) -> Array:
        """(N, H, W, C) -> (N, H, W, C). Raises ValueError if C is odd."""
        h, eps = halves(as_images(y, "y"), "y")
        mean, log_sd = self._mean_and_log_sd(h)
        return np.concatenate([h, mean + np.exp(log_sd) * eps], axis=-1)


class ConvPrior:
    """The authors' split prior: one zero-initialised 3×3 convolution, h -> (μ, log σ).

    (μ, log σ) = (h ∗ k + b) ⊙ exp(3 · logs); k: (3, 3, C [+ 1 with edge padding], 2C).
    """

    def __init__(self, k: Array, b: Array, logs: Array, padding: str = "edge") -> None:
        """Raises TypeError or ValueError for parameters of another dtype or shape."""
        self.k = as_parameter(k, "k", (3, 3, None, None))
        self.b = as_parameter(b, "b", self.k.shape[-1:])
        self.logs = as_parameter(logs, "logs", self.k.shape[-1:])
        self.padding = padding

    @classmethod
    def random(cls, c: int, rng: np.random.Generator, padding: str = "edge") -> ConvPrior:
        """Random, non-zero parameters for an h of c channels."""
        c_in = c + (padding == "edge")
        k = rng.standard_normal((3, 3, c_in, 2 * c)) / np.sqrt(36 * c_in)
        b, logs = 0.3 * rng.standard_normal(2 * c), 0.1 * rng.standard_normal(2 * c)
        return cls(k, b, logs, padding)

    def __call__(self, h: Array) -> Array:
        """(N, H, W, C) -> (N, H, W, 2C)."""
        return (conv2d(h, self.k, self.padding) + self.b) * np.exp(3 * self.logs)


class TopPrior:
    """The learned prior of the last latent: one μ and σ per channel (the authors' `learntop`,
    but for what theirs adds along the border).

    forward:  ε_ij = (z_ij − μ) / σ
    inverse:  z_ij = μ + σ ε_ij
    log-det:  −h · w · sum(log σ)
    initial:  μ = 0, log σ = 0
    """

    def __init__(self, mean: Array, log_sd: Array) -> None:
        """Take mean and log_sd, shape (C,), float64.

        Raises:
            TypeError: not float64.
            ValueError: shapes differ, or a value is not finite.
        """
        self.mean = as_parameter(mean, "mean", (None,))
        self.log_sd = as_parameter(log_sd, "log_sd", self.mean.shape)

    def forward(self, x: Array) -> tuple[Array, Array]:
        """(N, H, W, C) -> (N, H, W, C), log-det (N,). Raises ValueError on another C."""
        z = as_images(x, channels=len(self.mean))
        n, h, w, _ = z.shape
        logdet = per_example(-h * w * self.log_sd.sum(), n)
        return (z - self.mean) * np.exp(-self.log_sd), logdet

    def inverse(self, y: Array) -> Array:
        """(N, H, W, C) -> (N, H, W, C). Raises ValueError on another C."""
        return self.mean + np.exp(self.log_sd) * as_images(y, "y", channels=len(self.mean))
