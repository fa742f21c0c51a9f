"""Build and execute the notebooks.

    python -m tools.notebooks run            execute all notebooks in place, storing outputs
    python -m tools.notebooks run 04 06      only these
    python -m tools.notebooks solve 04       run a copy with all solutions filled in; nothing stored

`build` writes a notebook from a list of cells, made by `md`, `code` and `exercise`.
"""

from __future__ import annotations

import argparse
import os
import re
import sys
import time
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from nbformat import NotebookNode

FOLDER = Path(__file__).parents[1] / "notebooks"
CHECK = re.compile(r'check\(\s*["\']([\w.\-]+)["\']\s*,\s*(\w+)\s*\)')
_KERNEL = {"display_name": "Python 3", "language": "python", "name": "python3"}


def md(text: str) -> NotebookNode:
    """A Markdown cell."""
    return nbformat.v4.new_markdown_cell(text.strip())


def code(text: str, *tags: str) -> NotebookNode:
    """A code cell, with tags if any are given."""
    cell = nbformat.v4.new_code_cell(text.strip())
    if tags:
        cell.metadata["tags"] = list(tags)
    return cell


def exercise(id: str) -> NotebookNode:
    """The cell of an exercise, from the registry: its stub, then `check`."""
    from course.exercise import registry

    return code(registry()[id].cell)


def build(name: str, cells: list[NotebookNode], folder: Path = FOLDER) -> Path:
    """Write `folder/name.ipynb` from cells, not yet executed. Equal cells give equal bytes."""
    for number, cell in enumerate(cells, 1):
        cell["id"] = f"cell-{number:02d}"
    book = nbformat.v4.new_notebook(cells=cells, metadata={"kernelspec": _KERNEL})
    path = folder / f"{name}.ipynb"
    _save(book, path)
    return path


def find(names: list[str] | None = None) -> list[Path]:
    """All notebooks, or those whose file names start so. Raises SystemExit if one is missing."""
    every = sorted(FOLDER.glob("[0-9]*.ipynb"))
    if not names:
        return every
    chosen = [path for path in every if any(path.name.startswith(n) for n in names)]
    for name in names:
        if not any(path.name.startswith(name) for path in chosen):
            raise SystemExit(f"there is no notebook whose name starts with {name!r} in {FOLDER}")
    return chosen


def execute(book: NotebookNode, folder: Path = FOLDER, timeout: int = 600) -> NotebookNode:
    """Run `book` from top to bottom in a fresh kernel, without the user's progress.

    Raises:
        nbclient.exceptions.CellExecutionError: a cell raised.
    """
    before = os.environ.get("GLOW_COURSE_PROGRESS")
    os.environ["GLOW_COURSE_PROGRESS"] = "memory"  # the kernel inherits it
    try:
        NotebookClient(
            book,
            timeout=timeout,
            kernel_name="python3",
            record_timing=False,
            coalesce_streams=True,  # or the parts that a text comes in differ from run to run
            resources={"metadata": {"path": str(folder)}},
        ).execute()
    finally:
        if before is None:
            del os.environ["GLOW_COURSE_PROGRESS"]
        else:
            os.environ["GLOW_COURSE_PROGRESS"] = before
    return book


def run(path: Path) -> float:
    """Execute a notebook in place; return the seconds it took."""
    book = nbformat.read(path, as_version=4)
    start = time.perf_counter()
    execute(book, path.parent)
    seconds = time.perf_counter() - start
    # What differs between machines has no place in the file.
    book.metadata = NotebookNode({"kernelspec": NotebookNode(_KERNEL)})
    _save(book, path)
    return seconds


def inject(book: NotebookNode) -> list[str]:
    """Replace every stub in `book` by our solution; return the ids of the exercises found.

    Raises:
        ValueError: a cell checks an exercise but does not hold its stub.
    """
    from course.exercise import registry

    found = []
    for cell in book.cells:
        match = CHECK.search(cell.source) if cell.cell_type == "code" else None
        if not match:
            continue
        item = registry().get(match[1])
        if item is None or item.stub.strip() not in cell.source:
            raise ValueError(f"the cell that checks {match[1]!r} does not hold its stub")
        cell.source = cell.source.replace(item.stub.strip(), item.source())
        found.append(item.id)
    return found


def filled(path: Path) -> tuple[NotebookNode, dict[str, bool]]:
    """A copy with all solutions filled in, executed; for each exercise whether `check` agreed."""
    book = nbformat.read(path, as_version=4)
    found = inject(book)
    execute(book, path.parent)
    texts = [
        output.get("data", {}).get("text/plain", "")
        for cell in book.cells
        if cell.cell_type == "code"
        for output in cell.outputs
    ]
    return book, {id: any(text.startswith(f"{id}: Right.") for text in texts) for id in found}


def solve(path: Path) -> dict[str, bool]:
    """Run a copy with all solutions filled in; say for each exercise whether `check` agreed."""
    return filled(path)[1]


def _save(book: NotebookNode, path: Path) -> None:
    nbformat.validate(book)
    path.write_text(nbformat.writes(book) + "\n", encoding="utf-8")


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m tools.notebooks",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("what", choices=["run", "solve"])
    parser.add_argument("names", nargs="*", help="first characters of file names, such as 04")
    options = parser.parse_args(argv)
    from tools.guard import offences

    bad = 0
    for path in find(options.names):
        if options.what == "solve":
            for id, right in solve(path).items():
                print(f"{path.name}: {id}: {'right' if right else 'NOT RIGHT'}")
                bad += not right
            continue
        seconds = run(path)
        print(f"{path.name}: {seconds:.1f} s, {path.stat().st_size / 1024:.0f} kB")
        for offence in offences(path):
            print(f"  {offence}")
            bad += 1
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
