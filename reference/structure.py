"""What a Jacobian looks like, in words: the shape decides what the determinant costs."""

from __future__ import annotations

import numpy as np
from scipy.sparse import csgraph

from reference.jacobian import Jacobian


def describe(J: Jacobian, shape: tuple[int, ...]) -> str:
    """Name the structure of J for one example of the given shape, e.g. ``"diagonal"``.

    From the most to the least special: identity, permutation, diagonal, scaled permutation, one
    c×c block per pixel, lower or upper triangular, triangular after reordering (with the channel
    halves named where they are the order), sparse, dense.  An entry counts as zero when it is no
    larger than its own error.

    >>> from reference.jacobian import jacobian
    >>> describe(jacobian(lambda x: 2 * x, np.ones(3)), (3,))
    'diagonal'
    """
    entry = nonzero(J)
    rows, cols = entry.shape
    once = np.all(entry.sum(0) == 1) and np.all(entry.sum(1) == 1)
    if rows != cols:
        return f"not square ({rows} × {cols})"
    unit = once and np.all(np.abs(J.value - 1)[entry] <= J.error[entry] + 1e-12)
    diagonal = not np.any(entry & ~np.eye(rows, dtype=bool))
    if once and diagonal:
        return "identity" if unit else "diagonal"
    if diagonal:
        return "diagonal, with zeros on it"
    if once:
        return "permutation" if unit else "permutation with scaling"
    for name, blocks in pixel_blocks(J.value, entry, shape):
        alike = len(blocks) > 1 and np.allclose(blocks, blocks[:1], rtol=1e-8, atol=1e-9)
        size = blocks.shape[1]
        same = "the same at every pixel" if alike else "one per pixel"
        return f"block diagonal: {size}×{size} blocks, {same}{name}"
    for word, half in (("lower", np.triu(entry, 1)), ("upper", np.tril(entry, -1))):
        if not half.any():
            return f"{word} triangular"
    if len(shape) == 3:  # all pixels of channel 0, then of channel 1, …: the slide's own order
        order = np.arange(rows).reshape(shape).transpose(2, 0, 1).ravel()
        ordered = entry[np.ix_(order, order)]
        for word, half in (("lower", np.triu(ordered, 1)), ("upper", np.tril(ordered, -1))):
            if not half.any():
                return f"{word} triangular, channel by channel"
    if is_triangular(entry):
        return "triangular after reordering"
    share = 100 * entry.mean()
    return "dense" if share > 50 else f"sparse ({share:.0f} % of the entries are not 0)"


def nonzero(J: Jacobian) -> np.ndarray:
    """Which entries certainly differ from zero, as booleans (D, D)."""
    return np.abs(J.value) > J.error


def is_triangular(entry: np.ndarray) -> bool:
    """Whether some order of the dimensions makes the pattern triangular: no cycles off diagonal."""
    off = entry & ~np.eye(len(entry), dtype=bool)
    return csgraph.connected_components(off, connection="strong")[0] == len(entry)


def pixel_blocks(value: np.ndarray, entry: np.ndarray, shape: tuple[int, ...]):
    """Yield (layout, blocks (pixels, c, c)) where J never mixes pixels: (H, W, C) or (C, H, W)."""
    if len(shape) != 3 or entry.shape != (np.prod(shape), np.prod(shape)):
        return
    for name, axis in (("", 2), (" (channels first)", 0)):
        c = shape[axis]
        index = np.moveaxis(np.arange(len(entry)).reshape(shape), axis, -1).reshape(-1, c)
        inside = np.zeros_like(entry)
        inside[index[:, :, None], index[:, None, :]] = True
        if 1 < c < len(entry) and not np.any(entry & ~inside):
            yield name, value[index[:, :, None], index[:, None, :]]
