"""The layers, and the points at which formulas are compared.

The points are fixed, and chosen so that no wrong formula can agree by accident: h ≠ w, det W < 0,
W not symmetric, s of both signs, c odd, even and 1.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import lru_cache

import numpy as np

STEPS = 3  # the flow at our points is h₀ = x → h₁ → h₂ → h₃ = z
LAYERS = ("flow", "actnorm", "conv1x1", "lu", "affine_coupling", "additive_coupling")


class Mistake(Exception):
    """A formula that can be read but cannot be the answer; ``name`` is short, the text says why."""

    def __init__(self, name: str, message: str) -> None:
        super().__init__(message)
        self.name = name


@dataclass
class Point:
    """One place where formulas are compared."""

    symbols: dict[str, np.ndarray]
    right: tuple[float, ...]  # what is asked for, and what is right as well
    words: str  # how a message names this place
    steps: list[np.ndarray] = field(default_factory=list)  # Jacobians dh_i/dh_{i−1}
    log_p: dict[str, float] = field(default_factory=dict)

    @property
    def target(self) -> float:
        return self.right[0]


def _matrix(rng: np.random.Generator, c: int, det: float) -> np.ndarray:
    """A full, non-symmetric c × c matrix with the determinant asked for."""
    matrix = rng.normal(size=(c, c)) + 0.3
    matrix *= (abs(det) / abs(np.linalg.det(matrix))) ** (1 / c)
    if np.sign(np.linalg.det(matrix)) != np.sign(det):
        matrix[0] *= -1
    return matrix


SIZES = ((3, 5, 4), (2, 7, 3), (4, 3, 1), (5, 2, 2), (2, 3, 3))  # h, w, c
DETERMINANTS = (-2.3, 0.37, -0.6, 1.7, 3.1)
SCALES = (
    (-0.7, 1.9, 0.4, -2.6),
    (0.6, 2.3, 1.4),
    (-1.7,),
    (0.35, 0.8),
    (2.9, 0.45, 1.2),
)


@lru_cache
def points(layer: str) -> tuple[Point, ...]:
    """The points of one layer, always the same."""
    rng = np.random.default_rng(20180709)
    made = []
    for (h, w, c), det, scale in zip(SIZES, DETERMINANTS, SCALES, strict=True):
        sizes = {"h": h, "w": w, "c": c, "π": np.pi}
        s = np.array(scale)
        if layer == "flow":
            dets = (-0.7, -1.3, det / 0.91)  # their product is det
            steps = [_matrix(rng, 3, d) for d in dets]
            total = float(np.log(np.abs(np.prod(dets))))
            log_p_z = -float(rng.uniform(0.4, 6.0))
            made.append(
                Point(
                    {"π": np.array(np.pi), "J": steps[2] @ steps[1] @ steps[0]},
                    (total, log_p_z + total),
                    f"det dz/dx = {det:g}",
                    steps,
                    {"z": log_p_z, "x": log_p_z + total},
                )
            )
            continue
        if layer == "actnorm":
            symbols = {"s": s, "b": rng.normal(size=c), "J": np.kron(np.eye(h * w), np.diag(s))}
            right = (h * w * np.log(np.abs(s)).sum(),)
            words = f"h = {h}, w = {w}, s = ({', '.join(f'{v:g}' for v in scale)})"
        elif layer == "conv1x1":
            matrix = _matrix(rng, c, det)
            symbols = {
                "W": matrix,
                "J": np.kron(np.eye(h * w), matrix),
                "λ": np.linalg.eigvals(matrix),
                "σ": np.linalg.svd(matrix, compute_uv=False),
            }
            right = (h * w * np.log(abs(det)),)
            words = f"h = {h}, w = {w}, det W = {det:g}"
        elif layer == "lu":
            p = np.eye(c)[np.r_[1:c, 0]]
            lower = np.tril(rng.normal(size=(c, c)), -1) + np.eye(c)
            upper = np.triu(rng.normal(size=(c, c)), 1)
            matrix = p @ lower @ (upper + np.diag(s))
            symbols = {"P": p, "L": lower, "U": upper, "s": s, "W": matrix}
            symbols["J"] = np.kron(np.eye(h * w), matrix)
            total = np.log(np.abs(s)).sum()
            right = (total, h * w * total)
            words = f"s = ({', '.join(f'{v:g}' for v in scale)})"
        else:
            # s has one value per pixel and channel of the first half: h·w·c/2 of them.
            n = h * w * c
            s = rng.uniform(0.3, 2.5, size=n) if layer == "affine_coupling" else np.ones(n)
            if len(made) % 2:
                s = 1 / s  # a log-det below 0, where |sum(log s)| shows
            jacobian = np.diag(np.r_[s, np.ones(n)])
            jacobian[:n, n:] = rng.normal(size=(n, n))
            symbols = {"s": s, "t": rng.normal(size=n), "J": jacobian}
            sizes["c"] = 2 * c
            right = (np.log(s).sum(),)
            words = f"h = {h}, w = {w}, c = {2 * c}"
        symbols |= {k: np.array(float(v)) for k, v in sizes.items()}
        made.append(Point(symbols, right, words))
    return tuple(made)
