"""The notebooks keep to what nbval cannot see, and the guard that says so sees it."""

import copy
import dataclasses
import json

import nbformat
import numpy as np
import pytest

from course.exercise import Exercise, registry
from course.predict import predictions
from tools.guard import PREDICT, offences
from tools.notebooks import FOLDER, build, code, execute, exercise, find, inject, md, run, solve

NOTEBOOKS = find()
by_name = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)
NAME = "04_actnorm"


@by_name
def test_a_notebook_keeps_the_rules(path):
    assert offences(path) == []


@by_name
def test_a_notebook_runs_with_all_solutions_filled_in(path):
    answers = solve(path)
    assert [id for id, right in answers.items() if not right] == []


def test_each_prediction_is_asked_once():
    sources = [
        cell.source for path in NOTEBOOKS for cell in nbformat.read(path, as_version=4).cells
    ]
    asked = [text.strip('"') for source in sources for text in PREDICT.findall(source)]
    assert sorted(asked) == sorted(predictions())


# The guard itself: one good notebook, and one offence at a time.


@pytest.fixture(scope="module")
def exercises():
    """Two exercises of a notebook that is not in the course."""
    return {id: registry()[id] for id in ("actnorm.forward", "actnorm.logdet")}


@pytest.fixture(scope="module")
def good(tmp_path_factory):
    """A small notebook without a fault, executed once for all tests."""
    cells = [
        md("# Actnorm\n\n**Goals** to scale. **Minutes** 5. **Slides** Actnorm."),
        code(
            "import matplotlib.pyplot as plt\nimport numpy as np\n\n"
            "from course import check, predict, progress, show, style\n\nstyle.use()"
        ),
        code('predict("change.humps")'),
        code(
            "fig, ax = plt.subplots()\nax.plot([1, 2, 4])\n"
            'show(fig, "A line that rises ever faster, from one to four.")'
        ),
        md("## Your turn\n\nScale and shift."),
        exercise("actnorm.forward"),
        exercise("actnorm.logdet"),
        code("progress()", "nbval-ignore-output"),
        code("1 + 1"),
    ]
    cells += [md(f"Word number {k}.") for k in range(16)]
    path = build(NAME, cells, tmp_path_factory.mktemp("good"))
    run(path)
    return nbformat.read(path, as_version=4)


@pytest.fixture
def judged(good, tmp_path, exercises):
    """Apply a change to a copy of the good notebook and return the offences found."""

    def judge(change=lambda book: None, known=exercises):
        book = copy.deepcopy(good)
        change(book)
        path = tmp_path / f"{NAME}.ipynb"
        path.write_text(json.dumps(book), encoding="utf-8")  # nbformat would repair it
        return offences(path, known)

    return judge


def test_the_good_notebook_has_no_offence(judged):
    assert judged() == []


def _cell(k, **fields):
    def change(book):
        book.cells[k - 1].update(fields)

    return change


def _add(k, text):
    def change(book):
        book.cells[k - 1].source += text

    return change


def _tag(k, *tags):
    def change(book):
        book.cells[k - 1].metadata["tags"] = list(tags)

    return change


def _output(k, output):
    def change(book):
        book.cells[k - 1].outputs.append(nbformat.from_dict(output))

    return change


def _stream(name, text):
    return _output(9, {"output_type": "stream", "name": name, "text": text})


def _display(k, data):
    return _output(k, {"output_type": "display_data", "data": data, "metadata": {}})


def _figure_text(text):
    def change(book):
        book.cells[3].outputs[0]["data"]["text/plain"] = text

    return change


def _swap_counts(book):
    book.cells[1].execution_count, book.cells[2].execution_count = 2, 1


def _one_by_one(book):
    for cell in book.cells:
        if cell.cell_type == "code":
            cell.execution_count += 1


def _solved(book):
    text = book.cells[5].outputs[0]["data"]["text/plain"]
    book.cells[5].outputs[0]["data"]["text/plain"] = text.replace("Not done yet.", "Right.")


WIDGET = {"application/vnd.jupyter.widget-view+json": {"model_id": "ab"}, "text/plain": "slider"}


