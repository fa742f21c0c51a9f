"""Does a layer do what it says?  Its own log-det against a measured one, and there and back."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from reference.adapters import from_torch, is_torch, tensor_to_array
from reference.diagnose import Mistake, inverse_mistakes, logdet_mistakes
from reference.jacobian import EPS, MAX_DIM, jacobian
from reference.report import Item, Report
from reference.structure import describe

CERTAIN = 5e-7  # nats; a measurement less certain than this proves nothing (or 5e-9 per dimension)
SAFETY = 100  # round trips may err by this many times their estimated rounding


def check(
    layer: object,
    x: np.ndarray,
    inverse: Callable | None = None,
    *,
    max_dim: int = MAX_DIM,
) -> Report:
    """Compare a layer's log-det with log |det ∂y/∂x| measured at x, and inverse(forward(x)) with x.

    ``layer`` is an object with ``forward(x) -> (y, logdet)`` and, where it has one,
    ``inverse(y) -> x``; or such a forward function, its inverse given as ``inverse``; or a torch
    module (see :class:`reference.adapters.from_torch`).  ``x`` is a batch, float64, first axis N:
    (N, H, W, C) for the reference, (N, D) for vectors, in fact any shape; (N, C, H, W) where x is
    a torch tensor.  A vector (D,) is one example if the log-det is a scalar, else N scalars.

    Checked: forward returns a pair of finite float64 arrays, y as large as x, one natural
    log-det per example; it is deterministic, leaves x as it was and never mixes examples; the
    log-det agrees with the numeric one at up to three examples (one above 1024 dimensions);
    y can be undone at all; and the inverse undoes it, at y = forward(x) and at a y never seen.
    The inverse returns x alone, not a pair.

    The tolerance is the numeric Jacobian's own error bound (:func:`reference.jacobian`): no
    constant chosen by hand hides a mistake.  If it exceeds 5·10⁻⁷ nats (5·10⁻⁹ per dimension if
    that is more) the report fails rather than passes on a measurement that proves little.  Where x
    sits on the corner of a ReLU, x is moved by a thousandth and the report says so.  If x has one
    example, a second, (1 − 0.3 u) x with u uniform in [0, 1), is added (0.1 · normal where x is 0).

    A wrong layer gives a failing report, never an exception.  A wrong ``x`` raises TypeError (not
    an array, not float64) or ValueError (empty, NaN, more than ``max_dim`` numbers an example), a
    ``layer`` or ``inverse`` that cannot be called TypeError.

    >>> double = lambda x: (2 * x, np.full(len(x), x[0].size * np.log(2)))
    >>> bool(check(double, np.random.default_rng(0).normal(size=(2, 3)), lambda y: y / 2))
    True
    >>> check(lambda x: (2 * x, np.full(len(x), 3.0)), np.ones((2, 3))).mistake
    'log of base 2'
    >>> check(lambda x: (2 * x, np.full(len(x), np.log(2))), np.ones((2, 3))).mistake
    'mean for sum'
    """
    subject = _subject(layer, inverse)
    if is_torch(x):
        x = tensor_to_array(x)
        if not isinstance(layer, from_torch) and not is_torch(layer):
            subject = _subject(from_torch(subject.forward, subject.inverse), None)
    x = _batch(x)
    ledger = _Ledger(subject.name, x.shape, notes=list(subject.notes))
    try:
        _run(subject, x, ledger, max_dim)
    except _Stop:
        pass
    return ledger.report()


@dataclass
class _Subject:
    name: str
    forward: Callable
    inverse: Callable | None
    layers: Sequence
    notes: Sequence[str] = ()


class _Stop(Exception):
    """Nothing more can be checked."""


@dataclass
class _Ledger:
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
        self.items.append(Item(name, False, detail))
        either = " or ".join(mistakes)  # one line's candidates; other lines add to them
        self.mistakes += [either] * bool(either and either not in self.mistakes)
        if stop:
            raise _Stop

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


def _subject(layer: object, inverse: Callable | None) -> _Subject:
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
        return _Subject(name, forward, inverse or (own if callable(own) else None), layers, notes)
    if callable(layer):
        name = getattr(layer, "__name__", type(layer).__name__)
        own = getattr(layer, "inverse", None)  # an object that is called, and has its inverse
        inverse = inverse or (own if callable(own) else None)
        return _Subject("the function" if name == "<lambda>" else name, layer, inverse, ())
    raise TypeError(
        f"layer is {layer!r:.60}; accepted: an object with forward(x) -> (y, logdet), "
        "a function x -> (y, logdet), or a torch module"
    )


def _batch(x: np.ndarray) -> np.ndarray:
    if not isinstance(x, (np.ndarray, list, tuple)):
        raise TypeError(f"x must be an array, not {type(x).__name__}")
    x = np.asarray(x)
    if x.dtype != np.float64:
        raise TypeError(
            f"x must be float64, not {x.dtype}: write x.astype(np.float64). "
            "A lower precision cannot tell a right formula from one that is nearly right"
        )
    if x.ndim == 0:
        raise ValueError("x is a single number; accepted: a batch, first axis N, e.g. x[None]")
    if x.size == 0:
        raise ValueError(f"x is empty: its shape is {x.shape}; at least one example is needed")
    if not np.all(np.isfinite(x)):
        raise ValueError("x contains NaN or infinite values")
    return x


# --- the checks, in order -----------------------------------------------------------------------


def _run(subject: _Subject, x: np.ndarray, ledger: _Ledger, max_dim: int) -> None:
    y, logdet = _first_call(subject, x, ledger)
    if x.ndim == 1 and np.ndim(logdet) == 0 and y.shape == x.shape:
        subject, x = _one_vector(subject), x[None]  # a single vector with its scalar log-det
        y, logdet = subject.forward(x)
    dims = x[0].size
    if dims > max_dim:
        raise ValueError(
            f"an example of x has {dims} numbers, so its Jacobian would have {dims}² entries; the "
            f"limit is {max_dim}. Check a smaller x, or pass max_dim={dims}"
        )
    if y.ndim == 0 or len(y) != len(x) or y.size != x.size:
        detail = f"y has shape {y.shape} for x of shape {x.shape}; a bijection keeps N and the size"
        ledger.fail("shape of y", detail, "wrong shape", stop=True)
    if not np.all(np.isfinite(y)):
        ledger.fail("y is finite", "y has NaN or infinite values", "not finite", stop=True)

    x, y, logdet, batched = _examples(subject, x, y, logdet, ledger)
    if batched:
        _independent(subject, x, y, logdet, ledger)
    logdet, shaped = _shape_of_logdet(logdet, y, x, ledger)
    _double_precision(x, y, ledger)
    x, jacobians = _measure(subject, x, ledger, max_dim)
    again = _quiet(subject.forward, x)
    y = again[0]
    if shaped:
        logdet = again[1]
    n = len(jacobians)
    ledger.structure = describe(jacobians[0], x.shape[1:])
    ledger.ok("structure of J", ledger.structure)
    ledger.numeric = np.array([j.logabsdet for j in jacobians])
    ledger.tolerance = np.array(
        [j.logabsdet_error + 64 * EPS * (1 + abs(j.logabsdet)) for j in jacobians]
    )
    ledger.analytic = np.full(n, np.nan)
    _invertible(subject, x, y, jacobians, ledger)
    _agreement(subject, x, y, logdet, shaped, jacobians, ledger)
    _round_trip(subject, x, y, jacobians, ledger)
    _remarks(x, jacobians, ledger)


def _quiet(f: Callable, a: np.ndarray):
    """f of a copy of a, NumPy's complaints about NaN silenced: the report makes its own."""
    with np.errstate(all="ignore"), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return f(a.copy())


