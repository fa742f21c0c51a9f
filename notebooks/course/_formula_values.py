"""What a formula is worth: a tree from `_formula_parse`, evaluated at the points of a layer.

A number has rank 0, one value per channel rank 1, a matrix rank 2.
"""

from __future__ import annotations

import numpy as np

from ._formula_layers import STEPS, Mistake, Point, points
from ._formula_parse import PARTIAL, REDUCTIONS, index_names, nodes, symbols
from ._formula_words import Unreadable

COUNTS = frozenset("KNMLT")  # letters for how many maps there are
MAX_SUMS = 3  # one inside the other: each of them takes STEPS times as long
NO_MATRIX = "this layer has no matrix W."
RANKS = {0: "a number", 1: "one value per channel", 2: "a matrix"}
NODES = {
    "num": "num", "sym": "symbol", "neg": "neg", "call": "call", "bars": "bars", "+": "add",
    "-": "subtract", "*": "multiply", "/": "divide", "^": "power", "T": "transposed",
    "p": "density", "deriv": "derivative", "d": "differential", "over": "over",
}  # fmt: skip
ELEMENTWISE = {
    "log": np.log, "ln": np.log, "log2": np.log2, "lg": np.log10, "exp": np.exp, "sqrt": np.sqrt,
}  # fmt: skip
OF_A_MATRIX = {
    "det": np.linalg.det,
    "tr": np.trace,
    "inv": np.linalg.inv,
    "eigvals": np.linalg.eigvals,
}
NO_SYMBOL = {  # why a letter is not in a formula
    **dict.fromkeys("tb", "{} shifts, and a shift changes no volume."),
    **dict.fromkeys("xyz", "the log-determinant is a number for the map; {} itself is not in it."),
}


class Evaluator:
    """Values of a tree at one point; dimensions that do not fit raise :class:`Mistake`."""

    no_symbol = NO_SYMBOL
    single_step = False  # dh_i/dh_{i−1} stood outside any sum

    def __init__(self, layer: str, point: Point) -> None:
        self.layer = layer
        self.point = point

    def __call__(self, tree: tuple) -> np.ndarray:
        return getattr(self, NODES[tree[0]])(*tree[1:])

    def num(self, value: float) -> np.ndarray:
        return np.array(value)

    def neg(self, inner: tuple) -> np.ndarray:
        return -self(inner)

    def transposed(self, inner: tuple) -> np.ndarray:
        return self(inner).T

    def differential(self, variable: str, index: tuple) -> np.ndarray:
        raise Unreadable(f"A derivative needs two d, as dz/dx has; your d {variable} stands alone.")

    def symbol(self, name: str, index: tuple) -> np.ndarray:
        known = self.point.symbols
        if name == "I":
            return np.eye(len(known["J"]))
        if name not in known:
            reason = self.no_symbol.get(name, "“{}” has no meaning in this formula.")
            raise Mistake("symbol", reason.format(name))
        return known[name]

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
        value = self(inner)
        rank = value.ndim
        if name in PARTIAL:
            name = "sum"
        if name in REDUCTIONS:
            return np.asarray(getattr(np, name)(value))
        if name in ("abs", "sign"):
            return getattr(np, name)(value)
        if name in ELEMENTWISE:
            if rank == 2:
                raise Mistake("det", self.no_determinant(name, value))
            if np.iscomplexobj(value):
                value = np.where(np.abs(value.imag) < 1e-12, value.real, np.nan)
            return ELEMENTWISE[name](value)
        if name == "diag":
            if rank == 0:
                raise Mistake("dimension", "diag takes a vector or a matrix, not a number.")
            return np.diag(value)
        if rank == 2:
            return np.asarray(OF_A_MATRIX[name](value))
        if name == "inv":
            return 1 / value
        if inner[:2] == ("sym", "W"):  # read as the width, for there is no matrix of this name
            raise Mistake("symbol", NO_MATRIX)
        hint = " Did you mean diag(s)?" if rank == 1 else ""
        if inner[:2] == ("sym", "w"):
            hint = " Did you mean W? A small w is the width."
        raise Mistake("dimension", f"{name} takes a matrix, not {RANKS[rank]}.{hint}")

    def no_determinant(self, name: str, value: np.ndarray) -> str:
        if len(value) > 1 and np.array_equal(value, np.diag(np.diag(value))):
            return (
                "a diagonal matrix has zeros beside its diagonal, and log 0 = −∞: take the "
                "entries of s themselves, or the determinant |det …|."
            )
        return f"you take the {name} of a matrix: its determinant, |det …|, is missing."

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
        if a.ndim < 2:
            return np.power(a, b)
        if b not in (-2, -1, 1, 2, 3):
            raise Mistake("dimension", "a matrix is raised to −1 or to a small whole power.")
        return np.linalg.matrix_power(a, int(b))


