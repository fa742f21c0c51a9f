"""Does a layer do what it says?  Its own log-det against a measured one, and there and back."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial

import numpy as np

from reference._answers import (
    Ledger,
    Stop,
    Subject,
    alike,
    answer,
    as_array,
    as_batch,
    as_subject,
    double_precision,
    examples,
    first_call,
    guarded,
    independent,
    one_vector,
    quiet,
    shape_of_logdet,
)
from reference.adapters import from_torch, is_torch, tensor_to_array
from reference.diagnose import Mistake, inverse_mistakes, logdet_mistakes
from reference.jacobian import EPS, MAX_DIM, Jacobian, jacobian
from reference.report import Report
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
    sits on the corner of a ReLU, x is moved by a thousandth and the report says so.  Three examples
    are tried (another number where an axis of x is as long as that, lest a wrong axis fit); if x
    has fewer, more are made, (1 − 0.3 u) x with u uniform in [0, 1), or 0.1 · normal where x is 0.
    The report says that too: a layer for whole numbers only needs as many examples given.

    A wrong layer gives a failing report, never an exception.  A wrong ``x`` raises TypeError (not
    an array, not float64) or ValueError (empty, NaN, more than ``max_dim`` numbers an example), a
    ``layer`` or ``inverse`` that cannot be called, or a float32 module that cannot be copied,
    TypeError.

    >>> double = lambda x: (2 * x, np.full(len(x), x[0].size * np.log(2)))
    >>> bool(check(double, np.random.default_rng(0).normal(size=(2, 3)), lambda y: y / 2))
    True
    >>> check(lambda x: (2 * x, np.full(len(x), 3.0)), np.ones((2, 3))).mistake
    'log of base 2'
    >>> check(lambda x: (2 * x, np.full(len(x), np.log(2))), np.ones((2, 3))).mistake
    'mean for sum'
    """
    subject = as_subject(layer, inverse)
    if is_torch(x):
        x = tensor_to_array(x)
        if not isinstance(layer, from_torch) and not is_torch(layer):
            subject = as_subject(from_torch(subject.forward, subject.inverse), None)
    x = as_batch(x)
    ledger = Ledger(subject.name, x.shape, notes=list(subject.notes))
    try:
        _run(subject, x, ledger, max_dim)
    except Stop:
        pass
    return ledger.report()


# --- the checks, in order -----------------------------------------------------------------------


def _run(subject: Subject, x: np.ndarray, ledger: Ledger, max_dim: int) -> None:
    y, logdet = first_call(subject, x, ledger)
    if x.ndim == 1 and np.ndim(logdet) == 0 and y.shape == x.shape:
        subject, x = one_vector(subject), x[None]  # a single vector with its scalar log-det
        y, logdet = answer(subject, x, ledger)
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

    x, y, logdet, whole = examples(subject, x, y, logdet, ledger)
    if whole is not None:
        independent(subject, x, y, logdet, whole, ledger)
    logdet, shaped = shape_of_logdet(logdet, x, ledger)
    double_precision(x, y, ledger)
    x, jacobians = _measure(subject, x, y, ledger, max_dim)
    y, again = answer(subject, x, ledger)
    logdet = again if shaped else logdet
    if not _is_chain(subject.layers, x, y):
        subject = replace(subject, layers=())
    n = len(jacobians)
    ledger.structure = describe(jacobians[0], x.shape[1:])
    ledger.ok("structure of J", ledger.structure)
    ledger.numeric = np.array([j.logabsdet for j in jacobians])
    ledger.tolerance = np.array(
        [j.logabsdet_error + 64 * EPS * (1 + abs(j.logabsdet)) for j in jacobians]
    )
    ledger.analytic = np.full(n, np.nan)
    _invertible(subject, x, y, jacobians, ledger)
    _agreement(subject, x, y, logdet, shaped, jacobians, ledger, max_dim)
    _round_trip(subject, x, y, jacobians, ledger, max_dim)
    _remarks(x, jacobians, ledger)


def _measure(subject, x, y, ledger, max_dim):
    """Numeric Jacobians; an example at a corner (ReLU) is moved off it, and the report says so."""
    dims = x[0].size
    count = len(x) if dims <= 1024 else 1
    x, jacobians = x.copy(), []
    rng = np.random.default_rng(2)
    measured = partial(jacobian, lambda p: quiet(subject.forward, p)[0], max_dim=max_dim)
    for i in range(count):
        for attempt in range(4):
            try:
                J = measured(x[i : i + 1])
                if J.logabsdet_error > _limit(dims) and not _rounds(J, y[i]):
                    wide = measured(x[i : i + 1], widest=2.0**8)  # for the like of 10⁻⁶ x + 1
                    bound = J.logabsdet_error + wide.logabsdet_error
                    if abs(wide.logabsdet - J.logabsdet) <= bound < np.inf:
                        J = min(J, wide, key=lambda j: j.logabsdet_error)
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
                f"example {i + 1} was moved by 0.1 %, away from a corner of the function, "
                "or from a point where it cannot be measured well enough"
            )
        jacobians.append(J)
    return x, jacobians