def _guarded(f: Callable, a: np.ndarray, name: str, ledger: _Ledger):
    """f(a); an exception, nothing at all, or a changed argument becomes a line of the report."""
    given = a.copy()
    try:
        with np.errstate(all="ignore"), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            out = f(given)
    except NotImplementedError:
        ledger.fail(name, "raised NotImplementedError: not written yet", "not done", stop=True)
    except Exception as problem:
        text = f"raised {type(problem).__name__}: {problem}"
        if name == "forward" and a.ndim == 3:
            text += f" (x has three axes {a.shape}; an image is a batch of one, x[None])"
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


def _array(value: object, name: str, what: str, ledger: _Ledger) -> np.ndarray:
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


def _first_call(subject: _Subject, x: np.ndarray, ledger: _Ledger):
    """Forward on x as given: the right kind of answer, the same answer twice."""
    out = _guarded(subject.forward, x, "forward", ledger)
    y, logdet = _pair(out, ledger)
    out = _guarded(subject.forward, x, "forward", ledger) if not ledger.items else out
    same = all(
        np.shape(a) == np.shape(b) and np.allclose(a, b, rtol=1e-12, atol=1e-300, equal_nan=True)
        for a, b in zip((y, logdet), out, strict=False)
    )
    if not same:
        text = "two calls with the same x gave different answers; fix the seed, switch dropout off"
        ledger.fail("deterministic", text, "not deterministic", stop=True)
    if not ledger.items:
        ledger.ok("forward", "returns (y, logdet), the same twice, and leaves x alone")
    return y, logdet


