"""Slide "Flow-based generative models": exact likelihood, in nats and in bits per dimension."""

from __future__ import annotations

import numpy as np

from reference._arrays import Array


def gaussian_log_prob(z: Array) -> Array:
    """log N(z; 0, I) = −½ Σ (z² + log 2π), in nats, one number per example: (N, …) -> (N,)."""
    return -0.5 * (z**2 + np.log(2 * np.pi)).reshape(len(z), -1).sum(axis=1)


def _check_bits(n_bits: int) -> None:
    if not isinstance(n_bits, (int, np.integer)) or n_bits not in range(1, 9):
        raise ValueError(f"n_bits is {n_bits!r}; accepted: whole numbers, 1 to 8")


def quantize(images: np.ndarray, n_bits: int) -> np.ndarray:
    """Keep the n_bits highest bits: floor(u / 2^(8−n_bits)), integers in 0 … 2^n_bits − 1.

    Raises:
        TypeError: images is not uint8.
        ValueError: n_bits is not in 1 … 8.
    """
    _check_bits(n_bits)
    images = np.asarray(images)
    if images.dtype != np.uint8:
        raise TypeError(f"images has dtype {images.dtype}; accepted: uint8, values 0 … 255")
    return images >> (8 - n_bits)


def dequantize(images: np.ndarray, n_bits: int, rng: np.random.Generator | None) -> Array:
    """uint8 images -> x = q / 2^n_bits − ½ + U(0, 2^−n_bits), float64 in [−½, ½).

    The noise fills exactly the gap to the next level, so that the density of x integrates over
    each cell to the probability of its image (Theis et al. 2016, §3.1). `rng=None` adds none.

    Raises:
        TypeError: images is not uint8.
        ValueError: n_bits is not in 1 … 8.
    """
    q = quantize(images, n_bits).astype(np.float64)
    noise = rng.random(q.shape) if rng is not None else 0.0
    return (q + noise) / 2**n_bits - 0.5


def to_images(x: Array, n_bits: int) -> np.ndarray:
    """Real numbers -> uint8: floor((x + ½)·2^n_bits), clipped to the range, times 2^(8−n_bits).

    The inverse of `dequantize`, up to the bits that quantising drops.

    Raises:
        ValueError: n_bits is not in 1 … 8, or x has NaN, which is no colour.
    """
    _check_bits(n_bits)
    if np.isnan(x).any():
        raise ValueError(f"x has {np.count_nonzero(np.isnan(x))} NaN values; accepted: numbers")
    q = np.clip(np.floor((x + 0.5) * 2**n_bits), 0, 2**n_bits - 1)
    return (q * 2 ** (8 - n_bits)).astype(np.uint8)


def bits_per_dim(log_prob: Array, dims: int, n_bits: int) -> Array:
    """−log₂ of the probability of the *integer* image, per number: (N,) -> (N,).

    −log p(x) / (D ln 2) + n_bits, with D = h·w·c: a cell of the grid has volume 2^(−n_bits·D),
    so P ≈ p(x)·2^(−n_bits·D). A uniform guess costs n_bits.

    Raises:
        ValueError: dims < 1, or n_bits is not in 1 … 8.
    """
    _check_bits(n_bits)
    if dims < 1:
        raise ValueError(f"dims is {dims}; accepted: h·w·c, at least 1")
    return -np.asarray(log_prob) / (dims * np.log(2)) + n_bits
