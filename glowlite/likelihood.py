"""Slide "Flow-based generative models": exact likelihood in bits, and what makes it one."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from glowlite._tensors import per_example


def gaussian_log_prob(z: Tensor) -> Tensor:
    """log N(z; 0, I) = −½ Σ (z² + log 2π), in nats: (N, …) -> (N,) float64."""
    return -0.5 * per_example(z.square() + math.log(2 * math.pi))


def check_bits(n_bits: int) -> None:
    """Raises ValueError unless n_bits is an integer in 1 … 8."""
    if isinstance(n_bits, float | bool) or n_bits not in range(1, 9):
        raise ValueError(f"n_bits is {n_bits!r}; accepted: 1 to 8")


def quantize(images: Tensor, n_bits: int) -> Tensor:
    """Keep the n_bits highest bits: floor(u / 2^(8−n_bits)), integers in 0 … 2^n_bits − 1.

    Raises:
        TypeError: images is not a uint8 tensor.
        ValueError: n_bits is not in 1 … 8.
    """
    check_bits(n_bits)
    if not isinstance(images, Tensor) or images.dtype != torch.uint8:
        got = images.dtype if isinstance(images, Tensor) else type(images).__name__
        raise TypeError(f"images is {got}; accepted: a torch.uint8 tensor, values 0 … 255")
    return images >> (8 - n_bits)


def dequantize(
    images: Tensor,
    n_bits: int,
    generator: torch.Generator | None = None,
    noise: Tensor | None = None,
    dtype: torch.dtype | None = None,
) -> Tensor:
    """uint8 images -> x = q / 2^n_bits − ½ + U(0, 2^−n_bits), in [−½, ½).

    The noise fills exactly the gap to the next level, so that the density of x integrates over
    each cell to the probability of its image (Theis et al. 2016, §3.1). It is drawn from
    `generator` (the global one if None), on the device of `images`; or give `noise` itself,
    uniform in [0, 1), same shape: zeros for none.

    Raises:
        TypeError: images is not a uint8 tensor.
        ValueError: n_bits is not in 1 … 8, noise has another shape, or dtype has fewer than four
            numbers in a cell: bfloat16 with 7 or 8 bits, say.
    """
    dtype = dtype or torch.get_default_dtype()
    q = quantize(images, n_bits)
    finest = torch.finfo(dtype).eps * 2 ** (n_bits - 1)
    if finest > 0.25:  # in bfloat16 with 8 bits all noise would be cut away
        raise ValueError(
            f"dtype is {dtype}, too coarse for noise below {n_bits} bits; accepted: torch.float32 "
            "or torch.float64 (`set_net_dtype` runs a model's nets alone in less)"
        )
    if noise is None:
        noise = torch.rand(q.shape, generator=generator, dtype=dtype, device=q.device)
    elif noise.shape != q.shape:
        raise ValueError(f"noise has shape {tuple(noise.shape)}; accepted: {tuple(q.shape)}")
    # In float32, 255 + 0.9999999 is 256: a white pixel would leave the range, any other its cell.
    # Noise cut to what the sum can hold keeps each x in its cell, and all this arithmetic exact.
    noise = (noise / finest).floor() * finest
    return (q + noise.to(dtype)) / 2**n_bits - 0.5


def to_images(x: Tensor, n_bits: int) -> Tensor:
    """Real numbers -> uint8: floor((x + ½)·2^n_bits), clipped to the range, times 2^(8−n_bits).

    The inverse of `dequantize`, up to the bits that quantising drops.

    Raises:
        ValueError: n_bits is not in 1 … 8, or x has NaN (an exploded inverse, not a picture).
    """
    check_bits(n_bits)
    if x.isnan().any():
        raise ValueError(
            f"x has {int(x.isnan().sum())} NaN values; the inverse has exploded: "
            "lower the temperature or use an earlier checkpoint"
        )
    q = ((x + 0.5) * 2**n_bits).floor().clamp(0, 2**n_bits - 1)
    return (q * 2 ** (8 - n_bits)).to(torch.uint8)


def bits_per_dim(log_prob: Tensor, dims: int, n_bits: int) -> Tensor:
    """−log₂ of the probability of the *integer* image, per number: (N,) -> (N,).

    −log p(x) / (D ln 2) + n_bits, with D = c·h·w: a cell of the grid has volume 2^(−n_bits·D),
    so P ≈ p(x)·2^(−n_bits·D). A uniform guess costs n_bits.

    Raises:
        ValueError: dims < 1, or n_bits is not in 1 … 8.
    """
    check_bits(n_bits)
    if dims < 1:
        raise ValueError(f"dims is {dims}; accepted: c·h·w, at least 1")
    return -log_prob / (dims * math.log(2)) + n_bits
