"""Numbers that count what is done with them: "O(c)" as a measurement instead of a promise.

>>> s = counted([0.5, -2.0, 3.0])
>>> total = np.log(np.abs(s)).sum()
>>> round(float(total), 6), s[0].tally.total  # 3 logarithms, 2 additions, and reading the result
(1.098612, 6)
"""

from __future__ import annotations

import math
import operator
from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np


class Tally(Counter):
    """How many operations of each kind: "+" (and −), "*", "/", "log", "read", …"""

    @property
    def total(self) -> int:
        """All operations together; |·|, a change of sign and comparisons are free."""
        return sum(self.values())


def _booked(kind: str, operation: Callable[[float, float], float]) -> tuple[Callable, Callable]:
    """The method for ``self ∘ other`` and the one for ``other ∘ self``."""

    def method(self: Number, other: Any) -> Number:
        if isinstance(other, np.ndarray):
            return NotImplemented  # NumPy then goes through the array's elements itself
        return self._book(kind, operation(self.value, _value(other)))

    def reflected(self: Number, other: Any) -> Number:
        return self._book(kind, operation(_value(other), self.value))

    return method, reflected


class Number:
    """A real number that books each operation in its tally.

    NumPy works on arrays of them (``dtype=object``): sums, products, ``@``, ``np.log``, ``np.abs``.
    ``np.linalg`` refuses them. Turning one into a float is booked as "read", so that nothing can
    be computed unseen on many of them.
    """

    __slots__ = ("tally", "value")

    def __init__(self, value: float, tally: Tally) -> None:
        self.value, self.tally = float(value), tally

    def __deepcopy__(self, memo: dict) -> Number:
        return self  # a number does not change; a copy of the tally would lose what is booked

    def _book(self, kind: str, value: float) -> Number:
        self.tally[kind] += 1
        return Number(value, self.tally)

    def __float__(self) -> float:
        self.tally["read"] += 1
        return self.value

    def __repr__(self) -> str:
        return f"{self.value:.6g}"

    def __neg__(self) -> Number:
        return Number(-self.value, self.tally)

    def __abs__(self) -> Number:
        return Number(abs(self.value), self.tally)

    __add__, __radd__ = _booked("+", operator.add)
    __sub__, __rsub__ = _booked("+", operator.sub)
    __mul__, __rmul__ = _booked("*", operator.mul)
    __truediv__, __rtruediv__ = _booked("/", operator.truediv)
    __pow__, __rpow__ = _booked("power", operator.pow)

    def fabs(self) -> Number:
        """What ``np.fabs`` calls."""
        return abs(self)

    def item(self) -> Number:
        """Itself, as ``.item()`` of NumPy's and PyTorch's numbers."""
        return self

    def log(self) -> Number:
        """ln of it: what ``np.log`` calls."""
        return self._book("log", math.log(self.value) if self.value > 0 else math.nan)

    def exp(self) -> Number:
        """What ``np.exp`` calls."""
        return self._book("exp", math.exp(self.value))

    def sqrt(self) -> Number:
        """What ``np.sqrt`` calls."""
        return self._book("sqrt", math.sqrt(self.value))

    def __lt__(self, other: Any) -> bool:
        return self.value < _value(other)

    def __gt__(self, other: Any) -> bool:
        return self.value > _value(other)

    def __le__(self, other: Any) -> bool:
        return self.value <= _value(other)

    def __ge__(self, other: Any) -> bool:
        return self.value >= _value(other)

    def __eq__(self, other: Any) -> bool:
        return self.value == _value(other)

    def __hash__(self) -> int:
        return hash(self.value)


def _value(other: Any) -> float:
    return other.value if isinstance(other, Number) else float(other)


def counted(values: Any, tally: Tally | None = None) -> np.ndarray:
    """An array of `Number` with one common tally, of the shape of `values`."""
    values, tally = np.asarray(values, dtype=float), Tally() if tally is None else tally
    numbers = np.empty(values.shape, dtype=object)
    for index, value in np.ndenumerate(values):
        numbers[index] = Number(value, tally)
    return numbers
