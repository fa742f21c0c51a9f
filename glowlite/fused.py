"""The steps of a level, computed fast: the same function as `glow.Step`, in fewer passes.

`glow.Step` is to be read; this is to be run.  What differs, and `tests/test_fused.py` compares the
two to rounding:

- Channels last: an image is a matrix, one row a pixel, so the net's three convolutions are three
  matrix products.  A 3×3 convolution into the net gathers each pixel's neighbours into its row
  first (`columns`); one out of it adds what each pixel says to its neighbours afterwards (`fold`).
  Both are done where the channels are few.  What the first convolution adds to a pixel, its bias
  and what edge padding says, is in the product: a row also tells where its pixel lies (`place`).
- The parameters of several steps are made ready at once (`_Steps`), in as many operations as those
  of one step: on a GPU of all steps of a level, on a CPU of so many as its cache holds.
- Actnorm and the 1×1 convolution of a step are one affine map, made and applied in float64.
  Rounded to float32, a map would be off by the same at every pixel, and that adds up to most of the
  error of a deep model's log-det; channels are so few that it costs next to nothing.  The way back
  multiplies by its inverse, float64 too.  The actnorms inside a net are folded into the weights
  around them.
- The backward pass of a step is written out.  y_b = x_b, and y_a gives x_a's part of the gradient,
  so beside its input and scale a step keeps the two hidden layers of its net, or one of them, or
  none: those are the memory modes "default", "half" and "checkpoint".  What was not kept is
  computed again from y_b, by the same operations, so the gradients are equal bit for bit.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from functools import cached_property, wraps
from itertools import chain
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from glowlite._tensors import per_example, same_for_all
from glowlite.actnorm import LOG_SCALE_FACTOR, ActNorm
from glowlite.conv1x1 import Conv1x1, Conv1x1LU, unpack
from glowlite.coupling import SCALES, AdditiveCoupling, AffineCoupling, Coupling
from glowlite.flow import Flow, are, autocast_as, tensors_of
from glowlite.network import Conv, CouplingNet, ZeroConv
from glowlite.permutation import Permutation

if TYPE_CHECKING:
    from glowlite.glow import Step

# -- three by three neighbours -----------------------------------------------------------------


MULTIPLE = 8
"""Rows get zeros up to a multiple of this length: on a CPU with AVX2 the three products of 63
numbers a row take a third longer than those of 64, and a tensor core knows no other length."""


def columns(x: Tensor, beside: Tensor) -> Tensor:
    """Each pixel's 3×3 neighbours, zero beyond the border, then what stands beside them, the same
    for all images: (N, H, W, C), (H, W, E) -> (N, H, W, 9·C + E).
    """
    n, h, w, _ = x.shape
    threes = F.pad(x, (0, 0, 1, 1, 1, 1)).unfold(2, 3, 1).transpose(3, 4)  # lie side by side
    threes = threes.reshape(n, h + 2, w, -1)  # so this copies nothing
    return torch.cat([threes[:, i : i + h] for i in range(3)] + [beside.expand(n, -1, -1, -1)], 3)


def fold(c: Tensor, channels: int) -> Tensor:
    """Each pixel adds to its 3×3 neighbours, the transpose of `columns`:
    (N, H, W, 9·channels and more) -> (N, H, W, channels).

    First to the rows above and below, three of the nine numbers at a time, then to the sides.
    """
    n, h, w, _ = c.shape
    c = c[..., : 9 * channels].reshape(n, h, w, 3, -1)
    rows = c[:, :, :, 1].clone()
    rows[:, 1:].add_(c[:, :-1, :, 2])
    rows[:, :-1].add_(c[:, 1:, :, 0])
    rows = rows.reshape(n, h, w, 3, -1)
    x = rows[:, :, :, 1].clone()
    x[:, :, 1:].add_(rows[:, :, :-1, 2])
    x[:, :, :-1].add_(rows[:, :, 1:, 0])
    return x


def place(size: tuple[int, int], channels: int, edge: bool, like: Tensor) -> Tensor:
    """What stands beside a pixel's 9·channels neighbours: (h, w, E).

    With edge padding which of the nine lie beyond the border, 1 or 0; then 1, for the bias; then
    zeros.
    """
    parts = [like.new_ones(*size, 1)]
    if edge:
        frame = F.pad(like.new_zeros(1, *size, 1), (0, 0, 1, 1, 1, 1), value=1.0)
        parts.insert(0, frame.unfold(1, 3, 1).unfold(2, 3, 1).reshape(*size, 9))
    length = 9 * channels + 9 * edge + 1
    return torch.cat([*parts, like.new_zeros(*size, -length % MULTIPLE)], 2)


# -- the parameters of steps, made ready ---------------------------------------------------------


class Parameters(NamedTuple):
    """Of one step: its affine map x = A (z + c) (see `affine_maps`), and its net's own.  Of several
    (`stack`): each with the number of steps in front, and convolutions with channels last.

    None: an edge with zero padding, a logs where the net has biases instead of actnorms.
    """

    A: Tensor
    c: Tensor
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
    """The same as matrices: A, c, then the net's W₁ W₂ b₂ W₃ and what it adds to each pixel.  Of
    one step, or each with the number of steps in front.

    A (C, C) and c (C,) in float64; W₁ (width, 9·C/2 + E), its last E columns for `place`;
    W₂ (width, width); W₃ (9·c_out, width), its taps mirrored as `fold` wants them, and zeros;
    b₃ (h, w, c_out).
    """

    A: Tensor
    c: Tensor
    W1: Tensor
    W2: Tensor
    b2: Tensor
    W3: Tensor
    b3: Tensor


def affine_maps(steps: Sequence[Step]) -> tuple[Tensor, Tensor, Tensor]:
    """Actnorm and permutation of each step as x = A (z + c): (K, C, C), (K, C), both float64.

    W (s ⊙ z + b) = (W diag(s)) (z + b / s).  Of a channel that is nearly constant s and b are
    large; W b, which is then large in all channels, would have them all rounded as coarsely.
    The third result is Σ log|det A| over the steps.
    """
    log_s = LOG_SCALE_FACTOR * torch.stack([step.actnorm.logs for step in steps]).double()
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
    s = log_s.exp()
    return W * s[:, None, :], b / s, log_det


def parameters(net: CouplingNet) -> tuple[Tensor | None, ...]:
    """W₁ … b₃ of `Parameters`."""
    conv1, conv2, conv3 = net.conv1, net.conv2, net.conv3.conv
    first, second = (None, conv1.bias), (None, conv2.bias)
    if net.norm1 is not None:
        first, second = (net.norm1.logs, net.norm1.b), (net.norm2.logs, net.norm2.b)
    third = (net.conv3.logs, conv3.bias)
    return conv1.weight, conv1.edge, *first, conv2.weight, *second, conv3.weight, conv3.edge, *third


def stack(each: Sequence[Any]) -> Any:
    """`Parameters` or `Weights` of several steps, one below the other; of one step no copies."""

    def one(*values: Tensor | None) -> Tensor | None:
        if values[0] is None:
            return None
        if values[0].ndim == 4:
            values = [v.permute(0, 2, 3, 1) for v in values]
        return torch.stack(values) if len(values) > 1 else values[0][None]

    return type(each[0])(*map(one, *each))


def ready(p: Parameters, place: Tensor, net_dtype: torch.dtype | None) -> Weights:
    """The matrices of several steps, for images with that `place`.

    With actnorms behind the first two convolutions: s₁ ⊙ (W₁ x) + b₁ scales the rows of W₁;
    relu(s₂ ⊙ (W₂ x) + b₂) = s₂ ⊙ relu(W₂ x + b₂ / s₂), as s₂ > 0, scales the columns of W₃, which
    has fewer numbers than W₂. The zero convolution's s₃ = exp(3·logs) scales its rows.
    """
    h, w, s3 = *place.shape[:2], _scale(p.logs3)
    first, scale, b2 = [p.W1.flatten(2)], s3[:, :, None], p.b2
    b3 = (s3 * p.b3)[:, None, None].expand(-1, h, w, -1)
    if p.edge1 is not None:
        first.append(p.edge1.flatten(2))
    if p.logs1 is not None:
        s1, s2 = _scale(p.logs1)[:, :, None], _scale(p.logs2)
        first, scale, b2 = [s1 * m for m in first], scale * s2[:, None], b2 / s2
    if p.edge3 is not None:
        edge = (s3[:, :, None] * p.edge3.flatten(2)).mT
        b3 = b3 + (place[..., :9].flatten(0, 1) @ edge).reshape(b3.shape)
    zeros = place.shape[2] - 1 - 9 * (p.edge1 is not None)
    W1 = torch.cat([*first, p.b1[:, :, None], p.b1.new_zeros(*p.b1.shape, zeros)], 2)
    W3 = (p.W3.permute(0, 2, 3, 1, 4) * scale[:, None, None]).flip(1, 2).flatten(1, 3)
    if missing := -W3.shape[1] % MULTIPLE:
        W3 = F.pad(W3, (0, 0, 0, missing))
    net = W1, p.W2.flatten(2), b2, W3
    return Weights(p.A, p.c, *(net if net_dtype is None else [m.to(net_dtype) for m in net]), b3)


def ready_backward(p: Parameters, place: Tensor, w: Weights, g: Weights) -> Parameters:
    """Gradients of the parameters of several steps from those of their matrices.

    The gradient of the logarithm of a factor is the sum of gradient times value.
    """
    dtype, c_out = p.W1.dtype, p.W3.shape[1]
    gW1, gW2, gb2, gW3 = (m.to(dtype) for m in g[2:6])
    b2, W3, s3 = w.b2.to(dtype), w.W3.to(dtype)[:, : 9 * c_out], _scale(p.logs3)
    glogs1 = glogs2 = gedge1 = gedge3 = None
    gb1 = gW1[:, :, -(place.shape[2] - 9 * (p.edge1 is not None))]
    gW3 = gW3.narrow(1, 0, 9 * c_out)  # gradients in batches know no slice that is the whole
    by_value = (gW3 * W3).reshape(len(s3), 9, c_out, -1).sum(1)
    glogs3 = LOG_SCALE_FACTOR * (by_value.sum(2) + (g.b3 * w.b3).sum((1, 2)))
    gW3 = gW3.reshape(len(s3), 3, 3, c_out, -1) * s3[:, None, None, :, None]
    taps = p.W1[0, 0].numel()
    if p.logs1 is not None:
        scaled = taps + 9 * (p.edge1 is not None)
        gW1 = gW1.narrow(2, 0, scaled)
        glogs1 = LOG_SCALE_FACTOR * (gW1 * w.W1.to(dtype)[:, :, :scaled]).sum(2)
        s2 = _scale(p.logs2)
        glogs2 = LOG_SCALE_FACTOR * (by_value.sum(1) - gb2 * b2)
        gW1, gb2 = gW1 * _scale(p.logs1)[:, :, None], gb2 / s2
        gW3 = gW3 * s2[:, None, None, None]
    if p.edge1 is not None:
        gedge1 = gW1[:, :, taps : taps + 9].reshape(p.edge1.shape)
    if p.edge3 is not None:
        gb3 = (s3[:, None, None] * g.b3).reshape(len(s3), -1, c_out)
        gedge3 = (gb3.transpose(1, 2) @ place[..., :9].reshape(-1, 9)).reshape(p.edge3.shape)
    return Parameters(
        A=g.A,
        c=g.c,
        W1=gW1.narrow(2, 0, taps).reshape(p.W1.shape),
        edge1=gedge1,
        logs1=glogs1,
        b1=gb1,
        W2=gW2.reshape(p.W2.shape),
        logs2=glogs2,
        b2=gb2,
        W3=gW3.flip(1, 2).permute(0, 3, 1, 2, 4),
        edge3=gedge3,
        logs3=glogs3,
        b3=s3 * g.b3.sum((1, 2)),
    )


def _scale(logs: Tensor) -> Tensor:
    return (LOG_SCALE_FACTOR * logs).exp()


# -- one step, forward and back ----------------------------------------------------------------


class Kind(NamedTuple):
    """What is not a number in a step: scale "sigmoid", "exp" or None (additive), the dtype of the
    net, and what is kept of (h₁, h₂)."""

    scale: str | None
    net_dtype: torch.dtype | None
    keep: tuple[bool, bool]


Layers = tuple[Tensor, ...]
"""A hidden layer of the net, (pixels, width), in pieces one below the other: see PIECE."""


def hidden(
    x_b: Tensor, w: Weights, place: Tensor, h2: Layers | None = None
) -> tuple[Layers, Layers]:
    """h₁ and h₂, the net's hidden layers; h₂ only where it is not given."""
    h1 = tuple(_first(rows, w) for rows in _rows(columns(x_b, place).to(w.W1.dtype), w))
    return h1, h2 or tuple(_second(a, w) for a in h1)


