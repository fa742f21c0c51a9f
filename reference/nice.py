"""Glow's grandparent (NICE, Dinh et al. 2015): additive couplings on vectors, one scale at the end.

Here a vector is an image of one pixel, (N, 1, 1, D), so that every layer keeps one shape.
"""

from __future__ import annotations

import numpy as np

from reference._arrays import Array, as_images
from reference.actnorm import ActNorm
from reference.coupling import AdditiveCoupling
from reference.flow import Flow
from reference.likelihood import gaussian_log_prob
from reference.network import Network
from reference.permutation import Permutation


class Flatten:
    """An image as a vector (NICE's view of it): (N, H, W, C) <-> (N, 1, 1, H·W·C).

    forward, inverse: a reshape;  log-det: 0;  initial: nothing to learn.
    """

    def __init__(self, shape: tuple[int, int, int]) -> None:
        self.shape = tuple(shape)

    def forward(self, x: Array) -> tuple[Array, Array]:
        """(N, H, W, C) -> (N, 1, 1, D), zeros (N,). Raises ValueError on other images."""
        x = as_images(x)
        if x.shape[1:] != self.shape:
            raise ValueError(f"x has images of {x.shape[1:]}; accepted: {self.shape}")
        return x.reshape(len(x), 1, 1, -1), np.zeros(len(x))

    def inverse(self, y: Array) -> Array:
        """(N, 1, 1, D) -> (N, H, W, C)."""
        return as_images(y, "y").reshape(-1, *self.shape)


def mlp(c_in: int, width: int, c_out: int, rng: np.random.Generator) -> Network:
    """A random net of one hidden layer on (N, 1, 1, c_in), with tanh so that it is smooth."""
    w1 = rng.standard_normal((c_in, width)) / np.sqrt(c_in)
    w2 = rng.standard_normal((width, c_out)) / np.sqrt(width)
    b1, b2 = 0.3 * rng.standard_normal(width), 0.3 * rng.standard_normal(c_out)
    return lambda x: np.tanh(x @ w1 + b1) @ w2 + b2


class NICE(Flow):
    """Additive couplings whose halves take turns, then one diagonal scaling (NICE §3.3, §5.1).

    forward:  even components first, then odd; x_a += m(x_b), swap, x_a += m′(x_b), …; z = s ⊙ h
    inverse:  backwards
    log-det:  sum(log|s|): the couplings preserve volume, only the last layer does not
    initial:  s = 1; the couplings' nets random
    """

    @classmethod
    def random(
        cls, shape: tuple[int, int, int], width: int, rng: np.random.Generator, couplings: int = 4
    ) -> NICE:
        """Random parameters for images of shape (H, W, C), H·W·C even.

        Raises:
            ValueError: H·W·C is odd.
        """
        dims = int(np.prod(shape))
        if dims % 2:
            raise ValueError(f"shape {shape} has {dims} numbers; NICE halves an even number")
        even_then_odd = np.concatenate([np.arange(0, dims, 2), np.arange(1, dims, 2)])
        layers: list = [Flatten(shape), Permutation(even_then_odd)]
        for _ in range(couplings):
            swap = Permutation(np.roll(np.arange(dims), dims // 2))
            layers += [AdditiveCoupling(mlp(dims // 2, width, dims // 2, rng)), swap]
        s = np.exp(0.5 * rng.standard_normal(dims))
        return cls([*layers, ActNorm(s, np.zeros(dims))])

    def log_prob(self, x: Array) -> Array:
        """log N(z; 0, I) + log|det dz/dx|, in nats, (N, H, W, C) -> (N,)."""
        z, logdet = self.forward(x)
        return gaussian_log_prob(z) + logdet
