"""The scorecard of the whole course: room by room, to be looked at, saved and printed."""

from __future__ import annotations

import datetime
from dataclasses import dataclass
from html import escape
from itertools import groupby
from pathlib import Path

from .exercise import Message
from .progress import progress


@dataclass(frozen=True)
class Room:
    """How far one notebook has come."""

    notebook: str
    solved: int
    tried: int  # and not solved
    total: int

    @property
    def bar(self) -> str:
        """A filled square for each solved exercise, a half one for tried, an empty one for open."""
        return "■" * self.solved + "◧" * self.tried + "□" * (self.total - self.solved - self.tried)

    @property
    def words(self) -> str:
        """The same in words."""
        tried = f", {self.tried} tried" if self.tried else ""
        return f"{self.solved} of {self.total} solved{tried}"


@dataclass(frozen=True)
class Scorecard:
    """What ``scorecard()`` shows. `save("scorecard.html")` or `save("scorecard.md")` keeps it."""

    rooms: tuple[Room, ...]
    student: str = ""

    @property
    def solved(self) -> int:
        """Exercises solved, in all rooms."""
        return sum(room.solved for room in self.rooms)

    @property
    def total(self) -> int:
        """Exercises there are."""
        return sum(room.total for room in self.rooms)

    @property
    def title(self) -> str:
        """The headline."""
        whose = f"{self.student}: " if self.student else ""
        return f"{whose}{self.solved} of {self.total} exercises solved"

    def __repr__(self) -> str:
        width = max((len(room.notebook) for room in self.rooms), default=0)
        most = max((room.total for room in self.rooms), default=0)
        rows = [f"{r.notebook:<{width}}  {r.bar:<{most}}  {r.words}" for r in self.rooms]
        return "\n".join([self.title, "", *rows])

    def _repr_html_(self) -> str:
        rows = "".join(
            f'<tr><th scope="row" style="text-align:left">{escape(r.notebook)}</th>'
            f'<td style="text-align:left" aria-hidden="true">{r.bar}</td>'
            f'<td style="text-align:left">{r.words}</td></tr>'
            for r in self.rooms
        )
        return f"<table><caption>{escape(self.title)}</caption><tbody>{rows}</tbody></table>"

    def markdown(self) -> str:
        """The scorecard as a Markdown table."""
        rows = [f"| {r.notebook} | {r.bar} | {r.words} |" for r in self.rooms]
        return "\n".join([f"# {self.title}", "", "| room | | |", "|---|---|---|", *rows, ""])

    def html(self) -> str:
        """The scorecard as a page of its own, which prints on one sheet."""
        return (
            '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
            f"<title>{escape(self.title)}</title><style>"
            "body{font:16px/1.5 system-ui,sans-serif;max-width:42em;margin:2em auto;padding:0 1em}"
            "caption{font-size:1.4em;text-align:left;padding-bottom:.5em}"
            "td,th{padding:.15em 1.2em .15em 0;font-weight:normal}"
            "@page{margin:2cm}</style></head><body>\n"
            f"{self._repr_html_()}\n<p>Glow, the course. ■ solved, ◧ tried, □ open.</p>\n"
            "</body></html>\n"
        )

    def save(self, path: str | Path, *, force: bool = False) -> Message:
        """Write it to `path`, .html (to print from a browser) or .md, with today's date.

        Never raises; the message says what was done, or why not. A file that is there already is
        replaced only with ``force=True``.
        """
        path = Path(path)
        if path.suffix.lower() not in (".html", ".md"):
            return Message(
                f"Not saved: the name ends in {path.suffix!r}; it may end in .html or in .md."
            )
        if path.exists() and not force:
            return Message(f"Not saved: {path} is there already. save(…, force=True) replaces it.")
        today = f"{datetime.date.today():%d %B %Y}"
        if path.suffix.lower() == ".md":
            text = f"{self.markdown()}\n{today}\n"
        else:
            text = self.html().replace("</body>", f"<p>{today}</p></body>")
        try:
            path.write_text(text, encoding="utf-8")
        except OSError as error:
            return Message(
                f"Not saved: {path} cannot be written ({error.strerror or type(error).__name__})."
            )
        return Message(
            f"Saved as {path}."
            + (" Open it in a browser to print it." if path.suffix.lower() == ".html" else "")
        )


def scorecard(student: str = "") -> Scorecard:
    """The state of all exercises by room, as recorded on this computer. `student` heads it."""
    rooms = []
    for notebook, rows in groupby(progress().rows, key=lambda row: row[0]):
        states = [row[3] for row in rows]
        rooms.append(Room(notebook, states.count("solved"), states.count("tried"), len(states)))
    return Scorecard(tuple(rooms), str(student))
