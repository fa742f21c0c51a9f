"""A prediction before the picture: commit to an answer, then open it.

Each option is a fold that the reader opens, and behind it stands whether it is so and why. It
needs no kernel and no widget, works on a printed or shared page, and shows the same each time.
The text stands in the room's module (course/exercises/), since in the cell, above its own folds,
it would give the answer away: the cell only says `predict("change.humps")`.
"""

from __future__ import annotations

from dataclasses import dataclass
from html import escape

from .exercise import Message, _box, _inline, _load, _unknown


@dataclass(frozen=True, repr=False)
class Prediction:
    """A question with options; `answer` is the right option's text.

    Raises:
        ValueError: fewer than two options, or an answer that is not among them.

    >>> Prediction("What is log|det I|?", ("0", "1"), "0", "det I = 1, and log 1 = 0.")
    Predict: What is log|det I|?
      A. 0
      B. 1
    <BLANKLINE>
    Answer: A. det I = 1, and log 1 = 0.
    """

    question: str
    options: tuple[str, ...]
    answer: str
    why: str

    def __post_init__(self) -> None:
        if len(self.options) < 2:
            raise ValueError(f"options needs at least two entries, not {len(self.options)}")
        if self.answer not in self.options:
            raise ValueError(f"answer {self.answer!r} is not one of the options")

    def __repr__(self) -> str:
        lines = [f"Predict: {self.question}"]
        lines += [f"  {_letter(k)}. {text}" for k, text in enumerate(self.options)]
        lines += ["", f"Answer: {_letter(self.options.index(self.answer))}. {self.why}"]
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        folds = "".join(
            f"<details><summary>{_letter(k)}. {_inline(text)}</summary>"
            f"<div style='margin-left:1.2em'>"
            + (
                f"<b>Yes.</b> {_inline(self.why)}"
                if text == self.answer
                else "<b>Not so.</b> Think again, then open another."
            )
            + "</div></details>"
            for k, text in enumerate(self.options)
        )
        return _box(
            f"<b>Predict:</b> {_inline(self.question)}"
            f"<div><i>{escape('Choose, then open your choice.')}</i></div>{folds}",
            "#CC79A7",
        )


_asked: dict[str, Prediction] = {}


def ask(id: str, question: str, options: list[str], answer: str, why: str) -> None:
    """Add a prediction to the course. Raises ValueError if its id is taken, or as `Prediction`."""
    prediction = Prediction(question, tuple(options), answer, why)
    if _asked.setdefault(id, prediction) != prediction:
        raise ValueError(f"the prediction id {id!r} is used twice")


def predictions() -> dict[str, Prediction]:
    """All predictions by id."""
    _load()
    return dict(_asked)


def predict(id: str) -> Prediction | Message:
    """Ask before showing: the prediction `id`, its answers folded away."""
    known = predictions()
    if not isinstance(id, str):
        return Message(f"A prediction's id is a text; what came was of type {type(id).__name__}.")
    return known[id] if id in known else _unknown("prediction", id, known)


def _letter(k: int) -> str:
    return chr(ord("A") + k)
