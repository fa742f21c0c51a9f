"""Glow's parent (RealNVP, Dinh et al. 2017): masks instead of permutations."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from glowlite._tensors import halves, per_example
from glowlite.actnorm import ActNorm
from glowlite.config import FlowConfig
from glowlite.coupling import Conditioned
from glowlite.flow import Flow
from glowlite.glow import MultiScale
from glowlite.network import PADDINGS, Conv, ZeroConv, check_output
from glowlite.split import Split, TopPrior
from glowlite.squeeze import Squeeze


def checkerboard_mask(h: int, w: int, parity: int = 0) -> Tensor:
    """A chess board, shape (1, h, w): 1 where (i + j) is even, or odd with parity 1
    (RealNVP fig. 3).

    Not `arange(h·w) % 2`, which gives columns, not a board, whenever w is even.

    >>> checkerboard_mask(2, 4)[0].int().tolist()
    [[1, 0, 1, 0], [0, 1, 0, 1]]
    """
    i, j = torch.meshgrid(torch.arange(h), torch.arange(w), indexing="ij")
    return ((i + j + parity) % 2 == 0).to(torch.get_default_dtype())[None]


def channel_mask(c: int, parity: int = 0) -> Tensor:
    """Shape (c, 1, 1): 1 on the first half of the channels, or the second with parity 1.

    Raises ValueError if c is odd.
    """
    if c % 2:
        raise ValueError(f"c is {c}; a channel mask takes half of an even number")
    first = torch.arange(c) < c // 2
    return (first == (parity == 0)).to(torch.get_default_dtype())[:, None, None]


class ResidualNet(nn.Module):
    """RealNVP's NN: conv → blocks of (norm → ReLU → conv, twice, + skip) → zero conv.

    (raw, t) = halves(last conv), log s = rescale ⊙ tanh(raw): bounded, with a learned bound.
    (N, C, H, W) -> (log s, t) as (N, 2C, H, W).

    Differs from the paper: actnorm takes the place of batch normalisation, whose inverse in
    training mode is another function, and of weight normalisation, since a scale after each
    convolution already frees its length; and the last convolution starts at zero.
    """

    def __init__(
        self,
        channels: int,
        width: int,
        blocks: int,
        *,
        padding: str = "zero",
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        options = {"padding": padding, "generator": generator}
        self.conv_in = Conv(channels, width, bias=True, **options)
        self.blocks = nn.ModuleList(
            nn.ModuleDict(
                {
                    "norm1": ActNorm(width),
                    "conv1": Conv(width, width, **options),
                    "norm2": ActNorm(width),
                    "conv2": Conv(width, width, **options),
                }
            )
            for _ in range(blocks)
        )
        self.norm_out = ActNorm(width)
        self.conv_out = ZeroConv(width, 2 * channels, padding=padding)
        self.rescale = nn.Parameter(torch.ones(channels))

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, 2C, H, W), the channels being (log s, t)."""
        h = self.conv_in(x)
        for block in self.blocks:
            inner = block["conv1"](block["norm1"](h)[0].relu())
            h = h + block["conv2"](block["norm2"](inner)[0].relu())
        raw, t = halves(self.conv_out(self.norm_out(h)[0].relu()))
        return torch.cat([self.rescale.view(1, -1, 1, 1) * raw.tanh(), t], 1)


