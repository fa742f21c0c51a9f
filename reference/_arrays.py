"""The one gate through which arrays enter the reference: right rank, right dtype, finite."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array = NDArray[np.float64]


def as_float64(value: ArrayLike, name: str, shape: tuple[int | None, ...]) -> Array:
    """Return `value` as an array after checking its dtype, shape and finiteness.

    `shape` gives the accepted shape, None standing for "any length of at least one".
    complex128 is let through, so that complex-step differentiation can run the very same code.

    Raises:
        TypeError: the dtype is not float64 (or complex128).
        ValueError: the shape differs from `shape`, an axis is empty, or a value is not finite.
    """
    array = np.asarray(value)
    if array.dtype not in (np.float64, np.complex128):
        raise TypeError(
            f"{name} has dtype {array.dtype}; the reference computes in float64: "
            f"pass {name}.astype(np.float64)"
        )
    fits = array.ndim == len(shape) and all(
        got == want if want is not None else got >= 1
        for got, want in zip(array.shape, shape, strict=True)
    )
    if not fits:
        accepted = ", ".join("≥1" if n is None else str(n) for n in shape)
        raise ValueError(f"{name} has shape {array.shape}; accepted: ({accepted})")
    if not np.isfinite(array).all():
        bad = int(np.count_nonzero(~np.isfinite(array)))
        raise ValueError(f"{name} has {bad} NaN or infinite values; all must be finite")
    return array


def as_images(x: ArrayLike, name: str = "x", channels: int | None = None) -> Array:
    """Check a batch of images or activations: shape (N, H, W, C), float64, finite.

    Raises:
        TypeError: the dtype is not float64 (or complex128).
        ValueError: the rank is not 4, the batch is empty, the number of channels is not
            `channels`, or a value is not finite.
    """
    array = np.asarray(x)
    if array.ndim != 4:
        raise ValueError(
            f"{name} has shape {array.shape}; accepted: four axes (N, H, W, C), "
            "a single image being a batch of one, image[None]"
        )
    return as_float64(array, name, (None, None, None, channels))


def as_parameter(value: ArrayLike, name: str, shape: tuple[int | None, ...]) -> Array:
    """Check a layer's parameter, and keep a copy of it that nobody else can change.

    Raises:
        TypeError: the dtype is not float64.
        ValueError: wrong shape, an empty axis, or a value that is not finite.
    """
    if np.asarray(value).dtype == np.complex128:
        raise TypeError(f"{name} has dtype complex128; parameters are float64")
    parameter = as_float64(value, name, shape).copy()
    parameter.flags.writeable = False
    return parameter


def as_order(value: ArrayLike, name: str, length: int | None = None) -> NDArray[np.intp]:
    """Check an order of the channels, (C,), and keep a copy of it that nobody else can change.

    Raises:
        ValueError: not each of 0 … C−1 exactly once, or C is not `length`.
    """
    given = np.asarray(value)
    c = given.size if length is None else length
    if given.ndim != 1 or not c or not np.array_equal(np.sort(given), np.arange(c)):
        raise ValueError(f"{name} is {value!r}; accepted: each of 0 … {c - 1} exactly once")
    order = given.astype(np.intp)
    order.flags.writeable = False
    return order


def halves(x: Array, name: str = "x") -> tuple[Array, Array]:
    """Split along the channels: (N, H, W, C) -> twice (N, H, W, C/2).

    Raises:
        ValueError: C is odd.
    """
    channels = x.shape[-1]
    if channels % 2:
        raise ValueError(
            f"{name} has {channels} channels; splitting into halves needs an even number "
            "(a squeeze before makes it a multiple of four)"
        )
    return x[..., : channels // 2], x[..., channels // 2 :]


def per_example(value: complex | Array, n: int) -> Array:
    """One log-determinant per example, shape (N,): repeats a constant, sums what is per pixel."""
    value = np.asarray(value)
    return np.full(n, value) if value.ndim == 0 else value.reshape(n, -1).sum(axis=1)
