"""The order in which an epoch visits the images."""

from __future__ import annotations

import numpy as np


def epoch_order(n: int, seed: int, epoch: int) -> np.ndarray:
    """A permutation π of 0 … n − 1 that depends on (seed, epoch) alone: int64 (n,).

    A run resumes at any position with `epoch_order(n, seed, epoch)[position:]`, without replaying
    a random state. Cost: 8·n bytes, O(n).

    Raises: ValueError for n < 1 or a negative seed or epoch.

    >>> epoch_order(5, seed=0, epoch=0).tolist() == epoch_order(5, seed=0, epoch=0).tolist()
    True
    >>> sorted(epoch_order(5, seed=0, epoch=1).tolist())
    [0, 1, 2, 3, 4]
    """
    for name, value, low in (("n", n, 1), ("seed", seed, 0), ("epoch", epoch, 0)):
        if value < low:
            raise ValueError(f"{name} must be at least {low}, not {value}")
    return np.random.default_rng([seed, epoch]).permutation(n)
