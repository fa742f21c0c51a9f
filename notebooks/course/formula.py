"""Grade a log-determinant that a student typed: LaTeX, Unicode or plain text.

>>> grade("actnorm", r"h \\cdot w \\cdot \\sum_i \\log|s_i|").message
'Right: h·w·Σ log|s|, one log|s| per channel at each of the h·w pixels.'
>>> print(grade("conv1x1", "log|det W|").message)
Not yet: h·w is missing: the same map acts at every one of the h·w pixels.

The text is read by a small parser (no `eval`) and compared with the slide's formula at chosen
points; equal values at all of them is what "right" means.
"""

from __future__ import annotations

import html
import re
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from ._formula_layers import LAYERS, Mistake, points
from ._formula_mistakes import diagnose
from ._formula_parse import index_names, nodes, parse, split_equation, symbols, tokenize
from ._formula_values import agree, values
from ._formula_words import Unreadable, premises_and_formula, unescape, without_comment

__all__ = ["Grade", "grade", "LAYERS"]

PRAISE = {  # what is asked for, and what is right as well
    "flow": (
        "log|det dz/dx|, the log of the change of volume",
        "log p(x) = log p(z) + log|det dz/dx|, the whole log-likelihood",
    ),
    "actnorm": ("h·w·Σ log|s|, one log|s| per channel at each of the h·w pixels",),
    "conv1x1": ("h·w·log|det W|, the same W at each of the h·w pixels",),
    "lu": (
        "log|det W| = Σ log|s|, as on the LU slide; the layer's own log-det is h·w times this",
        "h·w·Σ log|s|, the whole layer's; the slide's log|det W| has no h·w",
    ),
    "affine_coupling": ("Σ log|s| over every pixel and channel of the half that is scaled",),
    "additive_coupling": ("0, because s = 1: a shift changes no volume",),
}

NOTATION = {
    "flow": "dz/dx, or p(z) and dz/dx, or the steps dh_i/dh_{i-1}",
    "actnorm": "h, w, s",
    "conv1x1": "h, w, W",
    "lu": "h, w, s, or P, L, U, W",
    "affine_coupling": "s, t",
    "additive_coupling": "s, t",
}

MAX_CHARS = 1000
NO_BARS = "you forgot |·|"
OVER_PIXELS = re.compile(r"\b(?:over|по)\b.*(?:pixel|position|пиксел|позици)", re.IGNORECASE)


@dataclass(frozen=True)
class Grade:
    """The answer to one formula: ``bool(grade)``, ``grade.message``, ``grade.mistake``.

    ``mistake`` is None when right, else a short name such as "abs", "hw", "sign", "unreadable".
    """

    layer: str
    ok: bool
    message: str
    mistake: str | None = None

    def __bool__(self) -> bool:
        return self.ok

    def __str__(self) -> str:
        return self.message

    def _repr_html_(self) -> str:
        colour, mark = ("#1b7f4b", "Right") if self.ok else ("#b3541e", "Not yet")
        words = html.escape(self.message.removeprefix(mark + ": "))
        return (
            f'<div style="border-left:4px solid {colour};padding:.4em .8em">'
            f'<b style="color:{colour}">{mark}.</b> {words}</div>'
        )


def grade(layer: str, text: str) -> Grade:
    """Compare a typed formula with log|det ∂y/∂x| of ``layer``.

    ``layer`` is one of :data:`LAYERS`; for "flow" the whole log p(x) is right too, for "lu" both
    log|det W| and the layer's h·w times it.  Any string gets a Grade, in bounded time; TypeError
    for a text that is not a string, ValueError for an unknown layer.
    """
    if not isinstance(layer, str) or layer not in LAYERS:
        raise ValueError(f"layer: got {layer!r}; accepted are {', '.join(map(repr, LAYERS))}")
    if not isinstance(text, str):
        raise TypeError(f"text: got {type(text).__name__}; accepted is a str with one formula")
    if len(text) > MAX_CHARS:
        why = f"The text has {len(text):,} characters; a formula here has at most {MAX_CHARS}."
        return Grade(layer, False, f"Not yet: {why}", "unreadable")
    text = unescape(text)
    verdict = _grade(layer, text)
    short, words = without_comment(text)
    if verdict or not words:
        return verdict
    if layer in ("actnorm", "conv1x1") and OVER_PIXELS.search(words):
        why = "what is summed “over all pixels” must stand in the formula: h·w."
        return Grade(layer, False, f"Not yet: {why}", "unreadable")
    # "s = 1, the log-det is zero": there the words are the answer.
    bare = _grade(layer, short)
    return bare if bare or verdict.mistake == "unreadable" or "=" not in short else verdict


