"""What the symbols and a tree of them are worth at the chosen points.

A tree from `_formula_parse` is evaluated with NumPy: a number has rank 0, one value per channel
rank 1, a matrix rank 2.  The points are fixed, and chosen so that no wrong formula can agree by
accident: h ≠ w, det W < 0, W not symmetric, s of both signs, c odd, even and 1.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import lru_cache

import numpy as np

from ._formula_parse import PARTIAL
from ._formula_words import Unreadable

COUNTS = frozenset("KNMLT")  # letters for how many maps there are
STEPS = 3  # the flow at our points is h₀ = x → h₁ → h₂ → h₃ = z
MAX_SUMS = 3  # one inside the other: each of them takes STEPS times as long
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
    target: float
    words: str  # how a message names this place
    steps: list[np.ndarray] = field(default_factory=list)  # Jacobians dh_i/dh_{i−1}
    log_p: dict[str, float] = field(default_factory=dict)


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
    """the points of one layer, always the same."""
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
                    total,
                    f"det dz/dx = {det:g}",
                    steps,
                    {"z": log_p_z, "x": log_p_z + total},
                )
            )
            continue
        if layer == "actnorm":
            symbols = {"s": s, "b": rng.normal(size=c), "J": np.kron(np.eye(h * w), np.diag(s))}
            target = h * w * np.log(np.abs(s)).sum()
            words = f"h = {h}, w = {w}, s = ({', '.join(f'{v:g}' for v in scale)})"
        elif layer == "conv1x1":
            matrix = _matrix(rng, c, det)
            symbols = {
                "W": matrix,
                "J": np.kron(np.eye(h * w), matrix),
                "λ": np.linalg.eigvals(matrix),
                "σ": np.linalg.svd(matrix, compute_uv=False),
            }
            target = h * w * np.log(abs(det))
            words = f"h = {h}, w = {w}, det W = {det:g}"
        elif layer == "lu":
            p = np.eye(c)[np.r_[1:c, 0]]
            lower = np.tril(rng.normal(size=(c, c)), -1) + np.eye(c)
            upper = np.triu(rng.normal(size=(c, c)), 1)
            matrix = p @ lower @ (upper + np.diag(s))
            symbols = {"P": p, "L": lower, "U": upper, "s": s, "W": matrix}
            symbols["J"] = np.kron(np.eye(h * w), matrix)
            target = np.log(np.abs(s)).sum()
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
            target = np.log(s).sum()
            words = f"h = {h}, w = {w}, c = {2 * c}"
        symbols |= {k: np.array(float(v)) for k, v in sizes.items()}
        made.append(Point(symbols, float(target), words))
    return tuple(made)


# -- evaluation --------------------------------------------------------------------------------
NO_MATRIX = "this layer has no matrix W."
RANKS = {0: "a number", 1: "one value per channel", 2: "a matrix"}


class Evaluator:
    """Values of a tree at one point; dimensions that do not fit raise :class:`Mistake`."""

    def __init__(self, layer: str, point: Point) -> None:
        self.layer = layer
        self.point = point
        self.bound: dict[str, float] = {}  # index names of the sums we are inside
        self.single_step = False  # dh_i/dh_{i−1} stood outside any sum
        self.worked_out: dict[tuple, np.ndarray] = {}

    def __call__(self, tree: tuple) -> np.ndarray:
        if self.layer == "flow":
            return getattr(self, NODES[tree[0]])(*tree[1:])
        if tree not in self.worked_out:  # outside the flow no index has a value: once is enough
            self.worked_out[tree] = getattr(self, NODES[tree[0]])(*tree[1:])
        return self.worked_out[tree]

    def num(self, value: float) -> np.ndarray:
        return np.array(value)

    def neg(self, inner: tuple) -> np.ndarray:
        return -self(inner)

    def transposed(self, inner: tuple) -> np.ndarray:
        return self(inner).T

    def density(self, of: str) -> np.ndarray:
        if self.layer != "flow":
            raise Mistake("density", "one layer's log-determinant has no density p in it.")
        return np.exp(np.array(self.point.log_p[of]))

    def symbol(self, name: str, index: tuple) -> np.ndarray:
        known = self.point.symbols
        if name in self.bound and not index:
            return np.array(self.bound[name])
        if name == "J" and index and self.layer == "flow":
            end = self.position(index)
            return self.jacobian(end, end - 1)
        if name == "W" and name not in known and "w" in known:
            return known["w"]  # where no matrix is about, H·W is height times width
        if name == "I":
            return np.eye(len(known["J"]))
        if name in known:
            return known[name]
        reasons = {
            "W": NO_MATRIX,
            "s": "here the layer's parameter is W; s belongs to the LU form and to the scales.",
            "t": "t shifts, and a shift changes no volume.",
            "b": "b shifts, and a shift changes no volume.",
        }
        if name in "xyz":
            reason = f"the log-determinant is a number for the map; {name} itself is not in it."
        elif self.layer == "flow" and name in "hwcsW":
            reason = f"“{name}” belongs to one layer. Question 1 asks for any flow: use dz/dx."
        else:
            reason = reasons.get(name, f"“{name}” has no meaning in this formula.")
        raise Mistake("symbol", reason)

    def position(self, index: tuple) -> int:
        """the value of an index such as i−1 or K."""
        total, sign = 0.0, 1.0
        for value in index:
            if value in ("+", "-"):
                sign = 1.0 if value == "+" else -1.0
                continue
            if isinstance(value, float):
                total += sign * value
            elif value in self.bound:
                total += sign * self.bound[value]
            elif value in COUNTS:
                total += sign * STEPS
            else:
                self.single_step = True
                total += sign * 2
        if not 0 <= total <= STEPS + 1:
            raise Mistake("range", "the sum leaves the flow: the maps go from h_0 = x to h_K = z.")
        return int(min(total, STEPS))  # the deck writes z = h_{K+1}, the paper z = h_K

    def jacobian(self, end: int, start: int) -> np.ndarray:
        """dh_end/dh_start as a product of the steps between."""
        low, high = sorted((end, start))
        product = np.eye(3)
        for step in self.point.steps[low:high]:
            product = step @ product
        return product if end >= start else np.linalg.inv(product)

    def derivative(self, top: tuple, bottom: tuple) -> np.ndarray:
        if self.layer != "flow":
            upside_down = top[0] in "x" or (top[0] == "g")
            jacobian = self.point.symbols["J"]
            return np.linalg.inv(jacobian) if upside_down else jacobian
        places = []
        for variable, index in (top, bottom):
            if variable in "hf" and index and index[0] not in ("θ", "x"):
                places.append(self.position(index))
            else:
                if variable == "h":
                    raise Mistake("index", "h needs its index, as in dh_i/dh_{i-1}.")
                places.append({"x": 0, "g": 0}.get(variable, STEPS))
        if places[0] == places[1]:
            raise Mistake("index", "the derivative of a thing by itself is 1; check the indices.")
        return self.jacobian(*places)

    def differential(self, variable: str, index: tuple) -> np.ndarray:
        raise Unreadable(f"A derivative needs two d, as dz/dx has; your d {variable} stands alone.")

    def bars(self, inner: tuple) -> np.ndarray:
        value = self(inner)
        if value.ndim == 2:
            raise Mistake(
                "det",
                "bars around a matrix are read as its determinant, which can be negative: "
                "write both, |det …|.",
            )
        return np.abs(value)

    def call(self, name: str, inner: tuple) -> np.ndarray:
        free = index_names(inner) & set("ijkn") - set(self.bound)
        if self.layer == "flow" and name in ("sum", "prod") and free:
            return self.over(name, (), None, None, inner)  # Σ with its index left to be guessed
        value = self(inner)
        rank = value.ndim
        if name in ("log", "ln", "log2", "lg", "exp", "sqrt"):
            if rank == 2 and np.array_equal(value, np.diag(np.diag(value))) and len(value) > 1:
                raise Mistake(
                    "det",
                    "a diagonal matrix has zeros beside its diagonal, and log 0 = −∞: take the "
                    "entries of s themselves, or the determinant |det …|.",
                )
            if rank == 2:
                raise Mistake(
                    "det", f"you take the {name} of a matrix: its determinant, |det …|, is missing."
                )
            if np.iscomplexobj(value):
                value = np.where(np.abs(value.imag) < 1e-12, value.real, np.nan)
            function = {"log": np.log, "ln": np.log, "log2": np.log2, "lg": np.log10}.get(name)
            return (function or getattr(np, name))(value)
        if name in ("abs", "sign"):
            return getattr(np, name)(value)
        if name in PARTIAL:
            if self.layer == "affine_coupling" and rank == 1:
                raise Mistake(
                    "axis", "that sums over some of the axes; s has three: channels, height, width."
                )
            name = "sum"
        if name in ("sum", "mean", "prod"):
            return np.asarray(getattr(np, name)(value))
        if name == "diag":
            if rank == 0:
                raise Mistake("dimension", "diag takes a vector or a matrix, not a number.")
            return np.diag(value)
        if rank != 2:
            if name == "inv":
                return 1 / value
            if inner[:2] == ("sym", "W"):  # read as the width, for there is no matrix of this name
                raise Mistake("symbol", NO_MATRIX)
            hint = (
                " Did you mean W? A small w is the width."
                if inner[:2] == ("sym", "w")
                else " Did you mean diag(s)?"
                if rank == 1
                else ""
            )
            raise Mistake("dimension", f"{name} takes a matrix, not {RANKS[rank]}.{hint}")
        if name == "det":
            return np.asarray(np.linalg.det(value))
        if name == "tr":
            return np.asarray(np.trace(value))
        return np.linalg.inv(value) if name == "inv" else np.linalg.eigvals(value)

    def add(self, left: tuple, right: tuple, sign: float = 1.0) -> np.ndarray:
        a, b = self(left), self(right)
        if a.ndim != b.ndim and 2 in (a.ndim, b.ndim) or a.shape != b.shape and a.ndim * b.ndim:
            raise Mistake("dimension", f"you add {RANKS[a.ndim]} and {RANKS[b.ndim]}.")
        return a + sign * b

    def subtract(self, left: tuple, right: tuple) -> np.ndarray:
        return self.add(left, right, -1.0)

    def multiply(self, left: tuple, right: tuple) -> np.ndarray:
        a, b = self(left), self(right)
        if a.ndim == 0 or b.ndim == 0:
            return a * b
        if a.shape[-1] != b.shape[0] or (a.ndim, b.ndim) == (1, 2):
            raise Mistake("dimension", f"you multiply {RANKS[a.ndim]} by {RANKS[b.ndim]}.")
        return a @ b if a.ndim == 2 else a * b

    def divide(self, left: tuple, right: tuple) -> np.ndarray:
        a, b = self(left), self(right)
        if b.ndim == 2:
            if a.ndim:
                raise Mistake("dimension", "you divide by a matrix.")
            return a * np.linalg.inv(b)
        if a.ndim and b.ndim and a.shape != b.shape:
            raise Mistake("dimension", f"you divide {RANKS[a.ndim]} by {RANKS[b.ndim]}.")
        return a / b

    def power(self, left: tuple, right: tuple) -> np.ndarray:
        a, b = self(left), self(right)
        if b.ndim:
            raise Mistake("dimension", f"an exponent is a number; yours is {RANKS[b.ndim]}.")
        if a.ndim == 2:
            if b not in (-2, -1, 1, 2, 3):
                raise Mistake("dimension", "a matrix is raised to −1 or to a small whole power.")
            return np.linalg.matrix_power(a, int(b))
        return np.power(a, b)

    def over(self, name: str, indices: tuple, low: tuple | None, high: tuple | None, body: tuple):
        """Σ or ∏ over an index: steps of the flow, pixels, or channels."""
        total = np.sum if name == "sum" else np.prod
        used = index_names(body)
        sizes = self.point.symbols
        if self.layer == "flow":
            first = 1 if low is None else int(self.small(low))
            shift = 1 if shifted(body) else 0
            last = STEPS - shift if high is None else int(self.small(high))
            index = indices[0] if indices else next(iter(used), "i")
            if index not in used:
                raise Mistake("sum", f"nothing under your Σ depends on {index}.")
            if low is None:
                first -= shift
            if last + shift == STEPS + 1:
                last -= 1  # the deck's z = h_{K+1}
            if not (0 <= first <= last <= STEPS):
                raise Mistake("range", "the range of the sum is empty, or leaves the flow.")
            if index in self.bound:
                raise Mistake("sum", f"two of your sums, one in the other, run over {index}.")
            if len(self.bound) == MAX_SUMS:
                raise Mistake("sum", "more sums stand inside one another than a flow needs.")
            before = self.single_step
            values = []
            for value in range(first, last + 1):
                self.bound[index] = float(value)
                values.append(self(body))
            del self.bound[index]
            self.single_step = before
            return np.asarray(total(np.array(values), axis=0))
        if self.layer.endswith("coupling"):
            if (found := self.every_entry(name, (low, high), body)) is not None:
                return found
        while low is high is None and body[:2] == ("over", name) and body[3] is body[4] is None:
            indices, body = indices + body[2], body[5]  # Σ_i Σ_j Σ_k is Σ_{i,j,k}
        value = self(body)
        if value.ndim == 1 and self.layer in ("actnorm", "lu") and len(indices) == 3:
            if len(used) == 1 and used < set(indices):  # Σ_{i,j,k} log|s_k|: pixels and channels
                pixels = float(sizes["h"] * sizes["w"])
                return total(value) * pixels if name == "sum" else total(value) ** pixels
        count = self.count(low, high)
        if value.ndim == 1:
            if high in (("sym", "h", ()), ("sym", "w", ())) and not set(indices) & used:
                return value * count if name == "sum" else value**count
            if count not in (None, float(sizes["c"])):
                raise Mistake("range", "s has one value per channel: its sum runs over c of them.")
            return np.asarray(total(value))
        if set(indices) & used:
            return value  # an inner sum has taken this index along
        if count is None and len(indices) == 2:
            count = float(sizes["h"] * sizes["w"])  # Σ_ij runs over the pixels
        if count is None and not value.any():
            return value  # Σ log 1 is 0, over whatever it runs
        if count is None:
            raise Mistake(
                "sum", "nothing under your Σ depends on its index: say its range, or write h·w."
            )
        return value * count if name == "sum" else value**count

    def every_entry(self, name: str, bounds: tuple, body: tuple) -> np.ndarray | None:
        """A coupling's Σ_i Σ_j Σ_k log s_ijk: the ranges together run over all of s."""
        count = self.count(*bounds)
        while body[:2] == ("over", name):
            more, body = self.count(*body[3:5]), body[5]
            count = None if None in (count, more) else count * more
        value = self(body)
        if value.ndim != 1:
            return None
        if count not in (None, len(value)):
            raise Mistake("range", "your sum's range is not that of s, which has h·w·c/2 entries.")
        return np.asarray(getattr(np, name)(value))

    def count(self, low: tuple | None, high: tuple | None) -> float | None:
        """How many values an index runs through, where its range says so."""
        if high is None or not symbols_known(high, self.point.symbols):
            return None
        ends = [self(end) for end in (low or ("num", 1.0), high)]
        if any(end.ndim or np.iscomplexobj(end) for end in ends):
            raise Mistake("range", "your sum runs to what is no number; its range is 1 … c, say.")
        return float(ends[1]) - float(ends[0]) + 1

    def small(self, tree: tuple) -> float:
        """A bound of a sum over steps, such as 1, K or K−1."""
        if tree[0] == "num":
            value = tree[1]
        elif tree[0] == "sym" and tree[1] in COUNTS | {"n", "k"}:
            value = STEPS
        elif tree[0] in ("+", "-"):
            right = self.small(tree[2])
            value = self.small(tree[1]) + (right if tree[0] == "+" else -right)
        else:
            value = -1
        if not 0 <= value <= STEPS + 1 or value % 1:
            raise Mistake("range", "the sum runs over the steps of the flow, i = 1 … K.")
        return value


