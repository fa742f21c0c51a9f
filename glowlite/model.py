"""An invertible map from images to N(0, I): its likelihood, samples and initial values."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from numbers import Real
from typing import Any

import torch
from torch import Tensor, nn

from glowlite.actnorm import ActNorm
from glowlite.config import FlowConfig
from glowlite.coupling import Conditioned
from glowlite.flow import MEMORY_MODES, Flow, are, tensors_of
from glowlite.likelihood import bits_per_dim, dequantize, gaussian_log_prob, quantize, to_images


class FlowModel(nn.Module):
    """An invertible map from images to N(0, I), and all that follows from having one.

    A subclass sets `config`, `latent_shapes` and writes `encode` and `decode`; likelihood,
    sampling, bits per dimension and initialisation live here, once, for every model.

    Latents are whitened: under the model every one is N(0, 1), at every level, learned priors
    being part of the map and of its log-det. So

    log p(x) = log N(z; 0, I) + log|det ∂z/∂x|     (slide "Composition")

    Real-valued images x are (N, C, H, W) in [−½, ½), float; integer images are uint8,
    (N, C, H, W). Log-dets, log p and bits/dim are float64 whatever the weights are.
    """

    config: FlowConfig
    latent_shapes: list[tuple[int, int, int]]
    n_classes: int = 0

    initialized_flag: Tensor

    def __init__(self, config: FlowConfig) -> None:
        super().__init__()
        self.config = config
        # Saved with the weights. Python reads the copy below: asking the tensor on every call
        # would make the host wait for the device.
        self.register_buffer("initialized_flag", torch.tensor(False))
        self._initialized = False
        self._fast, self._memory = True, "default"
        self.register_load_state_dict_post_hook(_read_initialized_flag)

    # -- the bijection ---------------------------------------------------------------------

    def encode(self, x: Tensor, classes: Tensor | None = None) -> tuple[list[Tensor], Tensor]:
        """(N, C, H, W) -> the latents, finest first, the top one last; log-det (N,) float64."""
        raise NotImplementedError

    def decode(self, latents: Sequence[Tensor], classes: Tensor | None = None) -> Tensor:
        """The latents of `encode` -> the images they came from, (N, C, H, W): exact."""
        raise NotImplementedError

    @property
    def shape(self) -> tuple[int, int, int]:
        """Of one image, (C, H, W)."""
        return self.config.shape

    @property
    def dims(self) -> int:
        """D = c·h·w, of an image and of all its latents together."""
        return math.prod(self.config.shape)

    def flatten(self, latents: Sequence[Tensor]) -> Tensor:
        """The latents as one vector each: (N, D)."""
        return torch.cat([z.flatten(1) for z in latents], 1)

    def unflatten(self, z: Tensor) -> list[Tensor]:
        """One vector each -> the latents. Raises ValueError unless z is (N, D)."""
        if z.ndim != 2 or z.shape[1] != self.dims:
            raise ValueError(f"z has shape {tuple(z.shape)}; accepted: (N, {self.dims})")
        parts = z.split([math.prod(s) for s in self.latent_shapes], 1)
        return [p.unflatten(1, s) for p, s in zip(parts, self.latent_shapes, strict=True)]

    def forward(self, x: Tensor, classes: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """The whole model as one layer: (N, C, H, W) -> z (N, D), log-det (N,) float64."""
        latents, logdet = self.encode(x, classes)
        return self.flatten(latents), logdet

    def inverse(self, z: Tensor, classes: Tensor | None = None) -> Tensor:
        """z (N, D) -> x (N, C, H, W)."""
        self._check_dtype(z, "z")
        return self.decode(self.unflatten(z), classes)

    def _check_no_classes(self, classes: Tensor | None) -> None:
        if classes is not None:
            raise ValueError("classes is given, but this model has none; accepted: None")

    # -- how it is computed (not what: no part of the architecture) --------------------------

    @property
    def memory(self) -> str:
        """What back-propagation keeps: one of `flow.MEMORY_MODES`, else ValueError; see `Flow`."""
        return self._memory

    @memory.setter
    def memory(self, mode: str) -> None:
        if mode not in MEMORY_MODES:
            raise ValueError(f"memory is {mode!r}; accepted: {', '.join(MEMORY_MODES)}")
        self._memory = mode
        for layer in self.modules():
            if isinstance(layer, Flow):
                layer.memory = mode

    @property
    def fast(self) -> bool:
        """Whether steps of flow are run by `glowlite.fused` or layer by layer, see `Flow`."""
        return self._fast

    @fast.setter
    def fast(self, on: bool) -> None:
        self._fast = bool(on)
        for layer in self.modules():
            if isinstance(layer, Flow):
                layer.fast = self._fast

    @contextmanager
    def frozen(self) -> Iterator[None]:
        """For many calls that want no gradients: what they make of the weights is made once.

        Before an image goes through, `glowlite.fused` multiplies out each step's 1×1 convolution,
        inverts it to decode, and folds actnorms into the nets; at every call, as the weights may
        have changed. In this block they may not, and the results are kept until it ends (181 MB
        for the paper's CIFAR-10 model). The numbers are the same. Calls with gradients, and models
        that `fused` does not run, are as they were; so are transforms of `torch.func` and copies of
        the model made inside. Worth it for few images a call.

        >>> import glowlite
        >>> model = glowlite.Glow(shape=(3, 8, 8), levels=2, depth=1, width=4)
        >>> with torch.no_grad(), model.frozen():
        ...     grids = [model.sample(4, temperature=t / 10) for t in range(11)]

        Raises:
            RuntimeError: at the end of the block, a weight was changed or replaced inside.
        """
        flows = [m for m in self.modules() if isinstance(m, Flow) and m.kept is None]
        weights = tensors_of(self)
        tensors = [t for t in weights if t is not None and not t.is_inference()]

        def state() -> tuple[list[int], list[float]]:
            # PyTorch counts changes, but neither a fused optimiser's nor those through `.data`.
            return [t._version for t in tensors], _fingerprint(tensors)

        before = state()
        for flow in flows:
            flow.kept = {}
        try:
            yield
        finally:
            for flow in flows:
                flow.kept = None
        if not are(weights, tensors_of(self)) or before != state():
            raise RuntimeError("weights were changed inside `frozen`, where they are read once")

    def set_net_dtype(self, dtype: torch.dtype | None) -> None:
        """Run the coupling nets alone under autocast in `dtype`; None: in the weights' own."""
        for layer in self.modules():
            if isinstance(layer, Conditioned):
                layer.net_dtype = dtype

    # -- likelihood ------------------------------------------------------------------------

    def log_prob(self, x: Tensor, classes: Tensor | None = None) -> Tensor:
        """log p(x), or log p(x | class), in nats: (N, C, H, W) -> (N,) float64."""
        latents, logdet = self.encode(x, classes)
        return sum((gaussian_log_prob(z) for z in latents), start=logdet)

    def dequantize(
        self,
        images: Tensor,
        generator: torch.Generator | None = None,
        noise: Tensor | None = None,
    ) -> Tensor:
        """uint8 (N, C, H, W) -> x in this model's dtype and bits; see `dequantize`.

        Raises:
            TypeError: images is not a uint8 tensor.
            ValueError: images is not a batch of this model's shape, or its dtype is too coarse.
        """
        dtype = next(self.parameters()).dtype
        x = dequantize(images, self.config.n_bits, generator, noise, dtype)
        self._check_images(images, "images")
        return x

    def middle(self, images: Tensor) -> Tensor:
        """uint8 (N, C, H, W) -> x in the middle of each pixel's cell: the same at every call.

        Raises TypeError and ValueError as `dequantize`.
        """
        quantize(images, self.config.n_bits)  # says what is wrong with them
        noise = images.new_full(images.shape, 0.5, dtype=next(self.parameters()).dtype)
        return self.dequantize(images, noise=noise)

    def bits_per_dim(
        self,
        images: Tensor,
        classes: Tensor | None = None,
        *,
        generator: torch.Generator | None = None,
        noise: Tensor | None = None,
    ) -> Tensor:
        """Bits per dimension of integer images: uint8 (N, C, H, W) -> (N,) float64.

        The one place where n_bits meets the likelihood: the images are cut to the model's
        n_bits, dequantised with fresh uniform noise, and the cells' volume is accounted for.

        Raises:
            TypeError: images is not a uint8 tensor.
            ValueError: images is not a batch of this model's shape, or its dtype is too coarse.
        """
        x = self.dequantize(images, generator, noise)
        return bits_per_dim(self.log_prob(x, classes), self.dims, self.config.n_bits)

    def loss(
        self,
        images: Tensor,
        classes: Tensor | None = None,
        *,
        generator: torch.Generator | None = None,
        noise: Tensor | None = None,
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """What training minimises, and its parts per example, detached: {"bits_per_dim": (N,)}.

        Raises:
            RuntimeError: the model has not been initialised from data.
        """
        self._check_initialized()
        bits = self.bits_per_dim(images, classes, generator=generator, noise=noise)
        return bits.mean(), {"bits_per_dim": bits.detach()}

    # -- synthesis -------------------------------------------------------------------------

    @torch.no_grad()
    def sample(
        self,
        n: int,
        *,
        temperature: float = 1.0,
        classes: Tensor | None = None,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """n images, z ~ N(0, temperature²) at *every* level, x = f⁻¹(z): (n, C, H, W) float.

        A CPU generator gives the same latents whatever the device. `to_images` turns x into
        uint8. temperature 0 is the image of z = 0.

        Raises:
            TypeError: n is no integer, or temperature no number.
            ValueError: n < 1, or a temperature that is negative or not finite.
        """
        if isinstance(n, bool) or not hasattr(n, "__index__"):
            raise TypeError(f"n is {n!r}; accepted: an integer ≥ 1")
        one = isinstance(temperature, Tensor) and temperature.numel() == 1
        if not one and not isinstance(temperature, Real):
            raise TypeError(f"temperature is {temperature!r}; accepted: a number ≥ 0")
        if n < 1 or not 0 <= temperature < math.inf:
            raise ValueError(f"n is {n}, temperature {temperature}; accepted: n ≥ 1 and T ≥ 0")
        like = next(self.parameters())
        device = like.device if generator is None else generator.device
        z = torch.randn(n, self.dims, generator=generator, dtype=like.dtype, device=device)
        return self.inverse(temperature * z.to(like.device), classes)

    def to_images(self, x: Tensor) -> Tensor:
        """Real numbers -> uint8 in this model's bits; see `to_images`."""
        return to_images(x, self.config.n_bits)

    # -- initialisation --------------------------------------------------------------------

    @property
    def initialized(self) -> bool:
        """Whether `initialize` has been called, on this model or on the one it was loaded from."""
        return self._initialized

    @torch.no_grad()
    def initialize(
        self,
        images: Tensor,
        classes: Tensor | None = None,
        *,
        generator: torch.Generator | None = None,
        noise: Tensor | None = None,
    ) -> None:
        """Data-dependent initial values of every actnorm, from one batch, uint8 (N, C, H, W).

        One forward pass in which each actnorm, when its turn comes, first sets its scale and
        bias from what reaches it. Explicit, once; with the same images and noise the result is
        the same on every rank. Remembered in a buffer, so it is saved with the weights.

        Raises:
            TypeError, ValueError: as `bits_per_dim`.
            RuntimeError: the model is initialised already.
        """
        if self.initialized:
            raise RuntimeError(
                "the model is initialised already; its actnorms would lose what they have learned"
            )
        x = self.dequantize(images, generator, noise)
        hooks = [
            layer.register_forward_pre_hook(lambda layer, args: layer.initialize(args[0]))
            for layer in self.modules()
            if isinstance(layer, ActNorm)
        ]
        try:
            self.log_prob(x, classes)
        finally:
            for hook in hooks:
                hook.remove()
        self.initialized_flag.fill_(True)
        self._initialized = True

    def _check_initialized(self) -> None:
        if not self.initialized:
            raise RuntimeError(
                "the model is not initialised: call model.initialize(images) once on a batch "
                "of training images, before the optimiser's first step"
            )

    # -- checks ----------------------------------------------------------------------------

    def _check_images(self, x: Tensor, name: str = "x") -> None:
        if x.ndim != 4 or tuple(x.shape[1:]) != self.shape:
            raise ValueError(
                f"{name} has shape {tuple(x.shape)}; accepted: (N, C, H, W) = "
                f"(N, {', '.join(map(str, self.shape))})"
            )
        if not len(x):
            raise ValueError(f"{name} is empty; accepted: at least one image")

    def _check_x(self, x: Tensor) -> None:
        """What `encode` is given."""
        self._check_dtype(x, "x")
        self._check_images(x)

    def _check_dtype(self, x: Tensor, name: str) -> None:
        wanted, got = next(self.parameters()).dtype, getattr(x, "dtype", None)
        if not isinstance(x, Tensor):
            got = f"a {type(x).__name__}" + (f" of {got}" if got is not None else "")
        if got != wanted:
            raise TypeError(
                f"{name} is {got}; accepted: {wanted}, that of the weights"
                + ("; for uint8 images see `dequantize`" * (got == torch.uint8))
            )

    def _check_latents(self, latents: Sequence[Tensor]) -> None:
        """What `decode` is given."""
        if not isinstance(latents, Sequence):
            raise TypeError(
                f"latents is a {type(latents).__name__}; accepted: a list of tensors, as from "
                "`encode` (one tensor for all: `inverse`)"
            )
        for z in latents:
            self._check_dtype(z, "a latent")
        shapes = [tuple(z.shape[1:]) for z in latents]
        if shapes != self.latent_shapes:
            raise ValueError(f"latents have shapes {shapes}; accepted: {self.latent_shapes}")
        if len({len(z) for z in latents}) > 1:
            counts = [len(z) for z in latents]
            raise ValueError(f"latents are of {counts} images; accepted: as many at each level")
        if not len(latents[0]):
            raise ValueError("latents are empty; accepted: those of at least one image")


@torch.no_grad()
def _fingerprint(tensors: Sequence[Tensor]) -> list[float]:
    """Of each the norm, and a sum in which each number counts otherwise: signs and order."""
    found = []
    for t in tensors:
        if t.is_floating_point():
            found.append(torch.linalg.vector_norm(t, dtype=torch.float64))
            ramp = torch.linspace(1, 2, t.numel(), dtype=torch.float64, device=t.device)
            found.append((ramp.view_as(t) * t).sum())
    # NaN, which differs from itself, as what no norm is.
    return torch.stack(found).nan_to_num(nan=-1.0).tolist() if found else []


def _read_initialized_flag(model: FlowModel, _incompatible_keys: Any) -> None:
    model._initialized = bool(model.initialized_flag)
