"""The steps of a level, computed fast: the same function as `glow.Step`, in fewer passes.

`glow.Step` is to be read; this is to be run.  What differs, and `tests/test_fused.py` compares the
two to rounding:

- Channels last: an image is a matrix, one row a pixel, so the net's three convolutions are three
  matrix products.  A 3×3 convolution into the net gathers each pixel's neighbours into its row
  first (`columns`); one out of it adds what each pixel says to its neighbours afterwards (`fold`).
  Both are done where the channels are few.
- Actnorm and the 1×1 convolution of a step are one affine map; a level builds all of its maps at
  once, in float64.  The actnorms inside a net are folded into the weights around them.
- The backward pass of a step is written out.  y_b = x_b, and y_a gives x_a's part of the gradient,
  so beside its input and scale a step keeps the two hidden layers of its net, or one of them, or
  none: those are the memory modes "default", "half" and "checkpoint".  What was not kept is
  computed again from y_b, by the same operations, so the gradients are equal bit for bit.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from glowlite._tensors import per_example, same_for_all
from glowlite.actnorm import LOG_SCALE_FACTOR
from glowlite.conv1x1 import Conv1x1, Conv1x1LU, unpack
from glowlite.coupling import AdditiveCoupling, AffineCoupling, Coupling
from glowlite.network import CouplingNet
from glowlite.permutation import Permutation

if TYPE_CHECKING:
    from glowlite.glow import Step

# -- three by three neighbours -----------------------------------------------------------------


def columns(x: Tensor, outside: bool = False) -> Tensor:
    """Each pixel's 3×3 neighbours, zero beyond the border: (N, H, W, C) -> (N, H, W, 9·C).

    outside: one more channel, 1 beyond the border and 0 within, as in `network.Conv`.
    """
    n, h, w, _ = x.shape
    x = F.pad(x, (0, 0, 1, 1, 1, 1))
    if outside:
        frame = F.pad(x.new_zeros(1, h, w, 1), (0, 0, 1, 1, 1, 1), value=1.0)
        x = torch.cat([x, frame.expand(n, -1, -1, -1)], 3)
    return x.unfold(1, 3, 1).unfold(2, 3, 1).permute(0, 1, 2, 4, 5, 3).reshape(n, h, w, -1)


def fold(c: Tensor) -> Tensor:
    """Each pixel adds to its 3×3 neighbours, the transpose of `columns`: 9·C -> C channels.

    First to the rows above and below, three of the nine numbers at a time, then to the sides.
    """
    n, h, w, _ = c.shape
    c = c.reshape(n, h, w, 3, -1)
    rows = c[:, :, :, 1].clone()
    rows[:, 1:] += c[:, :-1, :, 2]
    rows[:, :-1] += c[:, 1:, :, 0]
    rows = rows.reshape(n, h, w, 3, -1)
    x = rows[:, :, :, 1].clone()
    x[:, :, 1:] += rows[:, :, :-1, 2]
    x[:, :, :-1] += rows[:, :, 1:, 0]
    return x


# -- the parameters of a step, made ready ------------------------------------------------------


class Weights(NamedTuple):
    """A step as matrices: x = A z + a, then the net's W₁ b₁ W₂ b₂ W₃ and what it adds to a pixel.

    A (C, C), a (C,); W₁ (width, 9·C/2), or 9·(C/2 + 1) with the channel `outside`; W₂ (width,
    width); W₃ (9·c_out, width), its taps mirrored as `fold` wants them; b₃ (h, w, c_out).
    """

    A: Tensor
    a: Tensor
    W1: Tensor
    b1: Tensor
    W2: Tensor
    b2: Tensor
    W3: Tensor
    b3: Tensor


def affine_maps(steps: Sequence[Step]) -> tuple[Tensor, Tensor, Tensor]:
    """Actnorm and permutation of each step as x = A z + a: (K, C, C), (K, C), both float64.

    W (s ⊙ z + b) = (W diag(s)) z + W b. The third result is Σ log|det A| over the steps.
    """
    log_s = torch.stack([step.actnorm.log_s for step in steps])
    b = torch.stack([step.actnorm.b for step in steps]).double()
    layers = [step.permutation for step in steps]
    log_det = log_s.sum()
    if isinstance(layers[0], Conv1x1LU):
        lu = torch.stack([layer.lu for layer in layers])
        lower, upper = unpack(lu, torch.stack([layer.sign_s for layer in layers]))
        rows = torch.stack([layer.p for layer in layers])
        W = (lower @ upper).gather(1, rows[:, :, None].expand(lu.shape))
        log_det = log_det + lu.diagonal(dim1=1, dim2=2).sum(dtype=torch.float64)
    elif isinstance(layers[0], Conv1x1):
        W = torch.stack([layer.W for layer in layers]).double()
        log_det = log_det + torch.linalg.slogdet(W).logabsdet.sum()
    else:
        W = torch.stack([layer.matrix()[0] for layer in layers]).double()
    return W * log_s.exp()[:, None, :], (W @ b[:, :, None]).squeeze(2), log_det


def net_weights(net: CouplingNet, h: int, w: int) -> tuple[Tensor, ...]:
    """W₁ … b₃ of `Weights` for images of h × w.

    With actnorms s, b behind the first two convolutions: s₁ ⊙ (W₁ x) + b₁ scales the rows of W₁;
    relu(s₂ ⊙ (W₂ x) + b₂) = s₂ ⊙ relu(W₂ x + b₂ / s₂), as s₂ > 0, scales the columns of W₃, which
    has fewer numbers than W₂. The zero convolution's exp(3·logs) scales its rows.
    """
    W1, W3 = net.conv1.weight, net.conv3.conv.weight.flip(2, 3)
    if net.conv1.edge is not None:
        W1 = torch.cat([W1, net.conv1.edge], 1)
    b1, b2 = net.conv1.bias, net.conv2.bias
    scale3 = (LOG_SCALE_FACTOR * net.conv3.logs).exp()
    if net.norm1 is not None:
        s1, s2 = (norm.log_s.exp().to(W1.dtype) for norm in (net.norm1, net.norm2))
        W1, W3 = W1 * s1[:, None, None, None], W3 * s2[:, None, None]
        b1, b2 = net.norm1.b, net.norm2.b / s2
    W3 = W3 * scale3[:, None, None, None]
    b3 = (scale3 * net.conv3.conv.bias).expand(h, w, -1)
    if net.conv3.conv.edge is not None:
        b3 = b3 + net.conv3.conv.edge_map(h, w)[0].movedim(0, 2) * scale3
    W1 = W1.permute(0, 2, 3, 1).reshape(len(W1), -1)
    W3 = W3.permute(2, 3, 0, 1).reshape(-1, W3.shape[1])
    return W1, b1, net.conv2.weight[:, :, 0, 0], b2, W3, b3


# -- one step, forward and back ----------------------------------------------------------------


class Kind(NamedTuple):
    """What is not a number in a step: scale "sigmoid", "exp" or None (additive), the channel
    `outside`, the dtype of the net, and what is kept of (h₁, h₂)."""

    scale: str | None
    outside: bool
    net_dtype: torch.dtype | None
    keep: tuple[bool, bool]


def hidden(x_b: Tensor, w: Weights, kind: Kind, h2: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """h₁ and h₂, the net's hidden layers, (N, H, W, width) each; h₂ only where it is not given."""
    h1 = F.linear(columns(x_b, kind.outside).to(w.W1.dtype), w.W1, w.b1).relu_()
    return h1, F.linear(h1, w.W2, w.b2).relu_() if h2 is None else h2


