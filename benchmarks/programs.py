"""What is measured: the floor, glowlite in each mode; `peers.py` holds the other libraries.

A program is one model with its optimiser. All of them get the same images, the same loss (mean
bits a dimension, up to a constant), the same fused Adam, and the same treatment before anything
is measured: weights that start at zero become small random numbers (see `wake`), actnorms take
their values from a batch.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode, conv_flop_count

from glowlite import Glow
from glowlite.flow import MEMORY_MODES
from glowlite.likelihood import dequantize

PARTS = ("train", "log_prob", "sample")


@dataclass(frozen=True, kw_only=True)
class Setting:
    """The architecture every program has, and the batch: shape (C, H, W), L, K, hidden width."""

    shape: tuple[int, int, int] = (3, 32, 32)
    levels: int = 3
    depth: int = 32
    width: int = 512
    batch: int = 16
    n_bits: int = 5

    @property
    def dims(self) -> int:
        """D = c·h·w."""
        return math.prod(self.shape)

    def level_shapes(self) -> list[tuple[int, int, int]]:
        """(C, H, W) of the steps of each level: after the squeeze, before the split."""
        c, h, w = self.shape
        return [(4 * c * 2**i, h // 2 ** (i + 1), w // 2 ** (i + 1)) for i in range(self.levels)]

    def noise_images(self, n: int | None = None) -> Tensor:
        """n (or `batch`) dequantised images of random pixels: what is on them costs no time."""
        g = torch.Generator().manual_seed(0)
        size = (n or self.batch, *self.shape)
        images = torch.randint(256, size, generator=g, dtype=torch.uint8)
        return dequantize(images, self.n_bits, g)


def coupling_net(c: int, width: int) -> nn.Sequential:
    """The convolutions of one coupling of c channels, with biases; the last starts at zero."""
    last = nn.Conv2d(width, c, 3, padding=1)
    nn.init.zeros_(last.weight)
    nn.init.zeros_(last.bias)
    return nn.Sequential(
        nn.Conv2d(c // 2, width, 3, padding=1),
        nn.ReLU(inplace=True),
        nn.Conv2d(width, width, 1),
        nn.ReLU(inplace=True),
        last,
    )


@torch.no_grad()
def wake(model: nn.Module, seed: int = 0) -> None:
    """Give kernels that start at zero small random weights, as a few training steps would.

    A product with zero is exact: it would hide rounding errors, and send gradients of zero.
    """
    g = torch.Generator().manual_seed(seed)
    for p in model.parameters():
        if p.requires_grad and p.ndim == 4 and not p.any():
            p.copy_(1e-3 * torch.randn(p.shape, generator=g, dtype=p.dtype))


class Program:
    """A model under measurement; a subclass builds `model` and writes the four maps below.

    about: what differs from glowlite's default, in words. measured: the parts that are timed.
    """

    family = "glowlite"
    measured: tuple[str, ...] = PARTS

    def __init__(self, name: str, about: str, model: nn.Module, setting: Setting) -> None:
        self.name, self.about, self.model, self.setting = name, about, model, setting

    def prepare(self, layout: torch.memory_format, x: Tensor | None = None) -> None:
        """Weights in `layout`, woken; actnorms from x, or from noise; a fused, very slow Adam."""
        self.layout = layout
        wake(self.model)
        self.model.to(memory_format=layout)
        x = self.setting.noise_images() if x is None else x
        with torch.no_grad():
            self.initialize(x.contiguous(memory_format=layout))
        self.optimizer = torch.optim.Adam(self.model.parameters(), lr=1e-6, fused=True)

    def initialize(self, x: Tensor) -> None:
        """Data-dependent initial values; where the library has none of its own, a forward pass."""
        self.log_prob(x)

    def encode(self, x: Tensor) -> tuple[list[Tensor], Tensor]:
        """(N, C, H, W) -> latents, log-det (N,)."""
        raise NotImplementedError

    def decode(self, latents: list[Tensor]) -> Tensor:
        """The inverse of `encode`."""
        raise NotImplementedError

    def log_prob(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> (N,), nats."""
        raise NotImplementedError

    def sample(self, n: int) -> Tensor:
        """n images at temperature 1."""
        raise NotImplementedError

    def backward(self, x: Tensor, forward_ended: Callable[[], object] = lambda: None) -> None:
        """Gradients of the mean loss; `forward_ended` is called before the way back."""
        loss = -self.log_prob(x).mean() / (self.setting.dims * math.log(2))
        forward_ended()
        loss.backward()

    def train_step(self, x: Tensor, forward_ended: Callable[[], object] = lambda: None) -> None:
        """Forward, backward, optimiser."""
        self.optimizer.zero_grad(set_to_none=True)
        self.backward(x, forward_ended)
        self.optimizer.step()

    @property
    def parameters(self) -> int:
        """Trainable numbers."""
        return sum(p.numel() for p in self.model.parameters() if p.requires_grad)

    def net_macs(self) -> int:
        """Multiply-adds of the coupling nets for one image forward, counted live.

        Every convolution and matrix product with `width` channels on one side; the flow's own
        1×1 convolutions and learned priors have none of that size. Edge padding's extra channel
        counts where it is convolved with every image, not where its map is made once a batch.
        """
        width = self.setting.width

        def convolution(x, w, _b, _s, _p, _d, transposed, *_, out_shape=None, **__) -> int:
            counts = width in w[:2] and w[1] > 1
            return conv_flop_count(x, w, out_shape, transposed) if counts else 0

        def product(a, b, *_, out_shape=None, **__) -> int:
            return 2 * math.prod(a) * b[-1] if width in (a[-1], b[-1]) else 0

        aten = torch.ops.aten
        count = {
            aten.convolution: convolution, aten._convolution: convolution,
            aten.mm: product, aten.bmm: product,
            aten.addmm: lambda _, a, b, **k: product(a, b),
        }  # fmt: skip
        x = self.setting.noise_images(1).contiguous(memory_format=self.layout)
        with torch.no_grad(), FlopCounterMode(display=False, custom_mapping=count) as counter:
            self.log_prob(x)
        counts = counter.get_flop_counts()["Global"]
        return sum(n for op, n in counts.items() if op in count) // 2


