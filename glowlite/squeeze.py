"""Slide "Squeeze": trade resolution for channels."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from glowlite._tensors import same_for_all

POSITIONS = ((0, 0), (0, 1), (1, 0), (1, 1))
REALNVP_ORDER = ((0, 0), (1, 1), (0, 1), (1, 0))


class Squeeze(nn.Module):
    """Each 2×2×c block becomes 1×1×4c (slide "Squeeze"; RealNVP §3.6).

    forward:  y[n, c·4 + dy·2 + dx, i, j] = x[n, c, 2i + dy, 2j + dx]
    inverse:  the same numbers put back
    log-det:  0 (a permutation of the entries)
    initial:  nothing to learn

    That order of the channels is the authors', order="glow". RealNVP's code squeezes before it
    factors out with order="realnvp": the channel is g·C + c, where (dy, dx) is the g-th of
    (0, 0), (1, 1), (0, 1), (1, 0). The difference matters wherever a fixed half is taken.
    Any other order raises ValueError.

    >>> import torch
    >>> y, logdet = Squeeze()(torch.arange(16.0).reshape(1, 1, 4, 4))
    >>> y.shape, y[0, :, 0, 0].tolist(), logdet.tolist()
    (torch.Size([1, 4, 2, 2]), [0.0, 1.0, 4.0, 5.0], [0.0])
    """

    ORDERS = ("glow", "realnvp")

    def __init__(self, order: str = "glow") -> None:
        super().__init__()
        if order not in self.ORDERS:
            raise ValueError(f"order is {order!r}; accepted: {', '.join(self.ORDERS)}")
        self.order = order

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """(N, C, H, W) -> (N, 4C, H/2, W/2), log-det (N,). Raises ValueError on odd H or W."""
        n, c, h, w = x.shape
        if h % 2 or w % 2:
            raise ValueError(f"x is {h}×{w} pixels; squeezing needs an even height and width")
        if self.order == "glow":
            blocks = x.reshape(n, c, h // 2, 2, w // 2, 2).permute(0, 1, 3, 5, 2, 4)
        else:
            blocks = torch.stack([x[:, :, dy::2, dx::2] for dy, dx in REALNVP_ORDER], 1)
        return blocks.reshape(n, 4 * c, h // 2, w // 2), same_for_all(0.0, x)

    def inverse(self, y: Tensor) -> Tensor:
        """(N, 4C, H/2, W/2) -> (N, C, H, W). Raises ValueError unless 4 divides the channels."""
        n, c, h, w = y.shape
        if c % 4:
            raise ValueError(f"y has {c} channels; undoing a squeeze needs a multiple of 4")
        if self.order == "glow":
            blocks = y.reshape(n, c // 4, 2, 2, h, w)
        else:
            by_position = y.reshape(n, 4, c // 4, h, w)
            rows_and_columns = [by_position[:, REALNVP_ORDER.index(p)] for p in POSITIONS]
            blocks = torch.stack(rows_and_columns, 2).unflatten(2, (2, 2))
        return blocks.permute(0, 1, 4, 2, 5, 3).reshape(n, c // 4, 2 * h, 2 * w)

    def extra_repr(self) -> str:
        return f"order={self.order!r}"