def _grade(layer: str, text: str) -> Grade:
    try:
        premises, formula = premises_and_formula(text)
        tokens = tokenize(formula)
        if not tokens:
            raise Unreadable(
                f"The answer is empty. Write it with {NOTATION[layer]}; "
                "log, det, |·| and sum are understood."
            )
        parts = split_equation(tokens)
        if not all(parts):
            raise Unreadable("One side of the “=” is empty.")
        if len(parts) > 1 and _is_label(layer, parts[-1]):
            parts = [parts[-1], *parts[:-1]]  # "… = log p(x)"
        praise = _both_readings(layer, parts[-1])
        for part in parts[1:-1]:  # a chain a = b = c: every link must hold
            _both_readings(layer, part, allow_restating=True)
        if len(parts) > 1:
            unequal = "the two sides of your “=” are not equal. Check the left one."
            _refuse_false(layer, parts[0], parts[1], unequal)
        for premise in premises:
            _check_premise(layer, premise)
        return Grade(layer, True, f"Right: {praise}.")
    except Mistake as mistake:
        return Grade(layer, False, f"Not yet: {mistake}", mistake.name)
    except Unreadable as why:
        return Grade(layer, False, f"Not yet: {why}", "unreadable")


def _both_readings(layer: str, tokens: list, allow_restating: bool = False) -> str:
    """`log (a)^2` may mean log(a²) or (log a)²: right if either is."""
    first = None
    for power_inside in (True, False):
        try:
            return _judge(layer, parse(tokens, power_inside), allow_restating)
        except Mistake as mistake:
            if first is None or first.name == "other":
                first = mistake
    raise first


def _is_label(layer: str, tokens: list) -> bool:
    """log p(x), or a layer's log|det dy/dx|: what the formula is for, not the formula."""
    try:
        used = symbols(parse(tokens))
    except Unreadable:
        return False
    return bool(used) and used <= ({"p(x)"} if layer == "flow" else {"J", "deriv"})


def _check_premise(layer: str, text: str) -> None:
    """`s = 1, so` or `, where J = dz/dx`: where it can be worked out it must hold."""
    try:
        parts = split_equation(tokenize(text))
    except Unreadable:
        return  # words
    for left, right in pairwise(parts):
        _refuse_false(layer, left, right, f"“{text[:40]}” does not hold, with the slides' letters.")


def _refuse_false(layer: str, left: list, right: list, message: str) -> None:
    """An equation whose sides have values must hold; a left side that is a label may stand."""
    try:
        a, b = parse(left), parse(right)
        theirs, _ = values(layer, b)
    except (Unreadable, Mistake):
        return
    try:
        ours, _ = values(layer, a)
    except Unreadable:
        return
    except Mistake as mistake:
        # |dy/dx| = … writes the determinant, and D = … gives the whole a name.
        if mistake.name == "det" or a[0] == "sym" and a[1] not in "xyzstbW":
            return
        raise Mistake("equation", f"left of your “=”: {mistake}") from None
    for x, y in zip(ours, theirs, strict=True):
        comparable = x.shape == y.shape or x.ndim + y.ndim == 1  # s = 1: for every channel
        if not (comparable and np.allclose(x, y, rtol=1e-9, atol=1e-9, equal_nan=True)):
            raise Mistake("equation", message)


