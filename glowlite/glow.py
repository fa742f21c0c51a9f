"""Slides "Architecture": the step of flow, and steps stacked into the multi-scale model."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from numbers import Real
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from glowlite import fused
from glowlite._tensors import halves, same_for_all
from glowlite.actnorm import ActNorm
from glowlite.config import FlowConfig
from glowlite.conv1x1 import Conv1x1, Conv1x1LU
from glowlite.coupling import SCALES, AdditiveCoupling, AffineCoupling, Coupling
from glowlite.flow import Flow, Gradients, autocast_dtype, rewind_all
from glowlite.likelihood import bits_per_dim, gaussian_log_prob
from glowlite.model import FlowModel
from glowlite.network import PADDINGS, CouplingNet, ZeroLinear
from glowlite.permutation import Permutation
from glowlite.split import Split, TopPrior
from glowlite.squeeze import Squeeze

COUPLINGS = ("affine", "additive")
PERMUTATIONS = ("lu", "plain", "shuffle", "reverse")


@dataclass(frozen=True, kw_only=True)
class GlowConfig(FlowConfig):
    """Every option of the paper and its code; the defaults are the paper's for CIFAR-10.

    Their released code has the LU form switched off: permutation="plain" is what it runs.

    levels L, depth K (steps a level), width (hidden channels of the coupling nets).
    coupling: "affine" | "additive"; scale (affine only): "sigmoid", the code, | "exp", the text.
    permutation: "lu" | "plain" 1×1 convolution, or a fixed "shuffle" | "reverse".
    learn_split_prior, learn_top: whether the Gaussians of the latents are learned.
    n_classes > 0: class-conditional top prior and a classifier on the top latents, whose loss
    counts `weight_y` times (the authors' ycond, weight_y).
    net_actnorm: actnorm inside the coupling nets (theirs), or biases.
    padding: "edge" (theirs) | "zero", see `network.Conv`.
    """

    model: ClassVar[str] = "glow"

    levels: int = 3
    depth: int = 32
    width: int = 512
    coupling: str = "affine"
    scale: str = "sigmoid"
    permutation: str = "lu"
    learn_split_prior: bool = True
    learn_top: bool = True
    n_classes: int = 0
    weight_y: float = 0.0
    net_actnorm: bool = True
    padding: str = "edge"

    def __post_init__(self) -> None:
        super().__post_init__()
        for name, least in (("levels", 1), ("depth", 1), ("width", 1), ("n_classes", 0)):
            self._check_at_least(name, least)
        self._check_divisible(self.levels)
        self._check_choice("coupling", COUPLINGS)
        self._check_choice("scale", SCALES)
        self._check_choice("permutation", PERMUTATIONS)
        self._check_choice("padding", PADDINGS)
        for name in ("learn_split_prior", "learn_top", "net_actnorm"):
            self._check_bool(name)
        if not isinstance(self.weight_y, Real) or not 0 <= self.weight_y < math.inf:
            raise ValueError(f"weight_y is {self.weight_y!r}; accepted: a finite number ≥ 0")
        object.__setattr__(self, "weight_y", float(self.weight_y))
        if self.weight_y and not self.n_classes:
            raise ValueError(f"weight_y is {self.weight_y} with n_classes 0: nothing to classify")


class Step(nn.Module):
    """One step of flow: actnorm, then permutation, then coupling (Glow fig. 2a, Table 1).

    forward, inverse, log-det, initial: the composition of the three, see each.
    """

    def __init__(self, actnorm: ActNorm, permutation: nn.Module, coupling: Coupling) -> None:
        super().__init__()
        self.actnorm, self.permutation, self.coupling = actnorm, permutation, coupling

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """(N, C, H, W) -> (N, C, H, W), log-det (N,) float64."""
        h, logdet_actnorm = self.actnorm(x)
        h, logdet_permutation = self.permutation(h)
        y, logdet_coupling = self.coupling(h)
        return y, logdet_actnorm + logdet_permutation + logdet_coupling

    def inverse(self, y: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, C, H, W)."""
        return self.actnorm.inverse(self.permutation.inverse(self.coupling.inverse(y)))

    def rewind(self, y: Tensor, gy: Tensor, glogdet: Tensor) -> tuple[Tensor, Tensor, Gradients]:
        """As `flow.rewind`."""
        return rewind_all([self.actnorm, self.permutation, self.coupling], y, gy, glogdet)


class Level(nn.Module):
    """Squeeze, then K steps of flow (Glow fig. 2b).

    forward, inverse, log-det, initial: the composition, (N, C, H, W) <-> (N, 4C, H/2, W/2).
    """

    def __init__(self, steps: Sequence[Step]) -> None:
        super().__init__()
        self.squeeze, self.steps = Squeeze(), Flow(steps)

    def _fused(self, h: Tensor) -> bool:
        """Autocast is about layers, each in the dtype given to it: there, layer by layer."""
        return self.steps.fast and autocast_dtype(h) is None and fused.fits(self.steps)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """(N, C, H, W) -> (N, 4C, H/2, W/2), log-det (N,) float64."""
        h, _ = self.squeeze(x)
        if self._fused(h):
            return fused.run(self.steps, h, self.steps.memory, self.steps.kept)
        return self.steps(h)

    def inverse(self, y: Tensor) -> Tensor:
        """(N, 4C, H/2, W/2) -> (N, C, H, W)."""
        if self._fused(y):
            return self.squeeze.inverse(fused.run_back(self.steps, y, self.steps.kept))
        return self.squeeze.inverse(self.steps.inverse(y))


class MultiScale(FlowModel):
    """Levels of flow, each but the last handing half of its channels out (Glow fig. 2b).

    forward:  h = x; at each level h = level(h), then (h, ε) = halves(split(h)) and ε is a
              latent; after the last level, top(h) is the last latent
    inverse:  the latents taken back in, last first
    log-det:  the sum over all levels, splits and the top prior
    initial:  that of its layers
    """

    def __init__(
        self,
        config: FlowConfig,
        levels: Sequence[nn.Module],
        splits: Sequence[Split],
        top: TopPrior,
        memory: str = "default",
    ) -> None:
        super().__init__(config)
        self.levels, self.splits = nn.ModuleList(levels), nn.ModuleList(splits)
        self.top = top
        self.memory = memory

    def _encode_to_top(self, x: Tensor) -> tuple[list[Tensor], Tensor, Tensor]:
        """The split-off latents, the top activation before its prior, and the log-det so far."""
        self._check_x(x)
        latents, h, total = [], x, same_for_all(0.0, x)
        for i, level in enumerate(self.levels):
            h, logdet = level(h)
            total = total + logdet
            if i < len(self.splits):
                y, logdet = self.splits[i](h)
                h, eps = halves(y)
                latents.append(eps)
                total = total + logdet
        return latents, h, total

    def encode(self, x: Tensor, classes: Tensor | None = None) -> tuple[list[Tensor], Tensor]:
        """(N, C, H, W) -> L latents, finest first; log-det (N,) float64.

        A class-conditional model needs `classes`, (N,) int64: its top prior depends on them.

        Raises:
            TypeError: x has another dtype than the weights.
            ValueError: x has another shape or no image, or classes are missing or not expected.
        """
        latents, h, total = self._encode_to_top(x)
        top, logdet = self.top(h, classes)
        return [*latents, top], total + logdet

    def decode(self, latents: Sequence[Tensor], classes: Tensor | None = None) -> Tensor:
        """L latents, finest first -> (N, C, H, W), exactly.

        Raises:
            TypeError: another dtype than that of the weights.
            ValueError: wrong number, shapes or batch sizes, or classes are missing or not expected.
        """
        self._check_latents(latents)
        *rest, top = latents
        h = self.top.inverse(top, classes)
        for i in reversed(range(len(self.levels))):
            if i < len(self.splits):
                h = self.splits[i].inverse(torch.cat([h, rest[i]], 1))
            h = self.levels[i].inverse(h)
        return h


class Glow(MultiScale):
    """Glow: L levels of squeeze, K steps of flow and split (slides "Architecture"; Glow fig. 2).

    forward:  x -> z, (N, C, H, W) -> (N, D); see `encode` for the latents level by level
    inverse:  z -> x, by the exact inverse of every layer
    log-det:  the sum of the layers'
    initial:  couplings near the identity, 1×1 convolutions random rotations, actnorms from data
              (`initialize`)

    `Glow(config)` or `Glow(shape=(3, 32, 32), levels=3, …)`, options as in `GlowConfig`.

    memory: what back-propagation keeps: "default", "half", "checkpoint" or "reversible", see
    `Flow`. Not part of the architecture: set `model.memory` at any time. Steps are run by
    `glowlite.fused`; `model.fast = False` runs them layer by layer as this file has them.

    >>> model = Glow(shape=(3, 8, 8), levels=2, depth=1, width=4)
    >>> x = torch.rand(2, 3, 8, 8) - 0.5
    >>> latents, logdet = model.encode(x)
    >>> [tuple(z.shape) for z in latents], tuple(logdet.shape)
    ([(2, 6, 4, 4), (2, 24, 2, 2)], (2,))
    >>> bool((model.decode(latents) - x).abs().max() < 1e-5)
    True
    """

    config: GlowConfig

    def __init__(
        self, config: GlowConfig | None = None, *, memory: str = "default", **options: Any
    ) -> None:
        """Build the model.

        Raises:
            TypeError: both a config and options, or an unknown option.
            ValueError: an option out of range.
        """
        config = GlowConfig.from_arguments(config, options)
        generator = torch.Generator().manual_seed(config.seed)
        levels, splits, latent_shapes = [], [], []
        c, h, w = config.shape
        for i in range(config.levels):
            c, h, w = 4 * c, h // 2, w // 2
            levels.append(Level([build_step(config, c, generator) for _ in range(config.depth)]))
            if i < config.levels - 1:
                splits.append(Split(c, learned=config.learn_split_prior, padding=config.padding))
                c //= 2
            latent_shapes.append((c, h, w))
        top = TopPrior(c, learned=config.learn_top, n_classes=config.n_classes)
        super().__init__(config, levels, splits, top, memory)
        self.latent_shapes = latent_shapes
        self.classifier = ZeroLinear(c, config.n_classes) if config.n_classes else None

    @property
    def n_classes(self) -> int:
        """0 unless the model is class-conditional."""
        return self.config.n_classes

    def log_prob(self, x: Tensor, classes: Tensor | None = None) -> Tensor:
        """log p(x) in nats, (N, C, H, W) -> (N,) float64.

        Class-conditional models: log p(x | class) if `classes` is given, else the classes
        averaged out, each as likely: log p(x) = log mean_y p(x | y). Only the top prior depends
        on the class, so that costs one pass, not n_classes.
        """
        if not self.n_classes or classes is not None:
            return super().log_prob(x, classes)
        latents, h, total = self._encode_to_top(x)
        total = sum((gaussian_log_prob(z) for z in latents), start=total)
        per_class = []
        for y in range(self.n_classes):
            eps, logdet = self.top(h, torch.full((len(x),), y, device=x.device))
            per_class.append(gaussian_log_prob(eps) + logdet)
        return total + torch.stack(per_class).logsumexp(0) - math.log(self.n_classes)

    def classify(self, x: Tensor) -> Tensor:
        """Logits from the top latents, averaged over pixels: (N, C, H, W) -> (N, n_classes).

        Raises:
            ValueError: the model has no classes.
        """
        if self.classifier is None:
            raise ValueError("n_classes is 0; classify needs a class-conditional model")
        return self.classifier(self._encode_to_top(x)[1].mean((2, 3)))

    def loss(
        self,
        images: Tensor,
        classes: Tensor | None = None,
        *,
        generator: torch.Generator | None = None,
        noise: Tensor | None = None,
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Mean bits/dim, plus weight_y times the mean classification loss in bits.

        Class-conditional models need `classes`, (N,) int64; the parts, (N,) each, then also hold
        "class_bits" and "correct". One pass serves both.
        """
        if not self.n_classes:
            return super().loss(images, classes, generator=generator, noise=noise)
        self._check_initialized()
        latents, h, logdet = self._encode_to_top(self.dequantize(images, generator, noise))
        top, logdet_top = self.top(h, classes)
        log_prob = sum(map(gaussian_log_prob, [*latents, top]), start=logdet + logdet_top)
        bits = bits_per_dim(log_prob, self.dims, self.config.n_bits)
        logits = self.classifier(h.mean((2, 3)))
        class_bits = F.cross_entropy(logits, classes, reduction="none") / math.log(2)
        loss = (bits + self.config.weight_y * class_bits).mean()
        parts = {
            "bits_per_dim": bits,
            "class_bits": class_bits,
            "correct": (logits.argmax(1) == classes).float(),
        }
        return loss, {name: part.detach() for name, part in parts.items()}


def build_step(config: GlowConfig, c: int, generator: torch.Generator) -> Step:
    """A step of flow on c channels with the config's options."""
    permutation = {
        "lu": lambda: Conv1x1LU(c, generator),
        "plain": lambda: Conv1x1(c, generator),
        "shuffle": lambda: Permutation.shuffle(c, generator),
        "reverse": lambda: Permutation.reverse(c),
    }[config.permutation]()
    affine = config.coupling == "affine"
    net = CouplingNet(
        c // 2,
        config.width,
        c if affine else c // 2,
        padding=config.padding,
        actnorm=config.net_actnorm,
        generator=generator,
    )
    coupling = AffineCoupling(net, config.scale) if affine else AdditiveCoupling(net)
    return Step(ActNorm(c), permutation, coupling)
