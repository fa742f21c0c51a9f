"""The non-linear mapping NN of the coupling slides: three small convolutions, never inverted."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np

from reference._arrays import Array, as_images

Network = Callable[[Array], Array]
"""Any function (N, H, W, C_in) -> (N, H, W, C_out): a coupling asks nothing more of its NN."""


def as_network(net: Network, name: str = "net") -> Network:
    """Return `net`. Raises TypeError if it is not callable."""
    if not callable(net):
        raise TypeError(f"{name} is a {type(net).__name__}; accepted: a function (N, H, W, C)")
    return net


def run(net: Network, x: Array, channels: int, name: str = "net") -> Array:
    """net(x), (N, H, W, `channels`): fewer would be broadcast in silence, the log-det then wrong.

    Raises:
        ValueError: the net gave another shape.
    """
    out = np.asarray(net(x))
    wanted = (*x.shape[:3], channels)
    if out.shape != wanted:
        raise ValueError(f"{name} gave shape {out.shape} for shape {x.shape}; needs {wanted}")
    return out


def conv2d(x: Array, kernel: Array, padding: Literal["edge", "zero"] = "zero") -> Array:
    """Convolution (as in deep learning: cross-correlation) that keeps the image size.

    x: (N, H, W, C_in); kernel: (kh, kw, C_in, C_out), kh and kw odd. Returns (N, H, W, C_out).

    padding="zero": zeros outside the image.
    padding="edge": zeros outside, and one more input channel, 1 outside and 0 inside, so that
        the network can tell the border from black (`add_edge_padding` in the authors' code).
        The kernel then has C_in + 1 input channels, the indicator last.
        A 1×1 kernel needs no padding, and gets no indicator.

    Raises:
        ValueError: an unknown padding, an even kernel, or a kernel for other channels.
    """
    if padding not in ("edge", "zero"):
        raise ValueError(f"padding is {padding!r}; accepted: 'edge', 'zero'")
    kh, kw, c_in, _ = kernel.shape
    if kh % 2 == 0 or kw % 2 == 0:
        raise ValueError(f"kernel is {kh}×{kw}; accepted: odd sizes, which have a centre")
    n, h, w, c = x.shape
    rows, columns = kh // 2, kw // 2
    indicator = padding == "edge" and (rows > 0 or columns > 0)
    if c + indicator != c_in:
        raise ValueError(f"kernel takes {c_in} channels, the input has {c + indicator}")
    # Filled by hand: np.pad and the search for an order of summation cost more than a small sum.
    padded = np.zeros((n, h + 2 * rows, w + 2 * columns, c_in), dtype=x.dtype)
    padded[..., c:] = 1.0
    padded[:, rows : rows + h, columns : columns + w, :c] = x
    padded[:, rows : rows + h, columns : columns + w, c:] = 0.0
    windows = np.lib.stride_tricks.sliding_window_view(padded, (kh, kw), axis=(1, 2))
    path = ["einsum_path", (0, 1)]
    return np.einsum("nhwcij,ijco->nhwo", windows, kernel, optimize=path)


def relu(x: Array) -> Array:
    """max(x, 0); of a complex number, decided by its real part (for complex-step derivatives)."""
    return np.where(x.real > 0, x, 0.0)


@dataclass(frozen=True)
class CouplingNet:
    """conv 3×3 → actnorm → ReLU → conv 1×1 → actnorm → ReLU → conv 3×3 (Glow §5; their code).

    h₁ = relu(s₁ ⊙ (x ∗ k₁) + b₁)
    h₂ = relu(s₂ ⊙ (h₁ ∗ k₂) + b₂)
    out = (h₂ ∗ k₃ + b₃) ⊙ exp(3 · logs)

    Initial values in training: k₁, k₂ ~ N(0, 0.05²); s, b from data like any actnorm;
    k₃ = b₃ = logs = 0, so that the net gives 0. The factor exp(3·logs) lets the output grow
    quickly from there.

    Kernels are (kh, kw, C_in, C_out), see `conv2d` for `padding`; vectors are (C_out,).
    """

    k1: Array
    s1: Array
    b1: Array
    k2: Array
    s2: Array
    b2: Array
    k3: Array
    b3: Array
    logs: Array
    padding: Literal["edge", "zero"] = "edge"

    @classmethod
    def random(
        cls,
        c_in: int,
        width: int,
        c_out: int,
        rng: np.random.Generator,
        padding: Literal["edge", "zero"] = "edge",
        zero_last: bool = False,
    ) -> CouplingNet:
        """Random parameters. The last layer is not zero unless `zero_last`: a check at the usual
        initial value, where every coupling is the identity, would prove nothing."""
        extra = 1 if padding == "edge" else 0

        def normal(*shape: int, std: float = 1.0) -> Array:
            return std * rng.standard_normal(shape)

        last = 0.0 if zero_last else 1.0
        return cls(
            k1=normal(3, 3, c_in + extra, width, std=1 / np.sqrt(9 * (c_in + extra))),
            s1=np.exp(normal(width, std=0.2)),
            b1=normal(width, std=0.3),
            k2=normal(1, 1, width, width, std=1 / np.sqrt(width)),
            s2=np.exp(normal(width, std=0.2)),
            b2=normal(width, std=0.3),
            k3=last * normal(3, 3, width + extra, c_out, std=0.5 / np.sqrt(9 * (width + extra))),
            b3=last * normal(c_out, std=0.3),
            logs=last * normal(c_out, std=0.1),
            padding=padding,
        )

    def __call__(self, x: Array) -> Array:
        """(N, H, W, C_in) -> (N, H, W, C_out). Raises ValueError on another C_in."""
        h = relu(self.s1 * conv2d(as_images(x), self.k1, self.padding) + self.b1)
        h = relu(self.s2 * conv2d(h, self.k2) + self.b2)
        return (conv2d(h, self.k3, self.padding) + self.b3) * np.exp(3 * self.logs)
