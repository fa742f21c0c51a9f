"""What the student has done so far, kept in one small file.

The file is a convenience, never a condition: if it is damaged it is set aside and a new one is
begun; if it cannot be written, progress lives in memory until the kernel stops. Neither can make
a check fail.

The environment variable ``GLOW_COURSE_PROGRESS`` names another file; the value ``memory`` keeps
no file at all, which is what tests and stored outputs use.
"""

from __future__ import annotations

import json
import os
import tempfile
from dataclasses import asdict, dataclass
from html import escape
from pathlib import Path

VARIABLE = "GLOW_COURSE_PROGRESS"
FOLDER = Path(__file__).parents[1]  # of the notebooks


@dataclass
class Record:
    """How far one exercise has come."""

    attempts: int = 0
    solved: bool = False
    hints: int = 0


class Progress:
    """The records of all exercises, read from and saved to ``path`` (None: memory only)."""

    def __init__(self, path: Path | None):
        self.path = path
        self._memory: dict[str, Record] = {}
        self._noticed: set[str] = set()

    def record(self, exercise: str) -> Record:
        """The record of one exercise; a fresh one if it was never tried."""
        return self.records().get(exercise, Record())

    def records(self) -> dict[str, Record]:
        """All records. Read anew each time, since two notebooks may be open at once."""
        if self.path is not None:
            try:
                self._memory = _parse(self.path.read_text(encoding="utf-8"))
            except FileNotFoundError:
                pass  # nothing saved yet, or the student removed it: memory is the best we know
            except OSError as error:  # perhaps another user's: a save would replace it
                self._set_aside(f"cannot be read ({_reason(error)})")
            except (ValueError, TypeError, RecursionError):
                self._set_aside("is damaged")
        return dict(self._memory)

    def update(
        self,
        exercise: str,
        *,
        attempted: bool = False,
        solved: bool = False,
        hints: int | None = None,
    ) -> Record:
        """Change one record and save all. A solved exercise stays solved."""
        records = self.records()
        record = records.get(exercise, Record())
        record.attempts += attempted
        record.solved = record.solved or solved
        record.hints = record.hints if hints is None else max(record.hints, hints)
        self._memory = {**records, exercise: record}
        self._save()
        return record

    def _save(self) -> None:
        if self.path is None:
            return
        text = json.dumps(
            {"version": 1, "exercises": {k: asdict(v) for k, v in sorted(self._memory.items())}},
            indent=1,
        )
        # Write beside the target and rename: a killed kernel leaves the old file or the new one.
        name = None
        try:
            handle, name = tempfile.mkstemp(prefix=self.path.name, dir=self.path.parent)
            with os.fdopen(handle, "w", encoding="utf-8") as file:
                file.write(text)
            os.replace(name, self.path)
        except OSError as error:
            if name is not None and os.path.exists(name):
                os.unlink(name)
            self._notice(
                f"Progress cannot be saved ({_reason(error)}); "
                "it is kept in memory until the kernel stops."
            )

    def _set_aside(self, why: str) -> None:
        if not os.path.isfile(self.path):  # a folder stands there: it is not ours to move
            return self._notice(f"The progress file {why}.")
        number = 1
        while (aside := self.path.with_name(f"{self.path.name}.damaged-{number}")).exists():
            number += 1
        try:
            os.replace(self.path, aside)
        except OSError as error:
            self._notice(f"The progress file {why} and cannot be moved ({_reason(error)}).")
        else:
            self._notice(
                f"The progress file {why}. It is kept as {aside.name}; a new one is begun."
            )

    def _notice(self, text: str) -> None:
        if text not in self._noticed:  # once a session is enough
            self._noticed.add(text)
            print(text)


def _parse(text: str) -> dict[str, Record]:
    """Read the file's text; ValueError if anything about it is not as we write it."""
    data = json.loads(text)
    if not isinstance(data, dict) or not isinstance(data.get("exercises"), dict):
        raise ValueError("not a progress file")
    records = {}
    for exercise, fields in data["exercises"].items():
        if not isinstance(fields, dict):
            raise ValueError(f"{exercise} has no record")
        record = Record(**{k: v for k, v in fields.items() if k in Record.__dataclass_fields__})
        counts = (record.attempts, record.hints)
        if type(record.solved) is not bool or any(type(n) is not int or n < 0 for n in counts):
            raise ValueError(f"{exercise} has a damaged record")
        records[exercise] = record
    return records


def _reason(error: OSError) -> str:
    return error.strerror or type(error).__name__


_open: dict[str, Progress] = {}


def current() -> Progress:
    """The progress in use: that of ``GLOW_COURSE_PROGRESS``, or the file beside the notebooks."""
    where = os.environ.get(VARIABLE) or str(FOLDER / ".progress.json")
    if where not in _open:
        _open[where] = Progress(None if where == "memory" else Path(where))
    return _open[where]


@dataclass(frozen=True)
class Table:
    """The table that ``progress()`` shows: a row is (notebook, exercise, title, state, tries)."""

    rows: tuple[tuple[str, str, str, str, int], ...]

    @property
    def solved(self) -> int:
        return sum(state == "solved" for *_, state, _ in self.rows)

    def __repr__(self) -> str:
        lines = [f"{self.solved} of {len(self.rows)} exercises solved"]
        notebook = None
        for name, exercise, _, state, attempts in self.rows:
            if name != notebook:
                lines += ["", name]
                notebook = name
            tries = f"{attempts} tries" if attempts != 1 else "1 try"
            lines.append(f"  {exercise:<36} {state:<10} {tries if attempts else ''}".rstrip())
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        head = "".join(
            f'<th scope="col" style="text-align:left">{name}</th>'
            for name in ("notebook", "exercise", "", "state", "tries")
        )
        body = "".join(
            "<tr>"
            + "".join(f'<td style="text-align:left">{escape(str(v))}</td>' for v in row)
            + "</tr>"
            for row in self.rows
        )
        return (
            f"<table><caption>{self.solved} of {len(self.rows)} exercises solved</caption>"
            f"<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
        )


def progress() -> Table:
    """Every exercise of the rooms that are here with its state: solved, tried or open."""
    from .exercise import registry

    records, every = current().records(), registry()
    # A teacher may leave notebooks out; one that was renamed counts once it was tried.
    rooms = {path.name[:2] for path in FOLDER.glob("*.ipynb")}
    rooms |= {every[id].notebook[:2] for id in records.keys() & every.keys()}
    rows = []
    for exercise in every.values():
        if exercise.notebook[:2] not in rooms:
            continue
        record = records.get(exercise.id, Record())
        state = "solved" if record.solved else "tried" if record.attempts else "open"
        rows.append((exercise.notebook, exercise.id, exercise.title, state, record.attempts))
    return Table(tuple(rows))