def _pair(out: object, ledger: _Ledger) -> tuple[np.ndarray, np.ndarray]:
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
    return _array(out[0], "y", "y", ledger), _array(out[1], "log-det", "the log-det", ledger)


def _one_vector(subject: _Subject) -> _Subject:
    """A map of single vectors, in the clothes of a map of batches."""

    def forward(x: np.ndarray):
        pairs = [subject.forward(row) for row in x]
        return np.stack([p[0] for p in pairs]), np.array([p[1] for p in pairs], dtype=float)

    inverse = subject.inverse
    if inverse is not None:
        return _Subject(
            subject.name, forward, lambda y: np.stack([inverse(row) for row in y]), subject.layers
        )
    return _Subject(subject.name, forward, None, ())


def _examples(subject, x, y, logdet, ledger):
    """Two or more examples, their number unlike any other axis so that a wrong axis shows.

    Returns x, y, log-det and whether the layer takes more than one example at a time.
    """
    extra = np.random.default_rng(0)
    picked = x[np.unique(np.linspace(0, len(x) - 1, min(3, len(x))).astype(int))]
    taken = set(x.shape[1:]) | {x[0].size, 1}
    wanted = next(k for k in (3, 2, *range(4, 4 + x.ndim)) if k not in taken)
    picked = picked[:wanted]
    made = []
    for i in range(wanted - len(picked)):
        base = picked[i % len(picked)]
        moved = base * (1 - 0.3 * extra.random(base.shape))
        made.append(np.where(base == 0, 0.1 * extra.standard_normal(base.shape), moved))
    batch = np.concatenate([picked, *(m[None] for m in made)]) if made else picked
    try:
        y_batch, logdet_batch = _pair(_quiet(subject.forward, batch), _Ledger("", ()))
        if y_batch.shape[:1] != (wanted,) or not np.all(np.isfinite(y_batch)):
            raise ValueError
        return batch, y_batch, logdet_batch, True
    except (_Stop, Exception):
        ledger.notes.append(
            f"it does not accept {wanted} examples at a time (or these), only {len(x)}: "
            "whether it mixes examples was not checked"
        )
        return x, y, logdet, False


