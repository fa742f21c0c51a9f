"""Exercises: what one is, and `check`, `hint` and `solution`, which the notebooks call.

An exercise is data: a stub, a solution, points to try, hints, and *mutants*, the wrong answers we
expect. A student's function is judged by its values at the points. If they coincide with those of
a mutant, the student is told that mutant's sentence, and so learns which mistake it was. The same
mutants test the exercise: every one must be rejected with its sentence (tests/test_exercises.py).
"""

from __future__ import annotations

import dataclasses
import difflib
import functools
import importlib
import inspect
import pkgutil
import re
import sys
import textwrap
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from html import escape
from types import CodeType, FunctionType
from typing import Any

from . import progress as _progress
from .attempt import Outcome
from .judge import Case, Verdict, judge_values


@dataclass(frozen=True)
class Mutant:
    """A wrong answer. `says` is told to a student whose values coincide with those of `fn`.

    For wrong answers caught by other means (a list returned, an argument changed) leave `says`
    empty and put into `deserves` a part of the message they must get.
    """

    name: str
    fn: Callable
    says: str = ""
    deserves: str = ""


def identity(*args: Any) -> Any:
    """The mutant every exercise has: it hands back its first argument."""
    return args[0] if args else None


@dataclass(frozen=True)
class Exercise:
    """One exercise. The function's name in `stub` is the name of `solution`.

    `truth` is an independent source of the right values (from `reference`), by default the
    solution itself; `returns` names the parts of the returned tuple, for messages. A stub that is
    a *broken layer to mend* rather than an empty one has the message it deserves in
    `stub_deserves`; untouched, it is told the number of faults only. `judge` replaces the
    comparison of values: `judge(exercise, fn) -> Verdict`. `imports` is what the notebook has
    imported when the stub is reached.
    """

    id: str
    notebook: str
    title: str
    minutes: int
    difficulty: int  # 1 a line, 2 a few lines, 3 a thought first
    stub: str
    solution: Callable
    cases: tuple[Case, ...]
    hints: tuple[str, ...]
    mutants: tuple[Mutant, ...]
    explanation: str = ""
    truth: Callable | None = None
    returns: tuple[str, ...] = ()
    rtol: float = 1e-9
    stub_deserves: str = ""
    imports: str = "import numpy as np"
    judge: Callable[[Exercise, Callable], Verdict] = field(default=judge_values)

    @property
    def name(self) -> str:
        """The name of the function to write."""
        return self.solution.__name__

    @property
    def cell(self) -> str:
        """The source of the notebook's exercise cell: the stub, then the check."""
        return f'{self.stub.strip()}\n\n\ncheck("{self.id}", {self.name})'

    def source(self) -> str:
        """The solution as text."""
        return textwrap.dedent(inspect.getsource(self.solution)).strip()

    def stub_function(self) -> Callable:
        """The stub as a function, made from its text as the notebook would."""
        return self.define(self.stub)

    def define(self, source: str) -> Callable:
        """Run `source` after the exercise's imports; return the function it defines."""
        scope: dict[str, Any] = {}
        exec(compile(self.imports + "\n", "<imports>", "exec"), scope)
        exec(compile(source, f"<{self.id}>", "exec"), scope)
        return scope[self.name]


_registry: dict[str, Exercise] = {}


def register(exercise: Exercise) -> None:
    """Add an exercise to the course. Raises ValueError if its id is taken."""
    known = _registry.get(exercise.id)
    if known is not None and known.solution.__module__ != exercise.solution.__module__:
        raise ValueError(f"the exercise id {exercise.id!r} is used twice")
    _registry[exercise.id] = exercise


@functools.cache
def _load() -> None:
    from . import exercises

    for module in sorted(pkgutil.iter_modules(exercises.__path__), key=lambda m: m.name):
        importlib.import_module(f"{exercises.__name__}.{module.name}")


def registry() -> dict[str, Exercise]:
    """All exercises by id, in the order of the notebooks."""
    _load()
    return dict(sorted(_registry.items(), key=lambda item: item[1].notebook))


@dataclass(frozen=True, repr=False)
class Message:
    """A text for the page: plain where there is no HTML, a bordered box where there is."""

    text: str
    html: str = ""

    def __repr__(self) -> str:
        return self.text

    def _repr_html_(self) -> str:
        return self.html or _box(_inline(self.text), "grey")


@dataclass(frozen=True, repr=False)
class Result(Message):
    """What `check` returns: true if the answer is right."""

    status: str = "wrong"

    def __bool__(self) -> bool:
        return self.status == "right"


def check(id: str, fn: Callable | None = None) -> Message:
    """Judge `fn` as an answer to the exercise `id`: not done yet, wrong and why, or right.

    Never raises. What it shows depends on `fn` alone, not on earlier attempts.
    """
    exercise = _find(id)
    if not isinstance(exercise, Exercise):
        return exercise
    verdict = judge(exercise, fn)
    if verdict.status == "wrong" and _untouched(exercise, fn):
        verdict = dataclasses.replace(verdict, message=_head(verdict.message))
    elif verdict.status != "not done":
        _progress.current().update(exercise.id, attempted=True, solved=verdict.status == "right")
    return _result(exercise, verdict)


def _untouched(exercise: Exercise, fn: Callable) -> bool:
    """Whether `fn` is the stub as handed out: a broken layer nobody has touched is no attempt."""
    return callable(fn) and _essence(fn) == _essence(exercise.stub_function())


