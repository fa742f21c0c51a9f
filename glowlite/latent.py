"""What one can do in latent space: reconstruct, interpolate, and move along an attribute.

All latents take part, at every level: a model that keeps only the top one changes everything the
split-off ones hold.  Images are uint8 (N, C, H, W) going in and coming out; they are encoded from
the middle of their quantisation cell, so the same image always has the same latents.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from glowlite.evaluate import to_tensor
from glowlite.model import FlowModel

Latents = list[Tensor]


@torch.no_grad()
def encode(model: FlowModel, images: Tensor, classes: Tensor | None = None) -> Latents:
    """uint8 (N, C, H, W) -> the latents, finest first, one (N, …) tensor a level.

    Raises TypeError or ValueError as `FlowModel.dequantize`.
    """
    return model.encode(model.middle(images), classes)[0]


def to_pictures(model: FlowModel, x: Tensor) -> tuple[Tensor, Tensor]:
    """Decoded x -> uint8 (N, C, H, W), and which of them exploded, bool (N,).

    Away from where it was trained, a flow's inverse can enlarge without limit.  Such a picture
    has values that are no numbers, shown grey, or lie ten ranges away; it is kept, and counted.
    """
    flat = x.flatten(1)
    exploded = ~(flat.abs().amax(1) < 10.0)  # true for NaN as well
    return model.to_images(x.nan_to_num(nan=0.0)), exploded


@torch.no_grad()
def decode(
    model: FlowModel, latents: Latents, classes: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Latents -> uint8 (N, C, H, W), and which exploded, see `to_pictures`."""
    return to_pictures(model, model.decode(latents, classes))


@torch.no_grad()
def reconstruct(
    model: FlowModel, images: Tensor, classes: Tensor | None = None
) -> tuple[Tensor, float]:
    """f⁻¹(f(x)) -> the images again, in n_bits, and max |x − f⁻¹(f(x))| before rounding."""
    x = model.middle(images)
    back = model.decode(model.encode(x, classes)[0], classes)
    return model.to_images(back), float((back - x).abs().max())


def interpolate(
    model: FlowModel, a: Tensor, b: Tensor, steps: int = 8, classes: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """z_t = (1 − t)·f(a) + t·f(b) in all latents, t = 0 … 1 -> uint8 (N, steps, C, H, W), and
    which exploded, bool (N, steps).

    The ends are a and b themselves, in the model's bits.  Raises ValueError for steps < 2 or
    unequal batches.
    """
    if steps < 2 or a.shape != b.shape:
        raise ValueError(
            f"interpolate needs steps >= 2 and equal batches; got {steps}, "
            f"{tuple(a.shape)} and {tuple(b.shape)}"
        )
    start, end = encode(model, a, classes), encode(model, b, classes)
    frames = [
        decode(model, [p + t * (q - p) for p, q in zip(start, end, strict=True)], classes)
        for t in torch.linspace(0, 1, steps).tolist()
    ]
    return _stack(frames)


@torch.no_grad()
def attribute_vectors(
    model: FlowModel,
    images: np.ndarray,
    has: np.ndarray,
    *,
    names: Sequence[str] | None = None,
    batch: int = 64,
    progress: Callable[[int], object] | None = None,
) -> list[Latents]:
    """v = mean f(x | with) − mean f(x | without), one for every column of `has`.

    Each is a list of latents without a batch axis.
    images: uint8 (N, H, W, C).  has: bool (N,) or (N, A), A attributes learned in one pass; their
    names are for the error.

    Raises ValueError where an attribute is on every image or on none, or `has` has not one row for
    each image.
    """
    has = np.asarray(has, bool)
    if has.ndim not in (1, 2) or len(has) != len(images):
        raise ValueError(f"has has shape {has.shape}; accepted: (N,) or (N, A), N = {len(images)}")
    has = has.reshape(len(images), -1)
    for column, count in enumerate(has.sum(0)):
        if count in (0, len(images)):
            name = names[column] if names else column
            raise ValueError(
                f"attribute {name} is on {count} of {len(images)} images; "
                "its direction needs some with it and some without"
            )
    # ±1/count on each image: one weighted sum is the difference of the two means.
    weights = np.where(has, 1 / has.sum(0), -1 / (~has).sum(0))
    device = next(model.parameters()).device
    totals = [torch.zeros(has.shape[1], *s, dtype=torch.float64) for s in model.latent_shapes]
    for start in range(0, len(images), batch):
        part = slice(start, start + batch)
        latents = encode(model, to_tensor(images[part], device))
        w = torch.from_numpy(weights[part])
        for total, z in zip(totals, latents, strict=True):
            total += torch.tensordot(w.T, z.cpu().double(), 1)
        if progress:
            progress(len(w))
    dtype = next(model.parameters()).dtype
    return [[t[k].to(device, dtype) for t in totals] for k in range(has.shape[1])]


def edit(
    model: FlowModel, images: Tensor, vector: Latents, strengths: Sequence[float]
) -> tuple[Tensor, Tensor]:
    """f⁻¹(f(x) + s·v) for each strength s -> uint8 (N, len(strengths), C, H, W), and which
    exploded, bool (N, len(strengths)).

    s = 0 gives the image back, −1 takes the attribute away, 1 adds it.
    """
    latents = encode(model, images)
    return _stack(
        [
            decode(model, [z + s * v for z, v in zip(latents, vector, strict=True)])
            for s in strengths
        ]
    )


def _stack(frames: list[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
    pictures, exploded = zip(*frames, strict=True)
    return torch.stack(pictures, 1), torch.stack(exploded, 1)