def _independent(subject, x, y, logdet, ledger) -> None:
    """Example i alone and example i in company: the same y, the same log-det."""
    try:
        alone = [_quiet(subject.forward, x[i : i + 1]) for i in range(len(x))]
        y_alone = np.concatenate([np.asarray(a[0]) for a in alone])
    except Exception:
        ledger.unknown("examples apart", "it does not accept a batch of one")
        return
    scale = np.abs(y).max() + 1e-300
    # "not <=": a NaN, such as a batch of one divided by its deviation of 0, is a difference.
    if y_alone.shape != y.shape or not np.abs(y_alone - y).max() <= 1e-9 * scale:
        text = "y of one example depends on the others in the batch (batch statistics?)"
        ledger.fail("examples apart", text, "mixes examples", stop=True)
    if logdet.shape == (len(x),):  # another shape is a mistake of its own
        parts = [np.asarray(a[1]) for a in alone]
        shape = next((p.shape for p in parts if p.shape != (1,)), None)
        if shape is not None:
            text = f"for a batch of one the log-det has shape {shape}; (1,) is expected"
            ledger.fail("examples apart", text + " (a squeeze?)", "not per example")
            return
        finite = np.isfinite(logdet)  # the rest is named where it is compared
        apart, together = np.concatenate(parts)[finite], logdet[finite]
        if not np.all(np.abs(apart - together) <= 1e-9 * (1 + np.abs(together))):
            text = "the log-det of one example depends on the others in the batch"
            ledger.fail("examples apart", text, "mixes examples")
            return
    ledger.ok("examples apart", "nothing of one example depends on the others in the batch")


def _shape_of_logdet(logdet, y, x, ledger):
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
        expected = f"expected ({n},): summed over every axis but the first"
        text = f"it has shape {logdet.shape} for x of shape {x.shape}; {expected}"
        ledger.fail("shape of the log-det", text, "sum over the wrong axis")
    return logdet, False


def _double_precision(x, y, ledger) -> None:
    """x needs more than float32's 7 digits, as any random x does; then y must, too."""
    whole = np.array_equal(y, np.rint(y))  # floor(x), zeros: another mistake, named later
    if whole or np.any(x == x.astype(np.float32)):
        return
    if np.array_equal(y, y.astype(np.float32)):
        text = "every y is a float32 number: it computes in float32 inside; use float64"
        ledger.fail("precision", text, "float32", stop=True)


def _measure(subject, x, ledger, max_dim):
    """Numeric Jacobians; an example at a corner (ReLU) is moved off it, and the report says so."""
    dims = x[0].size
    count = len(x) if dims <= 1024 else 1
    x, jacobians = x.copy(), []
    rng = np.random.default_rng(2)
    for i in range(count):
        for attempt in range(4):
            try:
                J = jacobian(lambda p: _quiet(subject.forward, p)[0], x[i : i + 1], max_dim=max_dim)
            except Exception as problem:
                text = f"forward raised {type(problem).__name__} close to x: {problem}"
                ledger.fail("numeric log-det", text, "raises", stop=True)
            corner = J.kink > 1e-6 * (np.abs(J.value).max(initial=0.0) + 1e-300)
            blurred = corner or np.isfinite(J.logabsdet_error)  # not plainly singular
            if J.logabsdet_error <= _limit(dims) or not blurred or attempt == 3:
                break
            x[i] = x[i] * (1 - 1e-3 * rng.random(x[i].shape)) + 1e-3 * (x[i] == 0)
        if attempt:
            ledger.notes.append(
                f"example {i + 1} was moved by 0.1 %, away from a corner of the function"
            )
        jacobians.append(J)
    return x, jacobians


def _limit(dims: int) -> float:
    return max(CERTAIN, 5e-9 * dims)


