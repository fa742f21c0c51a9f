"""Batches of images as one PNG."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image
from torch import Tensor

from glowlite.checkpoint import write_atomically


def as_bytes(images: Tensor | np.ndarray) -> np.ndarray:
    """(N, C, H, W) tensor or (N, H, W, C) array of integers 0…255 -> uint8 (N, H, W, C).

    Raises TypeError for anything that is not integer: a float image has no single meaning here.
    """
    if isinstance(images, Tensor):
        images = images.detach().cpu().permute(0, 2, 3, 1).numpy()
    images = np.asarray(images)
    if not np.issubdtype(images.dtype, np.integer):
        raise TypeError(f"images have type {images.dtype}; integers from 0 to 255 are needed")
    return np.clip(images, 0, 255).astype(np.uint8)


def grid(images: Tensor | np.ndarray, columns: int | None = None, gap: int = 2) -> np.ndarray:
    """Lay N images out in rows on white -> uint8 (height, width, C).

    >>> grid(np.zeros((6, 4, 5, 3), np.uint8), columns=3, gap=1).shape
    (9, 17, 3)
    """
    images = as_bytes(images)
    n, h, w, c = images.shape
    columns = columns or int(np.ceil(np.sqrt(n)))
    rows = -(-n // columns)
    sheet = np.full((rows * (h + gap) - gap, columns * (w + gap) - gap, c), 255, np.uint8)
    for k, image in enumerate(images):
        top, left = (k // columns) * (h + gap), (k % columns) * (w + gap)
        sheet[top : top + h, left : left + w] = image
    return sheet


def save_grid(
    path: str | Path,
    images: Tensor | np.ndarray,
    columns: int | None = None,
    zoom: int | None = None,
) -> Path:
    """Write a grid of images as PNG, atomically.

    Small images are enlarged by a whole factor (`zoom`, by default to about 64 pixels each), every
    pixel a square, so that one sees what the model made and not what a viewer smoothed.
    """
    images = as_bytes(images)
    zoom = zoom or max(1, 64 // max(images.shape[1:3]))
    sheet = grid(images.repeat(zoom, axis=1).repeat(zoom, axis=2), columns)
    if sheet.shape[2] not in (1, 3):  # other channel counts: show the first as grey
        sheet = sheet[..., :1]
    picture = Image.fromarray(sheet[..., 0] if sheet.shape[2] == 1 else sheet)
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    return write_atomically(path, lambda p: picture.save(p, format="PNG"))