class LayerEvaluator(Evaluator):
    """One layer's: an index has no value here, a Σ runs over channels, pixels or entries of s."""

    no_symbol = NO_SYMBOL | {
        "s": "here the layer's parameter is W; s belongs to the LU form and to the scales."
    }

    def __init__(self, layer: str, point: Point) -> None:
        super().__init__(layer, point)
        self.worked_out: dict[tuple, np.ndarray] = {}

    def __call__(self, tree: tuple) -> np.ndarray:
        if tree not in self.worked_out:  # a formula may say the same many times
            self.worked_out[tree] = super().__call__(tree)
        return self.worked_out[tree]

    def density(self, of: str) -> np.ndarray:
        raise Mistake("density", "one layer's log-determinant has no density p in it.")

    def symbol(self, name: str, index: tuple) -> np.ndarray:
        if name == "W" and name not in self.point.symbols:
            name = "w"  # where no matrix is about, H·W is height times width
        return super().symbol(name, index)

    def derivative(self, top: tuple, bottom: tuple) -> np.ndarray:
        jacobian = self.point.symbols["J"]
        return np.linalg.inv(jacobian) if top[0] in "xg" else jacobian

    def call(self, name: str, inner: tuple) -> np.ndarray:
        if name in PARTIAL and self.layer == "affine_coupling" and self(inner).ndim == 1:
            raise Mistake(
                "axis", "that sums over some of the axes; s has three: channels, height, width."
            )
        return super().call(name, inner)

    def over(self, name: str, indices: tuple, low: tuple | None, high: tuple | None, body: tuple):
        """Σ or ∏ over pixels, or over channels."""
        if self.layer.endswith("coupling"):
            if (found := self.every_entry(name, (low, high), body)) is not None:
                return found
        while low is high is None and body[:2] == ("over", name) and body[3] is body[4] is None:
            indices, body = indices + body[2], body[5]  # Σ_i Σ_j Σ_k is Σ_{i,j,k}
        total, repeat = (np.sum, np.multiply) if name == "sum" else (np.prod, np.power)
        value, count = self(body), self.count(low, high)
        named = set(indices) & index_names(body)
        sizes = self.point.symbols
        pixels = float(sizes["h"] * sizes["w"])
        if value.ndim == 1:
            if len(indices) == 3 and len(named) == 1:  # Σ_{i,j,k} log|s_k|: pixels and channels
                return repeat(total(value), pixels)
            if not named and high in (("sym", "h", ()), ("sym", "w", ())):
                return repeat(value, count)
            if count not in (None, float(sizes["c"])):
                raise Mistake("range", "s has one value per channel: its sum runs over c of them.")
            return np.asarray(total(value))
        if named:
            return value  # an inner sum has taken this index along
        if count is None and len(indices) == 2:
            count = pixels  # Σ_ij
        if count is None and not value.any():
            return value  # Σ log 1 is 0, over whatever it runs
        if count is None:
            raise Mistake(
                "sum", "nothing under your Σ depends on its index: say its range, or write h·w."
            )
        return repeat(value, count)

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
        if high is None or not symbols(high) <= self.point.symbols.keys():
            return None
        ends = [self(end) for end in (low or ("num", 1.0), high)]
        if any(end.ndim or np.iscomplexobj(end) for end in ends):
            raise Mistake("range", "your sum runs to what is no number; its range is 1 … c, say.")
        return float(ends[1]) - float(ends[0]) + 1