def _rounds(J: Jacobian, y: np.ndarray) -> bool:
    """Whether y has far more noise than float64 gives it."""
    return bool(np.max(J.noise) > 1e-11 * (np.abs(y).max() + 1e-300))


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
        if not smooth or not finite:
            what = "has a corner or a jump at x"
            if not finite:
                what = "is not defined all around x, which lies at the edge of its domain"
            ledger.fail(
                name,
                f"{text}the function {what}",
                "not differentiable here",
                stop=True,
            )
        if np.array_equal(y, y.astype(np.float32)) or _rounds(worst, y):
            text += "it seems to round on the way: float32 inside, or a quantisation"
            ledger.fail(name, text, "float32", stop=True)
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
    flat, scale = x.ravel(), max(np.abs(x).max(), np.abs(y).max())
    shows = np.abs(flat) > 1e-9 * scale  # a smaller number may be lost in x + b, rightly
    flips = np.concatenate([np.eye(flat.size, dtype=bool)[shows][:64], shows[None]])
    flips = flips[flips.any(axis=1)]
    points = np.where(flips, -flat, flat).reshape(-1, *x.shape[1:])
    try:
        others = np.asarray(quiet(subject.forward, points)[0])
    except Exception:  # outside the domain, or one example at a time only
        return False
    return len(others) == len(points) and any(np.array_equal(o, y[0]) for o in others)


def _agreement(subject, x, y, logdet, shaped, jacobians, ledger, max_dim) -> None:
    """The layer's log-det against the measured one; if they differ, why."""
    n, name = len(jacobians), "log-det"
    if not shaped:
        total, numeric = float(np.sum(logdet)), ledger.numeric
        slack = ledger.tolerance.sum() + 1e-12 * abs(total)
        if logdet.ndim > 1 and len(logdet) == len(x):  # some axis was left, each example is itself
            each = logdet.reshape(len(x), -1).sum(1)[:n]
            how = "summed over the axes left over, logdet.reshape(len(x), -1).sum(1), "
            if np.all(np.abs(each - numeric) <= ledger.tolerance + 1e-12 * np.abs(each)):
                ledger.fail(name, how + "it is right")
            else:
                found = logdet_mistakes(each, jacobians, x[:n], y[:n], ledger.tolerance)
                _blame(found, name, f"{how}it is {_few(each)}, numerically {_few(numeric)}", ledger)
        elif np.all(np.abs(total - numeric) <= ledger.tolerance + 1e-12 * abs(total)):
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
    if _few(said) == _few(ledger.numeric):  # alike to six digits
        detail += f"; they differ by up to {difference.max():.1e}"
    if subject.layers and _blame_step(subject.layers, x, said, ledger, detail, max_dim):
        return
    found = logdet_mistakes(said, jacobians, x[:n], y[:n], ledger.tolerance)
    _blame(found, name, detail, ledger)


def _few(values: np.ndarray) -> str:
    """The first three numbers, to be read."""
    return ", ".join(f"{v:.6g}" for v in values[:3])


def _blame(found: list[Mistake], name: str, detail: str, ledger: Ledger) -> None:
    detail += "".join(f"; {m.sentence}" for m in found[:3])
    ledger.fail(name, detail, *(m.name for m in found[:3]))


def _is_chain(layers: Sequence, x: np.ndarray, y: np.ndarray) -> bool:
    """Whether forward applies the layers one after the other (a net's own layers, it does not)."""
    try:
        for sub in layers:
            x = as_batch(quiet(sub.forward, x)[0])
    except Exception:
        return False
    return 0 < len(layers) <= 64 and alike(x, y)


def _wrong_step(layers, x, name, detail, ledger, max_dim) -> bool:
    """For a composition: blame the first step that is wrong by itself, if one is."""
    for k, sub in enumerate(layers):
        report = check(sub, x, max_dim=max_dim)
        if not report:
            text = f"{detail}; in {_step(k, sub)}: {report.message}"
            ledger.fail(name, text, *([report.mistake] if report.mistake else []))
            return True
        x = quiet(sub.forward, x)[0]
    return False


def _step(k: int, sub: object) -> str:
    return f"step {k + 1} ({type(sub).__name__})"


def _blame_step(layers, x, said, ledger, detail, max_dim) -> bool:
    """For a composition: which step's log-det is wrong, forgotten or counted twice."""
    if _wrong_step(layers, x, "log-det", detail, ledger, max_dim):
        return True
    parts = []
    for k, sub in enumerate(layers):
        x, logdet = quiet(sub.forward, x)
        parts.append((_step(k, sub), logdet[: len(said)]))
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


