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

import math
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


class Parameters(NamedTuple):
    """Of one step: its affine map x = A z + a (see `affine_maps`), and its net's own.

    None: an edge with zero padding, a logs where the net has biases instead of actnorms.
    """

    A: Tensor
    a: Tensor
    W1: Tensor
    edge1: Tensor | None
    logs1: Tensor | None
    b1: Tensor
    W2: Tensor
    logs2: Tensor | None
    b2: Tensor
    W3: Tensor
    edge3: Tensor | None
    logs3: Tensor
    b3: Tensor


class Weights(NamedTuple):
    """The same as matrices: A, a, then the net's W₁ b₁ W₂ b₂ W₃ and what it adds to each pixel.

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


def parameters(net: CouplingNet) -> tuple[Tensor | None, ...]:
    """W₁ … b₃ of `Parameters`."""
    conv1, conv2, conv3 = net.conv1, net.conv2, net.conv3.conv
    first, second = (None, conv1.bias), (None, conv2.bias)
    if net.norm1 is not None:
        first, second = (net.norm1.logs, net.norm1.b), (net.norm2.logs, net.norm2.b)
    third = (net.conv3.logs, conv3.bias)
    return conv1.weight, conv1.edge, *first, conv2.weight, *second, conv3.weight, conv3.edge, *third


def ready(p: Parameters, size: tuple[int, int], net_dtype: torch.dtype | None) -> Weights:
    """The matrices for images of h × w.

    With actnorms behind the first two convolutions: s₁ ⊙ (W₁ x) + b₁ scales the rows of W₁;
    relu(s₂ ⊙ (W₂ x) + b₂) = s₂ ⊙ relu(W₂ x + b₂ / s₂), as s₂ > 0, scales the columns of W₃, which
    has fewer numbers than W₂. The zero convolution's s₃ = exp(3·logs) scales its rows.
    """
    W1 = p.W1 if p.edge1 is None else torch.cat([p.W1, p.edge1], 1)
    W1 = W1.permute(0, 2, 3, 1).flatten(1)
    s3 = _scale(p.logs3)
    W3 = p.W3.flip(2, 3).permute(2, 3, 0, 1) * s3[:, None]
    b2, b3 = p.b2, (s3 * p.b3).expand(*size, -1)
    if p.logs1 is not None:
        s2 = _scale(p.logs2)
        W1, W3, b2 = _scale(p.logs1)[:, None] * W1, W3 * s2, b2 / s2
    if p.edge3 is not None:
        b3 = b3 + s3 * (_frame(size, s3) @ p.edge3.flatten(1).T)
    net = W1, p.b1, p.W2.flatten(1), b2, W3.flatten(0, 2)
    return Weights(p.A, p.a, *(net if net_dtype is None else [m.to(net_dtype) for m in net]), b3)


def ready_backward(p: Parameters, w: Weights, g: Weights) -> Parameters:
    """Gradients of the parameters from those of the matrices.

    The gradient of the logarithm of a factor is the sum of gradient times value.
    """
    dtype = p.W1.dtype
    gW1, gb1, gW2, gb2, gW3 = (m.to(dtype) for m in g[2:7])
    W1, W3, b2 = w.W1.to(dtype), w.W3.to(dtype), w.b2.to(dtype)
    s3 = _scale(p.logs3)
    by_value = (gW3 * W3).reshape(9, len(s3), -1)
    glogs1 = glogs2 = gedge1 = gedge3 = None
    glogs3 = by_value.sum((0, 2)) + (g.b3 * w.b3).sum((0, 1))
    gW3 = gW3.reshape(3, 3, len(s3), -1) * s3[:, None]
    if p.logs1 is not None:
        s2 = _scale(p.logs2)
        glogs1 = LOG_SCALE_FACTOR * (gW1 * W1).sum(1)
        glogs2 = LOG_SCALE_FACTOR * (by_value.sum((0, 1)) - gb2 * b2)
        gW1, gW3, gb2 = gW1 * _scale(p.logs1)[:, None], gW3 * s2, gb2 / s2
    gW1 = gW1.reshape(len(gW1), 3, 3, -1).permute(0, 3, 1, 2)
    if p.edge1 is not None:
        gW1, gedge1 = gW1[:, :-1], gW1[:, -1:]
    if p.edge3 is not None:
        frame = _frame(g.b3.shape[:2], s3).reshape(-1, 9)
        gedge3 = ((s3 * g.b3).reshape(-1, len(s3)).T @ frame).reshape(p.edge3.shape)
    return Parameters(
        A=g.A,
        a=g.a,
        W1=gW1,
        edge1=gedge1,
        logs1=glogs1,
        b1=gb1,
        W2=gW2[:, :, None, None],
        logs2=glogs2,
        b2=gb2,
        W3=gW3.permute(2, 3, 0, 1).flip(2, 3),
        edge3=gedge3,
        logs3=LOG_SCALE_FACTOR * glogs3,
        b3=s3 * g.b3.sum((0, 1)),
    )


def _scale(logs: Tensor) -> Tensor:
    return (LOG_SCALE_FACTOR * logs).exp()


def _frame(size: tuple[int, int], like: Tensor) -> Tensor:
    """Which of a pixel's 3×3 neighbours lie beyond the border: (h, w, 9), 1 or 0."""
    return columns(like.new_zeros(1, *size, 0), outside=True)[0]


