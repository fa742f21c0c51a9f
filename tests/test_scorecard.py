"""The scorecard counts what was done, is saved once, and says so in words."""

from __future__ import annotations

import sys

import pytest

import course
from course.exercise import check, registry
from course.progress import progress
from course.scorecard import Room, Scorecard

CARD = Scorecard((Room("04_actnorm", 2, 1, 5), Room("08_glow", 0, 0, 3)), "Ada <b>")


@pytest.fixture(autouse=True)
def _own_file(monkeypatch, tmp_path):
    monkeypatch.setenv("GLOW_COURSE_PROGRESS", str(tmp_path / "progress.json"))


def test_it_counts_what_was_done():
    before = course.scorecard()
    assert before.solved == 0
    assert before.total == len(progress().rows) == len(registry())
    exercise = registry()["actnorm.forward"]
    check("actnorm.forward", exercise.solution)
    check("actnorm.logdet", lambda x, s: -1.0)
    after = course.scorecard("Ada")
    room = next(r for r in after.rooms if r.notebook == "04_actnorm")
    assert (room.solved, room.tried, after.solved) == (1, 1, 1)
    assert room.bar == "■◧□□□"
    assert room.words == "1 of 5 solved, 1 tried"
    assert after.title == f"Ada: 1 of {after.total} exercises solved"
    assert [r.notebook for r in after.rooms] == sorted({e.notebook for e in registry().values()})


def test_a_notebook_that_was_left_out_is_not_asked_for(monkeypatch, tmp_path):
    monkeypatch.setitem(vars(sys.modules["course.progress"]), "FOLDER", tmp_path)
    for name in ("04_actnorm.ipynb", "08_glow_ivanova.ipynb"):  # renamed, and still the same room
        (tmp_path / name).touch()
    assert [r.notebook for r in course.scorecard().rooms] == ["04_actnorm", "08_glow"]
    check("conv1x1.forward", registry()["conv1x1.forward"].solution)  # tried all the same
    rooms = [r.notebook for r in course.scorecard().rooms]
    assert rooms == ["04_actnorm", "05_invertible_1x1_conv", "08_glow"]


def test_no_information_by_shape_alone():
    assert "2 of 5 solved, 1 tried" in repr(CARD)
    assert "2 of 5 solved, 1 tried" in CARD.html()
    assert "| 04_actnorm | ■■◧□□ | 2 of 5 solved, 1 tried |" in CARD.markdown()


def test_a_name_cannot_break_the_page():
    assert "<b>" not in CARD.html()
    assert "Ada &lt;b&gt;: 2 of 8" in CARD.html()


@pytest.mark.parametrize("name, part", [("card.html", "<!doctype html>"), ("card.md", "| room |")])
def test_saved_once_and_replaced_only_by_force(tmp_path, name, part):
    path = tmp_path / name
    assert str(CARD.save(path)).startswith("Saved as")
    assert part in path.read_text(encoding="utf-8")
    path.write_text("mine", encoding="utf-8")
    assert "is there already" in str(CARD.save(path))
    assert path.read_text(encoding="utf-8") == "mine"
    assert str(CARD.save(path, force=True)).startswith("Saved as")
    assert part in path.read_text(encoding="utf-8")


@pytest.mark.parametrize(
    "name, sentence",
    [
        ("card.pdf", "ends in '.pdf'"),
        ("card", "ends in ''"),
        ("no folder/card.md", "cannot be written"),
    ],
)
def test_what_cannot_be_saved_is_said(tmp_path, name, sentence):
    assert sentence in str(CARD.save(tmp_path / name))


def test_no_exercise_at_all():
    assert repr(Scorecard(())) == "0 of 0 exercises solved\n"
    assert "0 of 0" in Scorecard(()).html()