class MaskedCoupling(Conditioned):
    """Affine coupling through a mask b of zeros and ones (RealNVP §3.4, eq. 9).

    forward:  y = b ⊙ x + (1 − b) ⊙ (x ⊙ s + t),  (log s, t) = NN(b ⊙ x)
    inverse:  x = b ⊙ y + (1 − b) ⊙ (y − t) / s: b ⊙ y = b ⊙ x, so NN says the same
    log-det:  sum((1 − b) ⊙ log s)
    initial:  NN's last layer is zero: the identity
    """

    mask: Tensor

    def __init__(self, mask: Tensor, net: nn.Module) -> None:
        """Take a mask broadcastable to (C, H, W), and net: (N, C, H, W) -> (N, 2C, H, W).

        Raises ValueError if the mask has other values than 0 and 1, or False and True.
        """
        super().__init__(net)
        if not mask.is_floating_point():
            mask = mask.to(torch.get_default_dtype())
        if not mask.is_meta and not ((mask == 0) | (mask == 1)).all():
            raise ValueError("mask has values other than 0 and 1")
        self.register_buffer("mask", mask, persistent=False)  # the architecture gives it again

    def _log_s_and_t(self, x: Tensor) -> tuple[Tensor, Tensor]:
        h = self.condition(self.mask * x)
        check_output(h, x, 2 * x.shape[1], "the coupling net's output")
        log_s, t = halves(h)
        return (1 - self.mask) * log_s, (1 - self.mask) * t

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """(N, C, H, W) -> (N, C, H, W), log-det (N,) float64.

        Raises ValueError where the net gives another shape than is used.
        """
        log_s, t = self._log_s_and_t(x)
        return x * log_s.exp() + t, per_example(log_s)

    def inverse(self, y: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, C, H, W)."""
        log_s, t = self._log_s_and_t(y)
        return (y - t) * (-log_s).exp()


class Logit(nn.Module):
    """RealNVP's preprocessing, unit interval to the whole line (RealNVP §4.1).

    forward:  y = logit(p),  p = α + (1 − 2α)·u,  u = x + ½ in [0, 1],  α = 0.05
    inverse:  u = (sigmoid(y) − α) / (1 − 2α)
    log-det:  sum(log(1 − 2α) − log p − log(1 − p))
    initial:  nothing to learn

    It is a layer like any other, so its log-det is counted and bits/dim stay comparable. The
    paper writes logit(α + (1 − α)·u), which reaches logit(1) = ∞ at u = 1 (in float32 a white
    pixel gets there); its code scales by 1 − 2α, which stays inside at both ends. So do we.
    Outside [−½, ½] by more than α/(1 − 2α), the result is NaN. Raises ValueError unless 0 < α < ½.
    """

    def __init__(self, alpha: float = 0.05) -> None:
        super().__init__()
        if not 0 < alpha < 0.5:
            raise ValueError(f"alpha is {alpha}; accepted: between 0 and ½")
        self.alpha = alpha

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """(N, C, H, W) in [−½, ½] -> real numbers, log-det (N,) float64."""
        p = self.alpha + (1 - 2 * self.alpha) * (x + 0.5)
        log_p, log_q = p.log(), (-p).log1p()
        return log_p - log_q, per_example(math.log(1 - 2 * self.alpha) - log_p - log_q)

    def inverse(self, y: Tensor) -> Tensor:
        """Real numbers -> (N, C, H, W) in (−½ − α/(1−2α), ½ + α/(1−2α))."""
        return (y.sigmoid() - self.alpha) / (1 - 2 * self.alpha) - 0.5

    def extra_repr(self) -> str:
        return f"alpha={self.alpha}"


@dataclass(frozen=True, kw_only=True)
class RealNVPConfig(FlowConfig):
    """levels L, width (hidden channels), blocks (residual blocks a net), padding as in `Conv`.

    logit: the paper's preprocessing; False feeds x in [−½, ½) as Glow does.
    """

    model: ClassVar[str] = "realnvp"

    levels: int = 2
    width: int = 64
    blocks: int = 8
    padding: str = "zero"
    logit: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        for name, least in (("levels", 1), ("width", 1), ("blocks", 0)):
            self._check_at_least(name, least)
        self._check_divisible(self.levels - 1)
        self._check_choice("padding", PADDINGS)
        self._check_bool("logit")


class RealNVP(MultiScale):
    """The multi-scale RealNVP (§3.6): three checkerboard couplings, squeeze, three by channel.

    Half of the channels leaves after each level but the last, which has four checkerboard
    couplings and no squeeze. All priors are N(0, 1), as in the paper. Differs from it: see
    `ResidualNet`; and there is no batch normalisation between couplings.

    forward, inverse, log-det, initial: the composition, see `MultiScale` and `MaskedCoupling`.
    Contract, options and memory modes as `Glow`: `RealNVP(shape=(3, 32, 32), …)`.
    """

    config: RealNVPConfig

    def __init__(
        self, config: RealNVPConfig | None = None, *, memory: str = "default", **options: Any
    ) -> None:
        config = RealNVPConfig.from_arguments(config, options)
        generator = torch.Generator().manual_seed(config.seed)
        c, h, w = config.shape

        def coupling(draw: Callable[[], Tensor]) -> MaskedCoupling:
            net = ResidualNet(
                c, config.width, config.blocks, padding=config.padding, generator=generator
            )
            layer = MaskedCoupling(draw(), net)
            layer.register_load_state_dict_post_hook(partial(_draw_mask, draw))
            return layer

        levels, splits, latent_shapes = [], [], []
        for level in range(config.levels):
            last = level == config.levels - 1
            boards = [partial(checkerboard_mask, h, w, k % 2) for k in range(4 if last else 3)]
            layers = [coupling(board) for board in boards]
            if config.logit and level == 0:
                layers.insert(0, Logit())
            if not last:
                layers.append(Squeeze("realnvp"))
                c, h, w = 4 * c, h // 2, w // 2
                layers += [coupling(partial(channel_mask, c, k % 2)) for k in range(3)]
                splits.append(Split(c, learned=False))
                c //= 2
            levels.append(Flow(layers))
            latent_shapes.append((c, h, w))
        super().__init__(config, levels, splits, TopPrior(c, learned=False), memory)
        self.latent_shapes = latent_shapes


def _draw_mask(draw: Callable[[], Tensor], layer: MaskedCoupling, _incompatible_keys: Any) -> None:
    """A mask is not saved, and that of a model built on the meta device is none yet."""
    like = next(layer.net.parameters())
    with like.device:
        mask = draw().to(like.dtype)
    if layer.mask.device == mask.device:
        layer.mask.copy_(mask)  # where a CUDA graph reads it
    else:
        layer.mask = mask