@pytest.mark.parametrize(
    "change, sentence",
    [
        (_cell(2, execution_count=None), "execution count None"),
        (_swap_counts, "execution count 2; it should be 1"),
        (_one_by_one, "execution count 2; it should be 1"),
        (_cell(9, source=""), "an empty code cell"),
        (_add(9, ";"), "trailing ;"),
        (_add(9, "  # " + "x" * 100), "a line of code with 109 characters"),
        (_stream("stdout", "x" * 101), "a line of output with 101 characters"),
        (_add(9, "\nfrom IPython.display import clear_output"), "clear_output"),
        (_cell(9, source="%%capture\n1 + 1"), "%capture"),
        (_add(9, "\n# NBVAL_SKIP"), "nbval comment"),
        (_add(9, "\nplt.show()"), "plt.show()"),
        (_cell(9, source="%time 1 + 1"), "time-dependent"),
        (_add(9, "\nimport time; time.time()"), "time-dependent"),
        (_add(9, "\nrng = np.random.default_rng()"), "without a seed"),
        (_add(9, "\nnp.random.randn(3)"), "global random state"),
        (_cell(9, source="!ls"), "shell command"),
        (_add(9, "\nopen('/home/me/x.txt')"), "a path of one machine"),
        (_add(5, "\nSee /Users/me/x.png"), "a path of one machine"),
        (_stream("stdout", "saved to /tmp/abc"), "a path of one machine in an output"),
        (_stream("stdout", "<object at 0x7f1eadee4680>"), "memory address"),
        (_stream("stderr", "a warning"), "stderr"),
        (
            _output(
                9, {"output_type": "error", "ename": "ValueError", "evalue": "", "traceback": []}
            ),
            "a stored error: ValueError",
        ),
        (_tag(9, "nbval-skip"), "the tag nbval-skip is not allowed"),
        (_tag(9, "raises-exception"), "the tag raises-exception is not allowed"),
        (_tag(9, "nbval-ignore-output"), "for progress() and widgets only"),
        (_tag(8), "tag the cell nbval-ignore-output"),
        (_display(9, WIDGET), "a widget that nbval cannot compare"),
        (_display(9, WIDGET), "a widget without a static picture"),
        (
            _display(9, {**WIDGET, "text/plain": "VBox(children=(…"}),
            "shows code where nothing runs",
        ),
        (
            _display(9, {"image/png": "iVBO", "text/plain": "<Figure size 640x480>"}),
            "without alt text",
        ),
        (_display(9, {"image/svg+xml": "<svg/>", "text/plain": "Figure: x"}), "without alt text"),
        (_display(9, {"text/html": "<img src='x.png'>", "text/plain": ""}), "image without alt"),
        (_figure_text("Figure: only words, no data"), "without a fingerprint"),
        (_add(5, "\n![](picture.png)"), "image without alt text"),
        (_add(5, '\n<img src="picture.png">'), "image without alt text"),
        (_cell(5, attachments={"a.png": {"image/png": "iVBO"}}), "attached picture"),
        (_add(5, " word" * 1500), "words; at most 1500"),
        (lambda b: b.cells.extend(md("More.") for _ in range(20)), "45 cells; 25 to 40"),
        (lambda b: b.cells.__delitem__(slice(15, None)), "15 cells; 25 to 40"),
        (_stream("stdout", "x" * 1_100_000), "at most 1000000"),
        (lambda b: b.cells.pop(0), "the first cell must be Markdown"),
        (_cell(1, source="# Actnorm\n\n**Minutes** 5. **Slides** Actnorm."), "give goals"),
        (_cell(1, source="# Actnorm\n\n**Goals** x. **Slides** Actnorm."), "give minutes"),
        (_cell(1, source="# Actnorm\n\n**Goals** x. **Minutes** 5."), "give slides"),
        (_add(5, "\n# Second title"), "2 titles"),
        (_cell(5, source="### Your turn"), "a heading of level 3 follows one of level 1"),
        (_cell(5, source="## Ours"), "no 'Your turn'"),
        (_cell(3, source="1"), "no prediction question"),
        (_cell(3, source='predict("Is it?", ["yes", "no"], "no", "It is not.")'), "no prediction;"),
        (_cell(6, source="1 + 1"), "'actnorm.forward' is registered and missing here"),
        (lambda b: b.cells.append({**copy.deepcopy(b.cells[5]), "id": "x"}), "stands there twice"),
        (_cell(6, source='check("actnorm.nothing", print)'), "'actnorm.nothing' is not registered"),
        (_cell(6, source='check("actnorm.forward", print)'), "does not hold its stub"),
        (_add(6, "\n1 + 1"), "does not end with its check"),
        (_solved, "is not that of its stub"),
        (lambda b: b.metadata.kernelspec.update(name="mykernel"), "the kernel is 'mykernel'"),
        (lambda b: b.metadata.pop("kernelspec"), "the kernel is None"),
        (lambda b: b.metadata.update(widgets={"state": {}}), "widget state"),
        (lambda b: b.cells.append(copy.deepcopy(b.cells[4])), "not a valid notebook"),
    ],
    ids=str,
)
def test_a_planted_offence_is_found(judged, change, sentence):
    assert any(sentence in offence for offence in judged(change))


