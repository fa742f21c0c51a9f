"""Call a student's function safely: bounded time, captured prints, no traceback, no surprises.

What is bounded is the time that the function computes, so that a busy machine does not stop a right
answer; and, more generously, the time on the clock, so that one that waits for ever is stopped too.
On Unix, in the main thread (where a notebook runs its cells) a timer interrupts the call. It acts
between two Python instructions, so one very long NumPy operation is allowed to end first. Where
there is no such timer (Windows, another thread) the call runs in a thread of its own that is left
behind when its time is up; the message then asks for a restart of the kernel.
"""

from __future__ import annotations

import copy
import io
import linecache
import signal
import threading
import time
import warnings
from collections.abc import Callable
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from functools import partial
from types import FunctionType, MethodType
from typing import Any

import numpy as np

SECONDS = 5.0
"""How long a student's function may compute, for all points of one check together."""
PATIENCE = 6.0
"""How many times as long it may take on the clock, where the machine does other things too."""


class Budget:
    """`seconds` of this thread's computing, from now on; `PATIENCE` times as many on the clock."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self._computed = time.thread_time() + seconds
        self._clock = time.monotonic() + PATIENCE * seconds

    def left(self) -> float:
        """Seconds in which it cannot run out; negative once it has."""
        return min(self._computed - time.thread_time(), self._clock - time.monotonic())


@dataclass(frozen=True)
class Outcome:
    """What came of one call: a value, or a sentence about what went wrong."""

    value: Any = None
    trouble: str = ""
    undone: bool = False
    printed: str = ""


class _TimeUp(BaseException):
    """Not an Exception, so that a student's `except Exception` does not swallow it."""


def attempt(
    fn: Callable,
    args: tuple,
    names: tuple[str, ...] = (),
    budget: Budget | None = None,
) -> Outcome:
    """Call ``fn(*args)`` on copies of the arguments and say what happened.

    `names` are the arguments' names for messages; `budget` may be shared by several calls. Never
    raises what `fn` raises, and returns when the budget is spent (see the module's text for the
    one exception).
    """
    budget = budget or Budget(SECONDS)
    given = copy.deepcopy(args)
    printed = _Limited()
    value, trouble, undone = None, "", False
    try:
        with redirect_stdout(printed), redirect_stderr(printed), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with np.errstate(all="ignore"):
                value = _timed(lambda: fn(*given), budget)
    except NotImplementedError:
        undone = True
    except _TimeUp:
        trouble = (
            f"It had not finished after {budget.seconds:g} seconds and was stopped. "
            f"Is there a loop that never ends?{_LEFT_BEHIND if not _has_timer() else ''}"
        )
    except RecursionError:
        trouble = "It calls itself without end (RecursionError)."
    except KeyboardInterrupt:
        trouble = "It was interrupted."
    except BaseException as error:  # a student's code may raise anything, SystemExit included
        trouble = _describe(error, fn)
    else:
        trouble = _changed(args, given, names)
        undone = not trouble and _is_undone(value)
    return Outcome(None if trouble else value, trouble, undone, printed.text())


def _changed(args: tuple, given: tuple, names: tuple[str, ...]) -> str:
    """What to say of an argument that is no longer what it was."""
    for k, (before, after) in enumerate(zip(args, given, strict=True)):
        if _same(before, after):
            continue
        name = names[k] if k < len(names) else f"number {k + 1}"
        instead = f"compute a new array (y = x + b, not x += b), or start from {name}.copy()."
        if isinstance(before, list):
            instead = f"go through it without changing it, or start from list({name})."
        return f"It changed its argument {name} in place. The caller still needs it: {instead}"
    return ""


_LEFT_BEHIND = " It may still be running: restart the kernel before you go on."


def _has_timer() -> bool:
    return hasattr(signal, "setitimer") and threading.current_thread() is threading.main_thread()


