"""The zips: the student's has no answers and still judges, the instructor's has them all."""

import csv
import os
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import nbformat
import pytest

from course.exercise import registry
from course.sealed import seal
from tools import handout
from tools.notebooks import code, execute

LIGHT = "04_actnorm"


@pytest.fixture(scope="module")
def packed(tmp_path_factory) -> Path:
    return handout.student(tmp_path_factory.mktemp("dist"))


@pytest.fixture(scope="module")
def unpacked(packed, tmp_path_factory) -> Path:
    home = tmp_path_factory.mktemp("a student's home")
    with zipfile.ZipFile(packed) as archive:
        archive.extractall(home)
    return home / packed.stem


def _paths(root: Path) -> str:
    """What makes Python take the packages of the copy and not the ones installed here."""
    return os.pathsep.join((str(root / "notebooks"), str(root)))


def test_the_students_zip_holds_no_solution(packed):
    with zipfile.ZipFile(packed) as archive:
        texts = {
            name: archive.read(name).decode()
            for name in archive.namelist()
            if name.endswith((".py", ".ipynb", ".md", ".txt", ".json"))
        }
    assert any(name.endswith(f"{LIGHT}.ipynb") for name in texts)
    for item in registry().values():
        source = item.source()
        variants = (
            source,
            nbformat.v4.writes(nbformat.v4.new_notebook(cells=[code(source)]))
            .split('"source": [')[1]
            .split("]")[0]
            .strip(),
        )
        holders = [n for n, text in texts.items() for v in variants if v in text]
        assert holders == [], f"{item.id} is answered in {holders}"


def test_nothing_hidden_built_or_private_is_packed(packed):
    with zipfile.ZipFile(packed) as archive:
        names = [Path(name) for name in archive.namelist()]
    parts = {part for name in names for part in name.parts}
    assert not [part for part in parts if part.startswith(".") or part == "__pycache__"]
    assert not {"tests", "runs", "data.zip", "dist"} & {name.parts[1] for name in names}
    assert {
        "reference",
        "glowlite",
        "notebooks",
        "Makefile",
        "pyproject.toml",
        "constraints.txt",
        "LICENSE",
    } <= {name.parts[1] for name in names}


def test_the_readme_says_what_stayed_behind(unpacked, for_teachers):
    head, text = (unpacked / "README.md").read_text("utf-8").split("\n\n", 1)
    assert text == (handout.ROOT / "README.md").read_text("utf-8")
    assert "`make test`" in head and "`make bench`" in head
    links = set(re.findall(r"\]\(([^):#]+)[)#]", text))
    assert {link for link in links if not (unpacked / link).exists() and link not in head} == set()
    assert "docs/teaching.md" in head and "results" not in head and "https" not in head
    (name,) = [n for n in for_teachers.namelist() if n.endswith("instructor/README.md")]
    head = for_teachers.read(name).decode().split("\n\n", 1)[0]
    assert "CONTRIBUTING.md" in head and "docs/teaching.md" not in head


def test_equal_files_give_equal_zips(packed, tmp_path):
    assert handout.student(tmp_path).read_bytes() == packed.read_bytes()