def told(h2: Tensor, w: Weights, kind: Kind, dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor]:
    """What the net says, as s (1 for additive couplings), t and log s."""
    out = fold(F.linear(h2, w.W3).to(dtype)) + w.b3
    if kind.scale is None:
        return out.new_ones(()), out, out.new_zeros(())
    raw, t = out.chunk(2, 3)
    if kind.scale == "exp":
        return raw.exp(), t.contiguous(), raw
    return torch.sigmoid(raw + 2), t.contiguous(), F.logsigmoid(raw + 2)


def forward(z: Tensor, w: Weights, kind: Kind) -> tuple[Tensor, ...]:
    """z -> y, the coupling's log-det (N,) float64, and what `backward` may want: s, t, h₁, h₂."""
    x_a, x_b = F.linear(z, w.A, w.a).chunk(2, 3)
    h1, h2 = hidden(x_b, w, kind)
    s, t, log_s = told(h2, w, kind, z.dtype)
    y_a = s * (x_a + t) if kind.scale == "sigmoid" else s * x_a + t
    if kind.scale is None:
        logdet = same_for_all(0.0, z).clone()
    else:
        logdet = per_example(log_s)
    return torch.cat([y_a, x_b], 3), logdet, s, t, h1, h2


def inverse(y: Tensor, w: Weights, kind: Kind, A_inv: Tensor) -> tuple[Tensor, ...]:
    """y -> z, with A⁻¹ in float64, in which it is applied; and s, t, h₁, h₂."""
    y_a, x_b = y.chunk(2, 3)
    h1, h2 = hidden(x_b, w, kind)
    s, t, _ = told(h2, w, kind, y.dtype)
    x_a = y_a / s - t if kind.scale == "sigmoid" else (y_a - t) / s
    z = F.linear((torch.cat([x_a, x_b], 3) - w.a).double(), A_inv).to(y.dtype)
    return z, s, t, h1, h2


