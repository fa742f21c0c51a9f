"""The Jacobian of any map by finite differences, with an honest estimate of its own error.

The other side of every proof in this course: a layer *says* what its log-determinant is, this
module *measures* it without knowing the layer.  A measurement without an error bar proves
nothing, so every entry carries one.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from scipy import differentiate, linalg

from reference.adapters import from_torch, is_torch, tensor_to_array

EPS = np.finfo(np.float64).eps
MAX_DIM = 4096  # a dense Jacobian of this size already takes 128 MiB
RATIO = 4.0  # from one step to the next finer one
ORDERS = 4  # columns of the extrapolation table: errors h², h⁴, h⁶, h⁸
COARSEST = 2.0**-4  # first step, relative to max(|x_i|, 1)
FINEST = 2.0**-24  # last step, relative to |x_i|: still wider than float32's rounding
CHUNK = 2**19  # numbers handed to f in one call (4 MiB)


@dataclass(frozen=True)
class Jacobian:
    """∂y/∂x at one point, as measured.

    ``value[i, j]`` is ∂y_i/∂x_j over the flattened example, shape (D_out, D_in); ``error`` bounds
    its absolute error, entry by entry; ``step`` is, per column, the step that gave the column's
    least certain entry; ``noise[i]`` is the rounding noise of y_i; ``kink`` is the largest jump of
    slope left inside the chosen steps (large at a ReLU's corner, about 0 elsewhere).
    """

    value: np.ndarray
    error: np.ndarray
    step: np.ndarray
    noise: np.ndarray
    kink: float

    @cached_property
    def _factors(self) -> tuple[np.ndarray, np.ndarray]:
        rows, cols = self.value.shape
        if rows != cols:
            raise ValueError(
                f"a determinant needs a square Jacobian; this one is {rows} × {cols}: "
                f"f maps {cols} numbers to {rows}"
            )
        if not np.all(np.isfinite(self.value)):
            return np.full((rows, rows), np.nan), np.arange(rows)
        # LAPACK itself; scipy.linalg.lu_factor warns on an exact zero pivot, which we report.
        lu, pivots, _ = linalg.lapack.dgetrf(self.value)
        return lu, pivots

    @cached_property
    def sign(self) -> float:
        """Sign of det J: 1, −1, or 0 where J is exactly singular (nan where J is not finite)."""
        lu, pivots = self._factors
        swaps = np.count_nonzero(pivots != np.arange(len(pivots)))
        return float(np.prod(np.sign(np.diag(lu))) * (-1) ** swaps)

    @cached_property
    def logabsdet(self) -> float:
        """log |det J| in nats; −inf where J is exactly singular."""
        with np.errstate(divide="ignore"):
            return float(np.sum(np.log(np.abs(np.diag(self._factors[0])))))

    @cached_property
    def inverse(self) -> np.ndarray:
        """J⁻¹, filled with inf where J is singular.  O(D³)."""
        lu, pivots = self._factors
        if not np.isfinite(self.logabsdet):
            return np.full(lu.shape, np.inf)
        return linalg.lapack.dgetri(lu, pivots)[0]

    @cached_property
    def logabsdet_error(self) -> float:
        """A bound on the error of ``logabsdet``; inf where J may be singular.

        With G = |J⁻¹||E| and its spectral radius ρ < 1, of D dimensions:
            |log|det(J + E)| − log|det J|| ≤ tr G + D ρ² / (2(1 − ρ)),
        for the difference is Σₖ ± tr(J⁻¹E)ᵏ/k, and |tr(J⁻¹E)ᵏ| ≤ tr Gᵏ ≤ D ρᵏ.  The first term is
        Σ |J⁻¹| ∘ |E|ᵀ; the second is what counts where tr G = 0, as for errors off the diagonal of
        J = I.  E includes the rounding of the LU factors.
        """
        if not np.isfinite(self.logabsdet):
            return np.inf
        lu = self._factors[0]
        lower, upper = np.tril(np.abs(lu), -1) + np.eye(len(lu)), np.triu(np.abs(lu))
        rounding = lower @ upper
        for i, j in reversed(list(enumerate(self._factors[1]))):
            if i != j:
                rounding[[i, j]] = rounding[[j, i]]
        g = np.abs(self.inverse) @ (self.error + 4 * EPS * rounding)
        if not np.all(np.isfinite(g)):
            return np.inf
        # Collatz–Wielandt: for every v > 0, ρ(G) ≤ max (G v)_i / v_i; iterating tightens it.
        v, rho = np.ones(len(g)), np.inf
        for _ in range(8):
            gv = g @ v
            rho = min(rho, float(np.max(gv / v)))
            v = gv / max(gv.max(), 1e-300) + 1e-9
        if rho >= 0.5:
            return np.inf
        tail = len(g) * rho**2 / (2 * (1 - rho))
        logs = np.abs(np.log(np.abs(np.diag(lu))))
        return float(np.trace(g) + tail + 4 * EPS * (1.0 + logs.sum()))


def jacobian(
    f: object, x: np.ndarray, *, max_dim: int = MAX_DIM, widest: float = COARSEST
) -> Jacobian:
    """∂y/∂x_j ≈ (y(x + h e_j) − y(x − h e_j)) / 2h, extrapolated to h → 0, with its error.

    ``f`` maps an array to an array, or to a pair (y, log-det) of which y is taken; it may be a
    layer or a torch module, whose forward is taken.  ``x`` is one example of any shape, or a batch
    of one, float64; a layer that insists on a batch gets one.
    Where ``f`` treats the examples of a batch independently (tried out first) all columns are
    evaluated in a few stacked calls, otherwise one by one.

    Every column walks down a ladder of steps h = 2⁻⁴, 2⁻⁶, … (times max(|x_j|, 1); ``widest`` is
    the first) with Richardson extrapolation, and every entry keeps the rung where its estimated
    error is least.  The estimate is the sum of three parts, each measured:

    * truncation: how far neighbouring entries of the extrapolation table differ;
    * a kink (ReLU!): what stays of y(x+h) − 2y(x) + y(x−h) over h when h → 0.  Central
      differences alone cannot see a corner at x: they agree perfectly on a wrong slope;
    * rounding: (noise of y)/h, the noise taken from high differences of y over tiny steps
      (Moré and Wild 2011, "Estimating computational noise"); where y is a staircase whose treads
      these steps and the ladder's all miss, from how far J is from a step that is no power of two.

    A ladder whose steps are whole periods of y (of sin(2ᵏπx), say) sees a straight line.  So J is
    tried at a random direction, far finer; where it fails, a second ladder begins there.

    Cost: 6 to about 30 evaluations per number in x.  Raises TypeError for an x that is not
    float64, ValueError for NaN, an empty x, several images, or more than ``max_dim`` numbers.

    >>> J = jacobian(lambda x: (np.exp(x), x.sum()), np.array([0.0, 1.0]))
    >>> J.value.round(6)
    array([[1.      , 0.      ],
           [0.      , 2.718282]])
    >>> bool(abs(J.logabsdet - 1.0) <= J.logabsdet_error < 1e-10)
    True
    """
    f, x = _function(f, x), _example(x, max_dim)
    call = _vectorise(f, x)
    point = x.ravel()
    with np.errstate(all="ignore"):
        centre = call(point[None])[0]
        noise = _noise(call, point, centre)
        value, error, step, kink = _ladder(call, point, centre, noise, widest)
        if _contradicted(call, point, value, error, noise):
            v, e, s, q = _ladder(call, point, centre, noise, 2.0**-12 * widest)
            fooled = np.abs(v - value) > e + error
            value, error = np.where(fooled, v, value), np.where(fooled, e, error)
            step, kink = np.where(fooled.any(axis=0), s, step), max(kink, q)
        treads = _treads(call, point, centre, value, noise)
        noise = np.maximum(noise, treads)
        error += 1.5 * treads[:, None] / step
    return Jacobian(value, error, step, noise, kink)


def witnesses(f: Callable, x: np.ndarray) -> dict[str, np.ndarray | None]:
    """The same Jacobian from two independent sources, to cross-check :func:`jacobian`.

    ``"scipy"``: ``scipy.differentiate.jacobian`` (adaptive finite differences).
    ``"complex step"``: Im f(x + i·10⁻³⁰ e_j) / 10⁻³⁰, free of cancellation and so exact to
    rounding, or None where ``f`` does not accept or does not follow complex numbers.

    >>> both = witnesses(np.sin, np.array([0.3]))
    >>> [round(float(both[name][0, 0] - np.cos(0.3)), 9) + 0.0 for name in both]
    [0.0, 0.0]
    """
    x = _example(x, MAX_DIM)
    call, point = _vectorise(f, x), x.ravel()

    def columns_last(p: np.ndarray) -> np.ndarray:  # scipy: (D_in, ...) -> (D_out, ...)
        y = call(np.moveaxis(p, 0, -1).reshape(-1, point.size))
        return np.moveaxis(y.reshape(*p.shape[1:], -1), -1, 0)

    with np.errstate(all="ignore"):
        scipy_result = differentiate.jacobian(
            columns_last, point, order=6, initial_step=2.0**-5, tolerances={"rtol": 1e-11}
        )
        tiny = 1e-30
        try:
            stack = point + 1j * tiny * np.eye(point.size)
            shape = (1, *x.shape[1:]) if x.ndim > 1 and x.shape[0] == 1 else x.shape
            rows = [np.asarray(_output(f, row.reshape(shape))).ravel() for row in stack]
            complex_step = np.stack(rows, axis=1)
            follows = np.iscomplexobj(complex_step) and np.all(np.isfinite(complex_step))
        except Exception:  # f refuses complex numbers: then there is one witness fewer
            follows = False
    return {
        "scipy": scipy_result.df,
        "complex step": complex_step.imag / tiny if follows else None,
    }


def _function(f: object, x: object) -> Callable:
    """A function on arrays: a layer's forward; torch through its adapter."""
    if is_torch(f) or is_torch(x):
        return from_torch(getattr(f, "forward", f) if not callable(f) else f).forward
    f = f if callable(f) else getattr(f, "forward", None)
    if not callable(f):
        raise TypeError("f must be a function x -> y or x -> (y, logdet), or a layer with forward")
    return f


def _example(x: np.ndarray, max_dim: int) -> np.ndarray:
    x = tensor_to_array(x) if is_torch(x) else np.asarray(x)
    if x.dtype != np.float64:
        raise TypeError(f"x must be float64, not {x.dtype}: write np.asarray(x, dtype=float)")
    if x.size == 0:
        raise ValueError(f"x is empty: its shape is {x.shape}")
    if x.ndim == 4 and x.shape[0] != 1:
        raise ValueError(
            f"x holds {x.shape[0]} images (shape {x.shape}); a Jacobian is taken at one: x[:1]"
        )
    if not np.all(np.isfinite(x)):
        raise ValueError("x contains NaN or infinite values; the Jacobian needs a finite point")
    if x.size > max_dim:
        raise ValueError(
            f"x has {x.size} numbers, so a dense Jacobian would have {x.size}² entries; the limit "
            f"is {max_dim}. Take a smaller x, or pass max_dim={x.size}"
        )
    return x


def _output(f: Callable, x: np.ndarray):
    """y of f(x) or of f(x) = (y, log-det); f gets a copy, so it cannot harm ours."""
    out = f(x.copy())
    if isinstance(out, tuple) or (isinstance(out, list) and len(out) == 2 and np.ndim(out[0])):
        out = out[0]
    return tensor_to_array(out) if is_torch(out) else out


def _vectorise(f: Callable, x: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
    """A function (K, D_in) -> (K, D_out) that evaluates f at K points, stacked if f allows it."""
    batch_of_one = x.ndim > 1 and x.shape[0] == 1
    single = x.shape
    try:
        first = np.asarray(_output(f, x))
    except Exception:
        if batch_of_one:
            raise
        try:  # a layer wants a batch axis where we were given one bare example
            first = np.asarray(_output(f, x[None]))
        except Exception:
            _output(f, x)  # raise f's own complaint about x as it was given
            raise TypeError("f must return an array, or a pair (y, logdet) of arrays") from None
        single, batch_of_one = (1, *x.shape), True
    if first.dtype.kind not in "fiu":
        raise TypeError(f"f must return an array of real numbers, not {first.dtype}")
    stacked_tail = single[1:] if batch_of_one else single

    def one_by_one(points: np.ndarray) -> np.ndarray:
        return np.stack([np.asarray(_output(f, p.reshape(single))).ravel() for p in points])

    def stacked(points: np.ndarray) -> np.ndarray:
        y = np.asarray(_output(f, points.reshape(-1, *stacked_tail)))
        return y.reshape(len(points), -1)

    # Is row k of a stacked call the same as a call with row k alone?  Three distinct rows tell.
    rng = np.random.default_rng(0)
    probe = x.ravel() * (1 + 2.0**-10 * np.array([[0.0], [1.0], [-1.0]]) * rng.random(x.size))
    with np.errstate(all="ignore"):
        try:
            together, apart = stacked(probe), one_by_one(probe)
            scale = np.abs(apart).max(initial=0.0, where=np.isfinite(apart))
            independent = together.shape == apart.shape and np.allclose(
                together, apart, rtol=1e-9, atol=1e-13 * scale, equal_nan=True
            )
        except Exception:
            independent = False
    return stacked if independent else one_by_one


def _noise(call: Callable, point: np.ndarray, centre: np.ndarray) -> np.ndarray:
    """Rounding noise of each output: how far y is from smooth over steps too small to bend it.

    Over 9 points 2⁻³² apart, in x's own size, the smooth part of the 4th difference is of order
    2⁻¹²⁸; what is left is noise, and a 4th difference of independent noise of deviation σ has
    deviation √70 σ.  But exp(x) − 1 rounds as 1 does, however small x is, and alike at steps of a
    power of two.  So y is looked at along irregular steps, 2⁻³⁴ of 1, too: multiples of what x is
    counted in, lest x itself round, on which y is a straight line but for its noise.
    """
    rng, size = np.random.default_rng(1), np.abs(point)
    signs = rng.choice([-1.0, 1.0], point.size)
    own = signs * _power_of_two(np.where(point == 0, max(size.mean(), 1e-6), size)) * 2.0**-32
    grain = 2 * np.spacing(size + 2.0**-30)
    unit = _power_of_two(np.maximum(size, 1)) * 2.0**-44 * rng.uniform(0.5, 1.0, point.size)
    unit = signs * grain * np.rint(unit / grain)
    t = rng.choice(np.arange(-1000, 1001), 12, replace=False)[:, None]
    line = np.hstack([np.ones_like(t), t])
    off_the_line = np.eye(12) - line @ np.linalg.pinv(line)

    def at(steps: np.ndarray) -> np.ndarray:
        try:
            y = call(point + steps) - centre
        except Exception:  # outside f's domain
            y = np.zeros((len(steps), len(centre)))
        return np.where(np.isfinite(y), y, 0.0)

    sigma = np.sqrt(np.mean(np.diff(at(np.arange(-4, 5)[:, None] * own), 4, axis=0) ** 2, 0) / 70)
    # 12 points less the line's two numbers: the mean is over 10.
    fine, wide = (np.sqrt(np.sum((off_the_line @ at(k * t * unit)) ** 2, 0) / 10) for k in (1, 4))
    noisy = wide <= 8 * fine  # noise does not grow with the step; a bend does, by 4²
    return 4 * np.maximum(sigma, np.where(noisy, fine, 0.0)) + EPS * np.abs(centre)


def _treads(call, point, centre, value, noise) -> np.ndarray:
    """The height of the steps of a y that is rounded (to n bits, to float32); 0 where it is not.

    Such treads may be whole fractions of every step of the ladder, all powers of two, which then
    sees a straight line.  They show where J does not predict y at a tiny step that is none.
    """
    rng = np.random.default_rng(5)
    size, one = np.abs(point), np.maximum(np.abs(point), 1)

    def gaps(step: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        moved = point + step * rng.uniform(0.5, 1.0, (4, len(point)))
        gap = np.abs(call(moved) - centre - (moved - point) @ value.T)
        return gap, np.abs(moved - point) @ np.abs(value).T

    rounded = np.isfinite(centre)
    try:
        # Of x's own size, lest a log near 0 look rough; and of 1, lest x + ½ look like a tread.
        for step in (2.0**-26 * size, 2.0**-26 * one):
            gap, expected = gaps(step)
            rounded &= np.any(gap > np.maximum(1e-3 * expected, 100 * noise), axis=0)
        height = gaps(2.0**-14 * one)[0].max(axis=0) if rounded.any() else 0.0
    except Exception:  # outside f's domain
        return np.zeros(len(centre))
    return np.where(rounded & np.isfinite(height), height, 0.0)


def _contradicted(call, point, value, error, noise) -> bool:
    """Whether y says otherwise than J along a random direction, at two steps far finer than most.

    Curvature makes them differ, too, but 16 times less at the finer of the two.
    """
    rng = np.random.default_rng(6)
    one = np.maximum(np.abs(point), 1)
    move = one * rng.uniform(0.5, 1, len(point)) * rng.choice([-1.0, 1.0], len(point))
    h = 2.0**-16 * np.array([[1.0], [0.25]])
    plus, minus = point + h * move, point - h * move
    try:
        right, left = np.split(call(np.concatenate([plus, minus])), 2)
    except Exception:  # outside f's domain
        return False
    wide, fine = (right - left - (plus - minus) @ value.T) / h
    rounding = 4 * (noise + EPS * np.abs(value) @ one) / h[1]  # x + ½ rounds as 1 does, not as x
    return bool(np.any(np.abs(fine) > np.abs(fine - wide) + 2 * error @ np.abs(move) + rounding))


def _power_of_two(a: np.ndarray) -> np.ndarray:
    """The power of two at or above a, so that x ± h carries no rounding of its own."""
    return 2.0 ** np.ceil(np.log2(np.maximum(a, 1e-300)))


def _ladder(call, point, centre, noise, widest):
    """Value, error (both (D_out, D_in)), step and kink of all columns, a few at a time."""
    dims_in, dims_out = point.size, centre.size
    value, error = np.full((dims_out, dims_in), np.nan), np.full((dims_out, dims_in), np.inf)
    step, kink = np.full(dims_in, np.nan), 0.0
    width = max(1, CHUNK // (2 * max(dims_in, dims_out)))
    for start in range(0, dims_in, width):
        columns = np.arange(start, min(start + width, dims_in))
        v, e, s, q = _columns(call, point, columns, centre, noise, widest)
        value[:, columns], error[:, columns], step[columns] = v.T, e.T, s
        kink = max(kink, q)
    return value, error, step, kink


def _columns(call, point, columns, centre, noise, widest):
    """Value, error (both (columns, D_out)), step and kink of some columns: walk down the ladder."""
    m, n = len(columns), len(centre)
    value, error = np.full((m, n), np.nan), np.full((m, n), np.inf)
    used, corner = np.full((m, n), np.nan), np.zeros((m, n))
    magnitude = np.abs(point[columns])
    coarsest = widest * _power_of_two(np.maximum(magnitude, 1.0))
    # Steps below a fixed fraction of |x_j| could fall between the values a float32 function can
    # tell apart: it would look constant.  (An x_j of 0 says nothing about scale: 10⁻³ is assumed.)
    finest = FINEST * np.where(magnitude > 0, np.maximum(magnitude, 1e-9), 1e-3)
    active, previous, failure, level = np.arange(m), None, None, 0
    while active.size:
        h = coarsest[active] * RATIO**-level
        j, k = columns[active], np.arange(active.size)
        plus, minus = np.repeat(point[None], len(j), 0), np.repeat(point[None], len(j), 0)
        plus[k, j] += h
        minus[k, j] -= h
        try:
            both = call(np.concatenate([plus, minus]))
        except Exception as problem:  # outside f's domain; a finer step may be inside
            both, failure = np.full((2 * len(j), n), np.nan), problem
        right, left = both[: len(j)], both[len(j) :]
        up, down = (plus[k, j] - point[j])[:, None], (point[j] - minus[k, j])[:, None]
        odd = [(right - left) / (up + down)]
        even = [(right - centre) / up - (centre - left) / down]
        largest = np.fmax(noise, EPS * np.fmax(np.abs(right), np.abs(left)))  # fmax passes over NaN
        rounding = 1.5 * np.where(np.isfinite(largest), largest, noise) / h[:, None]
        if previous is not None:
            was_odd, was_even = previous
            for p in range(1, min(ORDERS, len(was_odd)) + 1):
                # Central differences err in h², h⁴, …; the corner term in h, h³, ….
                odd.append(odd[-1] + (odd[-1] - was_odd[p - 1]) / (RATIO ** (2 * p) - 1))
                even.append(even[-1] + (even[-1] - was_even[p - 1]) / (RATIO ** (2 * p - 1) - 1))
                truncation = np.maximum(
                    np.abs(odd[p] - odd[p - 1]), np.abs(odd[p] - was_odd[p - 1])
                )
                bend = np.abs(even[p]) / 2
                estimate = truncation + bend + rounding
                better = estimate < error[active]  # False for NaN
                r, c = active[np.nonzero(better)[0]], np.nonzero(better)[1]
                value[r, c], error[r, c] = odd[p][better], estimate[better]
                corner[r, c] = bend[better]
                used[r, c] = np.broadcast_to(h[:, None], better.shape)[better]
        # A finer step has more rounding; once rounding alone exceeds the best error, stop.
        go_on = (h / RATIO >= finest[active]) & np.any(rounding < error[active], axis=1)
        previous = ([o[go_on] for o in odd], [e[go_on] for e in even])
        active, level = active[go_on], level + 1
    if failure is not None and not np.any(np.isfinite(value)):
        raise failure
    worst = np.argmax(error, axis=1)
    return value, error, used[np.arange(m), worst], float(corner.max(initial=0.0))
