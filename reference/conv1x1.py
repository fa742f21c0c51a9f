"""Slides "Invertible 1×1 convolution" and "LU decomposition": one matrix at every pixel."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike
from scipy.linalg import lu, solve_triangular

from reference._arrays import Array, as_images, as_order, as_parameter, per_example


def random_rotation(c: int, rng: np.random.Generator) -> Array:
    """A random orthogonal c×c matrix, uniform over the orthogonal group: |det W| = 1.

    QR of a Gaussian matrix, the signs of R's diagonal moved into Q. The slide says "rotation";
    half of these are reflections, det −1. log|det W| is 0 for both.
    """
    q, r = np.linalg.qr(rng.standard_normal((c, c)))
    return q * np.sign(np.diag(r))


def random_matrix(c: int, rng: np.random.Generator) -> Array:
    """A random invertible c×c matrix that is no rotation: log|det W| ≠ 0, well conditioned."""
    return random_rotation(c, rng) * np.exp(0.3 * rng.standard_normal(c))


def _as_square(w: Array, name: str) -> Array:
    w = as_parameter(w, name, (None, None))
    if w.shape[0] != w.shape[1]:
        raise ValueError(f"{name} has shape {w.shape}; accepted: square, (C, C)")
    return w


class Conv1x1:
    """One invertible matrix applied at every pixel (slide "Invertible 1×1 conv"; Glow §3.2).

    forward:  y_ij = W x_ij
    inverse:  x_ij = W⁻¹ y_ij, by solving W x_ij = y_ij
    log-det:  h · w · log|det W|
    initial:  a random orthogonal W, log-det 0

    Cost: O(h·w·c²) to apply, O(c³) for the determinant, at every training step.
    """

    def __init__(self, W: Array) -> None:
        """Take W, shape (C, C), float64.

        Raises:
            TypeError: not float64.
            ValueError: not square, not finite, or singular to working precision.
        """
        self.W = _as_square(W, "W")
        condition = np.linalg.cond(self.W)
        if not condition < 1 / np.finfo(float).eps:
            raise ValueError(
                f"W is singular (condition number {condition:.1e}); accepted: an invertible matrix"
            )

    @classmethod
    def random(cls, c: int, rng: np.random.Generator) -> Conv1x1:
        """The initial value: a random orthogonal W."""
        return cls(random_rotation(c, rng))

    def forward(self, x: Array) -> tuple[Array, Array]:
        """(N, H, W, C) -> (N, H, W, C), log-det (N,). Raises ValueError on another C."""
        x = as_images(x, channels=len(self.W))
        n, h, w, _ = x.shape
        _, log_abs_det = np.linalg.slogdet(self.W)
        return x @ self.W.T, per_example(h * w * log_abs_det, n)

    def inverse(self, y: Array) -> Array:
        """(N, H, W, C) -> (N, H, W, C). Raises ValueError on another C."""
        y = as_images(y, "y", channels=len(self.W))
        return np.linalg.solve(self.W, y.reshape(-1, len(self.W)).T).T.reshape(y.shape)


class Conv1x1LU:
    """The same layer with W kept as a product (slide "LU decomposition"; Glow §3.2, eq. 10).

    W = P L (U + diag(s)):  P a fixed permutation; L lower triangular with ones on the diagonal;
    U *strictly upper* triangular (the slide says "lower"); s a vector.

    forward:  y_ij = P L (U + diag(s)) x_ij
    inverse:  undo P, then two triangular solves: L v = Pᵀ y_ij, (U + diag(s)) x_ij = v
    log-det:  h · w · sum(log|s|)
    initial:  the factors of a random orthogonal W; P stays, L, U and s are learned

    Cost: the determinant is O(c), where the plain layer needs O(c³).
    """

    def __init__(self, p: ArrayLike, l: Array, u: Array, s: Array) -> None:  # noqa: E741
        """Take p, shape (C,), with (P v)[i] = v[p[i]]; l and u, shape (C, C); s, shape (C,).

        Only the part of l below its diagonal and the part of u above it are used.

        Raises:
            TypeError: l, u or s is not float64.
            ValueError: wrong shapes, p not a permutation, or an s that is zero.
        """
        self.s = as_parameter(s, "s", (None,))
        c = len(self.s)
        self.p = as_order(p, "p", c)
        self.l = np.tril(as_parameter(l, "l", (c, c)), -1)
        self.u = np.triu(as_parameter(u, "u", (c, c)), 1)
        if (self.s == 0).any():
            raise ValueError(f"s is {self.s}; a zero in s makes W singular")

    @classmethod
    def from_matrix(cls, W: Array) -> Conv1x1LU:
        """Factor a given invertible W, shape (C, C), by LU with partial pivoting, O(c³), once.

        Raises:
            TypeError: not float64.
            ValueError: not square, not finite, or singular.
        """
        p, l, u = lu(Conv1x1(W).W, p_indices=True)  # noqa: E741
        return cls(p, l, u, np.diag(u).copy())

    @classmethod
    def random(cls, c: int, rng: np.random.Generator) -> Conv1x1LU:
        """The initial value: the factors of a random orthogonal W."""
        return cls.from_matrix(random_rotation(c, rng))

    @property
    def W(self) -> Array:
        """The matrix itself, P L (U + diag(s)), shape (C, C)."""
        lower = self.l + np.eye(len(self.s))
        return (lower @ (self.u + np.diag(self.s)))[self.p]

    def forward(self, x: Array) -> tuple[Array, Array]:
        """(N, H, W, C) -> (N, H, W, C), log-det (N,). Raises ValueError on another C."""
        x = as_images(x, channels=len(self.s))
        n, h, w, _ = x.shape
        return x @ self.W.T, per_example(h * w * np.log(np.abs(self.s)).sum(), n)

    def inverse(self, y: Array) -> Array:
        """(N, H, W, C) -> (N, H, W, C), O(c²) a pixel. Raises ValueError on another C."""
        y = as_images(y, "y", channels=len(self.s))
        columns = y.reshape(-1, len(self.s)).T[np.argsort(self.p)]
        columns = solve_triangular(self.l, columns, lower=True, unit_diagonal=True)
        columns = solve_triangular(self.u + np.diag(self.s), columns, lower=False)
        return columns.T.reshape(y.shape)