def _first(rows: Tensor, w: Weights) -> Tensor:
    return F.linear(rows, w.W1).relu_()


def _second(h1: Tensor, w: Weights) -> Tensor:
    return F.linear(h1, w.W2, w.b2).relu_()


class Told(NamedTuple):
    """What the net says, s (1 for additive couplings), t and log s; and what is kept of h₁, h₂."""

    s: Tensor
    t: Tensor
    log_s: Tensor
    h1: Layers
    h2: Layers


def net(x_b: Tensor, w: Weights, kind: Kind, place: Tensor) -> Told:
    """The coupling net. A hidden layer that is not kept is gone before the next piece is made."""
    h1, h2, taps = [], [], []
    for rows in _rows(columns(x_b, place).to(w.W1.dtype), w):
        first = _first(rows, w)
        second = _second(first, w)
        taps.append(F.linear(second, w.W3))
        h1 += [first] * kind.keep[0]
        h2 += [second] * kind.keep[1]
    taps = _whole(taps).reshape(*x_b.shape[:3], -1).to(x_b.dtype)
    out = fold(taps, w.b3.shape[2]) + w.b3
    if kind.scale is None:
        s, t, log_s = out.new_ones(()), out, out.new_zeros(())
    else:
        raw, t = out.chunk(2, 3)
        t = t.contiguous()
        if kind.scale == "exp":
            s, log_s = raw.exp(), raw
        else:
            raw = raw + 2
            s, log_s = torch.sigmoid(raw), F.logsigmoid(raw)
    return Told(s, t, log_s, tuple(h1), tuple(h2))


