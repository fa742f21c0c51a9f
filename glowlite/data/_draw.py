"""Soft-edged shapes on a batch of small pictures, in NumPy alone.

A shape is a *signed distance* d(x, y): negative inside, positive outside, in the picture's own
units (the picture spans [−1, 1]², x to the right, y down). Its coverage of a pixel of side p is
about clip(½ − d/p, 0, 1), which is what makes the edges smooth at every size.

The batch is the *last* axis: planes are (H, W, N) and one number per picture is (N,), so numbers
broadcast without reshaping and a window of the picture is a slice with long contiguous runs.
Only + − × ÷, √, min, max and rounding are used on pixels. IEEE 754 fixes the result of each, so a
picture does not depend on the batch it was drawn in.
"""

from __future__ import annotations

import numpy as np

Array = np.ndarray
Number = Array | float


class Canvas:
    """N pictures of side `size` and their coordinates.

    Attributes: `rgb` (H, W, 3, N) float32 in [0, 1]; `x`, `y` (H, W, N) float32, the coordinates
    shapes are written in; `px`, the side of a pixel in those coordinates.
    """

    def __init__(self, rgb: Array, x: Array, y: Array, px: float):
        self.rgb, self.x, self.y, self.px = rgb, x, y, px

    @classmethod
    def blank(cls, n: int, size: int) -> Canvas:
        """A black canvas with plain coordinates: pixel centres from −1 + 1/size to 1 − 1/size."""
        centres = ((np.arange(size, dtype=np.float32) + 0.5) * (2.0 / size) - 1.0).astype("f4")
        x = np.broadcast_to(centres[None, :, None], (size, size, n))
        y = np.broadcast_to(centres[:, None, None], (size, size, n))
        return cls(np.zeros((size, size, 3, n), np.float32), x, y, 2.0 / size)

    def posed(self, dx: Array, dy: Array, half_turn: Array, zoom: Array) -> Canvas:
        """The same pixels in moved coordinates: shift, rotate by 2·atan(half_turn), enlarge.

        The rational form (1 − t², 2t)/(1 + t²) of cosine and sine needs no library function.
        """
        cos = (1 - half_turn**2) / (1 + half_turn**2) / zoom
        sin = 2 * half_turn / (1 + half_turn**2) / zoom
        x, y = self.x - dx, self.y - dy
        return Canvas(self.rgb, cos * x + sin * y, cos * y - sin * x, self.px)

    def window(self, left: float, right: float, top: float, bottom: float) -> Canvas:
        """A view of the pixels in a box given in *picture* coordinates: small things cost little.

        Painting on the window paints on the canvas.
        """
        size = self.rgb.shape[0]
        r0, r1 = (max(0, int((v + 1) / 2 * size + e)) for v, e in ((top, 0), (bottom, 1)))
        c0, c1 = (max(0, int((v + 1) / 2 * size + e)) for v, e in ((left, 0), (right, 1)))
        box = (slice(r0, r1), slice(c0, c1))
        return Canvas(self.rgb[box], self.x[box], self.y[box], self.px)

    def paint(self, d: Array, colour: Array, opacity: Number = 1.0, soft: float = 0.0) -> None:
        """Lay `colour` over the pixels where d < 0: rgb ← rgb + α·(colour − rgb).

        Args: d (h, w, N) signed distance; colour (3, N), (3, 1) or (h, w, 3, N); opacity a number
        or (N,); soft: width of an edge that fades instead of being crisp, in picture units.
        """
        alpha = coverage(d, max(self.px, soft))
        alpha *= opacity
        self.rgb += alpha[:, :, None, :] * (colour - self.rgb)

    def shade(self, amount: Array) -> None:
        """Multiply every pixel by `amount` (h, w, N)."""
        self.rgb *= amount[:, :, None, :]


def coverage(d: Array, width: float) -> Array:
    """The part of a pixel inside the shape: clip(½ − d/width, 0, 1), smoothed as 3t² − 2t³."""
    t = d * np.float32(-1.0 / (1.3 * width))
    t += np.float32(0.5)
    np.clip(t, 0.0, 1.0, out=t)
    return t * t * (3 - 2 * t)


def wave(t: Array) -> Array:
    """A sine of period 1 and height 1, from two parabolas: 16·r·(½ − |r|), r = t − round(t)."""
    r = t - np.rint(t)
    return 16 * r * (0.5 - np.abs(r))


def oval(x: Array, y: Array, a: Number, b: Number, square: Number = 0) -> Array:
    """Distance along the ray to (x/a)² + (y/b)² = 1; `square` in [0, 1] fills the corners.

    d = r·(1 − 1/k), r = |(x, y)|, k² = the mean of the quadratic and the quartic radius.
    """
    x2, y2 = x * x, y * y
    u, v = x2 / (a * a), y2 / (b * b)
    k2 = u + v
    if not (np.isscalar(square) and square == 0):
        k2 = k2 + square * (np.sqrt(u * u + v * v) - k2)
    r2 = x2 + y2
    r = np.sqrt(r2)
    # r/k tends to a finite radius at the centre; the small number keeps 0/0 away.
    return r - np.sqrt((r2 + np.float32(1e-8)) / (k2 + np.float32(1e-8 / 0.04)))


def box(x: Array, y: Array, half_w: Number, half_h: Number, radius: float = 0.0) -> Array:
    """Distance to a box with rounded corners (the bound max(|x| − w, |y| − h) near its edges)."""
    qx, qy = np.abs(x) - (half_w - radius), np.abs(y) - (half_h - radius)
    outside = np.sqrt(np.maximum(qx, 0) ** 2 + np.maximum(qy, 0) ** 2)
    return outside + np.minimum(np.maximum(qx, qy), 0) - radius


def stroke(x: Array, y: Array, half_w: Number, thick: Number) -> Array:
    """Distance to a pen stroke along |x| ≤ half_w, y = 0, with round ends (a capsule)."""
    qx = np.maximum(np.abs(x) - half_w, 0)
    return np.sqrt(qx * qx + y * y) - thick


def ramp(stops: Array, u: Array) -> Array:
    """Colours (3, N) read off a scale through K colours `stops` (K, 3), at u (N,) in [0, 1)."""
    t = u * (len(stops) - 1)
    i = np.minimum(t.astype(int), len(stops) - 2)
    f = (t - i)[:, None]
    return np.ascontiguousarray(((1 - f) * stops[i] + f * stops[i + 1]).T, dtype=np.float32)


def pick(stops: Array, u: Array) -> Array:
    """One of the colours `stops` (K, 3) for each u in [0, 1): (3, N)."""
    return np.ascontiguousarray(stops[(u * len(stops)).astype(int)].T, dtype=np.float32)
