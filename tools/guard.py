"""What a notebook must keep to, beyond what nbval compares."""

from __future__ import annotations

import json
import re
import warnings
from pathlib import Path

import nbformat
from nbformat import NotebookNode

from course.predict import predictions
from tools.notebooks import CHECK

WORDS = 1500
CELLS = (25, 40)
BYTES = 1_000_000
COLUMNS = 100
"""Of code and of printed lines: what JupyterLab shows beside its sidebar, in 1280 pixels."""
SHORT = {"00"}
"""Notebooks that may be shorter than `CELLS` and need no exercise of their own."""

PREDICT = re.compile(r"(?<![\w.])predict\(([^)\n]*)")

_SOURCE = {
    r"clear_output": "clear_output hides outputs from comparison",
    r"(?m)^\s*%%?capture": "%capture hides outputs from comparison",
    r"(?i)#\s*(nbval_\w+|pytest_validate_ignore_output)": "an nbval comment stops comparison",
    r"(?m);[ \t]*$": "a trailing ; hides an output",
    r"plt\.show\(": "plt.show() shows a figure without words; use show(fig, alt)",
    r"(?m)^\s*%%?time|perf_counter|time\.time\(|datetime\.now|\.today\(": "time-dependent output",
    r"default_rng\(\s*\)": "a random generator without a seed",
    r"np\.random\.(rand|randn|normal|uniform|seed|choice|permutation)\b": (
        "NumPy's global random state; use np.random.default_rng(seed)"
    ),
    r"(?m)^\s*[!]|^\s*%pip|^\s*%%bash": "a shell command",
}
_MACHINE = re.compile(
    r"(?<![\w.])/(home|Users|tmp|root|work|private|usr|opt|mnt)/\w|\b[A-Z]:\\\w|site-packages"
)
_ADDRESS = re.compile(r"\bat 0x[0-9a-fA-F]{6,}")
_FINGERPRINT = re.compile(r"^axes \d+: .*(#[0-9a-f]{8}|not compared)", re.M)
_IMAGE_MIMES = ("image/png", "image/jpeg", "image/svg+xml", "image/gif")
WIDGET = "application/vnd.jupyter.widget-view+json"


def offences(path: Path, exercises: dict | None = None) -> list[str]:
    """Sentences about everything that is wrong with a notebook; empty if nothing is.

    `exercises` is the registry (the course's own by default).
    """
    if exercises is None:
        from course.exercise import registry

        exercises = registry()
    try:
        text = path.read_text(encoding="utf-8")
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # nbformat repairs missing or double ids with a warning
            nbformat.validate(nbformat.from_dict(json.loads(text)))
        book = nbformat.reads(text, as_version=4)
    except Exception as error:
        return [f"not a valid notebook: {str(error).splitlines()[0]}"]
    if book.nbformat != 4 or book.nbformat_minor < 5:
        return ["not nbformat 4.5 or later"]
    found = list(_whole(path, book))
    found += _head(book)
    found += _headings(book)
    found += _exercises(path, book, exercises)
    number, last_image = 0, False
    for k, cell in enumerate(book.cells, 1):
        if cell.cell_type == "markdown":
            found += [f"cell {k}: {s}" for s in _markdown(cell)]
        elif cell.cell_type == "code":
            number += 1
            found += [f"cell {k}: {s}" for s in _code(cell, number, last_image)]
            last_image = any("image/png" in o.get("data", {}) for o in cell.outputs)
    return found


def _whole(path: Path, book: NotebookNode):
    kernel = book.metadata.get("kernelspec", {}).get("name")
    if kernel != "python3":
        yield f"the kernel is {kernel!r}, not 'python3'"
    if path.stat().st_size > BYTES:
        yield f"{path.stat().st_size} bytes; at most {BYTES}"
    words = sum(len(_prose(c.source)) for c in book.cells if c.cell_type == "markdown")
    if words > WORDS:
        yield f"{words} words; at most {WORDS}"
    low, high = CELLS
    if len(book.cells) > high or (len(book.cells) < low and path.name[:2] not in SHORT):
        yield f"{len(book.cells)} cells; {low} to {high}"
    if book.metadata.get("widgets"):
        yield "stored widget state; clear it"


def _prose(text: str) -> list[str]:
    """The words of a Markdown text; a formula counts as one."""
    text = re.sub(r"\$\$.*?\$\$|\$[^$]+\$", " formula ", text, flags=re.S)
    return re.findall(r"\w[\w'’\-]*", re.sub(r"<[^>]+>|\]\([^)]*\)", " ", text))


def _head(book: NotebookNode):
    first = book.cells[0] if book.cells else None
    if first is None or first.cell_type != "markdown" or not first.source.startswith("# "):
        yield "the first cell must be Markdown and start with the title, '# …'"
        return
    for word in ("Goals", "Minutes", "Slides"):
        if not re.search(rf"\b{word}\b", first.source, re.I):
            yield f"the first cell does not give {word.lower()}"


def _headings(book: NotebookNode):
    levels = []
    for cell in book.cells:
        if cell.cell_type == "markdown":
            text = re.sub(r"```.*?```", "", cell.source, flags=re.S)
            levels += [len(m) for m in re.findall(r"^(#{1,6}) \S", text, flags=re.M)]
    if levels.count(1) != 1:
        yield f"{levels.count(1)} titles ('# …'); there must be one"
    for before, after in zip(levels, levels[1:], strict=False):
        if after > before + 1:
            yield f"a heading of level {after} follows one of level {before}"


