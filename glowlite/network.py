"""The networks inside couplings and priors: any function will do, these are the authors'."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from glowlite.actnorm import LOG_SCALE_FACTOR, ActNorm

PADDINGS = ("edge", "zero")


def check_output(h: Tensor, x: Tensor, channels: int, name: str) -> None:
    """Raises ValueError unless a net has made (N, channels, H, W) of images as x, (N, C, H, W).

    One number for many would meet them by broadcasting: a plausible y, a wrong log-det.
    """
    accepted = (x.shape[0], channels, *x.shape[2:])
    if h.shape != accepted:
        raise ValueError(f"{name} has shape {tuple(h.shape)}; accepted: {accepted}")


class Conv(nn.Module):
    """A k×k convolution that keeps the size, and may know where the picture ends.

    padding="zero": zeros all round, as usual. padding="edge", the authors' choice: the padded
    input has one more channel, 1 in the padding and 0 inside, so the weights can tell an edge
    from a dark patch. That channel is the same for every image, so its part of the result is one
    map, computed once and added: no image is ever copied to append it. k = 1 needs no padding.

    Parameters: weight (c_out, c_in, k, k); edge (c_out, 1, k, k), the weights of the extra
    channel, kept apart; bias (c_out,) if asked for. Weights start as N(0, std²), the bias as 0.

    Raises ValueError for another padding or an even kernel.
    """

    def __init__(
        self,
        c_in: int,
        c_out: int,
        kernel: int = 3,
        *,
        padding: str = "edge",
        bias: bool = False,
        std: float = 0.05,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        if padding not in PADDINGS:
            raise ValueError(f"padding is {padding!r}; accepted: {', '.join(PADDINGS)}")
        if kernel % 2 == 0:
            raise ValueError(f"kernel is {kernel}; accepted: odd sizes, which have a centre")

        def normal(channels: int) -> nn.Parameter:
            shape = (c_out, channels, kernel, kernel)
            if std == 0:
                return nn.Parameter(torch.zeros(shape))
            return nn.Parameter(torch.randn(shape, generator=generator) * std)

        self.rim = kernel // 2
        self.weight = normal(c_in)
        self.edge = normal(1) if padding == "edge" and self.rim else None
        self.bias = nn.Parameter(torch.zeros(c_out)) if bias else None

    def edge_map(self, h: int, w: int) -> Tensor | None:
        """What the extra channel adds, (1, c_out, h, w): zero but along the border."""
        if self.edge is None:
            return None
        outside = F.pad(self.edge.new_zeros(1, 1, h, w), (self.rim,) * 4, value=1.0)
        return F.conv2d(outside, self.edge)

    def forward(self, x: Tensor) -> Tensor:
        """(N, c_in, H, W) -> (N, c_out, H, W)."""
        y = F.conv2d(x, self.weight, self.bias, padding=self.rim)
        edge_map = self.edge_map(*x.shape[2:])
        return y if edge_map is None else y + edge_map

    def extra_repr(self) -> str:
        c_out, c_in, k, _ = self.weight.shape
        edge, bias = self.edge is not None, self.bias is not None
        return f"{c_in}, {c_out}, kernel={k}, edge={edge}, bias={bias}"


class ZeroConv(nn.Module):
    """y = (conv(x) + bias) · exp(3·logs), everything zero at first (Glow §3.3, code).

    A coupling that starts as (almost) the identity is easy to train at any depth; the learned
    output scale lets it leave zero quickly.
    """

    def __init__(self, c_in: int, c_out: int, kernel: int = 3, *, padding: str = "edge") -> None:
        super().__init__()
        self.conv = Conv(c_in, c_out, kernel, padding=padding, bias=True, std=0.0)
        self.logs = nn.Parameter(torch.zeros(c_out))

    def forward(self, x: Tensor) -> Tensor:
        """(N, c_in, H, W) -> (N, c_out, H, W)."""
        return self.conv(x) * (LOG_SCALE_FACTOR * self.logs).exp().view(1, -1, 1, 1)


class ZeroLinear(nn.Module):
    """y = (x A + bias) · exp(3·logs), everything zero at first: (N, c_in) -> (N, c_out)."""

    def __init__(self, c_in: int, c_out: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(c_out, c_in))
        self.bias = nn.Parameter(torch.zeros(c_out))
        self.logs = nn.Parameter(torch.zeros(c_out))

    def forward(self, x: Tensor) -> Tensor:
        """(N, c_in) -> (N, c_out)."""
        return F.linear(x, self.weight, self.bias) * (LOG_SCALE_FACTOR * self.logs).exp()


class CouplingNet(nn.Module):
    """conv3×3 → actnorm → ReLU → conv1×1 → actnorm → ReLU → zero conv3×3 (Glow §5, code).

    The two hidden layers have `width` channels. With actnorm=False each has a bias instead.
    (N, c_in, H, W) -> (N, c_out, H, W). Cost: (9·c_in + width + 9·c_out) · width
    multiply-adds a pixel.
    """

    def __init__(
        self,
        c_in: int,
        width: int,
        c_out: int,
        *,
        padding: str = "edge",
        actnorm: bool = True,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        options = {"padding": padding, "bias": not actnorm, "generator": generator}
        self.conv1 = Conv(c_in, width, **options)
        self.norm1 = ActNorm(width) if actnorm else None
        self.conv2 = Conv(width, width, kernel=1, **options)
        self.norm2 = ActNorm(width) if actnorm else None
        self.conv3 = ZeroConv(width, c_out, padding=padding)

    def forward(self, x: Tensor) -> Tensor:
        """(N, c_in, H, W) -> (N, c_out, H, W)."""
        h = self.conv1(x)
        if self.norm1 is not None:
            h, _ = self.norm1(h)
        h = self.conv2(h.relu())
        if self.norm2 is not None:
            h, _ = self.norm2(h)
        return self.conv3(h.relu())
