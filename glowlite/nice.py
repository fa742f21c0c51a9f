"""Glow's grandparent (NICE, Dinh et al. 2015): additive couplings on vectors, one scale at the end.

Here a vector is an image of one pixel, (N, D, 1, 1), so that every layer keeps one shape.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from glowlite._tensors import same_for_all
from glowlite.actnorm import ActNorm
from glowlite.config import FlowConfig
from glowlite.coupling import AdditiveCoupling
from glowlite.flow import Flow
from glowlite.model import FlowModel
from glowlite.network import Conv, ZeroConv
from glowlite.permutation import Permutation


class Flatten(nn.Module):
    """An image as a vector (NICE's view of it): (N, C, H, W) <-> (N, H·W·C, 1, 1).

    forward, inverse: a reordering, pixel by pixel, the colours of a pixel side by side;
    log-det: 0;  initial: nothing to learn.
    """

    def __init__(self, shape: tuple[int, int, int]) -> None:
        super().__init__()
        self.shape = shape

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """(N, C, H, W) -> (N, D, 1, 1), zeros (N,) float64."""
        return x.movedim(1, 3).flatten(1)[:, :, None, None], same_for_all(0.0, x)

    def inverse(self, y: Tensor) -> Tensor:
        """(N, D, 1, 1) -> (N, C, H, W)."""
        c, h, w = self.shape
        return y.reshape(-1, h, w, c).movedim(3, 1)


class MLP(nn.Module):
    """`hidden` layers of `width` ReLUs on a vector, the last layer zero at first.

    (N, c_in, 1, 1) -> (N, c_out, 1, 1): on one pixel a linear layer is a 1×1 convolution.
    Hidden weights start as N(0, 2 / fan-in), their biases as 0.
    """

    def __init__(
        self, c_in: int, width: int, c_out: int, hidden: int, generator: torch.Generator | None
    ) -> None:
        super().__init__()
        sizes = [c_in] + [width] * hidden
        self.hidden = nn.ModuleList(
            Conv(a, b, kernel=1, bias=True, std=math.sqrt(2 / a), generator=generator)
            for a, b in zip(sizes[:-1], sizes[1:], strict=True)
        )
        self.last = ZeroConv(sizes[-1], c_out, kernel=1)

    def forward(self, x: Tensor) -> Tensor:
        """(N, c_in, 1, 1) -> (N, c_out, 1, 1)."""
        for layer in self.hidden:
            x = layer(x).relu()
        return self.last(x)


@dataclass(frozen=True, kw_only=True)
class NICEConfig(FlowConfig):
    """couplings, and the width and number of hidden layers of each one's net."""

    model: ClassVar[str] = "nice"

    couplings: int = 4
    width: int = 1000
    hidden: int = 5

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("couplings", "width", "hidden"):
            self._check_at_least(name, 1)
        if math.prod(self.shape) % 2:
            raise ValueError(
                f"shape is {self.shape}: {math.prod(self.shape)} numbers; NICE halves an even one"
            )


class NICE(FlowModel):
    """Additive couplings whose halves take turns, then one diagonal scaling (NICE §3.3, §5.1).

    forward:  even components first, then odd; x_a += m(x_b), swap, x_a += m′(x_b), …; z = s ⊙ h + b
    inverse:  backwards
    log-det:  sum(log|s|): the couplings preserve volume, only the last layer does not
    initial:  the nets give 0; s and b from data (`initialize`)

    Differs from the paper: a Gaussian prior everywhere (theirs is logistic on some sets), no
    whitening of the data, and the last scaling has a bias, being an actnorm over D channels.

    Contract and options as `Glow`: `NICE(shape=(1, 28, 28), …)`. One latent, (D, 1, 1).
    """

    config: NICEConfig

    def __init__(
        self, config: NICEConfig | None = None, *, memory: str = "default", **options: Any
    ) -> None:
        config = NICEConfig.from_arguments(config, options)
        super().__init__(config)
        generator = torch.Generator().manual_seed(config.seed)
        dims = self.dims
        order = torch.arange(dims)
        layers = [Flatten(config.shape), Permutation(torch.cat([order[0::2], order[1::2]]))]
        for _ in range(config.couplings):
            net = MLP(dims // 2, config.width, dims // 2, config.hidden, generator)
            layers += [AdditiveCoupling(net), Permutation(order.roll(dims // 2))]
        self.flow = Flow([*layers, ActNorm(dims)])
        self.latent_shapes = [(dims, 1, 1)]
        self.memory = memory

    def encode(self, x: Tensor, classes: Tensor | None = None) -> tuple[list[Tensor], Tensor]:
        """(N, C, H, W) -> one latent (N, D, 1, 1); log-det (N,) float64."""
        self._check_x(x)
        self._check_no_classes(classes)
        z, logdet = self.flow(x)
        return [z], logdet

    def decode(self, latents: Sequence[Tensor], classes: Tensor | None = None) -> Tensor:
        """One latent (N, D, 1, 1) -> (N, C, H, W), exactly."""
        self._check_latents(latents)
        self._check_no_classes(classes)
        return self.flow.inverse(latents[0])