def _exercises(path: Path, book: NotebookNode, exercises: dict):
    cells = [c for c in book.cells if c.cell_type == "code"]
    ids = [id for c in cells for id, _ in CHECK.findall(c.source)]
    expected = [e.id for e in exercises.values() if e.notebook == path.stem]
    for id in ids:
        if id not in exercises:
            yield f"exercise {id!r} is not registered"
        elif exercises[id].notebook != path.stem:
            yield f"exercise {id!r} is registered for {exercises[id].notebook}"
        if ids.count(id) > 1:
            yield f"exercise {id!r} stands there twice"
    yield from (
        f"exercise {id!r} is registered and missing here" for id in expected if id not in ids
    )
    for cell in cells:
        for id, name in CHECK.findall(cell.source):
            if id not in exercises:
                continue
            item = exercises[id]
            if item.stub.strip() not in cell.source or name != item.name:
                yield f"the cell of {id!r} does not hold its stub"
            if not cell.source.rstrip().splitlines()[-1].startswith("check("):
                yield f"the cell of {id!r} does not end with its check"
            stored = "".join(o.get("data", {}).get("text/plain", "") for o in cell.outputs)
            state = "Wrong." if item.stub_deserves else "Not done yet."
            if not stored.startswith(f"{id}: {state}"):
                yield f"the stored result of {id!r} is not that of its stub"
    for cell in cells:
        for inside in PREDICT.findall(cell.source):
            if inside.strip("\"'") not in predictions():
                yield f"predict({inside}) names no prediction; its text stands in exercises/"
    if path.name[:2] in SHORT:
        return
    if not ids:
        yield "no exercise"
    if not any(
        c.cell_type == "markdown" and re.search(r"your turn", c.source, re.I) for c in book.cells
    ):
        yield "no 'Your turn'"
    if not any(PREDICT.search(c.source) for c in cells):
        yield "no prediction question"


def _markdown(cell: NotebookNode):
    if re.search(r"!\[\s*\]\(", cell.source):
        yield "an image without alt text"
    for tag in re.findall(r"<img\b[^>]*>", cell.source):
        if not re.search(r"alt\s*=\s*[\"'][^\"']+", tag):
            yield "an image without alt text"
    if cell.get("attachments"):
        yield "an attached picture, which no test sees"
    if _MACHINE.search(cell.source):
        yield "a path of one machine"


def _code(cell: NotebookNode, number: int, image_before: bool):
    if cell.execution_count != number:
        yield f"execution count {cell.execution_count}; it should be {number}"
    if not cell.source.strip():
        yield "an empty code cell"
    printed = "".join(o.text for o in cell.outputs if o.output_type == "stream")
    for what, text in (("code", cell.source), ("output", printed)):
        longest = max(map(len, text.splitlines()), default=0)
        if longest > COLUMNS:
            yield f"a line of {what} with {longest} characters; at most {COLUMNS}"
    for pattern, sentence in _SOURCE.items():
        if re.search(pattern, cell.source):
            yield sentence
    if _MACHINE.search(cell.source):
        yield "a path of one machine"
    tags = set(cell.metadata.get("tags", []))
    widget = any(WIDGET in o.get("data", {}) for o in cell.outputs)
    shows_progress = re.search(r"(?<![\w.])(progress|scorecard)\(\)", cell.source)
    nbval_tags = {t for t in tags if t.startswith("nbval") or t == "raises-exception"}
    if nbval_tags - {"nbval-ignore-output"}:
        yield f"the tag {sorted(nbval_tags - {'nbval-ignore-output'})[0]} is not allowed"
    ignored = "nbval-ignore-output" in tags
    if ignored and not widget and not shows_progress:
        yield "nbval-ignore-output is for scorecard(), for progress() and widgets only"
    if shows_progress and not ignored:
        yield f"{shows_progress[1]}() differs between readers; tag the cell nbval-ignore-output"
    if widget and not ignored:
        yield "a widget that nbval cannot compare; tag the cell nbval-ignore-output"
    if (
        widget
        and not image_before
        and not any("image/png" in o.get("data", {}) for o in cell.outputs)
    ):
        yield "a widget without a static picture in its cell or the code cell before"
    if any(
        WIDGET in (d := o.get("data", {})) and "(" in d.get("text/plain", "") for o in cell.outputs
    ):
        yield "a widget that shows code where nothing runs; give it a __repr__ in words"
    for output in cell.outputs:
        yield from _output(output, ignored)


def _output(output: NotebookNode, ignored: bool):
    if output.output_type == "error":
        yield f"a stored error: {output.ename}"
        return
    if output.output_type == "stream":
        if output.name == "stderr":
            yield "output on stderr"
        text = output.text
    else:
        data = output.get("data", {})
        text = "\n".join(v for k, v in data.items() if k.startswith("text/"))
        for mime in _IMAGE_MIMES:
            if mime not in data:
                continue
            plain = data.get("text/plain", "")
            if mime != "image/png" or not plain.startswith("Figure: "):
                yield "a figure without alt text; use show(fig, alt)"
            elif not _FINGERPRINT.search(plain):
                yield "a figure without a fingerprint of its data; use show(fig, alt)"
        if re.search(r"<img\b(?![^>]*\balt\s*=)", text):
            yield "an image without alt text"
    if _MACHINE.search(text):
        yield "a path of one machine in an output"
    if _ADDRESS.search(text):
        yield "a memory address in an output"
    if not ignored and re.search(r"\b\d+(\.\d+)? ?(ms|µs|seconds) (±|elapsed)", text):
        yield "a measured time in an output"
