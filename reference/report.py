"""What `check` hands back: true or false, in words, in numbers, as text and as HTML."""

from __future__ import annotations

from dataclasses import dataclass
from html import escape

import numpy as np

WORDS = {True: "✓ ok", False: "✗ wrong", None: "– not checked"}


@dataclass(frozen=True)
class Item:
    """One thing that was looked at: ok is True, False, or None where it could not be checked."""

    name: str
    ok: bool | None
    detail: str


@dataclass(frozen=True)
class Report:
    """The outcome of :func:`reference.check`; true exactly when everything checked agrees.

    ``analytic``, ``numeric``, ``difference``, ``tolerance``: one number per compared example, in
    nats, NaN where there is nothing to compare.  ``smallest``: every error of the log-det above
    this would have been noticed.  ``round_trip``: largest |inverse(forward(x)) − x|, or None.
    ``structure``: the Jacobian in words.  ``mistake``: the short name of the likely mistake
    (see ``reference/diagnose.py``), or None.  ``message``: all that in a sentence or two.
    """

    layer: str
    shape: tuple[int, ...]
    items: tuple[Item, ...]
    analytic: np.ndarray
    numeric: np.ndarray
    tolerance: np.ndarray
    round_trip: float | None
    round_trip_tolerance: float | None
    structure: str
    mistake: str | None
    notes: tuple[str, ...]

    def __bool__(self) -> bool:
        return all(item.ok is not False for item in self.items)

    @property
    def difference(self) -> np.ndarray:
        """|analytic − numeric| per example, in nats."""
        return np.abs(self.analytic - self.numeric)

    @property
    def smallest(self) -> float:
        """The smallest error of the log-det certain to be noticed, in nats (inf: none was)."""
        finite = self.tolerance.size and np.all(np.isfinite(self.tolerance))
        # The measurement may be off by the tolerance in one direction, and pass in the other.
        return 2 * float(self.tolerance.max()) if finite else float("inf")

    @property
    def message(self) -> str:
        """What was found, in words."""
        wrong = [item for item in self.items if item.ok is False]
        if wrong:
            return " ".join(_sentence(f"{item.name}: {item.detail}") for item in wrong)
        text = (
            f"All agrees: the log-det is within {self.difference.max():.1e} nats of the numeric one"
            f" (an error above {self.smallest:.1e} would have been noticed)"
        )
        if self.round_trip is not None:
            text += f", and the inverse brings x back to {self.round_trip:.1e}"
        text += f". The Jacobian is {self.structure}."
        unchecked = [item.detail for item in self.items if item.ok is None]
        return " ".join([text, *(_sentence(d) for d in unchecked)])

    def to_dict(self) -> dict:
        """Plain numbers, strings and lists, ready for JSON (NaN and inf as None)."""

        def plain(v: float | None) -> float | None:
            return None if v is None or not np.isfinite(v) else float(v)

        return {
            "layer": self.layer,
            "shape": list(self.shape),
            "ok": bool(self),
            "message": self.message,
            "mistake": self.mistake,
            "analytic": [plain(v) for v in self.analytic],
            "numeric": [plain(v) for v in self.numeric],
            "difference": [plain(v) for v in self.difference],
            "tolerance": [plain(v) for v in self.tolerance],
            "smallest": plain(self.smallest),
            "round_trip": plain(self.round_trip),
            "round_trip_tolerance": plain(self.round_trip_tolerance),
            "structure": self.structure,
            "checks": [{"name": i.name, "ok": i.ok, "detail": i.detail} for i in self.items],
            "notes": list(self.notes),
        }

    def _numbers(self) -> list[tuple[str, ...]]:
        rows = zip(self.analytic, self.numeric, self.difference, self.tolerance, strict=True)
        return [
            (str(i + 1), f"{a:.10g}", f"{b:.10g}", f"{d:.1e}", f"{t:.1e}")
            for i, (a, b, d, t) in enumerate(rows)
        ]

    def __str__(self) -> str:
        head = "✓ all agrees" if self else "✗ wrong"
        lines = [f"{self.layer}, x of shape {self.shape}: {head}"]
        width = max((len(i.name) for i in self.items), default=0)
        state = max(len(w) for w in WORDS.values())
        lines += [f"  {i.name:<{width}}  {WORDS[i.ok]:<{state}}  {i.detail}" for i in self.items]
        if self.analytic.size:
            table = [HEAD, *self._numbers()]
            widths = [max(len(row[k]) for row in table) for k in range(len(HEAD))]
            lines += [
                "",
                *(
                    "  " + "  ".join(c.rjust(n) for c, n in zip(row, widths, strict=True))
                    for row in table
                ),
            ]
        if self.mistake:
            lines += ["", f"  looks like: {self.mistake}"]
        lines += [f"  note: {note}" for note in self.notes]
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        cell = "style='text-align:left;padding:.15em .8em .15em 0'"
        short = cell[:-1] + ";white-space:nowrap'"
        number = "style='text-align:right;padding:.15em .8em .15em 0'"
        head = "✓ all agrees" if self else "✗ wrong"
        parts = [
            "<div style='line-height:1.4;max-width:60em'>",
            f"<p><strong>{escape(self.layer)}</strong>, x of shape {escape(str(self.shape))}: "
            f"<strong>{head}</strong></p>",
        ]
        if not self:
            parts.append(f"<p>{escape(self.message)}</p>")
        if self.mistake:
            parts.append(f"<p>Looks like: <strong>{escape(self.mistake)}</strong></p>")
        rows = "".join(
            f"<tr><th scope='row' {short}>{escape(i.name)}</th><td {short}>{WORDS[i.ok]}</td>"
            f"<td {cell}>{escape(i.detail)}</td></tr>"
            for i in self.items
        )
        parts.append(f"<table><caption>What was checked</caption><tbody>{rows}</tbody></table>")
        if self.analytic.size:
            top = "".join(f"<th scope='col' {number}>{escape(h)}</th>" for h in HEAD)
            body = "".join(
                "<tr>" + "".join(f"<td {number}>{c}</td>" for c in row) + "</tr>"
                for row in self._numbers()
            )
            parts.append(
                f"<table><caption>Log-determinants, in nats</caption><thead><tr>{top}</tr></thead>"
                f"<tbody>{body}</tbody></table>"
            )
        if self.notes:
            parts.append("<ul>" + "".join(f"<li>{escape(n)}</li>" for n in self.notes) + "</ul>")
        return "".join(parts) + "</div>"


HEAD = ("example", "analytic", "numeric", "difference", "tolerance")


def _sentence(text: str) -> str:
    return text if text.endswith((".", "!", "?")) else text + "."