# -- one step, forward and back ----------------------------------------------------------------


class Kind(NamedTuple):
    """What is not a number in a step: scale "sigmoid", "exp" or None (additive), the channel
    `outside`, the dtype of the net, and what is kept of (h₁, h₂)."""

    scale: str | None
    outside: bool
    net_dtype: torch.dtype | None
    keep: tuple[bool, bool]


Layers = tuple[Tensor, ...]
"""A hidden layer of the net, (pixels, width), in pieces one below the other: see PIECE."""


def hidden(x_b: Tensor, w: Weights, kind: Kind, h2: Layers | None = None) -> tuple[Layers, Layers]:
    """h₁ and h₂, the net's hidden layers; h₂ only where it is not given."""
    h1, new = [], []
    for rows in _rows(columns(x_b, kind.outside).to(w.W1.dtype), w):
        h1.append(F.linear(rows, w.W1, w.b1).relu_())
        if h2 is None:
            new.append(F.linear(h1[-1], w.W2, w.b2).relu_())
    return tuple(h1), tuple(new) if h2 is None else h2


def told(h2: Layers, like: Tensor, w: Weights, kind: Kind) -> tuple[Tensor, Tensor, Tensor]:
    """What the net says, as s (1 for additive couplings), t and log s, of images as `like`."""
    taps = torch.cat([F.linear(rows, w.W3) for rows in h2]).reshape(*like.shape[:3], -1)
    out = fold(taps.to(like.dtype)) + w.b3
    if kind.scale is None:
        return out.new_ones(()), out, out.new_zeros(())
    raw, t = out.chunk(2, 3)
    if kind.scale == "exp":
        return raw.exp(), t.contiguous(), raw
    return torch.sigmoid(raw + 2), t.contiguous(), F.logsigmoid(raw + 2)


def forward(
    z: Tensor, w: Weights, kind: Kind
) -> tuple[Tensor, Tensor, Tensor, Tensor, Layers, Layers]:
    """z -> y, the coupling's log-det (N,) float64, and what `backward` may want: s, t, h₁, h₂."""
    x_a, x_b = F.linear(z, w.A, w.a).chunk(2, 3)
    h1, h2 = hidden(x_b, w, kind)
    s, t, log_s = told(h2, z, w, kind)
    y_a = s * (x_a + t) if kind.scale == "sigmoid" else s * x_a + t
    if kind.scale is None:
        logdet = same_for_all(0.0, z).clone()
    else:
        logdet = per_example(log_s)
    return torch.cat([y_a, x_b], 3), logdet, s, t, h1, h2