NODES = {
    "num": "num", "sym": "symbol", "neg": "neg", "call": "call", "bars": "bars", "+": "add",
    "-": "subtract", "*": "multiply", "/": "divide", "^": "power", "T": "transposed",
    "p": "density", "deriv": "derivative", "d": "differential", "over": "over",
}  # fmt: skip


def index_names(tree: object) -> set[str]:
    """Index letters used anywhere below."""
    if not isinstance(tree, tuple) or not tree:
        return set()
    if tree[0] == "sym":
        return {v for v in tree[2] if isinstance(v, str) and v not in "+-"}
    if tree[0] == "deriv":
        found = [v for _, index in tree[1:] for v in index]
        return {v for v in found if isinstance(v, str) and v not in ("+", "-", "θ", "K")}
    return set().union(*(index_names(part) for part in tree[1:]))


def shifted(tree: object) -> bool:
    """True when the steps are written dh_{i+1}/dh_i."""
    if not isinstance(tree, tuple) or not tree:
        return False
    if tree[0] == "deriv":
        return any("+" in index for _, index in tree[1:])
    return any(shifted(part) for part in tree[1:])


def symbols_known(tree: object, known: dict) -> bool:
    if not isinstance(tree, tuple) or not tree:
        return True
    if tree[0] == "sym":
        return tree[1] in known
    return all(symbols_known(part, known) for part in tree[1:])


def values(layer: str, tree: tuple) -> tuple[list[np.ndarray], bool]:
    """the tree at every point, and whether one step stood for the whole flow."""
    out, single = [], False
    with np.errstate(all="ignore"):
        for point in points(layer):
            evaluator = Evaluator(layer, point)
            try:
                out.append(evaluator(tree))
            except (np.linalg.LinAlgError, OverflowError, ZeroDivisionError, FloatingPointError):
                out.append(np.array(np.nan))
            single |= evaluator.single_step
    return out, single


def agree(ours: list[np.ndarray], theirs: list[np.ndarray]) -> bool:
    """Equal at every point to rounding; undefined only where the other one is."""
    return all(
        a.ndim == b.ndim == 0 and bool(np.isclose(a, b, rtol=1e-9, atol=1e-9, equal_nan=True))
        for a, b in zip(ours, theirs, strict=True)
    )