def _judge(layer: str, tree: tuple, allow_restating: bool) -> str:
    """What is right about a formula; Mistake says what is not."""
    here = points(layer)
    found, single_step = values(layer, tree)
    got = _numbers(layer, tree, found)
    if layer == "flow" and "p(x)" in symbols(tree):
        raise Mistake("circular", "p(x) is what we want to find; write it with p(z) and dz/dx.")
    for praise, right in zip(
        PRAISE[layer], zip(*(p.right for p in here), strict=True), strict=True
    ):
        if agree(got, right):
            if not allow_restating:
                _refuse_restating(layer, tree)
            return praise
    if single_step and agree(got, [np.log(np.abs(np.linalg.det(p.steps[1]))) for p in here]):
        raise Mistake("sum", "the right idea, for one step. The flow has K of them: sum.")
    name, why = diagnose(layer, got) or ("", "")
    target = np.array([p.target for p in here])
    nan = np.isnan(got)
    if not name and layer == "additive_coupling":
        raise _only_shifts()
    if not name and nan.any():
        bars = not nan.all() and agree(np.where(nan, target, got), target)
        name, why = ("abs", NO_BARS) if bars else ("undefined", "your formula is not a number")
    if name:
        words = here[int(nan.argmax())].words.replace("-", "−")
        where = f": at {words} your formula is undefined" if nan.any() else ""
        raise Mistake(name, f"{why}{where}.")
    place = int(np.abs(got - target).argmax())
    ours, theirs = got[place], target[place]
    digits = 4 if f"{ours:.4g}" != f"{theirs:.4g}" else 10
    raise Mistake(
        "other",
        f"at {here[place].words} your formula gives {ours:.{digits}g}; "
        f"the log-determinant is {theirs:.{digits}g}.",
    )


def _numbers(layer: str, tree: tuple, found: list[np.ndarray]) -> np.ndarray:
    """The values at the points as one array; Mistake if they are not real numbers."""
    used = symbols(tree)
    if any(v.ndim == 1 for v in found):
        if layer == "additive_coupling":  # summing would not mend it
            raise _put_in_one() if "s" in used else _only_shifts()
        if layer != "flow":
            raise Mistake("dimension", "your formula still has one value per channel: sum it.")
        what = (
            "your one sum runs over the maps i, and every entry of the diagonals is still there: "
            "for each map i sum over its diagonal, and then over i."
            if index_names(tree)
            else "your formula still has one value per entry of the diagonal: sum over them."
        )
        more = "(That holds for a triangular Jacobian; for any other write |det …|.)"
        raise Mistake("dimension", f"{what} {more}")
    if any(v.ndim == 2 for v in found):
        hint = " Write a small w for the width; W is the matrix." if "W" in used else ""
        raise Mistake("dimension", f"your formula is still a matrix; a number is asked for.{hint}")
    got = np.array(found)
    if (np.abs(got.imag) >= 1e-9).any():
        raise Mistake("abs", "your formula becomes complex: take |·| before the logarithm.")
    if np.isinf(got.real).any():
        raise Mistake("infinite", "your formula is infinite, or too large for a number.")
    return got.real


def _refuse_restating(layer: str, tree: tuple) -> None:
    used = symbols(tree)
    if layer != "flow" and used & {"J", "deriv"}:
        raise Mistake(
            "restates", "true for any layer; now put in this layer's own Jacobian, its parameters."
        )
    # diag(U + diag(s)) takes no determinant, it only reads off what is there.
    determinant = any(node[:2] == ("call", "det") for node in nodes(tree))
    if layer == "lu" and used & {"W", "P", "L", "U"} and determinant:
        raise Mistake(
            "restates",
            "true, but it still takes a determinant of a c × c matrix. Write it with s alone.",
        )
    if layer == "additive_coupling" and "s" in used:
        raise _put_in_one()


def _put_in_one() -> Mistake:
    return Mistake("restates", "in additive coupling s = 1: put that in. What remains?")


def _only_shifts() -> Mistake:
    return Mistake("zero", "additive coupling only shifts; what does a shift do to a volume?")