def inverse(
    y: Tensor, w: Weights, kind: Kind, A_inv: Tensor
) -> tuple[Tensor, Tensor, Tensor, Layers, Layers]:
    """y -> z, with A⁻¹ in float64, in which it is applied; and s, t, h₁, h₂."""
    y_a, x_b = y.chunk(2, 3)
    h1, h2 = hidden(x_b, w, kind)
    s, t, _ = told(h2, y, w, kind)
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
    h1: Layers,
    h2: Layers,
) -> tuple[Tensor, Weights]:
    """The gradients with respect to z and to the weights."""
    y_a, x_b = y.chunk(2, 3)
    gy_a, gy_b = gy.chunk(2, 3)
    g = glogdet.to(y.dtype)[:, None, None, None]
    gx_a = gy_a * s
    if kind.scale == "sigmoid":  # ∂y_a/∂raw = (1 − s) s (x_a + t) = (1 − s) y_a; ∂log s: 1 − s
        gout = torch.cat([(gy_a * y_a + g) * (1 - s), gx_a], 3)
    elif kind.scale == "exp":  # ∂y_a/∂raw = s x_a = y_a − t; ∂log s: 1
        gout = torch.cat([gy_a * (y_a - t) + g, gy_a], 3)
    else:
        gout = gy_a
    gcols, gW1, gb1, gW2, gb2, gW3 = _net_backward(
        _rows(columns(gout).to(w.W3.dtype), w),
        _rows(columns(x_b, kind.outside).to(w.W1.dtype), w),
        w, h1, h2,
    )  # fmt: skip
    gcols = gcols.reshape(*y.shape[:3], -1)
    gx = torch.cat([gx_a, gy_b + fold(gcols.to(y.dtype))[..., : gy_b.shape[3]]], 3)
    gA = gx.reshape(-1, gx.shape[3]).T @ z.reshape(-1, z.shape[3])
    return gx @ w.A, Weights(gA, gx.sum((0, 1, 2)), gW1, gb1, gW2, gb2, gW3, b3=gout.sum(0))


def _net_backward(
    gtaps: Layers, cols: Layers, w: Weights, h1: Layers, h2: Layers
) -> tuple[Tensor, ...]:
    """From the gradient of W₃ h₂ to those of the columns, and of W₁ b₁ W₂ b₂ W₃."""
    gcols, sums = [], None
    for g3, x, a, b in zip(gtaps, cols, h1, h2, strict=True):
        g2 = _relu_backward(g3 @ w.W3, b)
        g1 = _relu_backward(g2 @ w.W2, a)
        gcols.append(g1 @ w.W1)
        products, biases = ((g1, x), (g2, a), (g3, b)), (g1.sum(0), g2.sum(0))
        if sums is None:
            sums = [g.T @ h for g, h in products], biases
        else:
            matrices = [torch.addmm(G, g.T, h) for G, (g, h) in zip(sums[0], products, strict=True)]
            sums = matrices, [v + u for v, u in zip(sums[1], biases, strict=True)]
    (gW1, gW2, gW3), (gb1, gb2) = sums
    return torch.cat(gcols), gW1, gb1, gW2, gb2, gW3


def _relu_backward(g: Tensor, h: Tensor) -> Tensor:
    return torch.ops.aten.threshold_backward(g, h, 0)


PIECE = 2**19
"""Numbers a piece has in each hidden layer on a CPU, 2 MiB in float32: what one matrix product
writes is still in the cache when the next one reads it.  A GPU takes the whole batch at once."""


