"""A prediction before the picture: commit to an answer, then open it.

Each option is a fold that the reader opens, and behind it stands whether it is so and why. It
needs no kernel and no widget, works on a printed or shared page, and shows the same each time.
"""

from __future__ import annotations

from dataclasses import dataclass
from html import escape

from .exercise import _box, _inline


@dataclass(frozen=True)
class Prediction:
    """A question with options; `answer` counts from 0."""

    question: str
    options: tuple[str, ...]
    answer: int
    why: str

    def __repr__(self) -> str:
        lines = [f"Predict: {self.question}"]
        lines += [f"  {_letter(k)}. {text}" for k, text in enumerate(self.options)]
        lines += ["", f"Answer: {_letter(self.answer)}. {self.why}"]
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        folds = "".join(
            f"<details><summary>{_letter(k)}. {_inline(text)}</summary>"
            f"<div style='margin-left:1.2em'>"
            + (
                f"<b>Yes.</b> {_inline(self.why)}"
                if k == self.answer
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


def predict(question: str, options: list[str], answer: int | str, why: str) -> Prediction:
    """Ask before showing. `answer` is the right option's text, or its number from 0.

    Raises:
        ValueError: fewer than two options, or an answer that is not among them.

    >>> predict("What is log|det I|?", ["0", "1"], "0", "det I = 1, and log 1 = 0.")
    Predict: What is log|det I|?
      A. 0
      B. 1
    <BLANKLINE>
    Answer: A. det I = 1, and log 1 = 0.
    """
    if len(options) < 2:
        raise ValueError(f"options needs at least two entries, not {len(options)}")
    if isinstance(answer, str):
        if answer not in options:
            raise ValueError(f"answer {answer!r} is not one of the options")
        answer = list(options).index(answer)
    if not 0 <= answer < len(options):
        raise ValueError(f"answer must be 0 to {len(options) - 1}, not {answer}")
    return Prediction(question, tuple(options), answer, why)


def _letter(k: int) -> str:
    return chr(ord("A") + k)