class Floor(Program):
    """The coupling nets alone: no flow can be faster than its own convolutions.

    Each net has an input of its own, which wants a gradient (in a flow it has one), and is sent a
    gradient of ones. Log-prob and sampling: the same forward pass.
    """

    family = "floor"

    def __init__(self, setting: Setting) -> None:
        nets = [
            coupling_net(c, setting.width)
            for c, _, _ in setting.level_shapes()
            for _ in range(setting.depth)
        ]
        about = "no flow: the coupling nets alone, with biases, zero padding and ReLU in place"
        super().__init__("floor", about, nn.ModuleList(nets), setting)
        self.inputs: dict[int, list[Tensor]] = {}
        self.gradients: dict[int, list[Tensor]] = {}

    def _feed(self, n: int) -> list[Tensor]:
        if n not in self.inputs:
            g = torch.Generator().manual_seed(0)
            shapes = [s for s in self.setting.level_shapes() for _ in range(self.setting.depth)]

            def fixed(c: int, h: int, w: int) -> Tensor:
                x = torch.randn(n, c, h, w, generator=g)
                return x.contiguous(memory_format=self.layout)

            self.inputs[n] = [fixed(c // 2, h, w).requires_grad_() for c, h, w in shapes]
            self.gradients[n] = [torch.ones_like(fixed(*shape)) for shape in shapes]
        return self.inputs[n]

    def to(self, device: torch.device, layout: torch.memory_format, dtype: torch.dtype) -> None:
        """Instead of `prepare`: all of it on another device, for outputs in `dtype` (autocast)."""
        self.layout, n = layout, self.setting.batch
        self.model.to(device, memory_format=layout)
        self.inputs[n] = [x.detach().to(device).requires_grad_() for x in self._feed(n)]
        self.gradients[n] = [g.to(device, dtype) for g in self.gradients[n]]

    def _forward(self, n: int) -> list[Tensor]:
        return [net(x) for net, x in zip(self.model, self._feed(n), strict=True)]

    def log_prob(self, x: Tensor) -> Tensor:
        """The nets' forward passes; a number for each image, to be checked for NaN."""
        return self._forward(len(x))[-1].flatten(1).sum(1)

    def sample(self, n: int) -> Tensor:
        """As `log_prob`."""
        return self._forward(n)[-1]

    def backward(self, x: Tensor, forward_ended: Callable[[], object] = lambda: None) -> None:
        """All forward passes, then all backward passes, as in a flow."""
        outputs = self._forward(len(x))
        forward_ended()
        for fed in self.inputs[len(x)]:
            fed.grad = None
        torch.autograd.backward(outputs, self.gradients[len(x)])


class Glowlite(Program):
    """glowlite's Glow; `options` of the model, the others of how it is computed."""

    def __init__(
        self, name: str, about: str, setting: Setting, *, memory: str = "default",
        fast: bool = True, bf16: bool = False, frozen: bool = False, **options: object,
    ) -> None:  # fmt: skip
        model = Glow(
            shape=setting.shape, levels=setting.levels, depth=setting.depth, width=setting.width,
            n_bits=setting.n_bits, memory=memory, **options,
        )  # fmt: skip
        model.fast = fast
        if bf16:
            model.set_net_dtype(torch.bfloat16)
        super().__init__(name, about, model, setting)
        if memory != "default" or bf16:
            self.measured = ("train",)  # without gradients the modes do not differ
        self.frozen = frozen
        if frozen:
            self.measured = ("log_prob", "sample")

    def prepare(self, layout: torch.memory_format, x: Tensor | None = None) -> None:
        super().prepare(layout, x)
        if self.frozen:
            self.block = ExitStack()  # left when the program is
            self.block.enter_context(self.model.frozen())

    def initialize(self, x: Tensor) -> None:
        """Its own."""
        self.model.initialize(self.model.to_images(x))

    def encode(self, x: Tensor) -> tuple[list[Tensor], Tensor]:
        return self.model.encode(x)

    def decode(self, latents: list[Tensor]) -> Tensor:
        return self.model.decode(latents)

    def log_prob(self, x: Tensor) -> Tensor:
        return self.model.log_prob(x)

    def sample(self, n: int) -> Tensor:
        return self.model.sample(n)


def has_bf16() -> bool:
    """Whether this CPU multiplies bfloat16 itself; otherwise it is imitated, slowly."""
    return torch.ops.mkldnn._is_mkldnn_bf16_supported()


def _glowlite() -> dict[str, Callable[[Setting], Program]]:
    """name -> builder: two kinds of coupling net, each in every mode that exists here."""
    flavours = {
        "glowlite": ("edge padding and actnorm in the nets (the authors')", {}),
        "glowlite-plain-nets": (
            "zero padding and biases in the nets, as the peers have",
            {"padding": "zero", "net_actnorm": False},
        ),
    }
    modes: dict[str, tuple[str, dict[str, object]]] = {
        "": ("the default", {}),
        "-layers": ("layer by layer, fast=False", {"fast": False}),
        **{f"-{m}": (f"memory={m!r}", {"memory": m}) for m in MEMORY_MODES if m != "default"},
        "-frozen": ("what the weights are made into is kept, model.frozen()", {"frozen": True}),
        "-bf16": ("coupling nets in bfloat16, flow and log-dets in float32", {"bf16": True}),
    }
    if not has_bf16():
        del modes["-bf16"]

    def builder(name: str, about: str, options: dict) -> Callable[[Setting], Program]:
        return lambda setting: Glowlite(name, about, setting, **options)

    return {
        flavour + mode: builder(flavour + mode, f"{how}; {what}", options | more)
        for flavour, (what, options) in flavours.items()
        for mode, (how, more) in modes.items()
    }


PROGRAMS: dict[str, Callable[[Setting], Program]] = {"floor": Floor, **_glowlite()}