def _round_trip(subject, x, y, jacobians, ledger, max_dim) -> None:
    """inverse(forward(x)) = x, and forward(inverse(y)) = y at a y that forward never produced."""
    name = "round trip"
    if subject.inverse is None:
        ledger.unknown(name, "inverse not given, not checked")
        return
    n = len(jacobians)
    x, y = x[:n], y[:n]
    quiet(
        subject.forward, x
    )  # an inverse that remembers its forward gets its chance, and is caught
    tol_x, tol_y = _tolerances(x, y, jacobians, [j.noise for j in jacobians])
    ledger.round_trip_tolerance = float(tol_x.max())

    back = _back(subject, y, x.shape, "inverse", ledger)
    gap = np.abs(back - x)
    ledger.round_trip = float(gap.max()) if np.all(np.isfinite(gap)) else np.inf
    if not np.all(gap <= tol_x):
        try:
            again = np.asarray(quiet(subject.forward, y)[0])
            again = again if again.shape == back.shape else None
        except Exception:
            again = None
        detail = f"inverse(forward(x)) differs from x by up to {ledger.round_trip:.1e}"
        if ledger.round_trip == np.inf:
            detail = "inverse(forward(x)) has NaN or infinite values"
        detail += f" (rounding explains {ledger.round_trip_tolerance:.1e})"
        late = [note for note in subject.notes if note not in ledger.notes]
        if late:  # the adapter has seen why
            ledger.fail(name, f"{detail}; {late[0]}", "needs forward first")
            return
        found = inverse_mistakes(x, y, back, again, jacobians, float(tol_x.max()))
        if subject.layers and not found:
            if not _wrong_step(subject.layers, x, name, detail, ledger, max_dim):
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
    move = np.array(move).reshape(y.shape)  # no further than y itself: J is large near an edge
    fresh = y + move * min(1.0, 1e-3 * (1 + np.abs(y).max()) / (np.abs(move).max() + 1e-300))
    back = _back(subject, fresh, x.shape, "inverse at another y", ledger)
    try:
        there = np.asarray(quiet(subject.forward, back)[0])
    except Exception:
        ledger.unknown("forward(inverse(y))", "forward does not accept inverse(y) at another y")
        return
    # As it rounds at the new y: a black pixel's y of 0 has no rounding of its own, a fresh one has.
    tol_y = np.maximum(tol_y, _tolerances(back, fresh, jacobians, [j.noise for j in jacobians])[1])
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


def _tolerances(x, y, jacobians, noise) -> tuple[np.ndarray, np.ndarray]:
    """How far x and y may come back from where they were, entry by entry, given y's noise."""
    # Rounding in y is carried back by |J⁻¹|, rounding in x is there anyway.
    in_x, in_y = [], []
    for j, a, b, e in zip(jacobians, x, y, noise, strict=True):
        e = e + EPS * (np.abs(b.ravel()) + np.abs(j.value) @ np.abs(a.ravel()))
        in_x.append(np.abs(j.inverse) @ e + EPS * np.abs(a.ravel()))
        in_y.append(e + np.abs(j.value) @ in_x[-1])
    tol_x = SAFETY * np.array(in_x).reshape(x.shape) + 1e-300
    return tol_x, 10 * SAFETY * np.array(in_y).reshape(y.shape) + 1e-300


def _back(subject, y, shape, name, ledger) -> np.ndarray:
    """inverse(y) as an array of x's shape, or a line that says what it is instead."""

    def undone() -> np.ndarray:
        out = guarded(subject.inverse, y, name, ledger)
        if isinstance(out, (tuple, list)):
            text = "returned a pair; x alone is expected (inverse = lambda y: your_inverse(y)[0])"
            ledger.fail("inverse", text, "inverse returns a pair", stop=not out)
            out = out[0]  # as good as if it were x alone
        return as_array(out, name, "inverse(y)", ledger)

    back = undone()
    if back.shape != shape:
        text = f"returned shape {back.shape} for x of shape {shape}"
        same = back.shape == y.shape and np.array_equal(back, y)
        name_of = "inverse is the identity" if same else "wrong shape"
        ledger.fail(name, text + "; it is y unchanged" * same, name_of, stop=True)
    if not alike(back, undone()):
        text = "two calls with the same y gave different answers"
        ledger.fail(name, text, "not deterministic", stop=True)
    return back


def _remarks(x, jacobians, ledger) -> None:
    """What these points cannot show."""
    shape = x.shape[1:]
    if np.all(np.abs(ledger.numeric) <= ledger.tolerance):
        ledger.notes.append(
            "the log-det is 0 here, so a wrong factor or sign, or a term that is 0 at the start, "
            "cannot show: nothing is missed in a layer that always keeps volume (a permutation, an "
            "additive coupling); any other, check with parameters that are not at their start"
        )
        return
    if len(shape) == 3 and shape[0] == shape[1]:
        ledger.notes.append("h = w here: mistaking one for the other cannot show")
    could_be_negative = ledger.structure.startswith(("diagonal", "block diagonal"))
    positive = all(j.sign > 0 and np.all(j.value.diagonal() >= 0) for j in jacobians)
    if could_be_negative and positive:
        ledger.notes.append("no factor is negative here: a missing |·| cannot show")