def _rows(columns: Tensor, w: Weights) -> Layers:
    """(N, H, W, …) -> (pixels, …), in pieces."""
    rows = columns.reshape(-1, columns.shape[3])
    return rows.split(len(rows) if rows.is_cuda else max(1, PIECE // len(w.W2)))


class _Step(torch.autograd.Function):
    """A step that keeps what its kind says; z and y are its neighbours' y and z, kept once."""

    generate_vmap_rule = True

    @staticmethod
    def forward(kind: Kind, z: Tensor, *parameters: Tensor | None) -> tuple[Tensor | None, ...]:
        w = ready(Parameters(*parameters), z.shape[1:3], kind.net_dtype)
        y, logdet, s, t, h1, h2 = forward(z, w, kind)
        keep1, keep2 = kind.keep
        t = t if kind.scale == "exp" else None
        return y, logdet, s, t, *(h1 if keep1 else ()), *(h2 if keep2 else ())

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor | None, ...]) -> None:
        kind, z, *parameters = inputs
        y, _, *kept = output
        ctx.kind = kind
        ctx.mark_non_differentiable(*(k for k in kept if k is not None))
        ctx.save_for_backward(z, y, *parameters, *kept)

    @staticmethod
    def backward(ctx: Any, gy: Tensor, glogdet: Tensor, *_: None) -> tuple[Tensor | None, ...]:
        z, y, *rest = ctx.saved_tensors
        n, kind = len(Parameters._fields), ctx.kind
        p, s, t, layers = Parameters(*rest[:n]), rest[n], rest[n + 1], rest[n + 2 :]
        w = ready(p, z.shape[1:3], kind.net_dtype)
        if torch.is_grad_enabled():  # for second derivatives all of this must be functions of z
            y, _, s, t, h1, h2 = forward(z, w, kind)
        elif all(kind.keep):
            h1, h2 = layers[: len(layers) // 2], layers[len(layers) // 2 :]
        else:
            h1, h2 = hidden(y.chunk(2, 3)[1], w, kind, layers or None)
        gz, gw = backward(z, y, w, kind, gy, glogdet, s, t, h1, h2)
        return None, gz, *ready_backward(p, w, gw)


class _Reversible(torch.autograd.Function):
    """All steps of a level; only the last y is kept, and each z is computed back from its y."""

    @staticmethod
    def forward(ctx: Any, kind: Kind, z: Tensor, *flat: Tensor | None) -> tuple[Tensor, Tensor]:
        total = same_for_all(0.0, z)
        for p in _each(flat):
            z, logdet, *_ = forward(z, ready(p, z.shape[1:3], kind.net_dtype), kind)
            total = total + logdet
        ctx.kind = kind
        ctx.save_for_backward(z, *flat)
        return z, total

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gy: Tensor, glogdet: Tensor) -> tuple[Tensor | None, ...]:
        y, *flat = ctx.saved_tensors
        found: list[Tensor | None] = []
        for p in reversed(_each(flat)):
            w = ready(p, y.shape[1:3], ctx.kind.net_dtype)
            A_inv = torch.linalg.inv_ex(w.A.double()).inverse  # does not wait for a GPU
            z, s, t, h1, h2 = inverse(y, w, ctx.kind, A_inv)
            gy, gw = backward(z, y, w, ctx.kind, gy, glogdet, s, t, h1, h2)
            y, found = z, [*ready_backward(p, w, gw), *found]
        return None, gy, *found


def _each(flat: Sequence[Tensor | None]) -> list[Parameters]:
    size = len(Parameters._fields)
    return [Parameters(*flat[i : i + size]) for i in range(0, len(flat), size)]


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


def _parameters(steps: Sequence[Step]) -> tuple[list[Parameters], Tensor]:
    """Those of each step, and Σ log|det A|."""
    dtype = steps[0].actnorm.b.dtype
    A, a, log_det = affine_maps(steps)
    maps = zip(steps, A.to(dtype).unbind(), a.to(dtype).unbind(), strict=True)
    return [Parameters(A_k, a_k, *parameters(s.coupling.net)) for s, A_k, a_k in maps], log_det


def run(steps: Sequence[Step], x: Tensor, memory: str) -> tuple[Tensor, Tensor]:
    """What `Flow(steps)` computes: (N, C, H, W) -> (N, C, H, W), log-det (N,) float64."""
    kind = _kind(steps[0].coupling, KEPT.get(memory, (False, False)))
    each, log_det = _parameters(steps)
    z = x.permute(0, 2, 3, 1).contiguous()
    total = same_for_all(math.prod(x.shape[2:]) * log_det, x)
    if not torch.is_grad_enabled():
        for p in each:
            z, logdet, *_ = forward(z, ready(p, z.shape[1:3], kind.net_dtype), kind)
            total = total + logdet
    elif memory == "reversible":
        z, logdet = _Reversible.apply(kind, z, *(value for p in each for value in p))
        total = total + logdet
    else:
        for p in each:
            z, logdet, *_ = _Step.apply(kind, z, *p)
            total = total + logdet
    return z.permute(0, 3, 1, 2), total


def run_back(steps: Sequence[Step], y: Tensor) -> Tensor:
    """What `Flow(steps).inverse` computes: (N, C, H, W) -> (N, C, H, W)."""
    kind = _kind(steps[0].coupling)
    each, _ = _parameters(steps)
    z = y.permute(0, 2, 3, 1).contiguous()
    inverses = torch.linalg.inv(torch.stack([p.A for p in each]).double())
    for p, A_inv in zip(reversed(each), reversed(inverses), strict=True):
        w = ready(p, z.shape[1:3], kind.net_dtype)
        z, *_ = inverse(z, w, kind, A_inv)
    return z.permute(0, 3, 1, 2)
