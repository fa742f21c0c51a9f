"""Optimisers, the learning rate over a run, and the moving average of the weights."""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch
from torch import nn

from glowlite.muon import Muon
from glowlite.presets import SCHEDULES

_OPTIMIZERS = {
    "adam": torch.optim.Adam,
    "adamw": torch.optim.AdamW,
    "adamax": torch.optim.Adamax,
    "muon": Muon,
}


def make_optimizer(
    name: str,
    parameters: Iterable[nn.Parameter],
    *,
    lr: float,
    beta1: float = 0.9,
    beta2: float = 0.999,
    weight_decay: float = 0.0,
    graph: bool = False,
) -> torch.optim.Optimizer:
    """Adam, AdamW, Adamax (the authors' choice) or Muon by name; all but Adamax fused.

    Muon is for the convolution kernels, with AdamW for what is none: see `muon.Muon`.

    graph: keep the learning rate and the count of steps on the device, for a CUDA graph.

    Raises ValueError for a name that is none of the four.
    """
    if name not in _OPTIMIZERS:
        raise ValueError(f"optimizer is {name!r}; it must be one of {', '.join(_OPTIMIZERS)}")
    parameters = list(parameters)
    options = {"betas": (beta1, beta2), "weight_decay": weight_decay}
    if name != "adamax":  # PyTorch has no fused Adamax
        options["fused"] = True
    if graph:
        lr = torch.tensor(lr, device=parameters[0].device)
        options["capturable"] = True
    return _OPTIMIZERS[name](parameters, lr=lr, **options)


def set_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """The learning rate of the next step, in place where it lives on the device."""
    for group in optimizer.param_groups:
        if isinstance(group["lr"], torch.Tensor):
            group["lr"].fill_(rate)
        else:
            group["lr"] = rate


def lr_factor(schedule: str, images: int, progress: float, warmup: int) -> float:
    """The number the base learning rate is multiplied with, once, at each step.

    factor = min(1, images / warmup) · (1 | ½(1 + cos π·progress))

    Parameters
    ----------
    schedule : "constant" (the authors': a linear rise, then flat) or "cosine" (then to zero)
    images : training images seen when this step is done
    progress : part of the run that is over, 0 to 1
    warmup : images over which the rate rises linearly; 0 for none

    Raises ValueError for a schedule that is neither.

    >>> lr_factor("constant", images=50, progress=0.9, warmup=100)
    0.5
    >>> lr_factor("cosine", images=500, progress=0.5, warmup=100)
    0.5
    >>> lr_factor("cosine", images=500, progress=1.0, warmup=0)
    0.0
    """
    rise = min(1.0, images / warmup) if warmup > 0 else 1.0
    if schedule == "constant":
        return rise
    if schedule == "cosine":
        return rise * 0.5 * (1.0 + math.cos(math.pi * min(max(progress, 0.0), 1.0)))
    raise ValueError(f"schedule is {schedule!r}; it must be one of {', '.join(SCHEDULES)}")


@torch.no_grad()
def update_average(average: nn.Module, model: nn.Module, decay: float, step: int) -> None:
    """average ← d·average + (1 − d)·model, with d = min(decay, (1 + step)/(10 + step)).

    The smaller d of the first steps lets a short run forget where it started.  Buffers (a
    permutation, the signs of an LU factor) are not averaged: they are constants of the model.
    """
    decay = min(decay, (1 + step) / (10 + step))
    torch._foreach_lerp_(list(average.parameters()), list(model.parameters()), 1.0 - decay)