class FlowEvaluator(Evaluator):
    """The whole flow's: a Σ runs over its steps, and an index is the number of one."""

    no_symbol = NO_SYMBOL | dict.fromkeys(
        "hwcsW", "“{}” belongs to one layer. Question 1 asks for any flow: use dz/dx."
    )

    def __init__(self, layer: str, point: Point) -> None:
        super().__init__(layer, point)
        self.bound: dict[str, float] = {}  # the indices of the sums we are inside

    def density(self, of: str) -> np.ndarray:
        return np.exp(np.array(self.point.log_p[of]))

    def symbol(self, name: str, index: tuple) -> np.ndarray:
        if name in self.bound and not index:
            return np.array(self.bound[name])
        if name == "J" and index:
            end = self.position(index)
            return self.jacobian(end, end - 1)
        return super().symbol(name, index)

    def position(self, index: tuple) -> int:
        """The value of an index such as i−1 or K."""
        total, sign = 0.0, 1.0
        for value in index:
            if value in ("+", "-"):
                sign = 1.0 if value == "+" else -1.0
            elif isinstance(value, float):
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
        end, start = self.place(*top), self.place(*bottom)
        if end == start:
            raise Mistake("index", "the derivative of a thing by itself is 1; check the indices.")
        return self.jacobian(end, start)

    def place(self, variable: str, index: tuple) -> int:
        """Behind which step a variable stands: x before the first, z behind the last."""
        if variable in "hf" and index and index[0] not in ("θ", "x"):
            return self.position(index)
        if variable == "h":
            raise Mistake("index", "h needs its index, as in dh_i/dh_{i-1}.")
        return 0 if variable in "xg" else STEPS

    def call(self, name: str, inner: tuple) -> np.ndarray:
        if name in ("sum", "prod") and index_names(inner) & set("ijkn") - set(self.bound):
            return self.over(name, (), None, None, inner)  # Σ with its index left to be guessed
        return super().call(name, inner)

    def over(self, name: str, indices: tuple, low: tuple | None, high: tuple | None, body: tuple):
        """Σ or ∏ over the steps of the flow."""
        used = index_names(body)
        index = indices[0] if indices else min(used, default="i")
        shift = int(shifted(body))
        first = 1 - shift if low is None else int(self.end(low))
        last = STEPS - shift if high is None else int(self.end(high))
        if index not in used:
            raise Mistake("sum", f"nothing under your Σ depends on {index}.")
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
        return np.asarray(getattr(np, name)(values, axis=0))

    def end(self, tree: tuple) -> float:
        """A bound of a sum over steps, such as 1, K or K−1."""
        value = -1
        if tree[0] == "num":
            value = tree[1]
        elif tree[0] == "sym" and tree[1] in COUNTS | {"n", "k"}:
            value = STEPS
        elif tree[0] in ("+", "-"):
            right = self.end(tree[2])
            value = self.end(tree[1]) + (right if tree[0] == "+" else -right)
        if not 0 <= value <= STEPS + 1 or value % 1:
            raise Mistake("range", "the sum runs over the steps of the flow, i = 1 … K.")
        return value


def shifted(tree: tuple) -> bool:
    """True when the steps are written dh_{i+1}/dh_i."""
    return any("+" in part[1] for node in nodes(tree) if node[0] == "deriv" for part in node[1:])


def values(layer: str, tree: tuple) -> tuple[list[np.ndarray], bool]:
    """The tree at every point, and whether one step stood for the whole flow."""
    out, single = [], False
    with np.errstate(all="ignore"):
        for point in points(layer):
            evaluator = (FlowEvaluator if layer == "flow" else LayerEvaluator)(layer, point)
            try:
                out.append(evaluator(tree))
            except (np.linalg.LinAlgError, OverflowError, ZeroDivisionError, FloatingPointError):
                out.append(np.array(np.nan))
            single |= evaluator.single_step
    return out, single


def agree(ours: np.ndarray, theirs: np.ndarray) -> np.ndarray:
    """Equal at every point to rounding; undefined only where the other one is."""
    return np.isclose(ours, theirs, rtol=1e-9, atol=1e-9, equal_nan=True).all(axis=-1)