def _timed(call: Callable[[], Any], budget: Budget) -> Any:
    if _has_timer():
        with _alarm(budget):
            return call()
    result: dict[str, Any] = {}

    def work() -> None:
        try:
            result["value"] = call()
        except BaseException as error:
            result["error"] = error

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    thread.join(budget.seconds)  # by the clock: another thread's computing time is not to be had
    if thread.is_alive():
        raise _TimeUp
    if "error" in result:
        raise result["error"]
    return result["value"]


@contextmanager
def _alarm(budget: Budget):
    def ring(signum, frame):
        if budget.left() <= 0:
            raise _TimeUp

    before = signal.signal(signal.SIGALRM, ring)
    # It rings again and again: while others use the machine, and for code that swallows even a
    # BaseException.
    signal.setitimer(signal.ITIMER_REAL, max(budget.left(), 0.001), 0.05)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


class _Limited(io.TextIOBase):
    """A text stream that remembers the first characters and drops the rest."""

    limit = 2000

    def __init__(self) -> None:
        self._parts: list[str] = []
        self._length = 0

    def writable(self) -> bool:
        return True

    def write(self, text: str) -> int:
        if self._length < self.limit:
            self._parts.append(text[: self.limit - self._length])
        self._length += len(text)
        return len(text)

    def text(self) -> str:
        more = "\n… (more was printed)" if self._length > self.limit else ""
        return "".join(self._parts).rstrip() + more


def _is_undone(value: Any) -> bool:
    """Nothing returned, or a place-holder, alone or in a tuple of nothing else."""
    if isinstance(value, tuple) and value:
        return all(_is_undone(part) for part in value)
    return value is None or value is Ellipsis or value is NotImplemented


def _same(a: Any, b: Any) -> bool:
    """Whether two copies of an argument are still equal."""
    if isinstance(a, np.ndarray):
        return (
            isinstance(b, np.ndarray)
            and a.shape == b.shape
            and a.dtype == b.dtype
            and a.tobytes() == b.tobytes()
        )
    if isinstance(a, (list, tuple)) and type(a) is type(b):
        return len(a) == len(b) and all(map(_same, a, b))
    if isinstance(a, dict) and isinstance(b, dict):
        return list(a) == list(b) and all(_same(a[key], b[key]) for key in a)
    if type(a).__module__.startswith("reference."):  # layers: a list of them may be turned round
        kept = vars(b)  # where a layer may have cached something meanwhile
        return type(a) is type(b) and all(_same(v, kept.get(k)) for k, v in vars(a).items())
    if isinstance(a, (int, float, complex, str, bytes, type(None))):
        return a == b or (a != a and b != b)
    if isinstance(a, FunctionType):
        return a is b  # a copy of a function is that function
    return True  # generators: nothing we can compare in general


def _describe(error: BaseException, fn: Callable) -> str:
    """One sentence: the error's type, its message and the line in the student's own code."""
    try:
        text = " ".join(str(error).split())
    except BaseException:
        text = ""
    text = text if len(text) <= 200 else text[:200] + "…"
    sentence = f"It raised {type(error).__name__}" + (f": {text}" if text else "")
    home = _home(fn)
    line, step = None, error.__traceback__
    while step is not None:
        if step.tb_frame.f_code.co_filename == home:
            line = step.tb_lineno
        step = step.tb_next
    if line is None:
        return sentence + _end(sentence)
    source = linecache.getline(home, line).strip()
    return f"{sentence} (line {line}" + (f": `{source}`" if source else "") + ")."


def _home(thing: Any) -> str | None:
    """The file of a student's function, or of the functions of a class, bound up or not."""
    if isinstance(thing, partial):  # a course's function around the student's class
        return next(filter(None, map(_home, (*thing.args, thing.func))), None)
    if isinstance(thing, type):
        functions = (v for v in vars(thing).values() if isinstance(v, FunctionType))
        return next(filter(None, map(_home, functions)), None)
    thing = thing.__func__ if isinstance(thing, MethodType) else thing
    return thing.__code__.co_filename if isinstance(thing, FunctionType) else None


def _end(sentence: str) -> str:
    return "" if sentence.endswith((".", "!", "?", "…")) else "."
