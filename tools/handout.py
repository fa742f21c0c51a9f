"""What is handed out: a zip for students without the solutions, one for teachers with them.

    python -m tools.handout student      dist/glow-course-student.zip
    python -m tools.handout instructor   dist/glow-course-instructor.zip; runs every notebook
    python -m tools.handout mutants      every wrong answer we expect, with what it is told
    python -m tools.handout collect FOLDER > answers.csv   what the notebooks handed in say

Equal files give equal zips. In the student's, the exercise modules are sealed (course/sealed.py):
`check` and `hint` work, `solution` sends to the teacher. In the instructor's, the notebooks are
filled in, executed, and every check has said "Right.". To collect runs nothing handed in.
"""

from __future__ import annotations

import argparse
import ast
import csv
import re
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path

import nbformat

from course.exercise import registry
from course.sealed import seal
from tools.guard import WIDGET
from tools.notebooks import CHECK, FOLDER, filled, find, inject

ROOT = FOLDER.parent
CONTENTS = (
    "CHANGELOG.md",
    "LICENSE",
    "Makefile",
    "README.md",
    "constraints.txt",
    "environment.yml",
    "pyproject.toml",
    "docs/faces.png",
    "glowlite",
    "notebooks",
    "reference",
    "results",
)
FOR_TEACHERS = ("docs/authoring.md", "docs/teaching.md")
REFLECT = re.compile(r'reflect\(\s*["\'](\d)["\']\s*,\s*words\s*\)')
NOTE = (
    "> A copy handed out with the course: `make course` and `make verify` work here. Left out: "
    "tests, benchmarks, tools, {}; so the links to them, `make test` and `make bench` do not.\n\n"
)


def files(names: tuple[str, ...] = CONTENTS) -> Iterator[Path]:
    """The files to hand out, relative to the project: nothing hidden, nothing built."""
    for name in names:
        found = [ROOT / name] if (ROOT / name).is_file() else (ROOT / name).rglob("*")
        for path in found:
            path = path.relative_to(ROOT)
            if (
                (ROOT / path).is_file()
                and path.suffix != ".pyc"
                and not any(part.startswith(".") or part == "__pycache__" for part in path.parts)
            ):
                yield path


def student(folder: Path, names: list[str] | None = None) -> Path:
    """Write the student's zip into `folder`. `names` chooses notebooks; all by default.

    Raises:
        ValueError: a notebook holds an answer where its stub should be.
    """
    for path in find(names):
        inject(nbformat.read(path, as_version=4))  # into a copy; raises where a stub is missing
    return _write(
        folder / "glow-course-student.zip",
        {
            path: seal((ROOT / path).read_text(encoding="utf-8")).encode()
            if _holds_answers(path)
            else (ROOT / path).read_bytes()
            for path in files()
            if _chosen(path, names)
        },
    )


def instructor(folder: Path, names: list[str] | None = None) -> Path:
    """Write the instructor's zip into `folder`: run each notebook with all solutions filled in.

    Raises:
        ValueError: a solution was not accepted.
    """
    contents = {
        path: (ROOT / path).read_bytes()
        for path in files(CONTENTS + FOR_TEACHERS)
        if _chosen(path, names)
    }
    for path in find(names):
        book, answers = filled(path)
        wrong = [id for id, right in answers.items() if not right]
        if wrong:
            raise ValueError(f"{path.name}: not accepted: {', '.join(wrong)}")
        for cell in book.cells:
            for output in cell.get("outputs", []):
                output.get("data", {}).pop(WIDGET, None)  # names another model in every run
        book.metadata.pop("widgets", None)
        contents[path.relative_to(ROOT)] = (nbformat.writes(book) + "\n").encode()
        print(f"{path.name}: {len(answers)} exercises filled in", flush=True)
    return _write(folder / "glow-course-instructor.zip", contents)


