"""Small things every layer needs: its channels, their halves, and one number per example."""

from __future__ import annotations

import torch
from torch import Tensor


def check_channels(x: Tensor, channels: int, name: str = "x") -> None:
    """Raises ValueError unless x is (N, channels, …).

    One channel would meet any number of them by broadcasting: a plausible y, a wrong log-det.
    """
    if x.shape[1] != channels:
        raise ValueError(f"{name} has {x.shape[1]} channels; this layer is for {channels}")


def halves(x: Tensor, name: str = "x") -> tuple[Tensor, Tensor]:
    """Split along the channels: (N, C, H, W) -> twice (N, C/2, H, W), both views of `x`.

    Raises:
        ValueError: C is odd.
    """
    channels = x.shape[1]
    if channels % 2:
        raise ValueError(
            f"{name} has {channels} channels; splitting into halves needs an even number "
            "(a squeeze before makes it a multiple of four)"
        )
    return x[:, : channels // 2], x[:, channels // 2 :]


def per_example(terms: Tensor) -> Tensor:
    """Σ over everything but the batch, added up in float64: (N, …) -> (N,) float64.

    The terms stay in their own dtype; only the running sum is float64. Thousands of float32
    additions would lose the fourth decimal of a log-determinant of some thousand nats.
    """
    return terms.flatten(1).sum(1, dtype=torch.float64)


def same_for_all(value: Tensor | float, x: Tensor) -> Tensor:
    """A log-det that does not depend on the example, once per example: (N,) float64."""
    if not isinstance(value, Tensor):  # filled there: a copy would make the host wait for a GPU
        value = torch.full((), value, dtype=torch.float64, device=x.device)
    return value.to(torch.float64).expand(x.shape[0])