def backward(
    z: Tensor,
    y: Tensor,
    w: Weights,
    kind: Kind,
    gy: Tensor,
    glogdet: Tensor,
    s: Tensor,
    t: Tensor | None,
    h1: Tensor,
    h2: Tensor,
) -> tuple[Tensor, Weights]:
    """The gradients with respect to z and to the weights."""
    y_a, x_b = y.chunk(2, 3)
    gy_a, gy_b = gy.chunk(2, 3)
    g = glogdet.to(y.dtype)[:, None, None, None]
    gx_a = gy_a * s
    if (
        kind.scale == "sigmoid"
    ):  # ∂y_a/∂raw = (1 − s) s (x_a + t) = (1 − s) y_a, ∂log s/∂raw = 1 − s
        gout = torch.cat([(gy_a * y_a + g) * (1 - s), gx_a], 3)
    elif kind.scale == "exp":  # ∂y_a/∂raw = s x_a = y_a − t, ∂log s/∂raw = 1
        gout = torch.cat([gy_a * (y_a - t) + g, gy_a], 3)
    else:
        gout = gy_a
    gtaps = columns(gout).to(h2.dtype)
    g2 = _relu_backward(gtaps @ w.W3, h2)
    g1 = _relu_backward(g2 @ w.W2, h1)
    gx_b = gy_b + fold((g1 @ w.W1).to(y.dtype))[..., : gy_b.shape[3]]
    gx = torch.cat([gx_a, gx_b], 3)
    return gx @ w.A, Weights(
        A=_outer(gx, z),
        a=_rows(gx),
        W1=_outer(g1, columns(x_b, kind.outside).to(g1.dtype)),
        b1=_rows(g1),
        W2=_outer(g2, h1),
        b2=_rows(g2),
        W3=_outer(gtaps, h2),
        b3=gout.sum(0),
    )


def _relu_backward(g: Tensor, h: Tensor) -> Tensor:
    return torch.ops.aten.threshold_backward(g, h, 0)


def _outer(g: Tensor, x: Tensor) -> Tensor:
    """Σ over images and pixels of g xᵀ: the gradient of a matrix."""
    return g.reshape(-1, g.shape[3]).T @ x.reshape(-1, x.shape[3])


def _rows(g: Tensor) -> Tensor:
    return g.sum((0, 1, 2))


class _Step(torch.autograd.Function):
    """A step that keeps what its kind says; z and y are its neighbours' y and z, kept once."""

    generate_vmap_rule = True

    @staticmethod
    def forward(kind: Kind, z: Tensor, *weights: Tensor) -> tuple[Tensor | None, ...]:
        y, logdet, s, t, h1, h2 = forward(z, Weights(*weights), kind)
        keep1, keep2 = kind.keep
        t = t if kind.scale == "exp" else None
        return y, logdet, s, t, h1 if keep1 else None, h2 if keep2 else None

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor | None, ...]) -> None:
        kind, z, *weights = inputs
        y, _, *kept = output
        ctx.kind = kind
        ctx.mark_non_differentiable(*(k for k in kept if k is not None))
        ctx.save_for_backward(z, y, *kept, *weights)

    @staticmethod
    def backward(ctx: Any, gy: Tensor, glogdet: Tensor, *_: None) -> tuple[Tensor | None, ...]:
        z, y, s, t, h1, h2, *weights = ctx.saved_tensors
        w = Weights(*weights)
        if torch.is_grad_enabled():  # for second derivatives all of this must be functions of z
            y, _, s, t, h1, h2 = forward(z, w, ctx.kind)
        elif h1 is None:
            h1, h2 = hidden(y.chunk(2, 3)[1], w, ctx.kind, h2)
        gz, gw = backward(z, y, w, ctx.kind, gy, glogdet, s, t, h1, h2)
        return None, gz, *gw


