"""Two panels for notebook 11: an answer typed and checked, and cards matched, from lists.

All they do can be done in plain cells too; the panels call the same functions. And a slider for
notebook 5.
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence

import ipywidgets as widgets

from .exercise import check
from .formula import LAYERS as FORMULAS
from .formula import grade
from .matching import LAYERS, PARTS, deck
from .rubric import QUESTIONS, reflect

_WIDE = {"description_width": "9em"}
_LAYOUT = {"width": "44em"}


class Slider(widgets.interactive):
    """`ipywidgets.interactive`, with words for a page on which nothing runs."""

    def __repr__(self) -> str:
        return "A slider that redraws the picture; run the cell to use it."


class _Panel(widgets.VBox):
    """Rows of fields, a button, and what is said when it is pressed: `answer_html`.

    A page sends a click at once, but a change only when the kernel has answered the one before:
    while the kernel is busy, what was typed before a click comes after it.  So what comes within
    some seconds of a click is answered as well.
    """

    LATE = 5.0  # seconds

    def __init__(
        self, rows: Sequence[widgets.Widget], fields: Sequence[widgets.Widget], tooltip: str
    ) -> None:
        self._asked = -math.inf
        self.button = widgets.Button(description="check", tooltip=tooltip)
        self.result = widgets.HTML()
        self.button.on_click(self._on_click)
        for field in fields:
            field.observe(self._on_change, "value")
        super().__init__([*rows, self.button, self.result])

    def answer_html(self) -> str:
        raise NotImplementedError

    def _on_click(self, _button: widgets.Button) -> None:
        self.result.value = self.answer_html()
        self._asked = time.monotonic()

    def _on_change(self, _change: object) -> None:
        if time.monotonic() - self._asked < self.LATE:
            self.result.value = self.answer_html()


class QuestionPanel(_Panel):
    """A formula and a text in words; the button shows the grade of one, the mirror of the other.

    Driven by hand or by code: ``panel.formula.value = "…"; panel.button.click();
    panel.result.value`` (HTML).

    Raises:
        ValueError: `question` is not "1", "2" or "3".
    """

    def __init__(self, question: str = "1") -> None:
        if question not in QUESTIONS:
            raise ValueError(f"question is {question!r}; accepted: '1', '2', '3'")
        self.question = question
        self.layer = widgets.Dropdown(options=FORMULAS, description="log-det of", style=_WIDE)
        self.formula = widgets.Text(
            placeholder="plain text, Unicode or LaTeX",
            description="formula",
            style=_WIDE,
            layout=_LAYOUT,
        )
        self.words = widgets.Textarea(
            placeholder="in Russian or English",
            rows=4,
            description="in words",
            style=_WIDE,
            layout=_LAYOUT,
        )
        fields = (self.layer, self.formula, self.words)
        super().__init__(fields, fields, "Check the formula and the text")

    def answer_html(self) -> str:
        parts = []
        if self.formula.value.strip():
            parts.append(grade(self.layer.value, self.formula.value)._repr_html_())
        if self.words.value.strip():
            parts.append(reflect(self.question, self.words.value)._repr_html_())
        return "".join(parts) or "Nothing to check yet: type a formula or a sentence."

    def __repr__(self) -> str:
        return "A panel for a formula and a text; run the cell to use it."


class MatchingPanel(_Panel):
    """A row of three lists for each layer; the button runs the match.

    ``panel.choices["actnorm"]`` are the three lists; ``panel.answer`` is what they hold.
    """

    def __init__(self) -> None:
        cards = {
            part: [("?", "")]
            + [(f"{c.name}  {c.text}", c.name) for c in deck().values() if c.name[0] == letter]
            for part, letter in PARTS.items()
        }
        self.choices = {
            layer: tuple(
                widgets.Dropdown(
                    options=cards[part],
                    layout={"width": "15em"},
                    description=f"{part} of {layer}",  # read out; a tooltip is not
                    style={"description_width": "0"},
                )
                for part in PARTS
            )
            for layer in LAYERS
        }
        rows = [
            widgets.HBox([widgets.Label(layer, layout={"width": "9em"}), *lists])
            for layer, lists in self.choices.items()
        ]
        heads = [widgets.Label("", layout={"width": "9em"})]
        heads += [widgets.Label(part, layout={"width": "15em"}) for part in PARTS]
        fields = [choice for lists in self.choices.values() for choice in lists]
        super().__init__([widgets.HBox(heads), *rows], fields, "Run the match")

    @property
    def answer(self) -> dict[str, tuple[str, ...]]:
        """{layer: (function, inverse, log-determinant)} as chosen."""
        return {layer: tuple(w.value for w in lists) for layer, lists in self.choices.items()}

    def answer_html(self) -> str:
        answer = self.answer
        return check("questions.matching", lambda: answer)._repr_html_()

    def __repr__(self) -> str:
        return "A panel to match cards; run the cell to use it."