def _invertible(subject, x, y, jacobians, ledger) -> None:
    """det J ≠ 0, of one sign, measured well enough; and no two x found with the same y."""
    name = "invertible"
    worst = max(jacobians, key=lambda j: j.logabsdet_error)
    if worst.logabsdet_error > _limit(x[0].size):
        finite = np.all(np.isfinite(worst.value))
        smooth = finite and worst.kink <= 1e-6 * (np.abs(worst.value).max() + 1e-300)
        singular = finite and np.linalg.svd(worst.value, compute_uv=False)
        rank_lost = finite and singular[-1] <= 1e-12 * singular[0]
        if finite and not np.isfinite(worst.logabsdet_error) and (smooth or rank_lost):
            text = "the Jacobian is singular at x, or too near to it: different x share one y"
            ledger.fail(name, text, "not invertible here", stop=True)
        text = (
            f"the numeric log-det is only certain to ±{worst.logabsdet_error:.1e} nats here, "
            "too little to prove anything: "
        )
        relative = np.max(worst.noise / (np.abs(y).max() + 1e-300))
        if not smooth or not finite:
            ledger.fail(
                name,
                text + "the function has a corner or a jump at x",
                "not differentiable here",
                stop=True,
            )
        if np.array_equal(y, y.astype(np.float32)) or relative > 1e-11:
            ledger.fail(name, text + "it seems to compute in float32 inside", "float32", stop=True)
        ledger.fail(
            name,
            text + "the function is rough or badly conditioned at x",
            "badly conditioned",
            stop=True,
        )
    if len({j.sign for j in jacobians}) > 1:
        text = "det J is positive at one example and negative at another, so 0 somewhere between"
        ledger.fail(name, text, "not invertible")
        return
    if _shares_value(subject, x[:1], y[:1]):
        ledger.fail(
            name,
            "two different x give the same y (one is the other with a sign flipped)",
            "not invertible",
        )
        return
    ledger.ok(name, f"det J is not 0, and {'positive' if jacobians[0].sign > 0 else 'negative'}")


def _shares_value(subject, x, y) -> bool:
    """Whether flipping the sign of one entry (or all) of x leaves y exactly as it was."""
    flat = x.ravel()
    places = np.nonzero(flat)[0][:64]
    flips = np.concatenate([np.eye(flat.size, dtype=bool)[places], np.ones((1, flat.size), bool)])
    flips = flips[np.any(flips & (flat != 0), axis=1)]
    points = np.where(flips, -flat, flat).reshape(-1, *x.shape[1:])
    try:
        others = np.asarray(_quiet(subject.forward, points)[0])
    except Exception:  # outside the domain, or one example at a time only
        return False
    return len(others) == len(points) and any(np.array_equal(o, y[0]) for o in others)


def _agreement(subject, x, y, logdet, shaped, jacobians, ledger) -> None:
    """The layer's log-det against the measured one; if they differ, why."""
    n, name = len(jacobians), "log-det"
    if not shaped:
        total = float(np.sum(logdet))
        numeric = ledger.numeric
        slack = ledger.tolerance.sum() + 1e-12 * abs(total)
        if np.all(np.abs(total - numeric) <= ledger.tolerance + 1e-12 * abs(total)):
            ledger.fail(name, "the number itself is right: repeat it, np.full(len(x), value)")
        elif n == len(x) and abs(total - numeric.sum()) <= slack:
            text = "summed up over its axes it is the sum over the whole batch"
            if logdet.ndim == 0:
                ledger.mistakes.append("summed over the batch")
                text = "it is the sum over the whole batch; sum each example by itself"
            ledger.fail(name, text)
        elif logdet.ndim == 0:
            found = logdet_mistakes(np.full(n, total), jacobians, x[:n], y[:n], ledger.tolerance)
            _blame(found, name, f"it is {total:.6g}, numerically {_few(numeric)}", ledger)
        else:
            ledger.unknown(name, "not comparable until its shape is right")
        return
    said = logdet[:n]
    ledger.analytic = said
    difference = np.abs(said - ledger.numeric)
    if np.all(difference <= ledger.tolerance):
        ledger.ok(
            name,
            f"agrees to {difference.max():.1e} nats; an error above "
            f"{2 * ledger.tolerance.max():.1e} would have been noticed",
        )
        return
    detail = f"it says {_few(said)}, numerically it is {_few(ledger.numeric)}"
    if _blame_step(subject, x, said, jacobians, ledger, detail):
        return
    found = logdet_mistakes(said, jacobians, x[:n], y[:n], ledger.tolerance)
    _blame(found, name, detail, ledger)


