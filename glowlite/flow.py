"""Slides "Composition" and "potential for memory savings": bijections, one after the other."""

from __future__ import annotations

import operator
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.func import functional_call
from torch.utils.checkpoint import checkpoint

from glowlite._tensors import same_for_all

MEMORY_MODES = ("default", "half", "checkpoint", "reversible")


class Layer(Protocol):
    """A bijection that knows how much it stretches space.

    forward:  y = f(x), and log|det ∂y/∂x|, natural logarithm, one number per example, shape (N,)
    inverse:  x = f⁻¹(y)
    """

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]: ...

    def inverse(self, y: Tensor) -> Tensor: ...


class Flow(nn.ModuleList):
    """The composition f = f_K ∘ … ∘ f₂ ∘ f₁ (slide "Composition"; Glow §2, eqs. 6 and 7).

    forward:  h₀ = x,  hᵢ = fᵢ(hᵢ₋₁),  z = h_K
    inverse:  hᵢ₋₁ = fᵢ⁻¹(hᵢ), from h_K = z back to h₀ = x
    log-det:  Σᵢ₌₁ᴷ log|det ∂hᵢ/∂hᵢ₋₁|, added up in float64
    initial:  that of its layers

    `memory` says what back-propagation keeps of K layers; the gradients are of the same function:

    - "default": every activation inside every layer; of a step of flow that is run by `fused`,
      its input, its scale and the two hidden layers of its net.
    - "half": of those two hidden layers one, the other is computed again. Equal bit for bit.
      Where a layer is not run by `fused`, as "checkpoint".
    - "checkpoint": each hᵢ; a layer's inside is computed again when its turn comes. Gradients
      are equal to the default's bit for bit.
    - "reversible": z alone, whatever K is; hᵢ₋₁ = fᵢ⁻¹(hᵢ) in the backward pass. Gradients carry
      the rounding of the inverse. No second derivatives and no `torch.func` in this mode.

    Of `torch.func`, grad, jacrev and vjp want "default", or steps that `fused` runs;
    `functional_call` and then `backward` goes with all but "reversible", where a layer that
    `fused` does not run raises RuntimeError: it knows its own weights only.

    `fast` says whether steps of flow may be run by `fused`, which computes the same in fewer
    passes (no forward-mode differentiation there), or layer by layer as they are written. Under
    `torch.autocast` it is layer by layer: their convolutions, the 1×1 ones too, are then in its
    dtype and z as coarse; `FlowModel.set_net_dtype` spares the flow that.
    `kept` is where it keeps what it makes of the weights, while the model is `frozen`.
    """

    memory: str = "default"
    fast: bool = True
    kept: dict[Any, Any] | None = None

    def __getstate__(self) -> dict[str, Any]:
        """For copies, which are not frozen: without what is kept, made of this one's weights."""
        return {name: value for name, value in self.__dict__.items() if name != "kept"}

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """(N, …) -> z, and the sum of the log-dets, (N,) float64."""
        if self.memory == "reversible" and torch.is_grad_enabled():
            return _Reversible.apply(self, x, *self.parameters())
        keep_inputs_only = self.memory in ("half", "checkpoint") and torch.is_grad_enabled()
        h, total = x, same_for_all(0.0, x)
        for layer in self:
            if keep_inputs_only:  # with the weights of now, which may be `functional_call`'s
                h, logdet = checkpoint(
                    _call,
                    layer,
                    tensors_of(layer),
                    h,
                    use_reentrant=False,
                    preserve_rng_state=False,
                )
            else:
                h, logdet = layer(h)
            total = total + logdet
        return h, total

    def inverse(self, z: Tensor) -> Tensor:
        """z -> x, the layers undone in the opposite order."""
        for layer in reversed(self):
            z = layer.inverse(z)
        return z


def tensors_of(layer: nn.Module) -> list[Tensor | None]:
    """Parameters and buffers inside; `parameters()` would take several times as long."""
    found: list[Tensor | None] = []
    _collect(layer.__dict__, found)
    return found


def _collect(own: dict[str, Any], found: list[Tensor | None]) -> None:
    found += own["_parameters"].values()
    found += own["_buffers"].values()
    for child in own["_modules"].values():
        if child is not None:
            _collect(child.__dict__, found)


def are(tensors: Sequence[Tensor | None], others: Sequence[Tensor | None]) -> bool:
    """Whether they are the very same."""
    return len(tensors) == len(others) and all(map(operator.is_, tensors, others))


