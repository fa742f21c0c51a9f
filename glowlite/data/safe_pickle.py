"""Read the pickles CIFAR-10 is made of, without unpickling.

A pickle is a program for a small stack machine, and two of its instructions, "look up a Python
name" and "call it", let a file run anything. This is a machine without them: it knows the few
instructions that CIFAR-10's files contain, knows three NumPy names by spelling alone, and takes
"call" to mean "note down that an array follows". Nothing is imported, looked up or called, and
no more memory is used than a small multiple of the file's size.
"""

from __future__ import annotations

import math
import pickletools
from dataclasses import dataclass
from typing import Any

import numpy as np

# The longest original file has 31,035,999 bytes and about 50,000 instructions.
MAX_BYTES = 64 * 2**20
MAX_INSTRUCTIONS = 500_000

_MARK = object()
_VALUES = frozenset("SHORT_BINSTRING BINSTRING BINUNICODE BININT BININT1 BININT2".split())
_CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}
_ARRAY, _DTYPE, _NDARRAY = "numpy.core.multiarray _reconstruct", "numpy dtype", "numpy ndarray"


class UnsafePickle(ValueError):
    """The pickle asks for something that plain arrays and lists do not need."""


@dataclass
class _Name:
    text: str


@dataclass
class _Later:
    """What NumPy would have built by calling `name`; `state` arrives with BUILD."""

    name: str
    arguments: tuple
    state: tuple = ()


def read(data: bytes) -> Any:
    """The dicts, lists, tuples, strings, integers and uint8 arrays that a pickle spells out.

    Strings of Python 2 come out as str (latin-1). Cost: about 0.2 s for a file of CIFAR-10.

    Raises: UnsafePickle for any other name or instruction, for a file over 64 MiB or
    500,000 instructions, and for one that is cut short or makes no sense.

    >>> import pickle
    >>> read(pickle.dumps({"labels": [6, 9]}, protocol=2))
    {'labels': [6, 9]}
    """
    if len(data) > MAX_BYTES:
        raise UnsafePickle(f"{len(data)} bytes, more than {MAX_BYTES}")
    try:
        return _finish(_run(data))
    except UnsafePickle:
        raise
    except (ValueError, TypeError, IndexError, KeyError, AttributeError, OverflowError) as error:
        raise UnsafePickle(f"not a whole pickle ({error})") from error


def _run(data: bytes) -> Any:
    stack: list[Any] = []
    memo: dict[int, Any] = {}

    def since_mark() -> list[Any]:
        items = []
        while (item := stack.pop()) is not _MARK:
            items.append(item)
        return items[::-1]

    for count, (opcode, argument, position) in enumerate(pickletools.genops(data)):
        if count >= MAX_INSTRUCTIONS:
            raise UnsafePickle(f"more than {MAX_INSTRUCTIONS} instructions")
        name = opcode.name
        if name in _VALUES:
            stack.append(argument)
        elif name in _CONSTANTS:
            stack.append(_CONSTANTS[name])
        elif name in ("BINPUT", "LONG_BINPUT"):
            memo[argument] = stack[-1]
        elif name in ("BINGET", "LONG_BINGET"):
            stack.append(memo[argument])
        elif name == "MARK":
            stack.append(_MARK)
        elif name == "EMPTY_DICT":
            stack.append({})
        elif name == "EMPTY_LIST":
            stack.append([])
        elif name == "EMPTY_TUPLE":
            stack.append(())
        elif name == "TUPLE":
            stack.append(tuple(since_mark()))
        elif name in ("TUPLE1", "TUPLE2", "TUPLE3"):
            size = int(name[-1])
            stack[-size:] = [tuple(stack[-size:])]
        elif name == "APPEND":
            item = stack.pop()
            _expect(stack[-1], list).append(item)
        elif name == "APPENDS":
            items = since_mark()
            _expect(stack[-1], list).extend(items)
        elif name == "SETITEM":
            value, key = stack.pop(), stack.pop()
            _expect(stack[-1], dict)[_expect(key, str)] = value
        elif name == "SETITEMS":
            items = since_mark()
            target = _expect(stack[-1], dict)
            for key, value in zip(items[::2], items[1::2], strict=True):
                target[_expect(key, str)] = value
        elif name == "GLOBAL" and argument in (_ARRAY, _DTYPE, _NDARRAY):
            stack.append(_Name(argument))
        elif name == "REDUCE":
            arguments, callee = stack.pop(), _expect(stack.pop(), _Name)
            stack.append(_Later(callee.text, _expect(arguments, tuple)))
        elif name == "BUILD":
            state = _expect(stack.pop(), tuple)
            _expect(stack[-1], _Later).state = state
        elif name == "STOP":
            return stack.pop()
        elif name != "PROTO":
            wish = f"{name} {argument!r}"[:80]
            raise UnsafePickle(f"byte {position} asks for {wish}, which plain data has no need of")
    raise UnsafePickle("no end")


def _expect(value: Any, kind: type) -> Any:
    if not isinstance(value, kind):
        raise UnsafePickle(f"a {type(value).__name__} where a {kind.__name__} belongs")
    return value


def _finish(value: Any) -> Any:
    """Turn what stands for arrays, at the top or in the dictionary at the top, into arrays."""
    if isinstance(value, dict):
        return {key: _array(v) if isinstance(v, _Later) else v for key, v in value.items()}
    return _array(value) if isinstance(value, _Later) else value


def _array(later: _Later) -> np.ndarray:
    # ndarray.__setstate__'s state: (version, shape, dtype, Fortran order, bytes as latin-1).
    _, shape, dtype, fortran, raw = later.state
    if later.name != _ARRAY or _expect(dtype, _Later).name != _DTYPE:
        raise UnsafePickle("not a NumPy array")
    if dtype.arguments[:1] != ("u1",):
        raise UnsafePickle(f"an array of {dtype.arguments[0]!r}; expected uint8")
    pixels = np.frombuffer(_expect(raw, str).encode("latin-1"), np.uint8)
    if any(_expect(n, int) < 0 for n in shape) or math.prod(shape) != pixels.size:
        raise UnsafePickle(f"{pixels.size} bytes for an array of shape {shape}")
    return pixels.reshape(shape, order="F" if fortran else "C")