def test_what_is_not_a_notebook_is_said_to_be_none(tmp_path):
    for text in ("", "{}", "[]", '{"nbformat": 4, "nbformat_minor": 5, "cells": [{}]}'):
        path = tmp_path / f"{NAME}.ipynb"
        path.write_text(text)
        assert offences(path, {})[0].startswith("not a valid notebook"), text


def test_an_exercise_of_another_notebook_is_an_offence(judged, exercises):
    moved = {id: dataclasses.replace(e, notebook="05_x") for id, e in exercises.items()}
    assert any("is registered for 05_x" in o for o in judged(known=moved))


def test_a_broken_layer_to_mend_stands_there_as_wrong(judged, exercises):
    broken = dict(exercises)
    broken["actnorm.forward"] = dataclasses.replace(
        exercises["actnorm.forward"], stub_deserves="h·w"
    )
    assert any("is not that of its stub" in o for o in judged(known=broken))


def test_a_widget_beside_a_static_picture_is_fine(judged):
    def change(book):
        _display(4, WIDGET)(book)
        _tag(4, "nbval-ignore-output")(book)

    assert judged(change) == []


# The tools


def test_inject_fills_in_every_stub(good):
    book = copy.deepcopy(good)
    assert inject(book) == ["actnorm.forward", "actnorm.logdet"]
    assert "return s * x + b" in book.cells[5].source
    assert "..." not in book.cells[5].source


def test_inject_refuses_a_cell_without_its_stub(good):
    book = copy.deepcopy(good)
    book.cells[5].source = 'check("actnorm.forward", print)'
    with pytest.raises(ValueError, match="does not hold its stub"):
        inject(book)


def test_solve_sees_right_and_wrong(tmp_path, monkeypatch):
    path = build(
        NAME,
        [code("import numpy as np\nfrom course import check"), exercise("actnorm.forward")],
        tmp_path,
    )
    assert solve(path) == {"actnorm.forward": True}
    monkeypatch.setattr(Exercise, "source", lambda self: "def actnorm_forward(x, s, b): return x")
    assert solve(path) == {"actnorm.forward": False}


def test_running_twice_gives_the_same_file(good, tmp_path):
    path = tmp_path / "a.ipynb"
    path.write_text(nbformat.writes(good), encoding="utf-8")
    run(path)
    first = path.read_bytes()
    run(path)
    assert path.read_bytes() == first


def test_execution_leaves_no_progress_and_does_not_read_it(tmp_path, monkeypatch):
    file = tmp_path / "mine.json"
    monkeypatch.setenv("GLOW_COURSE_PROGRESS", str(file))
    book = nbformat.v4.new_notebook(
        cells=[
            code("from course import check\nfrom course.exercise import identity"),
            code('check("actnorm.forward", identity)'),
        ]
    )
    execute(book, tmp_path)
    assert "Wrong." in book.cells[1].outputs[0]["data"]["text/plain"]
    assert not file.exists()


def test_find_chooses_and_says_what_is_missing():
    assert find() == sorted(FOLDER.glob("[0-9]*.ipynb"))
    with pytest.raises(SystemExit, match="'99'"):
        find(["99"])


def test_an_endless_student_function_does_not_hang_a_notebook(tmp_path):
    book = nbformat.v4.new_notebook(
        cells=[
            code(
                "from course.attempt import Budget, attempt\n\n\n"
                "def f(x):\n    while True:\n        pass"
            ),
            code("print(attempt(f, (1,), budget=Budget(0.3)).trouble)"),
        ]
    )
    execute(book, tmp_path, timeout=60)
    assert "had not finished" in book.cells[1].outputs[0]["text"]


def test_a_changed_curve_changes_the_stored_text(good):
    book = copy.deepcopy(good)
    before = good.cells[3].outputs[0]["data"]["text/plain"]
    book.cells[3].source = book.cells[3].source.replace("[1, 2, 4]", f"[1, {np.pi - 1:.3f}, 4]")
    execute(book, FOLDER)
    assert book.cells[3].outputs[0]["data"]["text/plain"] != before
