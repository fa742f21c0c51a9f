"""How a layer answers: called kindly, its pair (y, logdet) taken as arrays, refusals put in words.

Whether the numbers are right is :mod:`reference.check`'s question.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from reference.adapters import from_torch, is_torch
from reference.report import Item, Report


@dataclass
class Subject:
    name: str
    forward: Callable
    inverse: Callable | None
    layers: Sequence
    notes: Sequence[str] = ()


class Stop(Exception):
    """Nothing more can be checked."""


@dataclass
class Ledger:
    """Collects what is found while checking."""

    name: str
    shape: tuple[int, ...]
    items: list[Item] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    mistakes: list[str] = field(default_factory=list)
    analytic: np.ndarray = field(default_factory=lambda: np.zeros(0))
    numeric: np.ndarray = field(default_factory=lambda: np.zeros(0))
    tolerance: np.ndarray = field(default_factory=lambda: np.zeros(0))
    round_trip: float | None = None
    round_trip_tolerance: float | None = None
    structure: str = "unknown"

    def ok(self, name: str, detail: str) -> None:
        self.items.append(Item(name, True, detail))

    def fail(self, name: str, detail: str, *mistakes: str, stop: bool = False) -> None:
        item = Item(name, False, detail)
        self.items += [item] * (item not in self.items)
        either = " or ".join(mistakes)  # one line's candidates; other lines add to them
        self.mistakes += [either] * bool(either and either not in self.mistakes)
        if stop:
            raise Stop

    def unknown(self, name: str, detail: str) -> None:
        self.items.append(Item(name, None, detail))

    def report(self) -> Report:
        return Report(
            layer=self.name,
            shape=self.shape,
            items=tuple(self.items),
            analytic=self.analytic,
            numeric=self.numeric,
            tolerance=self.tolerance,
            round_trip=self.round_trip,
            round_trip_tolerance=self.round_trip_tolerance,
            structure=self.structure,
            mistake="; ".join(self.mistakes) or None,
            notes=tuple(self.notes),
        )


def as_subject(layer: object, inverse: Callable | None) -> Subject:
    if inverse is not None and not callable(inverse):
        raise TypeError(f"inverse must be a function y -> x, not {type(inverse).__name__}")
    if isinstance(layer, type):
        raise TypeError(f"layer is the class {layer.__name__}; make an object of it first")
    if is_torch(layer):
        layer = from_torch(layer, inverse)
        inverse = None
    forward = getattr(layer, "forward", None)
    if callable(forward):
        own = getattr(layer, "inverse", None)
        layers = getattr(layer, "layers", ())
        if not isinstance(layers, (list, tuple)):
            layers = ()
        if not all(callable(getattr(sub, "forward", None)) for sub in layers):
            layers = ()
        name = getattr(layer, "name", None)
        name = name if isinstance(name, str) else type(layer).__name__
        notes = layer.notes if isinstance(layer, from_torch) else ()
        return Subject(name, forward, inverse or (own if callable(own) else None), layers, notes)
    if callable(layer):
        name = getattr(layer, "__name__", type(layer).__name__)
        own = getattr(layer, "inverse", None)  # an object that is called, and has its inverse
        inverse = inverse or (own if callable(own) else None)
        return Subject("the function" if name == "<lambda>" else name, layer, inverse, ())
    raise TypeError(
        f"layer is {layer!r:.60}; accepted: an object with forward(x) -> (y, logdet), "
        "a function x -> (y, logdet), or a torch module"
    )


def as_batch(x: np.ndarray) -> np.ndarray:
    if not isinstance(x, (np.ndarray, list, tuple)):
        raise TypeError(f"x must be an array, not {type(x).__name__}")
    x = np.asarray(x)
    if x.dtype != np.float64:
        raise TypeError(
            f"x must be float64, not {x.dtype}: write x.astype(np.float64); torch: x.double(). "
            "A lower precision cannot tell a right formula from one that is nearly right"
        )
    if x.ndim == 0:
        raise ValueError("x is a single number; accepted: a batch, first axis N, e.g. x[None]")
    if x.size == 0:
        raise ValueError(f"x is empty: its shape is {x.shape}; at least one example is needed")
    if not np.all(np.isfinite(x)):
        raise ValueError("x contains NaN or infinite values")
    return x


def quiet(f: Callable, a: np.ndarray):
    """f of a copy of a, NumPy's complaints about NaN silenced: the report makes its own."""
    with np.errstate(all="ignore"), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return f(a.copy())