def test_the_sealed_exercises_judge_as_the_open_ones_do(unpacked):
    """In the copy: every solution is right, every stub is not, and no solution is shown."""
    script = """
import course, sys
from course import hint, solution
from course.exercise import identity, judge, registry
assert course.__file__.startswith(sys.argv[1]), course.__file__
for item in registry().values():
    assert judge(item, item.solution).status == "right", item.id
    assert judge(item, item.stub_function()).status != "right", item.id
    assert judge(item, identity).status == "wrong", item.id
    assert "ask your teacher" in str(solution(item.id)), item.id
    assert item.explanation not in str(solution(item.id))
    assert item.hints[0] in str(hint(item.id, 1))
print(len(registry()))
"""
    done = subprocess.run(
        [sys.executable, "-c", script, str(unpacked)],
        text=True,
        capture_output=True,
        env={**os.environ, "PYTHONPATH": _paths(unpacked), "GLOW_COURSE_PROGRESS": "memory"},
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == str(len(registry()))


def test_a_students_notebook_runs_in_a_folder_with_a_space(unpacked, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", _paths(unpacked))
    folder = unpacked / "notebooks"
    book = nbformat.read(folder / f"{LIGHT}.ipynb", as_version=4)
    stored = len(book.cells)
    item = registry()["actnorm.forward"]
    book.cells += [
        code("import course; print(course.__file__)"),
        code(f'{item.source()}\n\ncheck("{item.id}", {item.name})'),
    ]
    execute(book, folder)
    where, verdict = book.cells[stored:]
    assert str(unpacked) in where.outputs[0]["text"]
    assert verdict.outputs[0]["data"]["text/plain"].startswith(f"{item.id}: Right.")


def test_a_filled_in_notebook_is_not_handed_to_students(tmp_path, monkeypatch):
    item = registry()["actnorm.forward"]
    book = nbformat.v4.new_notebook(cells=[code(f'{item.source()}\ncheck("{item.id}", f)')])
    path = tmp_path / f"{LIGHT}.ipynb"
    nbformat.write(book, path)
    monkeypatch.setattr(handout, "find", lambda names: [path])
    with pytest.raises(ValueError, match="'actnorm.forward' does not hold its stub"):
        handout.student(tmp_path)
    assert not list(tmp_path.glob("*.zip"))


@pytest.fixture(scope="module")
def for_teachers(tmp_path_factory) -> zipfile.ZipFile:
    with zipfile.ZipFile(handout.instructor(tmp_path_factory.mktemp("dist"), ["04"])) as archive:
        yield archive


def test_the_instructors_notebook_is_filled_in_and_right(for_teachers):
    (name,) = [n for n in for_teachers.namelist() if n.endswith(".ipynb")]
    book = nbformat.reads(for_teachers.read(name).decode(), as_version=4)
    for item in (e for e in registry().values() if e.notebook == LIGHT):
        (cell,) = [c for c in book.cells if f'check("{item.id}"' in c.source]
        assert item.source() in cell.source
        assert cell.outputs[0]["data"]["text/plain"].startswith(f"{item.id}: Right.")


def test_the_instructors_exercises_are_open_and_the_guide_is_there(for_teachers):
    names = [name.split("/", 1)[1] for name in for_teachers.namelist()]
    assert "docs/teaching.md" in names and "docs/authoring.md" in names
    (actnorm,) = [n for n in for_teachers.namelist() if n.endswith("exercises/actnorm.py")]
    assert registry()["actnorm.forward"].source() in for_teachers.read(actnorm).decode()


def test_a_solution_that_is_not_accepted_stops_the_instructors_zip(tmp_path, monkeypatch):
    monkeypatch.setattr(handout, "filled", lambda path: (None, {"actnorm.forward": False}))
    with pytest.raises(ValueError, match="04_actnorm.ipynb: not accepted: actnorm.forward"):
        handout.instructor(tmp_path, ["04"])
    assert not list(tmp_path.glob("*.zip"))


def test_the_table_of_mutants_has_them_all():
    table = handout.mutants()
    rows = [line for line in table.splitlines() if line.startswith("| ")]
    items = registry().values()
    assert len(rows) == sum(len(item.mutants) for item in items) + len(items)
    assert all(item.id in table for item in items)


def _handed_in(*cells: tuple[str, str]) -> str:
    """A notebook of (source, what was said) as a student's file has it."""
    book = nbformat.v4.new_notebook(cells=[nbformat.v4.new_markdown_cell("# Mine"), code("1 / 0")])
    for source, said in cells:
        cell = code(source)
        if said:
            data = {"text/plain": said}
            cell.outputs = [nbformat.v4.new_output("execute_result", data, execution_count=1)]
        book.cells.append(cell)
    return nbformat.v4.writes(book)


def test_what_was_handed_in_is_collected_and_not_run(tmp_path, capsys):
    (ada, other) = (tmp_path / name for name in ("ada", "other"))
    for folder in (ada, other, ada / ".ipynb_checkpoints"):
        folder.mkdir()
    text = _handed_in(
        ("def f(x): ...\ncheck('lu.matrix', f)", "lu.matrix: Right."),
        ('check("lu.logdet", f)', "lu.logdet: Wrong. h·w is missing."),
        ('check("lu.inverse", f)', "lu.inverse: Not done yet. Write its body."),
        ('open("was run", "w")\ncheck("lu.broken", f)', ""),
        ('words = r"Якобиан, да"  # yours\nreflect("1", words) if words else 0', "seen"),
        ('words = "two\nlines"\nreflect("3", words)', ""),
        ("words = '=HYPERLINK(1)'\nreflect(\"2\", words)", ""),
    )
    (ada / "06.ipynb").write_text(text, "utf-8")
    (ada / ".ipynb_checkpoints" / "06.ipynb").write_text(text, "utf-8")
    (other / "06.ipynb").write_text("{", "utf-8")
    assert handout.main(["collect", str(tmp_path)]) == 0
    assert list(csv.reader(capsys.readouterr().out.splitlines(keepends=True))) == [
        ["file", "exercise", "answer"],
        ["ada/06.ipynb", "lu.matrix", "Right"],
        ["ada/06.ipynb", "lu.logdet", "Wrong"],
        ["ada/06.ipynb", "lu.inverse", "Not done yet"],
        ["ada/06.ipynb", "lu.broken", "not run"],
        ["ada/06.ipynb", "question 1", "Якобиан, да"],
        ["ada/06.ipynb", "question 3", 'words = "two\nlines"\nreflect("3", words)'],
        ["ada/06.ipynb", "question 2", "'=HYPERLINK(1)"],
        ["other/06.ipynb", "", "cannot be read: NotJSONError"],
    ]
    assert not list(Path().glob("was run"))
    assert handout.main(["collect", str(tmp_path / "nobody")]) == 1


def test_what_is_sealed_does_not_read_like_its_source():
    source = "def secret():\n    return 'the answer'\n"
    sealed = seal(source)
    assert "secret" not in sealed and "answer" not in sealed
    scope = {}
    exec(sealed, scope)
    assert scope["secret"]() == "the answer"
