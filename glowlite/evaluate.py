"""Bits per dimension on held-out images, with its uncertainty, and the line to beat."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass

import numpy as np
import torch

from glowlite.model import FlowModel


class NotFinite(ValueError):
    """Some image's bits/dim is not a number: no mean is made without it."""


@dataclass(frozen=True)
class Evaluation:
    """Test bits/dim: `mean` ± `standard_error` over `images`, each dequantised `draws` times.

    The error of a single image is unknown: None.
    """

    mean: float
    standard_error: float | None
    images: int
    draws: int

    def __str__(self) -> str:
        images, draws = "s" * (self.images > 1), "s" * (self.draws > 1)
        return (
            f"{with_error(self.mean, self.standard_error, 4)} bits/dim "
            f"({self.images} image{images}, {self.draws} dequantisation draw{draws} each)"
        )

    def as_dict(self) -> dict[str, float | None]:
        return asdict(self)


def with_error(mean: float, error: float | None, digits: int) -> str:
    """ "mean ± error", or the mean alone where its error is not known."""
    return f"{mean:.{digits}f}" + ("" if error is None else f" ± {error:.{digits}f}")


# What a random number is drawn for: the first word of a stream, see `seeded`.
EVALUATION, NOISE, SAMPLES, INITIALIZATION, SHIFT = 1, 10, 11, 12, 13


def seeded(seed: int, *stream: int, device: str | torch.device = "cpu") -> torch.Generator:
    """A generator that depends on (seed, stream) and on nothing drawn before.

    Randomness addressed by number instead of carried along: step 812 draws the same noise whether
    the run was stopped at step 800 or not, so the step counter is the whole random state.
    """
    words = np.random.SeedSequence([seed, *stream]).generate_state(1, np.uint64)
    return torch.Generator(device).manual_seed(int(words[0] >> np.uint64(1)))


def to_tensor(images: np.ndarray, device: str | torch.device = "cpu") -> torch.Tensor:
    """uint8 (N, H, W, C), memory-mapped or not -> uint8 tensor (N, C, H, W)."""
    array = np.ascontiguousarray(np.asarray(images).transpose(0, 3, 1, 2))
    return torch.from_numpy(array.copy() if not array.flags.writeable else array).to(device)


@torch.no_grad()
def evaluate(
    model: FlowModel,
    images: np.ndarray,
    labels: np.ndarray | None = None,
    *,
    draws: int = 1,
    batch: int = 64,
    seed: int = 0,
    progress: Callable[[int], object] | None = None,
) -> Evaluation:
    """Mean bits/dim over every image, each counted once whatever the size of the last batch.

    Parameters
    ----------
    images : uint8 (N, H, W, C); labels : (N,) integers for a class-conditional model
    draws : dequantisation samples of each image; their mean enters the average.  The standard
        error is over images: sd of those per-image means / √N; None of a single image
    progress : called with the number of images done in each batch

    Raises ValueError without images, NotFinite (one too) when a bits/dim is not finite: nothing is
    dropped in silence.
    """
    if len(images) == 0 or draws < 1:
        raise ValueError(f"evaluate needs images and draws >= 1; got {len(images)} and {draws}")
    device = next(model.parameters()).device
    was_training = model.training
    model.eval()
    values = np.empty(len(images))
    try:
        with model.frozen():
            for start in range(0, len(images), batch):
                part = slice(start, min(start + batch, len(images)))
                x = to_tensor(images[part], device)
                y = None if labels is None else torch.from_numpy(np.array(labels[part])).to(device)
                noise = seeded(seed, EVALUATION, start, device=device)
                total = sum(model.bits_per_dim(x, y, generator=noise) for _ in range(draws))
                values[part] = (total / draws).cpu().numpy()
                if progress:
                    progress(len(x))
    finally:
        model.train(was_training)
    if not np.isfinite(values).all():
        bad = np.flatnonzero(~np.isfinite(values))
        raise NotFinite(
            f"bits/dim is not finite for {len(bad)} images, the first is number {bad[0]}"
        )
    error = float(values.std(ddof=1) / np.sqrt(len(values))) if len(values) > 1 else None
    return Evaluation(float(values.mean()), error, len(values), draws)


def baseline(train: np.ndarray, test: np.ndarray, n_bits: int, limit: int | None = None) -> float:
    """bits/dim on `test` of the best model that treats every number by itself.

    −(1/D) Σ_d log₂ p_d(x_d), with p_d a histogram over the 2^n_bits values at that place and
    colour, counted on at most `limit` training images and smoothed by half a count a bin
    (Krichevsky–Trofimov).  It knows the average picture and nothing about how pixels go together:
    what a flow gains below this line is structure.  Cost: one pass over the images, which are held
    in memory: by default 20,000, or as many as are 256 MiB.
    """
    bins = 2**n_bits
    limit = limit or min(20_000, max(1, 2**28 // math.prod(train.shape[1:])))
    shift = 8 - n_bits
    known = (np.asarray(train[:limit]) >> shift).reshape(min(limit, len(train)), -1)
    new = (np.asarray(test[:limit]) >> shift).reshape(min(limit, len(test)), -1)
    total = 0.0
    for d in range(known.shape[1]):
        counts = np.bincount(known[:, d], minlength=bins) + 0.5
        total -= np.log2(counts[new[:, d]] / counts.sum()).mean()
    return float(total / known.shape[1])
