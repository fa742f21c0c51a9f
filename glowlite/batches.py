"""Training images in the order in which a run takes them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from glowlite.data import ImageSet, epoch_order
from glowlite.evaluate import SHIFT, seeded, to_tensor
from glowlite.model import FlowModel
from glowlite.parallel import World
from glowlite.presets import TrainConfig


class Batches:
    """Training images as an endless row of shuffled epochs; step t takes the next `batch` of it.

    Every batch is full, every image comes once an epoch, and a batch depends on its number alone.
    On a GPU the images are kept there as uint8, where they fit in a third of its memory.
    """

    def __init__(self, data: ImageSet, config: TrainConfig, world: World) -> None:
        self.images, self.labels, self.config, self.world = data.images, data.labels, config, world
        self.on_device = None
        if world.device.type == "cuda":
            if data.images.nbytes < torch.cuda.get_device_properties(world.device).total_memory / 3:
                self.on_device = to_tensor(data.images, world.device)
        self._orders: dict[int, Any] = {}

    def rows(self, first: int, count: int) -> np.ndarray:
        """Which images stand at positions first, …, first + count − 1 of the endless row."""
        n = len(self.images)
        start, stop = first // n, (first + count - 1) // n + 1
        self._orders = {
            e: self._orders[e] if e in self._orders else epoch_order(n, self.config.seed, e)
            for e in range(start, stop)
        }
        endless = np.concatenate([self._orders[e] for e in range(start, stop)])
        return endless[first - start * n :][:count]

    def __call__(self, step: int) -> tuple[Tensor, Tensor | None]:
        """This process's share of batch `step`: uint8 (n, C, H, W), int64 (n,) or None."""
        rows = self.rows(step * self.config.batch, self.config.batch)
        share = self.world.share(len(rows))
        images, labels = self.take(rows[share])
        return self._augment(images, step, share), labels

    def take(self, rows: np.ndarray) -> tuple[Tensor, Tensor | None]:
        """Images and labels by number, on this process's device."""
        if self.on_device is not None:
            images = self.on_device[self._send(torch.from_numpy(rows))]
        else:
            images = self._send(to_tensor(self.images[rows]))
        labels = None if self.labels is None else self._send(torch.from_numpy(self.labels[rows]))
        return images, labels

    def _send(self, tensor: Tensor) -> Tensor:
        """To the device; a GPU fetches it from pinned memory while the host goes on."""
        if self.world.device.type != "cuda":
            return tensor
        return tensor.pin_memory().to(self.world.device, non_blocking=True)

    def _augment(self, images: Tensor, step: int, share: slice) -> Tensor:
        """Shift by whole pixels, the border repeated; flip left and right."""
        config = self.config
        if not config.shift and not config.flip or not len(images):
            return images
        n, _, h, w = images.shape
        device = images.device
        generator = seeded(config.seed, SHIFT, step, device=device)
        u = torch.rand(config.batch, 3, generator=generator, device=device)[share]
        rows = torch.arange(h, device=device) + _whole(u[:, :1], config.shift * h)
        columns = torch.arange(w, device=device) + _whole(u[:, 1:2], config.shift * w)
        columns = torch.where((u[:, 2:] < 0.5) & config.flip, w - 1 - columns, columns)
        example = torch.arange(n, device=device)[:, None, None]
        rows, columns = rows.clamp(0, h - 1), columns.clamp(0, w - 1)
        moved = images.movedim(1, 3)[example, rows[:, :, None], columns[:, None, :]]
        return moved.movedim(3, 1).contiguous()


def _whole(u: Tensor, reach: float) -> Tensor:
    """u in [0, 1) -> a whole number in −reach … reach, each as likely."""
    reach = math.floor(reach)
    return (u * (2 * reach + 1)).floor().long() - reach


def classes_of(model: FlowModel, labels: Tensor | None) -> Tensor | None:
    """The labels, where the model wants any: else None. Raises ValueError where it lacks them."""
    if not model.n_classes:
        return None
    if labels is None:
        raise ValueError("the model is class-conditional, but these images have no labels")
    return labels


def numbered(images: ImageSet, n: int, known: Sequence[str] | None) -> ImageSet:
    """`images` with the labels that a model of n classes, called `known`, has for them.

    A class goes by its name: a set counts its own classes, so that a folder more or less, or other
    images, give the same cat another number.  Classes without names are called by their numbers.
    Where a file is too old to say, `known` None, labels are taken as they are.

    Raises ValueError, with both lists, if an image is of a class that the model does not know.
    """
    if not n or images.labels is None:
        return images
    if known is None:
        known = images.classes[:n]
    known = known or [str(i) for i in range(n)]
    kinds, places = np.unique(images.labels, return_inverse=True)
    theirs = [images.classes[kind] if images.classes else str(kind) for kind in kinds]
    if new := [name for name in theirs if name not in known]:
        raise ValueError(
            f"{images.name} has images of {listed(theirs)}; "
            f"this model does not know {listed(new)}: its classes are {listed(known)}"
        )
    labels = np.array([known.index(name) for name in theirs])[places]
    return images if np.array_equal(labels, images.labels) else replace(images, labels=labels)


def listed(names: Sequence[str]) -> str:
    return ", ".join(names[:20]) + (", …" if len(names) > 20 else "")
