"""Hand a model's weights to `reference`: the same map in NumPy, float64, written to be read."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from functools import singledispatch
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

import reference as ref
from glowlite import (
    actnorm,
    conv1x1,
    coupling,
    flow,
    glow,
    network,
    nice,
    permutation,
    realnvp,
    split,
    squeeze,
)
from glowlite.actnorm import LOG_SCALE_FACTOR


def to_reference(layer: nn.Module, *, label: int | None = None) -> Any:
    """The layer or model of `reference` that computes what `layer` computes.

    Takes a whole model, or any layer of one. Weights become float64 NumPy arrays, copied.
    Images are (N, H, W, C) there: `x.permute(0, 2, 3, 1).double().numpy()`. Latents, log-dets,
    inverses and bits/dim agree to rounding: to 1e-12 when the model is in float64, except that
    one flat vector of latents lists them pixel by pixel there and channel by channel here;
    compare those of `encode`.

    A class-conditional model is one flow per class: say which by `label`.

    >>> import glowlite, torch
    >>> model = glowlite.Glow(shape=(3, 4, 8), levels=1, depth=2, width=4).double()
    >>> x = torch.rand(2, 3, 4, 8, dtype=torch.float64) - 0.5
    >>> theirs = to_reference(model).log_prob(x.permute(0, 2, 3, 1).numpy())
    >>> bool(abs(theirs - model.log_prob(x).detach().numpy()).max() < 1e-10)
    True

    Raises:
        TypeError: `reference` has no counterpart of `layer`.
        ValueError: `label` is missing for a class-conditional model, out of range, or not needed.
    """
    if isinstance(layer, glow.MultiScale):
        return _multi_scale(layer, label)
    if isinstance(layer, split.TopPrior):
        return _top_prior(layer, label)
    if label is not None:
        raise ValueError(f"label is {label}; {type(layer).__name__} has no classes")
    return _convert(layer)


def _array(tensor: Tensor) -> np.ndarray:
    return tensor.detach().cpu().double().numpy()


@singledispatch
def _convert(layer: nn.Module) -> Any:
    raise TypeError(f"layer is a {type(layer).__name__}; reference has no counterpart")


@_convert.register
def _(layer: squeeze.Squeeze) -> ref.Squeeze:
    return ref.Squeeze(layer.order)


@_convert.register
def _(layer: actnorm.ActNorm) -> ref.ActNorm:
    return ref.ActNorm(np.exp(LOG_SCALE_FACTOR * _array(layer.logs)), _array(layer.b))


@_convert.register
def _(layer: conv1x1.Conv1x1) -> ref.Conv1x1:
    return ref.Conv1x1(_array(layer.W))


@_convert.register
def _(layer: conv1x1.Conv1x1LU) -> ref.Conv1x1LU:
    lu = _array(layer.lu)
    s = _array(layer.sign_s) * np.exp(np.diag(lu))
    return ref.Conv1x1LU(layer.p.cpu().numpy(), lu, lu, s)


@_convert.register
def _(layer: permutation.Permutation) -> ref.Permutation:
    return ref.Permutation(layer.indices.cpu().numpy())


@_convert.register
def _(layer: coupling.AffineCoupling) -> ref.AffineCoupling:
    return ref.AffineCoupling(_convert(layer.net), layer.scale)


@_convert.register
def _(layer: coupling.AdditiveCoupling) -> ref.AdditiveCoupling:
    return ref.AdditiveCoupling(_convert(layer.net))


@_convert.register
def _(layer: glow.Step) -> ref.Step:
    return ref.Step(*map(_convert, (layer.actnorm, layer.permutation, layer.coupling)))


@_convert.register
def _(layer: glow.Level) -> ref.Flow:
    return ref.Flow([_convert(layer.squeeze), *map(_convert, layer.steps)])


@_convert.register
def _(layer: flow.Flow) -> ref.Flow:
    return ref.Flow([_convert(child) for child in layer])


@_convert.register
def _(layer: split.Split) -> ref.Split:
    return ref.Split(None if layer.prior is None else _convert(layer.prior))


@_convert.register
def _(layer: realnvp.MaskedCoupling) -> ref.MaskedCoupling:
    mask = np.moveaxis(_array(layer.mask), 0, -1)
    return ref.MaskedCoupling(mask, _convert(layer.net))


@_convert.register
def _(layer: realnvp.Logit) -> ref.Logit:
    return ref.Logit(layer.alpha)


@_convert.register
def _(layer: nice.Flatten) -> ref.nice.Flatten:
    c, h, w = layer.shape
    return ref.nice.Flatten((h, w, c))


@_convert.register
def _(layer: nice.NICE) -> ref.NICE:
    return ref.NICE([_convert(child) for child in layer.flow])


# -- the networks, functions (N, H, W, C_in) -> (N, H, W, C_out) ------------------------------


@dataclass(frozen=True)
class _Conv:
    """A convolution and its bias."""

    kernel: np.ndarray
    bias: np.ndarray
    padding: str

    def __call__(self, x: np.ndarray) -> np.ndarray:
        return ref.conv2d(x, self.kernel, self.padding) + self.bias


@dataclass(frozen=True)
class _MLP:
    hidden: list[_Conv]
    last: _Conv
    scale: np.ndarray

    def __call__(self, x: np.ndarray) -> np.ndarray:
        for layer in self.hidden:
            x = ref.network.relu(layer(x))
        return self.last(x) * self.scale


@dataclass(frozen=True)
class _ResidualNet:
    conv_in: _Conv
    blocks: list[dict[str, Any]]
    norm_out: ref.ActNorm
    conv_out: ref.ConvPrior
    rescale: np.ndarray

    def __call__(self, x: np.ndarray) -> np.ndarray:
        relu = ref.network.relu
        h = self.conv_in(x)
        for block in self.blocks:
            inner = block["conv1"](relu(block["norm1"].forward(h)[0]))
            h = h + block["conv2"](relu(block["norm2"].forward(inner)[0]))
        out = self.conv_out(relu(self.norm_out.forward(h)[0]))
        raw, t = np.split(out, 2, axis=-1)
        return np.concatenate([self.rescale * np.tanh(raw), t], axis=-1)


@_convert.register
def _(layer: network.Conv) -> _Conv:
    weight = layer.weight if layer.edge is None else torch.cat([layer.weight, layer.edge], 1)
    bias = np.zeros(len(weight)) if layer.bias is None else _array(layer.bias)
    kernel = _array(weight).transpose(2, 3, 1, 0)
    return _Conv(kernel, bias, "zero" if layer.edge is None else "edge")


@_convert.register
def _(layer: network.ZeroConv) -> ref.ConvPrior:
    conv = _convert(layer.conv)
    return ref.ConvPrior(conv.kernel, conv.bias, _array(layer.logs), conv.padding)


@_convert.register
def _(layer: network.CouplingNet) -> ref.CouplingNet:
    conv1, conv2, last = _convert(layer.conv1), _convert(layer.conv2), _convert(layer.conv3)

    def affine(norm: actnorm.ActNorm | None, conv: _Conv) -> tuple[np.ndarray, np.ndarray]:
        if norm is None:
            return np.ones_like(conv.bias), conv.bias
        norm = _convert(norm)
        return norm.s, norm.b

    s1, b1 = affine(layer.norm1, conv1)
    s2, b2 = affine(layer.norm2, conv2)
    return ref.CouplingNet(
        conv1.kernel, s1, b1, conv2.kernel, s2, b2, last.k, last.b, last.logs, last.padding
    )


@_convert.register
def _(layer: nice.MLP) -> _MLP:
    scale = np.exp(LOG_SCALE_FACTOR * _array(layer.last.logs))
    return _MLP([_convert(child) for child in layer.hidden], _convert(layer.last.conv), scale)


@_convert.register
def _(layer: realnvp.ResidualNet) -> _ResidualNet:
    return _ResidualNet(
        _convert(layer.conv_in),
        [{name: _convert(child) for name, child in block.items()} for block in layer.blocks],
        _convert(layer.norm_out),
        _convert(layer.conv_out),
        _array(layer.rescale),
    )


# -- what knows of classes --------------------------------------------------------------------


def _top_prior(layer: split.TopPrior, label: int | None) -> ref.TopPrior:
    if (label is None) != (layer.n_classes == 0) or (
        label is not None and label not in range(layer.n_classes)
    ):
        accepted = f"0 … {layer.n_classes - 1}" if layer.n_classes else "None: there are no classes"
        raise ValueError(f"label is {label!r}; accepted: {accepted}")
    layer = copy.deepcopy(layer).double().cpu()
    like = torch.zeros(1, layer.channels, 1, 1, dtype=torch.float64)
    classes = None if label is None else torch.tensor([label])
    mean, log_sd = layer.moments(like, classes)
    return ref.TopPrior(_array(mean).reshape(-1), _array(log_sd).reshape(-1))


def _multi_scale(model: glow.MultiScale, label: int | None) -> ref.MultiScale:
    c, h, w = model.shape
    kind = ref.RealNVP if isinstance(model, realnvp.RealNVP) else ref.Glow
    return kind(
        (h, w, c),
        [_convert(level) for level in model.levels],
        [_convert(child) for child in model.splits],
        _top_prior(model.top, label),
    )
