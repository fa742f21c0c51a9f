"""Slides "Invertible 1×1 convolution" and "LU decomposition": one matrix at every pixel."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from glowlite._tensors import check_channels, same_for_all


def random_rotation(c: int, generator: torch.Generator | None = None) -> Tensor:
    """A random orthogonal c×c matrix, float64, uniform over the orthogonal group: |det W| = 1.

    QR of a Gaussian matrix, the signs of R's diagonal moved into Q. The slide says "rotation";
    half of these are reflections, det −1. log|det W| is 0 for both.
    """
    q, r = torch.linalg.qr(torch.randn(c, c, dtype=torch.float64, generator=generator))
    return q * r.diagonal().sign()


def apply_matrix(W: Tensor, x: Tensor) -> Tensor:
    """y_ij = W x_ij: (C, C) and (N, C, H, W) -> (N, C, H, W)."""
    return F.conv2d(x, W[:, :, None, None])


def _check(x: Tensor, channels: int, name: str = "x") -> None:
    if x.ndim != 4:  # conv2d would take one image, the log-det its width for its pixels
        raise ValueError(f"{name} has shape {tuple(x.shape)}; accepted: (N, {channels}, H, W)")
    check_channels(x, channels, name)


def _pixels_as_columns(y: Tensor) -> Tensor:
    """(C, N·H·W) in float64, one right-hand side a pixel.

    The solves run in float64: they cost c² a pixel, next to nothing beside a coupling net, and
    the triangular factors of even a rotation are badly enough conditioned that float32 solves
    would be the largest error of a round trip.
    """
    return y.movedim(1, 0).flatten(1).double()


def _columns_as_pixels(columns: Tensor, like: Tensor) -> Tensor:
    n, c, h, w = like.shape
    return columns.reshape(c, n, h, w).movedim(0, 1).to(like.dtype).contiguous()


def unpack(lu: Tensor, sign_s: Tensor) -> tuple[Tensor, Tensor]:
    """L and U + diag(s), float64, from `lu` (…, C, C) and `sign_s` (…, C) of `Conv1x1LU`."""
    lu = lu.double()
    s = sign_s * lu.diagonal(dim1=-2, dim2=-1).exp()
    return lu.tril(-1) + torch.ones_like(s).diag_embed(), lu.triu(1) + s.diag_embed()


class Conv1x1(nn.Module):
    """One invertible matrix applied at every pixel (slide "Invertible 1×1 conv"; Glow §3.2).

    forward:  y_ij = W x_ij
    inverse:  x_ij = W⁻¹ y_ij, by solving W x_ij = y_ij
    log-det:  h · w · log|det W|, from slogdet in float64
    initial:  a random orthogonal W, log-det 0

    Cost: O(h·w·c²) to apply, O(c³) for the determinant at every training step.
    """

    def __init__(self, channels: int, generator: torch.Generator | None = None) -> None:
        super().__init__()
        W = random_rotation(channels, generator)
        self.W = nn.Parameter(W.to(torch.get_default_dtype()))

    def matrix(self) -> tuple[Tensor, Tensor]:
        """W, shape (C, C), and log|det W| in float64."""
        return self.W, torch.linalg.slogdet(self.W.double()).logabsdet

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """(N, C, H, W) -> (N, C, H, W), log-det (N,) float64. Raises ValueError for another C."""
        _check(x, len(self.W))
        W, log_det = self.matrix()
        return apply_matrix(W, x), same_for_all(math.prod(x.shape[2:]) * log_det, x)

    def inverse(self, y: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, C, H, W): one factorisation of W, then a solve per pixel.

        Raises ValueError for another C.
        """
        _check(y, len(self.W), "y")
        return _columns_as_pixels(torch.linalg.solve(self.W.double(), _pixels_as_columns(y)), y)

    def extra_repr(self) -> str:
        return f"{len(self.W)}"


class Conv1x1LU(nn.Module):
    """The same layer with W kept as a product (slide "LU decomposition"; Glow §3.2, eq. 10).

    W = P L (U + diag(s)):  P a fixed permutation; L lower triangular with ones on the diagonal;
    U *strictly upper* triangular (the slide says "lower"); s a vector whose signs are fixed.

    forward:  y_ij = P L (U + diag(s)) x_ij
    inverse:  undo P, then two triangular solves: L v = Pᵀ y_ij, (U + diag(s)) x_ij = v
    log-det:  h · w · sum(log|s|)
    initial:  the factors of a random orthogonal W

    Parameters: one c×c matrix `lu`, packed: L below its diagonal, U above, log|s| on it; c²
    numbers, as many as W has. P and the signs of s never change; they are buffers, so they are
    saved with the weights.

    Cost: the determinant is O(c), where the plain layer needs O(c³).
    """

    p: Tensor
    sign_s: Tensor

    def __init__(self, channels: int, generator: torch.Generator | None = None) -> None:
        super().__init__()
        P, L, U = torch.linalg.lu(random_rotation(channels, generator))
        s = U.diagonal()
        packed = L.tril(-1) + U.triu(1) + s.abs().log().diag()
        dtype = torch.get_default_dtype()
        self.lu = nn.Parameter(packed.to(dtype))
        self.register_buffer("p", P.argmax(1))  # (P v)[i] = v[p[i]]
        self.register_buffer("sign_s", s.sign().to(dtype))

    @property
    def log_s(self) -> Tensor:
        """log|s|, shape (C,)."""
        return self.lu.diagonal()

    def factors(self) -> tuple[Tensor, Tensor]:
        """L with its ones, and U + diag(s), each (C, C), in float64."""
        return unpack(self.lu, self.sign_s)

    def matrix(self) -> tuple[Tensor, Tensor]:
        """W, shape (C, C), multiplied out in float64 and rounded once; log|det W| in float64."""
        lower, upper = self.factors()
        return (lower @ upper)[self.p].to(self.lu.dtype), self.log_s.double().sum()

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """(N, C, H, W) -> (N, C, H, W), log-det (N,) float64. Raises ValueError for another C."""
        _check(x, len(self.lu))
        W, log_det = self.matrix()
        return apply_matrix(W, x), same_for_all(math.prod(x.shape[2:]) * log_det, x)

    def inverse(self, y: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, C, H, W): O(c²) a pixel, no matrix is inverted.

        Raises ValueError for another C.
        """
        _check(y, len(self.lu), "y")
        lower, upper = self.factors()
        columns = _pixels_as_columns(y)[self.p.argsort()]
        columns = torch.linalg.solve_triangular(lower, columns, upper=False, unitriangular=True)
        columns = torch.linalg.solve_triangular(upper, columns, upper=True)
        return _columns_as_pixels(columns, y)

    def extra_repr(self) -> str:
        return f"{len(self.lu)}"