def _call(layer: nn.Module, tensors: list[Tensor | None], h: Tensor) -> tuple[Tensor, Tensor]:
    """The layer at h with these tensors: on the way back others may be there."""
    if are(tensors, tensors_of(layer)):
        return layer(h)
    names = [
        f"{path}.{name}".removeprefix(".")
        for path, m in layer.named_modules(remove_duplicate=False)
        for name in (*m._parameters, *m._buffers)
    ]
    given = {name: t for name, t in zip(names, tensors, strict=True) if t is not None}
    return functional_call(layer, given, (h,), tie_weights=False)  # each name is there


# -- back-propagation without stored activations ---------------------------------------------

Gradients = dict[nn.Parameter, Tensor | None]


def gradients(
    outputs: Sequence[Tensor], upstream: Sequence[Tensor], inputs: Sequence[Tensor]
) -> tuple[Tensor | None, ...]:
    """Σ ⟨upstream, ∂output/∂input⟩ for each input; None where nothing depends on it."""
    live = [(o, g) for o, g in zip(outputs, upstream, strict=True) if o.requires_grad]
    return torch.autograd.grad(
        [o for o, _ in live], inputs, [g for _, g in live], allow_unused=True
    )


def rewind(
    layer: nn.Module, y: Tensor, gy: Tensor, glogdet: Tensor
) -> tuple[Tensor, Tensor, Gradients]:
    """Back-propagate through a layer from its output alone.

    y: the output; gy and glogdet: the loss's gradients with respect to it and to the log-det.
    Gradients are off, as in a backward pass.
    Returns the input x = f⁻¹(y), the gradient with respect to x, and those of the parameters.
    A layer with a cheaper way than inverse-then-forward has a method `rewind` of its own.
    """
    if hasattr(layer, "rewind"):
        return layer.rewind(y, gy, glogdet)
    x = layer.inverse(y).requires_grad_()
    parameters = [p for p in layer.parameters() if p.requires_grad]
    with torch.enable_grad():
        outputs = layer(x)
    gx, *found = gradients(outputs, (gy, glogdet), [x, *parameters])
    return x, gx, dict(zip(parameters, found, strict=True))


def rewind_all(
    layers: Sequence[nn.Module], y: Tensor, gy: Tensor, glogdet: Tensor
) -> tuple[Tensor, Tensor, Gradients]:
    """`rewind` through a composition, the last layer first."""
    found: Gradients = {}
    for layer in reversed(layers):
        y, gy, more = rewind(layer, y, gy, glogdet)
        for p, g in more.items():  # a layer may stand in several places
            known = found.get(p)
            found[p] = g if known is None else known if g is None else known + g
    return y, gy, found


def autocast_dtype(x: Tensor) -> torch.dtype | None:
    """That of the user's autocast on x's device; None: there is none."""
    device = x.device.type
    on = torch.amp.is_autocast_available(device) and torch.is_autocast_enabled(device)
    return torch.get_autocast_dtype(device) if on else None


def autocast_as(dtype: torch.dtype | None, x: Tensor) -> AbstractContextManager[Any]:
    """For a way back: within it autocast is what it was on the way there, see `autocast_dtype`."""
    if dtype == autocast_dtype(x):
        return nullcontext()
    return torch.autocast(x.device.type, dtype, enabled=dtype is not None)


class _Reversible(torch.autograd.Function):
    """A flow that stores its output only."""

    @staticmethod
    def forward(ctx: Any, flow: Flow, x: Tensor, *parameters: Tensor) -> tuple[Tensor, Tensor]:
        h, total = flow.forward(x)  # gradients are off in here: layer after layer
        ctx.flow, ctx.parameters, ctx.autocast = flow, parameters, autocast_dtype(x)
        ctx.tensors = tensors_of(flow)
        ctx.save_for_backward(h)
        return h, total

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gz: Tensor, glogdet: Tensor) -> tuple[Tensor | None, ...]:
        (z,) = ctx.saved_tensors
        if not are(ctx.tensors, tensors_of(ctx.flow)):
            raise RuntimeError(
                "memory is 'reversible' and the weights are no longer those of the forward pass "
                "(those given to `functional_call`, say); accepted with such: 'default', 'half', "
                "'checkpoint'"
            )
        with autocast_as(ctx.autocast, z):
            _, gx, found = rewind_all(ctx.flow, z, gz, glogdet)
        return None, gx, *(found.get(p) for p in ctx.parameters)