class _Reversible(torch.autograd.Function):
    """All steps of a level; only the last y is kept, and each z is computed back from its y."""

    @staticmethod
    def forward(ctx: Any, kind: Kind, z: Tensor, *flat: Tensor) -> tuple[Tensor, Tensor]:
        total = same_for_all(0.0, z)
        for w in _chunks(flat):
            z, logdet, *_ = forward(z, w, kind)
            total = total + logdet
        ctx.kind = kind
        ctx.save_for_backward(z, *flat)
        return z, total

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gy: Tensor, glogdet: Tensor) -> tuple[Tensor | None, ...]:
        y, *flat = ctx.saved_tensors
        found: list[Tensor] = []
        for w in reversed(_chunks(flat)):
            z, s, t, h1, h2 = inverse(y, w, ctx.kind, torch.linalg.inv(w.A.double()))
            gy, gw = backward(z, y, w, ctx.kind, gy, glogdet, s, t, h1, h2)
            found = [*gw, *found]
            y = z
        return None, gy, *found


def _chunks(flat: Sequence[Tensor]) -> list[Weights]:
    size = len(Weights._fields)
    return [Weights(*flat[i : i + size]) for i in range(0, len(flat), size)]


# -- a level -----------------------------------------------------------------------------------

KEPT = {"default": (True, True), "half": (False, True), "checkpoint": (False, False)}


def fits(steps: Sequence[nn.Module]) -> bool:
    """Whether the steps are all of one kind known here, and nobody has changed or watches them.

    A hook on a layer inside (`initialize` sets some) wants that layer to be called.
    """
    if not all(type(s.coupling.net) is CouplingNet for s in steps):
        return False
    kinds = {(type(s.permutation), type(s.coupling), *_kind(s.coupling)) for s in steps}
    return (
        len(kinds) == 1
        and type(steps[0].permutation) in (Conv1x1LU, Conv1x1, Permutation)
        and type(steps[0].coupling) in (AffineCoupling, AdditiveCoupling)
        and not any(map(_touched, (m for s in steps for m in s.modules())))
    )


def _touched(m: nn.Module) -> bool:
    own = m.__dict__
    return bool(m._forward_hooks or m._forward_pre_hooks or "forward" in own or "inverse" in own)


def _kind(coupling: Coupling, keep: tuple[bool, bool] = (True, True)) -> Kind:
    return Kind(
        scale=getattr(coupling, "scale", None),
        outside=coupling.net.conv1.edge is not None,
        net_dtype=coupling.net_dtype,
        keep=keep,
    )


def _prepare(
    steps: Sequence[Step], h: int, w: int, keep: tuple[bool, bool] = (False, False)
) -> tuple[Kind, list[Weights], Tensor]:
    """The kind of the steps, their weights, and the constant part of their log-det."""
    kind = _kind(steps[0].coupling, keep)
    dtype = steps[0].actnorm.b.dtype
    A, a, log_det = affine_maps(steps)
    weights = []
    for step, A_k, a_k in zip(steps, A.to(dtype).unbind(), a.to(dtype).unbind(), strict=True):
        *net, b3 = net_weights(step.coupling.net, h, w)
        if kind.net_dtype is not None:
            net = [p.to(kind.net_dtype) for p in net]
        weights.append(Weights(A_k, a_k, *net, b3))
    return kind, weights, h * w * log_det


def run(steps: Sequence[Step], x: Tensor, memory: str) -> tuple[Tensor, Tensor]:
    """What `Flow(steps)` computes: (N, C, H, W) -> (N, C, H, W), log-det (N,) float64."""
    keep = KEPT.get(memory, (False, False))
    kind, weights, log_det = _prepare(steps, *x.shape[2:], keep)
    z = x.permute(0, 2, 3, 1).contiguous()
    total = same_for_all(log_det, x)
    if not torch.is_grad_enabled():
        for w in weights:
            z, logdet, *_ = forward(z, w, kind)
            total = total + logdet
    elif memory == "reversible":
        z, logdet = _Reversible.apply(kind, z, *(p for w in weights for p in w))
        total = total + logdet
    else:
        for w in weights:
            z, logdet, *_ = _Step.apply(kind, z, *w)
            total = total + logdet
    return z.permute(0, 3, 1, 2), total


def run_back(steps: Sequence[Step], y: Tensor) -> Tensor:
    """What `Flow(steps).inverse` computes: (N, C, H, W) -> (N, C, H, W)."""
    kind, weights, _ = _prepare(steps, *y.shape[2:])
    z = y.permute(0, 2, 3, 1).contiguous()
    inverses = torch.linalg.inv(torch.stack([w.A for w in weights]).double())
    for w, A_inv in zip(reversed(weights), reversed(inverses), strict=True):
        z, *_ = inverse(z, w, kind, A_inv)
    return z.permute(0, 3, 1, 2)