def guarded(f: Callable, a: np.ndarray, name: str, ledger: Ledger):
    """f(a); an exception, nothing at all, or a changed argument becomes a line of the report."""
    given = a.copy()
    try:
        with np.errstate(all="ignore"), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            out = f(given)
    except NotImplementedError as problem:
        text = f"raised NotImplementedError: {str(problem) or 'not written yet'}"
        ledger.fail(name, text, "not done", stop=True)
    except Exception as problem:
        text = f"raised {type(problem).__name__}: {problem}"
        if name == "forward" and a.ndim == 3:
            text += f" (x has three axes {a.shape}; an image is a batch of one, x[None])"
        if isinstance(getattr(f, "__self__", None), from_torch):
            if "dtype" in text:
                text += " (use module.double(), and register plain tensors as buffers)"
            elif a.ndim == 4:
                text += f" (an array {a.shape} is taken as (N, H, W, C); a tensor as (N, C, H, W))"
        ledger.fail(name, text, "raises", stop=True)
    if out is None or out is Ellipsis:
        ledger.fail(name, f"returned {out}: not written yet, or no return", "not done", stop=True)
    if not np.array_equal(given, a):
        ledger.fail(
            f"{name} leaves its input alone",
            "the input was changed in place; work on a copy (y = x * s, not x *= s)",
            "changes its input",
        )
    return out


def as_array(value: object, name: str, what: str, ledger: Ledger) -> np.ndarray:
    """value as a real float64 array, or a line that says what it is instead."""
    if is_torch(value):
        text = f"{what} is a torch tensor; pass the module itself, or from_torch(function)"
        ledger.fail(name, text, "torch tensor", stop=True)
    if not isinstance(value, (np.ndarray, np.generic, float, int)):
        text = f"{what} is a {type(value).__name__}, not an array"
        ledger.fail(name, text, "not an array", stop=True)
    array = np.asarray(value)
    if array.dtype in (np.float32, np.float16):
        text = f"{what} is {array.dtype}: 7 digits at best, so nothing can be proved; use float64"
        ledger.fail(name, text, "float32", stop=True)
    if array.dtype.kind not in "fiu":
        kind = (
            "complex: log of a negative number? |·| is missing"
            if array.dtype.kind == "c"
            else (f"of type {array.dtype}; float64 is expected")
        )
        name_of = ["absolute value missing"] if array.dtype.kind == "c" else ["wrong type"]
        ledger.fail(name, f"{what} is {kind}", *name_of, stop=True)
    return array.astype(np.float64)


def alike(a: np.ndarray, b: np.ndarray) -> bool:
    """The same answer twice, but for the last bits: threads may add up in another order."""
    scale = np.abs(a).max(initial=0.0, where=np.isfinite(a))
    return a.shape == b.shape and np.allclose(a, b, rtol=1e-12, atol=1e-14 * scale, equal_nan=True)


def first_call(subject: Subject, x: np.ndarray, ledger: Ledger):
    """Forward on x as given: the right kind of answer, the same answer twice."""
    y, logdet = answer(subject, x, ledger)
    if not all(map(alike, (y, logdet), answer(subject, x, ledger))):
        text = "two calls with the same x gave different answers; fix the seed, switch dropout off"
        ledger.fail("deterministic", text, "not deterministic", stop=True)
    if not ledger.items:
        ledger.ok("forward", "returns (y, logdet), the same twice, and leaves x alone")
    return y, logdet


def answer(subject: Subject, x: np.ndarray, ledger: Ledger) -> tuple[np.ndarray, np.ndarray]:
    """forward(x) as a pair of arrays, x kept from harm."""
    return as_pair(guarded(subject.forward, x, "forward", ledger), ledger)


def as_pair(out: object, ledger: Ledger) -> tuple[np.ndarray, np.ndarray]:
    if isinstance(out, (np.ndarray, np.generic)) or is_torch(out):
        text = "returned one array; a pair (y, logdet) is expected"
        ledger.fail("forward", text, "no log-det", stop=True)
    if not isinstance(out, (tuple, list)) or len(out) != 2:
        size = f" of {len(out)}" if isinstance(out, (tuple, list, dict, set)) else ""
        text = f"returned a {type(out).__name__}{size}; a pair (y, logdet) is expected"
        ledger.fail("forward", text, "not a pair", stop=True)
    if out[0] is None or out[1] is None:
        which = "y" if out[0] is None else "logdet"
        ledger.fail("forward", f"{which} is None: not written yet", "not done", stop=True)
    return as_array(out[0], "y", "y", ledger), as_array(out[1], "log-det", "the log-det", ledger)


def one_vector(subject: Subject) -> Subject:
    """A map of single vectors, in the clothes of a map of batches."""

    def forward(x: np.ndarray):
        pairs = [subject.forward(row) for row in x]
        return np.stack([p[0] for p in pairs]), np.array([p[1] for p in pairs], dtype=float)

    inverse = subject.inverse
    if inverse is not None:
        return Subject(
            subject.name, forward, lambda y: np.stack([inverse(row) for row in y]), subject.layers
        )
    return Subject(subject.name, forward, None, ())


