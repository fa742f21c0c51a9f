"""Checking things that are not the reference's own: torch modules, with torch never imported here.

Whoever passes a torch object has imported torch, so it is found in ``sys.modules``; the reference
itself runs on NumPy and SciPy alone.
"""

from __future__ import annotations

import copy
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

CAST = "its parameters were cast to float64, in a copy, to be checked"
SET = (
    "forward set its parameters from x in a copy, which a function given as inverse does not see: "
    "call module(x) once first, or give module.inverse"
)


def is_torch(obj: object) -> bool:
    """Whether obj is a torch tensor or module."""
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(obj, (torch.Tensor, torch.nn.Module))


def tensor_to_array(x: Any) -> np.ndarray:
    """A tensor as an array; of rank 4, (N, C, H, W) becomes (N, H, W, C)."""
    a = x.detach().cpu().numpy()
    return np.ascontiguousarray(np.moveaxis(a, 1, -1)) if a.ndim == 4 else a


def _held(value: object) -> Iterator[object]:
    """What an attribute holds, lists and dictionaries looked into."""
    if isinstance(value, (list, tuple, dict)):
        for inside in value.values() if isinstance(value, dict) else value:
            yield from _held(inside)
    else:
        yield value


class from_torch:  # noqa: N801 (reads as the function it stands for)
    """A torch module, or functions on tensors, in the reference's clothes: arrays in, arrays out.

    ``forward(x) -> (y, logdet)`` and, where there is one, ``inverse(y) -> x``.  Arrays of rank 4
    are (N, H, W, C) outside and (N, C, H, W) inside; other ranks pass as they are.  A module is
    checked in a float64 copy on the CPU, in the mode (train or eval) it is in: the formulas are
    the same, and only float64 can tell a formula that is right from one that is nearly so.  The
    copy serves ``inverse`` too where that is a module or a module's method, as module.inverse is.
    A module that cannot be copied is called itself if it is float64, else that is a TypeError.
    """

    def __init__(self, module: Callable, inverse: Callable | None = None) -> None:
        torch = sys.modules.get("torch")
        if torch is None:
            raise TypeError("from_torch needs a torch module, but torch has not been imported")
        if not callable(module):
            raise TypeError(f"module must be a torch module or function, not {type(module)}")
        self._torch, self.notes = torch, []
        self.name = getattr(module, "__name__", type(module).__name__)
        copies: dict = {}  # one for both, so that module.inverse becomes the copy's own inverse
        self._forward = self._in_float64(module, copies)
        if isinstance(module, torch.nn.Module) and inverse is None:
            inverse = getattr(module, "inverse", None)
        if inverse is not None:
            self._inverse = self._in_float64(inverse, copies)
            self._sees_the_copy = self._inverse is not inverse or CAST not in self.notes
            # A function around the module itself: what forward sets in the copy, it does not see.
            stranger = self._inverse is inverse and self._forward is not module
            self._around = getattr(module, "__self__", module) if stranger else None
            self.inverse = self._back

    def _in_float64(self, f: Callable, copies: dict) -> Callable:
        """A module, or a module's method, on a float64 copy of that module; others as they are."""
        torch = self._torch
        module = getattr(f, "__self__", f)
        if not isinstance(module, torch.nn.Module) or copies.get(id(module)) is module:
            return f  # a function, or what could not be copied before
        kinds = {p.dtype for p in [*module.parameters(), *module.buffers()]}
        short = kinds & {torch.float32, torch.float16, torch.bfloat16}
        try:
            for part in module.modules():  # what is kept of a forward: a graph cannot be copied
                kept = (t for t in _held(vars(part)) if isinstance(t, torch.Tensor))
                copies.update({id(t): t.detach() for t in kept if not t.is_leaf})
            own = copy.deepcopy(module, copies)
        except Exception as problem:  # it holds a lock, an open file, …
            if short:
                text = f"the module cannot be copied to float64 ({problem}); pass module.double()"
                raise TypeError(text) from None
            copies.clear()
            copies[id(module)] = module
            self.notes.append(f"it cannot be copied ({problem}): the module itself was called")
            return f
        if short and CAST not in self.notes:
            self.notes.append(CAST)
        own.cpu().double().requires_grad_(False)  # no graph is wanted
        return copy.deepcopy(f, copies)  # the copy itself, or its method

    @contextmanager
    def _default_float64(self) -> Iterator[None]:
        """What is made anew meanwhile is float64 too: torch.zeros(len(x)) for a log-det of 0."""
        usual = self._torch.get_default_dtype()
        self._torch.set_default_dtype(self._torch.float64)
        try:
            yield
        finally:
            self._torch.set_default_dtype(usual)

    def _back(self, y: np.ndarray) -> Any:
        """inverse(y) as an array."""
        if self._around is not None and SET not in self.notes and self._was_set():
            self.notes.append(SET)
        try:
            return self._from(self._call(self._inverse, y))
        except RuntimeError as problem:
            if self._sees_the_copy:
                raise
            why = "the module is checked in a float64 copy, which a function around the original"
            raise RuntimeError(f"{problem} ({why} does not see: check module.double())") from None

    def _was_set(self) -> bool:
        """Whether forward has changed the copy: initial values from the first batch, say."""
        own = getattr(self._forward, "__self__", self._forward)
        before, now = ([*m.parameters(), *m.buffers()] for m in (self._around, own))
        same = (self._torch.equal(a.to(b), b) for a, b in zip(before, now, strict=False))
        return not all(same)

    def _call(self, f: Callable, a: np.ndarray) -> Any:
        """f of a, in tensors; gradients are as they were, for a layer may take its log-det by them.

        What f does to its argument is done to a, so that check sees it.
        """
        inside = self._to(a)
        before = inside.clone()
        with self._default_float64():
            out = f(inside)
        if not self._torch.equal(inside, before):
            a[...] = self._from(inside)
        return out

    def _to(self, a: np.ndarray):
        a = np.moveaxis(a, -1, 1) if a.ndim == 4 else a
        return self._torch.from_numpy(np.array(a, order="C"))

    def _from(self, t):
        if isinstance(t, (tuple, list)):
            return tuple(map(self._from, t))
        return tensor_to_array(t) if isinstance(t, self._torch.Tensor) else t

    def forward(self, x: np.ndarray) -> Any:
        """(y, logdet) as arrays; anything unexpected is handed on for check to complain about."""
        out = self._call(self._forward, x)
        return self._from(out) if isinstance(out, (tuple, list)) else out