def _essence(thing: Any) -> Any:
    """What a function, or each function of a class, does; not where it was written."""
    if isinstance(thing, type):
        functions = {k: v for k, v in vars(thing).items() if isinstance(v, FunctionType)}
        return {name: _essence(part) for name, part in functions.items()}
    if isinstance(thing, FunctionType):
        thing = thing.__code__
    if isinstance(thing, CodeType):
        inner = tuple(_essence(constant) for constant in thing.co_consts)
        return thing.co_code, thing.co_names, thing.co_varnames, inner
    return thing


def _head(message: str) -> str:
    """Of the sentence on a broken layer, how many faults it names: they are there to be found."""
    count = re.match(r"Two|Three", message)
    if not count:
        return "It fails as it stands. Find out why before you open a hint."
    return f"{count[0]} faults as it stands. Find them before you open a hint."


def judge(exercise: Exercise, fn: Callable) -> Verdict:
    """The bare verdict, without record or display."""
    if not callable(fn):
        kind = type(fn).__name__
        return Verdict(
            "wrong",
            f'Hand over the function itself, not what it returns: check("{exercise.id}", '
            f"{exercise.name}) without brackets after the name. What came was of type {kind}.",
        )
    return exercise.judge(exercise, fn)


def hint(id: str, number: int | None = None) -> Message:
    """The next hint of an exercise, or hint `number` (from 1)."""
    exercise = _find(id)
    if not isinstance(exercise, Exercise):
        return exercise
    count = len(exercise.hints)
    if number is None:
        number = min(_progress.current().record(exercise.id).hints + 1, count)
    if type(number) is not int or not 1 <= number <= count:
        return Message(f"{exercise.id} has hints 1 to {count}, not {number!r}.")
    _progress.current().update(exercise.id, hints=number)
    last = f' That was the last; solution("{exercise.id}") shows ours.' if number == count else ""
    return Message(f"Hint {number} of {count}: {exercise.hints[number - 1]}{last}")


def solution(id: str) -> Message:
    """Our solution of an exercise, with its explanation."""
    exercise = _find(id)
    if not isinstance(exercise, Exercise):
        return exercise
    if getattr(sys.modules[exercise.solution.__module__], "SEALED", False):
        return Message(
            "This is the student's copy, without solutions: ask your teacher. "
            f'hint("{exercise.id}") helps meanwhile.'
        )
    source, why = exercise.source(), exercise.explanation
    html = f"<pre>{escape(source)}</pre>" + (f"<p>{_inline(why)}</p>" if why else "")
    return Message(source + (f"\n\n{why}" if why else ""), _box(html, "grey"))


def _find(id: Any) -> Exercise | Message:
    """The exercise, or a message that suggests the nearest ids."""
    known = registry()
    if isinstance(id, str) and id in known:
        return known[id]
    if not isinstance(id, str):
        return Message(
            "The first argument is the exercise's id, a text such as "
            f'"{next(iter(known), "actnorm.forward")}"; '
            f"what came was of type {type(id).__name__}."
        )
    return _unknown("exercise", id, known, " progress() lists them all.")


def _unknown(what: str, id: str, known: Iterable[str], otherwise: str = "") -> Message:
    near = difflib.get_close_matches(id, known, n=3, cutoff=0.4)
    also = f" Did you mean {' or '.join(near)}?" if near else otherwise
    return Message(f"There is no {what} {id!r}.{also}")


_MARKS = {
    "right": ("Right.", "#009E73"),
    "wrong": ("Wrong.", "#D55E00"),
    "not done": ("Not done yet.", "#0072B2"),
}


def _result(exercise: Exercise, verdict: Verdict) -> Result:
    word, colour = _MARKS[verdict.status]
    help_ = (
        ""
        if verdict.status == "right"
        else (f'Stuck? hint("{exercise.id}"), then solution("{exercise.id}").')
    )
    lines = [f"{exercise.id}: {word} {verdict.message}".rstrip()]
    html = [f"<b>{exercise.id}: {word}</b> {_inline(verdict.message)}"]
    if verdict.printed:
        lines += ["Your function printed:", textwrap.indent(verdict.printed, "  ")]
        html.append(f"<div>Your function printed:</div><pre>{escape(verdict.printed)}</pre>")
    if help_:
        lines.append(help_)
        html += [
            f"<details><summary>Hint {k} of {len(exercise.hints)}</summary>{_inline(text)}"
            "</details>"
            for k, text in enumerate(exercise.hints, 1)
        ]
        html.append(f'<div>Still stuck? <code>solution("{exercise.id}")</code></div>')
    return Result("\n".join(lines), _box("".join(html), colour), verdict.status)


def _box(html: str, colour: str) -> str:
    return (
        f'<div style="border-left:4px solid {colour};padding:.3em .8em;margin:.3em 0">{html}</div>'
    )


def _inline(text: str) -> str:
    """Escape a text for HTML; `code` in back-ticks becomes code."""
    return re.sub(r"`([^`]+)`", r"<code>\1</code>", escape(text)).replace("\n", "<br>")


__all__ = [
    "Case",
    "Exercise",
    "Message",
    "Mutant",
    "Outcome",
    "Result",
    "Verdict",
    "check",
    "hint",
    "identity",
    "judge",
    "register",
    "registry",
    "solution",
]