def examples(subject, x, y, logdet, ledger):
    """Two or more examples, their number unlike any other axis so that a wrong axis shows.

    Returns x, y, log-det and, of those taken from the x that was given, their y and log-det in that
    batch (None if the layer takes one example at a time).
    """
    extra = np.random.default_rng(0)
    taken = {*x.shape[1:], x.shape[-1] / 2, x[0].size, 1}  # C/2: what a coupling sums
    wanted = next(k for k in (3, 2, *range(4, 5 + x.ndim)) if k not in taken)
    rows = np.unique(np.linspace(0, len(x) - 1, min(wanted, len(x))).astype(int))
    picked, whole = x[rows], (y[rows], logdet[rows] if logdet.shape == (len(x),) else None)
    made = []
    for i in range(wanted - len(picked)):
        base = picked[i % len(picked)]
        moved = base * (1 - 0.3 * extra.random(base.shape))
        made.append(np.where(base == 0, 0.1 * extra.standard_normal(base.shape), moved))
    batch = np.concatenate([picked, *(m[None] for m in made)]) if made else picked
    try:
        y_batch, logdet_batch = as_pair(quiet(subject.forward, batch), Ledger("", ()))
        if y_batch.shape[:1] != (wanted,) or not np.all(np.isfinite(y_batch)):
            raise ValueError
        if made:
            ledger.notes.append(
                f"{len(made)} of the {wanted} examples tried were made from x: 0.7 to 1 times it"
            )
        return batch, y_batch, logdet_batch, whole
    except (Stop, Exception):
        ledger.notes.append(
            f"it does not accept {wanted} examples at a time (or these), only {len(x)}: "
            "whether it mixes examples was not checked"
        )
        return x, y, logdet, None


def independent(subject, x, y, logdet, whole, ledger) -> None:
    """Example i alone, in company, and among all that were given: the same y, the same log-det."""
    k = len(whole[0])
    per_example = logdet.shape == (len(x),)  # another shape is a mistake by itself
    if not _unmoved(y[:k], logdet[:k] if per_example else None, *whole, ledger):
        return
    try:
        alone = [quiet(subject.forward, x[i : i + 1]) for i in range(len(x))]
        y_alone = np.concatenate([np.asarray(a[0]) for a in alone])
    except Exception:
        ledger.unknown("examples apart", "it does not accept a batch of one")
        return
    parts = [np.asarray(a[1]) for a in alone]
    shape = next((p.shape for p in parts if p.shape != (1,)), None)
    apart = np.concatenate(parts) if shape is None else None
    if not _unmoved(y, logdet if per_example else None, y_alone, apart, ledger):
        return
    if per_example and shape is not None:
        text = f"for a batch of one the log-det has shape {shape}; (1,) is expected (a squeeze?)"
        ledger.fail("examples apart", text, "not per example")
        return
    ledger.ok("examples apart", "nothing of one example depends on the others in the batch")


def _unmoved(y, logdet, other_y, other_logdet, ledger) -> bool:
    """Whether examples have the same y and log-det in other company, or a line that says no."""
    scale = np.abs(y).max() + 1e-300
    # "not <=": a NaN, such as a batch of one divided by its deviation of 0, is a difference.
    if other_y.shape != y.shape or not np.abs(other_y - y).max() <= 1e-9 * scale:
        text = "y of one example depends on the others in the batch (batch statistics?)"
        ledger.fail("examples apart", text, "mixes examples", stop=True)
    if logdet is None or other_logdet is None:
        return True
    finite = np.isfinite(logdet)  # the rest is named where it is compared
    gap = np.abs(other_logdet[finite] - logdet[finite])
    if not np.all(gap <= 1e-9 * (1 + np.abs(logdet[finite]))):
        text = "the log-det of one example depends on the others in the batch"
        ledger.fail("examples apart", text, "mixes examples")
        return False
    return True


def shape_of_logdet(logdet, x, ledger):
    """(N,) or a line that explains which axes were summed and which should have been."""
    n = len(x)
    if logdet.shape == (n,):
        return logdet, True
    if logdet.ndim == 0:
        text = (
            f"one number for the whole batch; one per example is expected: (N,), tried with N = {n}"
        )
        ledger.fail("shape of the log-det", text, "not per example")
    else:
        expected = f"expected (N,), tried with N = {n}: summed over every axis but the first"
        text = f"it has shape {logdet.shape} for x of shape {x.shape}; {expected}"
        too_few = logdet.ndim > 1 and len(logdet) == n
        mistake = "sum over too few axes" if too_few else "sum over the wrong axis"
        ledger.fail("shape of the log-det", text, mistake)
    return logdet, False


def double_precision(x, y, ledger) -> None:
    """x needs more than float32's 7 digits, as any random x does; then y must, too."""
    whole = np.array_equal(y, np.rint(y))  # floor(x), zeros: another mistake, named later
    if whole or np.any(x == x.astype(np.float32)):
        return
    if np.array_equal(y, y.astype(np.float32)):
        text = "every y is a float32 number: it computes in float32 inside; use float64"
        ledger.fail("precision", text, "float32", stop=True)
