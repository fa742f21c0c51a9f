"""Did the edit do what it says, and what else?  For drawn faces the answer can be measured.

A small network learns to read the attributes off drawn faces, whose labels are exact.  It has
never seen the flow; it looks at edited faces and says what it sees.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from glowlite.data.faces import ATTRIBUTES, make_faces
from glowlite.evaluate import to_tensor
from glowlite.latent import Latents, edit
from glowlite.likelihood import quantize
from glowlite.model import FlowModel


class Reader(nn.Module):
    """Reads the thirteen attributes of drawn faces: uint8 (N, 3, S, S) -> P(attribute), (N, 13).

    Three strided convolutions and a linear map.  `accuracy` is measured on faces it has not
    learned from, (13,).
    """

    def __init__(self, size: int, n_bits: int) -> None:
        super().__init__()
        self.n_bits, self.accuracy = n_bits, np.zeros(len(ATTRIBUTES))
        side = size
        layers: list[nn.Module] = []
        for c_in, c_out in ((3, 24), (24, 48), (48, 64)):
            layers += [nn.Conv2d(c_in, c_out, 3, 2, 1), nn.ReLU()]
            side = -(-side // 2)
        self.net = nn.Sequential(*layers, nn.Flatten(), nn.Linear(64 * side**2, len(ATTRIBUTES)))

    def forward(self, images: Tensor) -> Tensor:
        """Logits, (N, 13)."""
        return self.net(quantize(images, self.n_bits).float() / 2 ** (self.n_bits - 1) - 1)

    @torch.no_grad()
    def read(self, images: Tensor) -> np.ndarray:
        """P(attribute) of each image, (N, 13)."""
        parts = [self(part).sigmoid() for part in images.cpu().split(256)]
        return torch.cat(parts).numpy()


def train_reader(
    size: int = 32,
    n_bits: int = 5,
    *,
    faces: int = 6000,
    epochs: int = 8,
    seed: int = 0,
    progress: Callable[[int], object] | None = None,
) -> Reader:
    """A reader learned from freshly drawn faces, the same for the same arguments.

    The faces are of stream seed + 1000: not those the flow was trained on.  Cost: about half a
    minute on one core at 32×32.
    """
    images, truth = make_faces(faces + 1000, size, seed + 1000)
    x, y = to_tensor(images), torch.from_numpy(truth).float()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        reader = Reader(size, n_bits)
    order = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.AdamW(reader.parameters(), lr=2e-3, weight_decay=0.01)
    batch = 64
    total = epochs * (faces // batch)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 4e-3, total_steps=total)
    for _ in range(epochs):
        for rows in torch.randperm(faces, generator=order)[: faces // batch * batch].split(batch):
            optimizer.zero_grad()
            F.binary_cross_entropy_with_logits(reader(x[rows]), y[rows]).backward()
            optimizer.step()
            schedule.step()
            if progress:
                progress(batch)
    held_out = slice(faces, None)
    reader.accuracy = ((reader.read(x[held_out]) > 0.5) == truth[held_out]).mean(0)
    return reader.eval()


@dataclass(frozen=True)
class Score:
    """What edits change, in the reader's eyes.

    before, after: (A, A), row i, column j: share of faces with attribute j when attribute i is
    added at full strength to faces that lack it.  accuracy: (A,), the reader's own.
    """

    names: tuple[str, ...]
    before: np.ndarray
    after: np.ndarray
    accuracy: np.ndarray

    @property
    def change(self) -> np.ndarray:
        """after − before: 1 on the diagonal and 0 elsewhere would be a perfect edit."""
        return self.after - self.before

    def __str__(self) -> str:
        lines = [f"{'added':<13} {'before':>7} {'after':>7}   also changed (by more than 10 %)"]
        for i, name in enumerate(self.names):
            others = [j for j in np.argsort(-np.abs(self.change[i])) if j != i]
            also = [
                f"{self.names[j]} {self.change[i, j]:+.0%}"
                for j in others
                if abs(self.change[i, j]) > 0.10
            ]
            lines.append(
                f"{name:<13} {self.before[i, i]:>7.0%} {self.after[i, i]:>7.0%}   "
                + (", ".join(also) or "nothing")
            )
        off = self.change[~np.eye(len(self.names), dtype=bool)]
        lines.append(
            f"mean: wanted {np.diag(self.change).mean():+.0%}, unwanted |change| "
            f"{np.abs(off).mean():.0%}; the reader itself is right on {self.accuracy.mean():.1%}"
        )
        return "\n".join(lines)

    def as_dict(self) -> dict:
        """Plain lists, for JSON."""
        return {
            "names": list(self.names),
            "before": self.before.round(4).tolist(),
            "after": self.after.round(4).tolist(),
            "reader_accuracy": self.accuracy.round(4).tolist(),
        }


def score_edits(
    model: FlowModel,
    reader: Reader,
    vectors: list[Latents],
    images: np.ndarray,
    truth: np.ndarray,
    *,
    faces: int = 100,
    strength: float = 1.0,
    progress: Callable[[int], object] | None = None,
) -> Score:
    """Add each attribute to up to `faces` faces that lack it, and read all attributes before and
    after.  images: uint8 (N, H, W, C); truth: bool (N, 13).
    """
    device = next(model.parameters()).device
    before, after = [], []
    for column, vector in enumerate(vectors):
        rows = np.flatnonzero(~truth[:, column])[:faces]
        edited, _ = edit(model, to_tensor(images[rows], device), vector, [0.0, strength])
        before.append((reader.read(edited[:, 0]) > 0.5).mean(0))
        after.append((reader.read(edited[:, 1]) > 0.5).mean(0))
        if progress:
            progress(1)
    return Score(ATTRIBUTES, np.stack(before), np.stack(after), reader.accuracy)
