"""Slide "Squeeze": trade space for channels, s×s×c -> s/2 × s/2 × 4c."""

from __future__ import annotations

from typing import Literal

import numpy as np

from reference._arrays import Array, as_images

# Where in its 2×2 block (dy, dx) the RealNVP code finds each group of c channels: the two
# "black" squares of the checkerboard first, so that halving the channels halves the board.
_REALNVP_BLOCK = ((0, 0), (1, 1), (0, 1), (1, 0))


class Squeeze:
    """Each 2×2×c block becomes 1×1×4c (slide "Squeeze"; RealNVP §3.6; Glow fig. 2b).

    forward:  y[i, j, k] = x[2i + dy, 2j + dx, ch], where
              order="glow":     k = ch·4 + dy·2 + dx   (as in the authors' code)
              order="realnvp":  k = g·c + ch, (dy, dx) the g-th of (0,0), (1,1), (0,1), (1,0)
                                (as RealNVP's code squeezes before it factors out)
    inverse:  the same table read backwards
    log-det:  0, a permutation of the numbers
    initial:  nothing to learn

    The two orders differ by a fixed permutation of the channels. That is harmless before a
    1×1 convolution, which can undo it, and not harmless where a fixed half is taken.
    """

    def __init__(self, order: Literal["glow", "realnvp"] = "glow") -> None:
        """Raises ValueError for any other order."""
        if order not in ("glow", "realnvp"):
            raise ValueError(f"order is {order!r}; accepted: 'glow', 'realnvp'")
        self.order = order

    def forward(self, x: Array) -> tuple[Array, Array]:
        """(N, H, W, C) -> (N, H/2, W/2, 4C), zeros (N,).

        Raises:
            ValueError: H or W is odd.
        """
        x = as_images(x)
        n, h, w, c = x.shape
        if h % 2 or w % 2:
            raise ValueError(f"x is {h}×{w} pixels; squeezing needs an even height and width")
        blocks = x.reshape(n, h // 2, 2, w // 2, 2, c).transpose(0, 1, 3, 2, 4, 5)
        if self.order == "glow":
            y = np.moveaxis(blocks, 5, 3)
        else:
            y = np.stack([blocks[:, :, :, dy, dx] for dy, dx in _REALNVP_BLOCK], axis=3)
        return y.reshape(n, h // 2, w // 2, 4 * c), np.zeros(n)

    def inverse(self, y: Array) -> Array:
        """(N, H, W, 4C) -> (N, 2H, 2W, C).

        Raises:
            ValueError: the number of channels is not a multiple of four.
        """
        y = as_images(y, "y")
        n, h, w, channels = y.shape
        if channels % 4:
            raise ValueError(f"y has {channels} channels; unsqueezing needs a multiple of four")
        c = channels // 4
        if self.order == "glow":
            blocks = np.moveaxis(y.reshape(n, h, w, c, 2, 2), 3, 5)
        else:
            blocks = np.empty((n, h, w, 2, 2, c), dtype=y.dtype)
            for g, (dy, dx) in enumerate(_REALNVP_BLOCK):
                blocks[:, :, :, dy, dx] = y[..., g * c : (g + 1) * c]
        return blocks.transpose(0, 1, 3, 2, 4, 5).reshape(n, 2 * h, 2 * w, c)
