"""Slides "Architecture": the step of flow, and steps stacked into the multi-scale model."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Literal

import numpy as np

from reference._arrays import Array, as_images, halves
from reference.actnorm import ActNorm
from reference.conv1x1 import Conv1x1, Conv1x1LU, random_matrix
from reference.coupling import AdditiveCoupling, AffineCoupling
from reference.flow import Flow, Layer
from reference.likelihood import bits_per_dim, dequantize, gaussian_log_prob
from reference.network import CouplingNet
from reference.permutation import Permutation
from reference.split import ConvPrior, Split, TopPrior
from reference.squeeze import Squeeze


class Step(Flow):
    """One step of flow: actnorm, then permutation, then coupling (Glow fig. 2a, Table 1).

    forward, inverse, log-det, initial: the composition of the three, see each.
    """

    def __init__(self, actnorm: Layer, permutation: Layer, coupling: Layer) -> None:
        super().__init__([actnorm, permutation, coupling])


class MultiScale:
    """Levels of flow, each but the last handing half of its channels out (Glow fig. 2b).

    forward:  h = x; at each level h = level(h), then (h, ε) = halves(split(h)) and ε is a
              latent; after the last level, top(h) is the last latent
    inverse:  the latents taken back in, last first
    log-det:  the sum over all levels, splits and the top prior
    initial:  that of its layers

    `encode` and `decode` handle the latents as a list, finest level first, each (N, H, W, C);
    `forward` and `inverse` handle them as one vector (N, D), D = h·w·c of the image, and so make
    the whole model a bijection like any layer. All latents are N(0, 1) under the model.
    """

    def __init__(
        self,
        shape: tuple[int, int, int],
        levels: Sequence[Layer],
        splits: Sequence[Split],
        top: Layer,
    ) -> None:
        """Take the image shape (H, W, C), L levels, L − 1 splits and the top prior.

        Raises:
            ValueError: the number of splits is not one less than that of levels.
        """
        if len(splits) != len(levels) - 1:
            raise ValueError(
                f"{len(levels)} levels and {len(splits)} splits; every level but the last has one"
            )
        self.shape = tuple(shape)
        self.levels, self.splits, self.top = tuple(levels), tuple(splits), top

    @cached_property
    def latent_shapes(self) -> list[tuple[int, int, int]]:
        """The shape (H, W, C) of each latent, as a grey image shows them."""
        return [z.shape[1:] for z in self.encode(np.zeros((1, *self.shape)))[0]]

    def encode(self, x: Array) -> tuple[list[Array], Array]:
        """(N, H, W, C) -> the L latents, and the log-det (N,).

        Raises:
            ValueError: x is not a batch of images of this model's shape.
        """
        h = as_images(x)
        if h.shape[1:] != self.shape:
            raise ValueError(f"x has images of {h.shape[1:]}; this model takes {self.shape}")
        latents, total = [], np.zeros(len(h))
        for i, level in enumerate(self.levels):
            h, logdet = level.forward(h)
            total = total + logdet
            if i < len(self.splits):
                y, logdet = self.splits[i].forward(h)
                h, eps = halves(y)
                latents.append(eps)
                total = total + logdet
        top, logdet = self.top.forward(h)
        return [*latents, top], total + logdet

    def decode(self, latents: Sequence[Array]) -> Array:
        """The L latents -> the images (N, H, W, C) they came from, exactly.

        Raises:
            ValueError: not L latents, or wrong shapes.
        """
        shapes = [np.shape(z)[1:] for z in latents]
        if shapes != self.latent_shapes:
            raise ValueError(f"latents have shapes {shapes}; accepted: {self.latent_shapes}")
        *rest, top = latents
        h = self.top.inverse(top)
        for i in reversed(range(len(self.levels))):
            if i < len(self.splits):
                h = self.splits[i].inverse(np.concatenate([h, rest[i]], axis=-1))
            h = self.levels[i].inverse(h)
        return h

    def forward(self, x: Array) -> tuple[Array, Array]:
        """(N, H, W, C) -> the latents as one vector (N, D), log-det (N,)."""
        latents, logdet = self.encode(x)
        return np.concatenate([z.reshape(len(x), -1) for z in latents], axis=1), logdet

    def inverse(self, y: Array) -> Array:
        """(N, D) -> (N, H, W, C). Raises as `unflatten`."""
        return self.decode(self.unflatten(y))

    def unflatten(self, z: Array) -> list[Array]:
        """One vector (N, D) -> the L latents.

        Raises TypeError if z is no array, ValueError if it is not (N, D).
        """
        sizes = [int(np.prod(shape)) for shape in self.latent_shapes]
        if not isinstance(z, np.ndarray):
            raise TypeError(f"z must be an array, not {type(z).__name__}; accepted: (N, D)")
        if z.ndim != 2 or z.shape[1] != sum(sizes):
            raise ValueError(f"z has shape {z.shape}; accepted: (N, {sum(sizes)})")
        parts = np.split(z, np.cumsum(sizes)[:-1], axis=1)
        return [p.reshape(-1, *s) for p, s in zip(parts, self.latent_shapes, strict=True)]

    def log_prob(self, x: Array) -> Array:
        """log p(x) = log N(z; 0, I) + log|det dz/dx|, in nats, (N, H, W, C) -> (N,)."""
        z, logdet = self.forward(x)
        return gaussian_log_prob(z) + logdet

    def sample(self, n: int, rng: np.random.Generator, temperature: float = 1.0) -> Array:
        """n images, z ~ N(0, temperature²) at *every* level, then x = f⁻¹(z).

        Raises:
            ValueError: n < 1, or a negative temperature.
        """
        if n < 1 or temperature < 0:
            raise ValueError(f"n is {n}, temperature {temperature}; accepted: n ≥ 1, ≥ 0")
        return self.inverse(temperature * rng.standard_normal((n, int(np.prod(self.shape)))))

    def bits_per_dim(self, images: np.ndarray, n_bits: int, rng: np.random.Generator) -> Array:
        """Bits per dimension of uint8 images (N, H, W, C) -> (N,), dequantised with `rng`.

        Raises:
            TypeError: images is not uint8, or rng is None: at a cell's corner the density says
                nothing about the cell, so there is no likelihood without noise.
            ValueError: n_bits is not in 1 … 8, or images of another shape than the model's.
        """
        if rng is None:
            raise TypeError("rng is None; accepted: a generator, np.random.default_rng(seed)")
        x = dequantize(images, n_bits, rng)
        return bits_per_dim(self.log_prob(x), int(np.prod(self.shape)), n_bits)


class Glow(MultiScale):
    """L levels of squeeze, K steps of flow and split (slides "Architecture"; Glow fig. 2b).

    forward, inverse, log-det, initial: the composition, see `MultiScale` and `Step`.
    """

    @classmethod
    def random(
        cls,
        shape: tuple[int, int, int],
        levels: int,
        depth: int,
        width: int,
        rng: np.random.Generator,
        coupling: Literal["affine", "additive"] = "affine",
        scale: Literal["exp", "sigmoid"] = "exp",
        permutation: Literal["lu", "plain", "shuffle", "reverse"] = "lu",
        padding: Literal["edge", "zero"] = "edge",
    ) -> Glow:
        """L = `levels`, K = `depth`, random non-zero parameters everywhere.

        Raises:
            ValueError: a height or width not divisible by 2^L, or an unknown option.
        """
        h, w, c = shape
        if h % 2**levels or w % 2**levels:
            raise ValueError(f"{h}×{w} pixels; {levels} levels need multiples of {2**levels}")
        permutations = {
            "lu": lambda c: Conv1x1LU.from_matrix(random_matrix(c, rng)),
            "plain": lambda c: Conv1x1(random_matrix(c, rng)),
            "shuffle": lambda c: Permutation.shuffle(c, rng),
            "reverse": Permutation.reverse,
        }
        for option, value, accepted in (
            ("permutation", permutation, tuple(permutations)),
            ("coupling", coupling, ("affine", "additive")),
            ("scale", scale, ("exp", "sigmoid")),
            ("padding", padding, ("edge", "zero")),
        ):
            if value not in accepted:
                raise ValueError(f"{option} is {value!r}; accepted: {', '.join(accepted)}")

        def random_step(c: int) -> Step:
            actnorm = ActNorm(np.exp(0.2 * rng.standard_normal(c)), 0.3 * rng.standard_normal(c))
            if coupling == "additive":
                net = CouplingNet.random(c // 2, width, c // 2, rng, padding)
                return Step(actnorm, permutations[permutation](c), AdditiveCoupling(net))
            net = CouplingNet.random(c // 2, width, c, rng, padding)
            return Step(actnorm, permutations[permutation](c), AffineCoupling(net, scale))

        flows, splits = [], []
        for level in range(levels):
            c *= 4
            flows.append(Flow([Squeeze(), *(random_step(c) for _ in range(depth))]))
            if level < levels - 1:
                c //= 2
                splits.append(Split(ConvPrior.random(c, rng, padding)))
        top = TopPrior(0.3 * rng.standard_normal(c), 0.3 * rng.standard_normal(c))
        return cls(shape, flows, splits, top)
