"""How an answer is judged: its values at chosen points, and what they look like if wrong."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from .attempt import SECONDS, Budget, Outcome, attempt

if TYPE_CHECKING:
    from .exercise import Exercise


@dataclass(frozen=True)
class Case:
    """A point to try: what it is, in words that fit after "for", and the arguments."""

    name: str
    args: tuple


@dataclass(frozen=True)
class Verdict:
    """ "right", "wrong" or "not done", and the sentence that says why."""

    status: str
    message: str = ""
    printed: str = ""


RIGHT = Verdict("right", "All points agree.")
NOTHING = "The function returns nothing yet: write its body, and its `return`."


def judge_values(exercise: Exercise, fn: Callable) -> Verdict:
    """Compare `fn` with the exercise's truth at all its cases.

    Order of the diagnosis: not done; a raise, a time-out or a changed argument; the values of a
    known mutant; the input handed back; type, shape, NaN; a sign or a constant factor; the first
    value that differs.
    """
    outcomes = _run(exercise, fn)
    printed = next((o.printed for o in outcomes if o.printed), "")
    return replace(_compare(exercise, outcomes), printed=printed)


def judge_layer(exercise: Exercise, fn: Callable) -> Verdict:
    """As `judge_values`, for `fn(x, *parameters) -> (y, logdet)`, and let `reference.check` speak.

    Where y is right and the log-determinant is wrong in a way no mutant names, the message is
    that of `reference.check`, which measures the Jacobian and names the likely mistake.
    """
    verdict = judge_values(exercise, fn)
    known = {m.says for m in exercise.mutants if m.says}
    if verdict.status != "wrong" or verdict.message in known:
        return verdict
    case = exercise.cases[0]
    outcome = attempt(fn, case.args, _argument_names(exercise))
    if outcome.trouble or not isinstance(outcome.value, tuple) or len(outcome.value) != 2:
        return verdict
    if outcome.value[1] is None or outcome.value[1] is Ellipsis:
        return verdict  # a part not written yet, and that has been said
    truth = _truth(exercise)(*case.args)
    if _difference(outcome.value[0], truth[0], exercise.rtol):
        return verdict  # y itself is wrong; the Jacobian of something else would only confuse
    raised = []

    def forward(x: np.ndarray) -> tuple:
        inner = attempt(fn, (x, *case.args[1:]))
        if inner.trouble:
            raised.append(inner.trouble)
            raise ValueError(inner.trouble)
        return inner.value

    try:
        from reference.check import check

        report = check(forward, case.args[0])
    except (ImportError, ValueError, TypeError):
        return verdict  # the comparison of values has already said what is wrong
    if report or raised:  # it raised on batches that only `check` makes
        return verdict
    return replace(verdict, message=f"For {case.name}: {report.message}")


def _run(exercise: Exercise, fn: Callable) -> list[Outcome]:
    """The outcomes at the cases in order, up to the first that went wrong."""
    outcomes: list[Outcome] = []
    budget = Budget(SECONDS)
    names = _argument_names(exercise)
    for case in exercise.cases:
        outcome = attempt(fn, case.args, names, budget)
        outcomes.append(outcome)
        if outcome.trouble or outcome.undone:
            break
    return outcomes


def _argument_names(exercise: Exercise) -> tuple[str, ...]:
    code = getattr(exercise.solution, "__code__", None)
    return code.co_varnames[: code.co_argcount] if code else ()


def _truth(exercise: Exercise) -> Callable:
    return exercise.truth or exercise.solution


def _compare(exercise: Exercise, outcomes: list[Outcome]) -> Verdict:
    last, case = outcomes[-1], exercise.cases[len(outcomes) - 1]
    if last.undone:
        if len(outcomes) == 1:
            return Verdict("not done", NOTHING)
        return Verdict("wrong", f"For {case.name} it returns nothing: is a `return` missing?")
    if last.trouble:
        if len(outcomes) == 1:
            return Verdict("wrong", last.trouble)
        trouble = last.trouble[0].lower() + last.trouble[1:]
        return Verdict("wrong", f"For {case.name}: {trouble}")

    truths = [_truth(exercise)(*case.args) for case in exercise.cases]
    values = [o.value for o in outcomes]
    names = exercise.returns
    differences = [
        _difference(v, t, exercise.rtol, names) for v, t in zip(values, truths, strict=True)
    ]
    if not any(differences):
        return RIGHT
    for mutant in exercise.mutants:
        if mutant.says and _coincides(mutant.fn, exercise, values):
            return Verdict("wrong", mutant.says)
    if all(
        case.args and _agree(v, case.args[0], exercise.rtol)
        for v, case in zip(values, exercise.cases, strict=True)
    ):
        return Verdict("wrong", "It returns its first argument unchanged.")
    pattern = _pattern(values, truths, exercise.rtol, names)
    if pattern:
        return Verdict("wrong", pattern)
    first = next(k for k, d in enumerate(differences) if d)
    return Verdict("wrong", f"For {exercise.cases[first].name}: {differences[first]}")


def _coincides(mutant: Callable, exercise: Exercise, values: list) -> bool:
    """Whether the values are those of a known wrong answer, at every point."""
    for case, value in zip(exercise.cases, values, strict=True):
        wrong = attempt(mutant, case.args)
        if wrong.trouble or not _agree(value, wrong.value, exercise.rtol):
            return False
    return True


def _agree(got: Any, expected: Any, rtol: float) -> bool:
    return not _difference(got, expected, rtol)


def _labels(names: tuple[str, ...], count: int) -> list[str]:
    """What a message calls each of `count` returned parts."""
    return [*names[:count], *(f"part {k + 1}" for k in range(len(names), count))]


def _difference(got: Any, expected: Any, rtol: float, names: tuple[str, ...] = ()) -> str:
    """Empty if `got` is `expected` up to `rtol`, else a sentence about the first difference."""
    if not isinstance(expected, tuple):
        subject = names[0] if names else "the result"
        return _wrong_kind(got, expected, subject) or _wrong_value(got, expected, rtol, subject)
    labels = _labels(names, len(expected))
    wanted = f"a tuple ({', '.join(labels)})"
    if not isinstance(got, tuple):
        return f"it should return {wanted}; it returned {_kind(got)}."
    if len(got) != len(expected):
        return f"it should return {wanted}; it returned a tuple of {len(got)}."
    parts = zip(got, expected, labels, strict=True)
    sentences = (_difference(value, truth, rtol, (label,)) for value, truth, label in parts)
    return next(filter(None, sentences), "")


def _wrong_kind(got: Any, expected: Any, subject: str) -> str:
    """Why `got` is nothing that could be compared number by number, or ""."""
    if type(got).__module__.split(".")[0] == "torch":
        return (
            f"{subject} is a torch tensor; this exercise wants NumPy "
            "(`tensor.detach().numpy()` turns one into the other)."
        )
    if isinstance(expected, (str, bool, type(None), list, dict)):
        return ""
    if isinstance(got, (list, tuple, dict, set)):
        wanted = f"an array of shape {np.shape(expected)}" if np.ndim(expected) else "a number"
        how = ""
        if isinstance(got, tuple):
            how = " A comma makes a tuple: return one thing alone."
        elif isinstance(got, list) and np.ndim(expected):
            how = " (`np.array(...)` turns a list into an array.)"
        return f"{subject} is a {type(got).__name__}; it should be {wanted}.{how}"
    if got is None or got is Ellipsis:
        return f"{subject} is {got}: that part is still missing."
    return ""


def _wrong_value(got: Any, expected: Any, rtol: float, subject: str) -> str:
    if isinstance(expected, (str, bool, type(None))):
        if got == expected and type(got) is type(expected):
            return ""
        return f"{subject} should be {expected!r}; it is {_short_repr(got)}."
    try:
        value, truth = np.asarray(got), np.asarray(expected)
    except Exception:
        value = np.asarray(None)
    if value.dtype == object and all(isinstance(v, (int, float, np.number)) for v in value.flat):
        value = value.astype(float)  # made with dtype=object: plain numbers all the same
    if value.dtype.kind not in "biufc":
        return f"{subject} should be made of numbers; it is {_kind(got)}."
    if truth.dtype.kind not in "biufc":  # compared with an argument that is a function
        return "" if got is expected else f"{subject} is {_kind(got)}."
    if value.shape != truth.shape:
        return f"{subject} should have shape {truth.shape}; it has shape {value.shape}."
    if value.dtype.kind == "c" and truth.dtype.kind != "c":
        return f"{subject} is complex; it should be real."
    if value.dtype in (np.float16, np.float32) and truth.dtype == np.float64:
        return f"{subject} is {value.dtype}; it should be float64, or digits are lost."
    if value.size == 0:
        return ""
    flags = value.dtype == truth.dtype == bool
    value, truth = value.astype(complex), truth.astype(complex)
    scale = np.abs(truth[np.isfinite(truth)]).max(initial=0.0) or 1.0
    with np.errstate(all="ignore"):
        same = (np.abs(value - truth) <= rtol * scale) | (value == truth)
    same |= np.isnan(value) & np.isnan(truth)
    if same.all():
        return ""
    index = tuple(int(k) for k in np.argwhere(~same)[0])
    place = f"{subject}[{', '.join(map(str, index))}]" if index else subject
    many = f" {int((~same).sum())} of {same.size} entries differ." if same.size > 1 else ""
    wanted, found = _apart(truth[index], value[index])
    if flags:
        wanted, found = bool(truth[index]), bool(value[index])
    return f"{place} should be {wanted}; it is {found}.{many}"


def _pattern(values: list, truths: list, rtol: float, names: tuple[str, ...]) -> str:
    """A sign or one constant factor that explains every value of the one part that is wrong."""
    if not isinstance(truths[0], tuple):
        return _factor(values, truths, rtol)
    count = len(truths[0])
    if not all(isinstance(v, tuple) and len(v) == count for v in values):
        return ""
    pairs = list(zip(values, truths, strict=True))
    wrong = [k for k in range(count) if not all(_agree(v[k], t[k], rtol) for v, t in pairs)]
    if len(wrong) != 1:
        return ""
    (k,) = wrong
    sentence = _factor([v[k] for v, _ in pairs], [t[k] for _, t in pairs], rtol)
    return f"{_labels(names, count)[k]}: {sentence[0].lower()}{sentence[1:]}" if sentence else ""


_LOGS = {
    1 / np.log(2): " Is that a logarithm to base 2? The natural one is `np.log`.",
    1 / np.log(10): " Is that a logarithm to base 10? The natural one is `np.log`.",
}


def _factor(values: list, truths: list, rtol: float) -> str:
    """A sign or one constant factor that explains every value, for arrays or numbers."""
    if not all(isinstance(v, (np.ndarray, np.generic, int, float)) for v in values):
        return ""
    if any(np.iscomplexobj(v) for v in values):
        return ""
    try:
        got = np.concatenate([np.ravel(v) for v in values]).astype(float)
        want = np.concatenate([np.ravel(t) for t in truths]).astype(float)
        shapes = all(np.shape(v) == np.shape(t) for v, t in zip(values, truths, strict=True))
    except (ValueError, TypeError):
        return ""
    if not shapes or got.size < 2 or not np.isfinite([got, want]).all() or not (want != 0).any():
        return ""
    factor = float(got @ want / (want @ want))
    if factor == 0 or np.abs(got - factor * want).max() > rtol * np.abs(want).max():
        return ""
    if abs(factor - 1) < 1e-3:  # an ε somewhere: no factor would help to find it
        return ""
    if abs(factor + 1) < 1e-9:
        return "Every value has the wrong sign."
    named = next((text for log, text in _LOGS.items() if np.isclose(factor, log)), "")
    return f"Every value is {factor:.6g} times what it should be.{named}"


def _apart(a: complex, b: complex) -> tuple[str, str]:
    """Two different numbers, with as many digits as it takes to see the difference."""
    for digits in (6, 9, 12, 17):
        pair = _number(a, digits), _number(b, digits)
        if pair[0] != pair[1]:
            break
    return pair


def _number(z: complex, digits: int) -> str:
    if z.imag:
        return f"{z.real:.{digits}g}{z.imag:+.{digits}g}i"
    return f"{z.real:.{digits}g}"


def _kind(value: Any) -> str:
    if isinstance(value, np.ndarray):
        return f"an array of shape {value.shape}"
    if value is None:
        return "None"
    name = type(value).__name__
    return f"{'an' if name[0] in 'aeiou' else 'a'} {name}"


def _short_repr(value: Any) -> str:
    try:
        text = repr(value)
    except Exception:
        return _kind(value)
    return text if len(text) <= 60 else text[:60] + "…"
