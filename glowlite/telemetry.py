"""Is the model still invertible?  Three numbers that fall over before the samples do."""

from __future__ import annotations

import sys

import numpy as np
import torch
from torch import Tensor, nn

from glowlite._tensors import halves
from glowlite.actnorm import ActNorm
from glowlite.conv1x1 import Conv1x1, Conv1x1LU
from glowlite.coupling import AffineCoupling, Conditioned
from glowlite.realnvp import MaskedCoupling


@torch.no_grad()
def telemetry(model: nn.Module, images: Tensor, classes: Tensor | None = None) -> dict[str, float]:
    """How far the map is from losing its inverse, measured on uint8 images (N, C, H, W).

    round_trip      max |x − f⁻¹(f(x))|
    smallest_scale  the smallest s of any actnorm or coupling on these images: 1/s is how much
                    the inverse can enlarge an error there
    condition       the largest condition number of a 1×1 convolution's W
    """
    conditioned = [m for m in model.modules() if isinstance(m, Conditioned)]
    within_nets = {m for layer in conditioned for m in layer.net.modules()}  # never inverted
    norms = [m for m in model.modules() if isinstance(m, ActNorm) and m not in within_nets]
    scales = [float(m.log_s.exp().min()) for m in norms]
    watched = [m for m in conditioned if isinstance(m, AffineCoupling | MaskedCoupling)]

    def watch(layer: AffineCoupling | MaskedCoupling, h: Tensor) -> None:
        raw = halves(h.float())[0]
        if isinstance(layer, MaskedCoupling):
            s = ((1 - layer.mask) * raw).exp()
        else:
            s = raw.exp() if layer.scale == "exp" else torch.sigmoid(raw + 2)
        scales.append(float(s.min()))

    hooks = [
        layer.net.register_forward_hook(lambda _net, _args, h, layer=layer: watch(layer, h))
        for layer in watched
    ]
    try:
        x = model.middle(images)
        latents, _ = model.encode(x, classes)
        error = float((model.decode(latents, classes) - x).abs().max())
    finally:
        for hook in hooks:
            hook.remove()
    conditions = [
        float(torch.linalg.cond(m.matrix()[0].double()))
        for m in model.modules()
        if isinstance(m, Conv1x1 | Conv1x1LU)
    ]
    return {
        "round_trip": error,
        # Not Python's min and max, which pass over NaN.
        "smallest_scale": float(np.min(scales)) if scales else 1.0,
        "condition": float(np.max(conditions)) if conditions else 1.0,
    }


def peak_memory(device: torch.device) -> float | None:
    """The most this process has held so far, MiB: on the GPU, or on a CPU in all."""
    if device.type == "cuda":
        return round(torch.cuda.max_memory_allocated(device) / 2**20, 1)
    try:
        import resource
    except ImportError:  # not on Windows
        return None
    unit = 2**20 if sys.platform == "darwin" else 2**10
    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit, 1)
