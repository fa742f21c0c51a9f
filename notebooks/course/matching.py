"""Question 2 as a game of cards: layer ↔ function ↔ inverse ↔ log-determinant.

The cards are live: behind each stands the code of what it says. A match is judged by running it,
so there is no key: the function must do what the named layer does, the inverse must undo it, and
the log-determinant must be the one measured.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np

from reference import (
    ActNorm,
    AdditiveCoupling,
    AffineCoupling,
    Conv1x1,
    CouplingNet,
    Squeeze,
    jacobian,
)
from reference.conv1x1 import random_matrix

LAYERS = ("actnorm", "1×1 convolution", "affine coupling", "additive coupling", "squeeze")
"""The layers to find cards for."""

PARTS = {"function": "F", "inverse": "I", "log-determinant": "D"}
"""What to find for each layer, and the letter its cards begin with."""


@dataclass(frozen=True)
class Card:
    """A statement, and the code of it: x -> y, y -> x, or x -> one number for each image."""

    name: str
    text: str
    run: Callable[[np.ndarray], np.ndarray]


@cache
def deck() -> dict[str, Card]:
    """All cards by name: F1 … F5 functions, I1 … I5 inverses, D1 … D4 log-determinants."""
    rng = np.random.default_rng(2)
    s, b, W = np.array([1.7, -0.4, 0.6, 2.2]), np.array([1.0, -2, 0.5, 3]), random_matrix(4, rng)
    actnorm, conv, squeeze = ActNorm(s, b), Conv1x1(W), Squeeze()
    affine = AffineCoupling(CouplingNet.random(2, 6, 4, rng))
    additive = AdditiveCoupling(CouplingNet.random(2, 6, 2, rng))
    cards = (
        Card(
            "F1",
            "x_a, x_b = split(x);  y_a = s(x_b) ⊙ x_a + t(x_b);  y_b = x_b",
            lambda x: affine.forward(x)[0],
        ),
        Card("F2", "each 2×2×c block becomes 1×1×4c", lambda x: squeeze.forward(x)[0]),
        Card("F3", "y_ij = s ⊙ x_ij + b", lambda x: actnorm.forward(x)[0]),
        Card(
            "F4",
            "x_a, x_b = split(x);  y_a = x_a + t(x_b);  y_b = x_b",
            lambda x: additive.forward(x)[0],
        ),
        Card("F5", "y_ij = W x_ij", lambda x: conv.forward(x)[0]),
        Card("I1", "x_ij = W⁻¹ y_ij", conv.inverse),
        Card("I2", "x_ij = (y_ij − b) / s", actnorm.inverse),
        Card("I3", "x_a = y_a − t(y_b);  x_b = y_b", additive.inverse),
        Card("I4", "each 1×1×4c becomes 2×2×c", squeeze.inverse),
        Card("I5", "x_a = (y_a − t(y_b)) / s(y_b);  x_b = y_b", affine.inverse),
        Card("D1", "0", lambda x: np.zeros(len(x))),
        Card("D2", "sum(log|s(x_b)|)", lambda x: affine.forward(x)[1]),
        Card("D3", "h · w · log|det W|", lambda x: conv.forward(x)[1]),
        Card("D4", "h · w · sum(log|s|)", lambda x: actnorm.forward(x)[1]),
    )
    return {card.name: card for card in cards}


_DOES = {
    "actnorm": "F3",
    "1×1 convolution": "F5",
    "affine coupling": "F1",
    "additive coupling": "F4",
    "squeeze": "F2",
}
_IN_WORDS = {
    "F1": "scales and shifts one half by what a network says of the other",
    "F2": "only rearranges numbers, pixels into channels",
    "F3": "scales and shifts each channel by itself",
    "F4": "shifts one half by what a network says of the other, without scaling",
    "F5": "mixes the channels of each pixel by one matrix",
}


def _point() -> np.ndarray:
    """One image 2 × 4 × 4, at which log-determinants are measured."""
    return np.random.default_rng(23).normal(size=(1, 2, 4, 4))


@cache
def _measured(function: str) -> float:
    return jacobian(deck()[function].run, _point()).logabsdet


def mistakes(answer: dict[str, Any]) -> list[str]:
    """What is wrong with an answer {layer: (function, inverse, log-determinant)}, in sentences."""
    rows = {
        layer: row
        for layer, row in answer.items()
        if layer in LAYERS and isinstance(row, (tuple, list)) and len(row) == 3
    }
    found = []
    for layer, row in rows.items():
        found += _row(layer, [str(name or "").strip().upper() for name in row])
    missing = [layer for layer in LAYERS if layer not in rows]
    if missing:
        found.append(
            f"{', '.join(missing)}: three card names belong here, "
            "(function, inverse, log-determinant)."
        )
    unknown = [str(name)[:20] for name in answer if name not in LAYERS]
    if unknown:
        found.append(f"There is no layer {', '.join(unknown[:3])} in the game.")
    return found


def is_empty(answer: Any) -> bool:
    """Whether no card was chosen yet."""
    return isinstance(answer, dict) and all(
        isinstance(row, (tuple, list)) and not any(str(name or "").strip() for name in row)
        for row in answer.values()
    )


def _row(layer: str, names: list[str]) -> list[str]:
    for name, (part, letter) in zip(names, PARTS.items(), strict=True):
        if not name:
            return [f"{layer}: no card for its {part} yet."]
        if name not in deck() or name[0] != letter:
            return [
                f"{layer}: {name[:20]} is not a card for the {part}; those begin with {letter}."
            ]
    function, inverse, logdet = (deck()[name] for name in names)
    if function.name != _DOES[layer]:
        return [f"{layer}: {function.name} {_IN_WORDS[function.name]}; that is another layer."]
    x = np.random.default_rng(22).normal(size=(2, 2, 4, 4))
    y, found = function.run(x), []
    try:
        off = np.abs(inverse.run(y) - x).max()
        if off > 1e-9:
            found.append(
                f"{layer}: {inverse.name} does not undo {function.name}. There and back, "
                f"a number is off by {off:.2f}."
            )
    except ValueError:
        found.append(f"{layer}: {inverse.name} does not even take what {function.name} gives.")
    measured, said = _measured(function.name), float(logdet.run(_point())[0])
    if abs(measured - said) > 1e-6:
        found.append(
            f"{layer}: measured, the log-determinant of {function.name} is "
            f"{measured + 0.0:.3f} at our point; {logdet.name} gives {said:.3f}."
        )
    return found


def table() -> str:
    """The cards as text, one on a line."""
    return "\n".join(f"{card.name}  {card.text}" for card in deck().values())