def mutants() -> str:
    """Every wrong answer we expect, exercise by exercise, in Markdown."""
    lines = []
    for item in registry().values():
        lines += [
            f"\n## {item.notebook}: {item.title} (`{item.id}`, {item.minutes} min)\n",
            "| wrong answer | what the student is told |",
            "|---|---|",
        ]
        for mutant in item.mutants:
            said = mutant.says or f"… {mutant.deserves} …"
            cells = (text.replace("|", "\\|").replace("\n", " ") for text in (mutant.name, said))
            lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def collect(folder: Path) -> Iterator[tuple[str, str, str]]:
    """(file, exercise or question, answer) of every notebook in `folder` and below.

    Of an exercise: what `check` last said there, "Right", "Wrong" or "Not done yet", or "not run".
    Of a question: the words written. All of it as the file has it; nothing is run.
    """
    for path in sorted(folder.rglob("*.ipynb")):
        name = path.relative_to(folder)
        if any(part.startswith(".") for part in name.parts):  # JupyterLab's checkpoints
            continue
        try:
            book = nbformat.read(path, as_version=4)
            for cell in book.cells:
                if cell.cell_type != "code":
                    continue
                if match := CHECK.search(cell.source):
                    texts = (o.get("data", {}).get("text/plain", "") for o in cell.outputs)
                    said = [t for t in texts if t.startswith(f"{match[1]}: ")]
                    answer = said[-1][len(match[1]) + 2 :].split(".")[0] if said else "not run"
                    yield name.as_posix(), match[1], answer
                elif match := REFLECT.search(cell.source):
                    yield name.as_posix(), f"question {match[1]}", _words(cell.source)
        except Exception as error:  # a file can hold anything; the others are still to be read
            yield name.as_posix(), "", f"cannot be read: {type(error).__name__}"


def _words(source: str) -> str:
    """The text that a cell gives the name `words`; what cannot be read as Python, whole."""
    try:
        values = [
            ast.literal_eval(line.value)
            for line in ast.parse(source).body
            if isinstance(line, ast.Assign) and ast.unparse(line.targets[0]) == "words"
        ]
    except (SyntaxError, ValueError):
        return source
    return str(values[-1]) if values else ""


def _holds_answers(path: Path) -> bool:
    return path.parts[1:-1] == ("course", "exercises") and path.name != "__init__.py"


def _chosen(path: Path, names: list[str] | None) -> bool:
    return path.suffix != ".ipynb" or not names or ROOT / path in find(names)


def _write(target: Path, contents: dict[Path, bytes]) -> Path:
    readme = Path("README.md")
    text = contents[readme].decode()
    links = [
        Path(link) for link in re.findall(r"\]\(([\w./-]+)[)#]", text)
    ]  # to files, not to the web
    here = {parent for path in contents for parent in (path, *path.parents)}
    left = sorted({link.as_posix() for link in links if link not in here})
    contents = {**contents, readme: (NOTE.format(", ".join(left)) + text).encode()}
    target.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as archive:
        for path in sorted(contents):
            info = zipfile.ZipInfo(f"{target.stem}/{path.as_posix()}")  # dated 1980
            info.compress_type = zipfile.ZIP_DEFLATED
            info.create_system = 3  # so that the bits below mean the same everywhere
            info.external_attr = 0o644 << 16
            archive.writestr(info, contents[path])
    return target


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m tools.handout",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("what", choices=("student", "instructor", "mutants", "collect"))
    parser.add_argument(
        "names", nargs="*", help="numbers of notebooks, as 04; all by default. To collect: folders"
    )
    options = parser.parse_args(argv)
    if options.what == "collect":
        table = csv.writer(sys.stdout, lineterminator="\n")
        table.writerow(("file", "exercise", "answer"))
        for folder in map(Path, options.names or ["."]):
            if not folder.is_dir():
                print(f"{folder} is no folder", file=sys.stderr)
                return 1
            for row in collect(folder):  # a spreadsheet would compute what begins as a formula
                table.writerow(
                    "'" * field.startswith(("=", "+", "-", "@")) + field for field in row
                )
        return 0
    if options.what == "mutants":
        print(mutants())
        return 0
    try:
        target = {"student": student, "instructor": instructor}[options.what](
            ROOT / "dist", options.names
        )
    except ValueError as error:
        print(f"nothing written: {error}", file=sys.stderr)
        return 1
    print(f"{target.relative_to(ROOT)}, {target.stat().st_size / 1024:.0f} kB")
    return 0


if __name__ == "__main__":
    sys.exit(main())