def forward(z: Tensor, w: Weights, kind: Kind, place: Tensor) -> tuple[Tensor, Tensor, Told]:
    """z -> y, the coupling's log-det (N,) float64, and what the net said."""
    x_a, x_b = F.linear(z + w.c, w.A).to(z.dtype).chunk(2, 3)
    told = net(x_b, w, kind, place)
    y_a = told.s * (x_a + told.t) if kind.scale == "sigmoid" else told.s * x_a + told.t
    if kind.scale is None:
        logdet = same_for_all(0.0, z).clone()
    else:
        logdet = per_example(told.log_s)
    return torch.cat([y_a, x_b], 3), logdet, told


def inverse(y: Tensor, w: Weights, kind: Kind, place: Tensor, A_inv: Tensor) -> tuple[Tensor, Told]:
    """y -> z, with A⁻¹ in float64; and what the net said."""
    y_a, x_b = y.chunk(2, 3)
    told = net(x_b, w, kind, place)
    x_a = y_a / told.s - told.t if kind.scale == "sigmoid" else (y_a - told.t) / told.s
    z = F.linear(torch.cat([x_a, x_b], 3).double(), A_inv) - w.c
    return z.to(y.dtype), told


def backward(
    z: Tensor,
    y: Tensor,
    w: Weights,
    kind: Kind,
    place: Tensor,
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
    zeros = gout.new_zeros(1, 1, len(w.W3) - 9 * gout.shape[3]).expand(*gout.shape[1:3], -1)
    gcols, gW1, gW2, gb2, gW3 = _net_backward(
        _rows(columns(gout, zeros).to(w.W3.dtype), w),
        _rows(columns(x_b, place).to(w.W1.dtype), w),
        w, h1, h2,
    )  # fmt: skip
    gcols = gcols.reshape(*y.shape[:3], -1).to(y.dtype)
    gx = torch.cat([gx_a, gy_b + fold(gcols, gy_b.shape[3])], 3).double()
    gA = gx.reshape(-1, gx.shape[3]).T @ (z + w.c).reshape(-1, z.shape[3])
    gz = gx @ w.A
    gc = gz.sum((0, 1, 2))
    return gz.to(z.dtype), Weights(gA, gc, gW1, gW2, gb2, gW3, b3=gout.sum(0))


def _net_backward(
    gtaps: Layers, cols: Layers, w: Weights, h1: Layers, h2: Layers
) -> tuple[Tensor, ...]:
    """From the gradient of W₃ h₂ to those of the columns, and of W₁ W₂ b₂ W₃."""
    gcols, sums = [], None
    for g3, x, a, b in zip(gtaps, cols, h1, h2, strict=True):
        g2 = _relu_backward(g3 @ w.W3, b)
        g1 = _relu_backward(g2 @ w.W2, a)
        gcols.append(g1 @ w.W1)
        if sums is None:
            sums = [g1.T @ x, g2.T @ a, g2.sum(0), g3.T @ b]
        else:
            gW1, gW2, gb2, gW3 = sums
            gW1.addmm_(g1.T, x)
            gW2.addmm_(g2.T, a)
            gb2.add_(g2.sum(0))
            gW3.addmm_(g3.T, b)
    return _whole(gcols), *sums


def _relu_backward(g: Tensor, h: Tensor) -> Tensor:
    return torch.ops.aten.threshold_backward(g, h, 0)


PIECE = 2**19
"""Numbers a piece has in each hidden layer on a CPU, 2 MiB in float32: what one matrix product
writes is still in the cache when the next one reads it.  A GPU takes the whole batch at once."""


def _rows(columns: Tensor, w: Weights) -> Layers:
    """(N, H, W, …) -> (pixels, …), in pieces."""
    rows = columns.reshape(-1, columns.shape[3])
    return rows.split(len(rows) if rows.is_cuda else max(1, PIECE // len(w.W2)))


def _whole(pieces: Sequence[Tensor]) -> Tensor:
    return torch.cat(pieces) if len(pieces) > 1 else pieces[0]


def _without_autocast(backward: Callable[..., Any]) -> Callable[..., Any]:
    """The way there was without (see `glow.Level`); begun since, it would make this one coarse."""

    @wraps(backward)
    def plain(ctx: Any, *upstream: Tensor | None) -> Any:
        given = [g for g in upstream if g is not None]
        with autocast_as(None, given[0]) if given else nullcontext():
            return backward(ctx, *upstream)

    return plain


class _Steps(torch.autograd.Function):
    """Consecutive steps; what is kept of each is what its kind says, and z, the y before it.

    Their parameters are made ready together, and again on the way back: no matrix is kept.
    """

    generate_vmap_rule = True

    @staticmethod
    def forward(
        kind: Kind, place: Tensor, z: Tensor, *flat: Tensor | None
    ) -> tuple[Tensor | None, ...]:
        w = ready(stack(_each(flat)), place, kind.net_dtype)
        y, logdet, kept = _through(z, w, kind, place)
        return y, logdet, *(k for each in kept for k in each)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor | None, ...]) -> None:
        kind, place, z, *flat = inputs
        y, _, *kept = output
        ctx.kind, ctx.n = kind, len(flat)
        ctx.set_materialize_grads(False)  # or zeros as large as the hidden layers would be written
        ctx.mark_non_differentiable(*(k for k in kept if k is not None))
        ctx.save_for_backward(place, z, y, *flat, *kept)

    @staticmethod
    @_without_autocast
    def backward(
        ctx: Any, gy: Tensor | None, glogdet: Tensor | None, *_: None
    ) -> tuple[Tensor | None, ...]:
        place, z, y, *rest = ctx.saved_tensors
        kind, flat, kept = ctx.kind, _each(rest[: ctx.n]), rest[ctx.n :]
        gy = torch.zeros_like(y) if gy is None else gy
        glogdet = same_for_all(0.0, y) if glogdet is None else glogdet
        p = stack(flat)
        w = ready(p, place, kind.net_dtype)
        if torch.is_grad_enabled():  # for second derivatives all of this must be functions of z
            kind = kind._replace(keep=KEPT["default"])
            y, _, kept = _through(z, w, kind, place)
        else:
            size = len(kept) // len(flat)
            kept = [kept[i : i + size] for i in range(0, len(kept), size)]
        found: Any = []
        for w_k, (before, s, t, *layers) in reversed(list(zip(_unstack(w), kept, strict=True))):
            before = z if before is None else before
            if all(kind.keep):
                h1, h2 = layers[: len(layers) // 2], layers[len(layers) // 2 :]
            else:
                h1, h2 = hidden(y.chunk(2, 3)[1], w_k, place, tuple(layers) or None)
            gy, gw = backward(before, y, w_k, kind, place, gy, glogdet, s, t, h1, h2)
            y, found = before, [gw, *found]
        found = stack(found)  # of each step alone they go
        return None, None, gy, *_flat(ready_backward(p, place, w, found))


def _through(
    z: Tensor, w: Weights, kind: Kind, place: Tensor
) -> tuple[Tensor, Tensor, list[tuple[Tensor | None, ...]]]:
    """z -> y after several steps, their log-det, and of each step what is kept: its z (None of the
    first, which is at hand), s, t where the way back asks for it, and hidden layers."""
    logdets, kept = [], []
    for w_k in _unstack(w):
        y, logdet, told = forward(z, w_k, kind, place)
        logdets.append(logdet)
        t = told.t if kind.scale == "exp" else None
        kept.append((z if kept else None, told.s, t, *told.h1, *told.h2))
        z = y
    return z, _sum(logdets), kept


def _sum(logdets: Sequence[Tensor]) -> Tensor:
    """Of a group: in this order with gradients and without, so that both round alike."""
    return sum(logdets[1:], logdets[0])


class _Reversible(torch.autograd.Function):
    """All steps of a level; only the last y is kept, and each z is computed back from its y."""

    @staticmethod
    def forward(
        ctx: Any, kind: Kind, place: Tensor, z: Tensor, *flat: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        total = same_for_all(0.0, z)
        for p in _each(flat):
            w = ready(stack([p]), place, kind.net_dtype)
            z, logdet, _ = _through(z, w, kind, place)
            total = total + logdet
        ctx.kind = kind
        ctx.save_for_backward(place, z, *flat)
        return z, total

    @staticmethod
    @once_differentiable
    @_without_autocast
    def backward(ctx: Any, gy: Tensor, glogdet: Tensor) -> tuple[Tensor | None, ...]:
        place, y, *flat = ctx.saved_tensors
        found: list[Tensor | None] = []
        kind = ctx.kind._replace(keep=KEPT["default"])  # of one step at a time
        for one in reversed(_each(flat)):
            p = stack([one])
            ws = ready(p, place, kind.net_dtype)
            (w,) = _unstack(ws)
            A_inv = torch.linalg.inv_ex(w.A).inverse  # does not wait for a GPU
            z, (s, t, _, h1, h2) = inverse(y, w, kind, place, A_inv)
            gy, gw = backward(z, y, w, kind, place, gy, glogdet, s, t, h1, h2)
            gp = ready_backward(p, place, ws, stack([gw]))
            y, found = z, [*_flat(gp), *found]
        return None, None, gy, *found


def _each(flat: Sequence[Tensor | None]) -> list[Parameters]:
    size = len(Parameters._fields)
    return [Parameters(*flat[i : i + size]) for i in range(0, len(flat), size)]


def _unstack(w: Weights) -> list[Weights]:
    return list(map(Weights, *(value.unbind() for value in w)))


def _flat(g: Parameters) -> list[Tensor | None]:
    """Gradients as `_each` takes the parameters, convolutions as `nn.Conv2d` has them."""
    each = zip(*([None] * len(g.A) if v is None else v.unbind() for v in g), strict=True)
    return [
        v.permute(0, 3, 1, 2) if v is not None and v.ndim == 4 else v for one in each for v in one
    ]


# -- a level -----------------------------------------------------------------------------------

KEPT = {"default": (True, True), "half": (False, True), "checkpoint": (False, False)}

TOGETHER: int | None = None
"""Steps whose parameters are made ready together; None: on a GPU, which is told each operation, all
of a level; on a CPU so many as have CACHED numbers, or one: their matrices should still be in the
cache when they are multiplied, and there are several copies of them on the way back."""

CACHED = 2**21

#: What a step, and the net inside, may consist of: actnorms or biases.
_PERMUTATIONS, _COUPLINGS = (Conv1x1LU, Conv1x1, Permutation), (AffineCoupling, AdditiveCoupling)
_NORMS = ({ActNorm}, {type(None)})


def fits(steps: Flow) -> bool:
    """Whether the steps are all of one form known here, and nobody has changed or watches them.

    A hook on a layer inside (`initialize` sets some) wants that layer to be called.  One on all
    modules does not count, so that `FlopCounterMode`, which sets such, counts what is run.
    """
    if type(steps) is not Flow or _changed(steps):
        return False
    forms = set(map(_form, steps))
    return len(forms) == 1 and None not in forms and _known(steps[0])


def _changed(m: nn.Module) -> bool:
    """Whether there are hooks, or a function in the place of a method."""
    own = m.__dict__
    hooks = own["_forward_hooks"] or own["_forward_pre_hooks"]
    hooks = hooks or own["_backward_hooks"] or own["_backward_pre_hooks"]
    return bool(hooks) or any(map(callable, own.values()))


def _form(m: nn.Module) -> tuple[Any, ...] | None:
    """Layers, options and shapes, in which stacked steps must agree; None: something is changed."""
    if _changed(m):
        return None
    own = m.__dict__
    found = [type(m), own.get("scale"), own.get("net_dtype"), own.get("rim")]
    for name, p in own["_parameters"].items():
        found += name, None if p is None else p.shape
    for name, child in own["_modules"].items():
        if child is not None:
            form = _form(child)
            if form is None:
                return None
            found += name, form
    return tuple(found)


def _known(step: nn.Module) -> bool:
    """Whether it is the step computed here, to the last layer and shape.

    Of a subclass nobody knows what it does. A bias before an actnorm would be left out, and a
    vector of one number where there should be many would meet a matrix, not channels.
    """
    from glowlite.glow import Step  # it imports this module

    if type(step) is not Step or type(step.actnorm) is not ActNorm:
        return False
    permutation, coupling = step.permutation, step.coupling
    if type(permutation) not in _PERMUTATIONS or type(coupling) not in _COUPLINGS:
        return False
    net = coupling.net
    if type(net) is not CouplingNet or type(net.conv3) is not ZeroConv:
        return False
    convs, norms = (net.conv1, net.conv2, net.conv3.conv), [net.norm1, net.norm2]
    if set(map(type, convs)) != {Conv} or set(map(type, norms)) not in _NORMS:
        return False

    width, half = net.conv1.weight.shape[:2]
    c, c_out, biases = 2 * half, coupling.outputs * half, norms == [None, None]
    fixed = next(chain(permutation.parameters(), permutation.buffers()))
    vectors = [(step.actnorm.logs, c), (step.actnorm.b, c), (net.conv3.logs, c_out)]
    vectors += [(p, width) for norm in norms if norm is not None for p in (norm.logs, norm.b)]
    vectors += [(conv.bias, len(conv.weight)) for conv in convs if conv.bias is not None]
    edges = [conv.edge for conv in convs]
    sizes = [None if conv.edge is None else (len(conv.weight), 1, 3, 3) for conv in convs]
    return (
        len(fixed) == c
        and [conv.rim for conv in convs] == [1, 0, 1]
        and [conv.weight.shape for conv in convs]
        == [(width, half, 3, 3), (width, width, 1, 1), (c_out, width, 3, 3)]
        and [conv.bias is not None for conv in convs] == [biases, biases, True]
        and all(p.shape == (n,) for p, n in vectors)
        and edges[1] is None
        and (edges[2] is None or edges[0] is not None)  # `place` is made for the first
        and [None if edge is None else edge.shape for edge in edges] == sizes
        and _kind(coupling).scale in (*SCALES, None)
    )


def _kind(coupling: Coupling) -> Kind:
    scale = coupling.scale if isinstance(coupling, AffineCoupling) else None
    return Kind(scale, coupling.net_dtype, keep=KEPT["checkpoint"])


def _place(steps: Sequence[Step], z: Tensor) -> Tensor:
    """That of these steps' nets on images as z, (N, H, W, C)."""
    conv = steps[0].coupling.net.conv1
    return place(z.shape[1:3], conv.weight.shape[1], conv.edge is not None, z)


class Ready:
    """What the steps of a level need of their parameters, for images of one size."""

    def __init__(self, steps: Sequence[Step], z: Tensor) -> None:
        self.kind, self.place = _kind(steps[0].coupling), _place(steps, z)
        self.A, c, self.log_det = affine_maps(steps)
        maps = zip(steps, self.A, c, strict=True)
        each = [Parameters(A_k, c_k, *parameters(s.coupling.net)) for s, A_k, c_k in maps]
        size = TOGETHER or (len(each) if z.is_cuda else _fit_in_cache(each[0]))
        self.groups = [each[i : i + size] for i in range(0, len(each), size)]

    @cached_property
    def weights(self) -> list[list[Weights]]:
        """Of each step of each group."""
        dtype = self.kind.net_dtype
        return [_unstack(ready(stack(g), self.place, dtype)) for g in self.groups]

    @cached_property
    def inverses(self) -> Tensor:
        """A⁻¹ of each step: (K, C, C) float64."""
        return torch.linalg.inv(self.A)


def _fit_in_cache(p: Parameters) -> int:
    """How many steps with parameters like these."""
    return max(1, CACHED // sum(v.numel() for v in p if v is not None))


Kept = dict[Any, tuple[list[Tensor | None], Ready]]
"""What `FlowModel.frozen` keeps from call to call, for each kind of image and of step: the weights
of the last call and what was made of them."""


def _ready(steps: Flow, z: Tensor, kept: Kept | None) -> Ready:
    """Kept only of plain tensors: in a transform of `torch.func` they are its wrappers."""
    if kept is None or torch.is_grad_enabled() or torch._C._are_functorch_transforms_active():
        return Ready(steps, z)
    key, weights = (z.shape[1:], z.dtype, z.device, _kind(steps[0].coupling)), tensors_of(steps)
    made_of, level = kept.get(key, ([], None))
    if not are(made_of, weights):
        level = Ready(steps, z)  # the first, or of weights given to `functional_call`
        kept[key] = weights, level
    return level


def run(
    steps: Sequence[Step], x: Tensor, memory: str, kept: Kept | None = None
) -> tuple[Tensor, Tensor]:
    """What `Flow(steps)` computes: (N, C, H, W) -> (N, C, H, W), log-det (N,) float64."""
    z = x.permute(0, 2, 3, 1).contiguous()
    level = _ready(steps, z, kept)
    kind, where = level.kind, level.place
    total = same_for_all(math.prod(x.shape[2:]) * level.log_det, x)
    if not torch.is_grad_enabled():
        for group in level.weights:
            logdets = []
            for w in group:
                z, logdet, _ = forward(z, w, kind, where)
                logdets.append(logdet)
            total = total + _sum(logdets)
    elif memory == "reversible":
        flat = [value for group in level.groups for p in group for value in p]
        z, logdet = _Reversible.apply(kind, where, z, *flat)
        total = total + logdet
    else:
        kind = kind._replace(keep=KEPT[memory])
        for group in level.groups:
            z, logdet, *_ = _Steps.apply(kind, where, z, *(value for p in group for value in p))
            total = total + logdet
    return z.permute(0, 3, 1, 2), total


def run_back(steps: Sequence[Step], y: Tensor, kept: Kept | None = None) -> Tensor:
    """What `Flow(steps).inverse` computes: (N, C, H, W) -> (N, C, H, W)."""
    z = y.permute(0, 2, 3, 1).contiguous()
    level = _ready(steps, z, kept)
    weights = [w for group in level.weights for w in group]
    for w, A_inv in zip(reversed(weights), reversed(level.inverses), strict=True):
        z, _ = inverse(z, w, level.kind, level.place, A_inv)
    return z.permute(0, 3, 1, 2)