def _few(values: np.ndarray) -> str:
    """The first three numbers, to be read."""
    return ", ".join(f"{v:.6g}" for v in values[:3])


def _blame(found: list[Mistake], name: str, detail: str, ledger: _Ledger) -> None:
    detail += "".join(f"; {m.sentence}" for m in found[:3])
    ledger.fail(name, detail, *(m.name for m in found[:3]))


def _blame_step(subject, x, said, jacobians, ledger, detail) -> bool:
    """For a composition: which step's log-det is wrong, forgotten or counted twice."""
    if not 0 < len(subject.layers) <= 64:
        return False
    h, parts = x, []
    try:
        for k, sub in enumerate(subject.layers):
            label = f"step {k + 1} ({type(sub).__name__})"
            report = check(sub, h)
            if not report:
                ledger.fail(
                    "log-det",
                    f"{detail}; in {label}: {report.message}",
                    *([report.mistake] if report.mistake else []),
                )
                return True
            h, logdet = _quiet(sub.forward, h)
            parts.append((label, np.asarray(logdet)[: len(said)]))
    except Exception:  # not a plain chain of layers after all
        return False
    for mistake, words, guess in (
        ("step forgotten", "was left out", lambda p: ledger.numeric - p),
        ("step counted twice", "was counted twice", lambda p: ledger.numeric + p),
        ("one step only", "is all there is", lambda p: p),
    ):
        for label, part in parts:
            if np.any(part != 0) and np.all(np.abs(said - guess(part)) <= 2 * ledger.tolerance):
                ledger.fail(
                    "log-det",
                    f"{detail}; every step is right, but the log-det of {label} {words}",
                    mistake,
                )
                return True
    return False


def _round_trip(subject, x, y, jacobians, ledger) -> None:
    """inverse(forward(x)) = x, and forward(inverse(y)) = y at a y that forward never produced."""
    name = "round trip"
    if subject.inverse is None:
        ledger.unknown(name, "inverse not given, not checked")
        return
    n = len(jacobians)
    x, y = x[:n], y[:n]
    _quiet(
        subject.forward, x
    )  # an inverse that remembers its forward gets its chance, and is caught
    # Rounding in y is carried back by |J⁻¹|, rounding in x is there anyway.
    noise = [
        j.noise + EPS * (np.abs(b.ravel()) + np.abs(j.value) @ np.abs(a.ravel()))
        for j, a, b in zip(jacobians, x, y, strict=True)
    ]
    in_x = [
        np.abs(j.inverse) @ e + EPS * np.abs(a.ravel())
        for j, e, a in zip(jacobians, noise, x, strict=True)
    ]
    in_y = [e + np.abs(j.value) @ d for j, e, d in zip(jacobians, noise, in_x, strict=True)]
    tol_x = SAFETY * np.array(in_x).reshape(x.shape) + 1e-300
    tol_y = 10 * SAFETY * np.array(in_y).reshape(y.shape) + 1e-300
    ledger.round_trip_tolerance = float(tol_x.max())

    back = _back(subject, y, x.shape, "inverse", ledger)
    gap = np.abs(back - x)
    ledger.round_trip = float(gap.max()) if np.all(np.isfinite(gap)) else np.inf
    if not np.all(gap <= tol_x):
        try:
            again = np.asarray(_quiet(subject.forward, y)[0])
            again = again if again.shape == back.shape else None
        except Exception:
            again = None
        found = inverse_mistakes(x, y, back, again, jacobians, float(tol_x.max()))
        detail = f"inverse(forward(x)) differs from x by up to {ledger.round_trip:.1e}"
        detail += f" (rounding explains {ledger.round_trip_tolerance:.1e})"
        if not found:
            for k, sub in enumerate(subject.layers):
                report = check(sub, _reach(subject.layers[:k], x))
                if not report:
                    text = f"{detail}; in step {k + 1} ({type(sub).__name__}): {report.message}"
                    ledger.fail(name, text, *([report.mistake] if report.mistake else []))
                    return
            if subject.layers:
                detail += "; every step is undone rightly by itself: is the order reversed?"
                ledger.fail(name, detail, "steps in the wrong order")
                return
        _blame(found, name, detail, ledger)
        return

    # Nearby, along J, so that it stays in the range of forward; never seen, so not remembered.
    u = np.random.default_rng(3).random(x.shape)
    move = [
        j.value @ (1e-3 * (a + 1e-3) * b).ravel() for j, a, b in zip(jacobians, x, u, strict=True)
    ]
    fresh = y + np.array(move).reshape(y.shape)
    back = _back(subject, fresh, x.shape, "inverse at another y", ledger)
    try:
        there = np.asarray(_quiet(subject.forward, back)[0])
    except Exception:
        ledger.unknown("forward(inverse(y))", "forward does not accept inverse(y) at another y")
        return
    if not np.all(np.abs(there - fresh) <= tol_y):
        text = (
            "inverse works for the y that forward has just produced, and for no other: "
            f"forward(inverse(y)) differs from y by {np.abs(there - fresh).max():.1e}"
        )
        ledger.fail("forward(inverse(y))", text, "needs forward first")
        return
    ledger.ok(
        name,
        f"x comes back to {ledger.round_trip:.1e} "
        f"(rounding explains {ledger.round_trip_tolerance:.1e}), y likewise",
    )


def _reach(layers: Sequence, x: np.ndarray) -> np.ndarray:
    for sub in layers:
        x = _quiet(sub.forward, x)[0]
    return x


def _back(subject, y, shape, name, ledger) -> np.ndarray:
    """inverse(y) as an array of x's shape, or a line that says what it is instead."""
    out = _guarded(subject.inverse, y, name, ledger)
    if isinstance(out, (tuple, list)):
        text = "returned a pair; x alone is expected (inverse = lambda y: your_inverse(y)[0])"
        ledger.fail(name, text, "inverse returns a pair", stop=True)
    back = _array(out, name, "inverse(y)", ledger)
    if back.shape != shape:
        text = f"returned shape {back.shape} for x of shape {shape}"
        same = back.shape == y.shape and np.array_equal(back, y)
        name_of = "inverse is the identity" if same else "wrong shape"
        ledger.fail(name, text + "; it is y unchanged" * same, name_of, stop=True)
    if not np.array_equal(back, _array(_quiet(subject.inverse, y), name, "y", ledger), True):
        text = "two calls with the same y gave different answers"
        ledger.fail(name, text, "not deterministic", stop=True)
    return back


def _remarks(x, jacobians, ledger) -> None:
    """What these points cannot show."""
    shape = x.shape[1:]
    if np.all(np.abs(ledger.numeric) <= ledger.tolerance):
        if "permutation" not in ledger.structure and ledger.structure != "identity":
            ledger.notes.append(
                "the log-det is 0 here, so a wrong factor or sign cannot show: fine for a layer "
                "that keeps volume; otherwise use parameters that are not at their initial values"
            )
        return
    if len(shape) == 3 and shape[0] == shape[1]:
        ledger.notes.append("h = w here: mistaking one for the other cannot show")
    could_be_negative = ledger.structure.startswith(("diagonal", "block diagonal"))
    positive = all(j.sign > 0 and np.all(j.value.diagonal() >= 0) for j in jacobians)
    if could_be_negative and positive:
        ledger.notes.append("no factor is negative here: a missing |·| cannot show")
