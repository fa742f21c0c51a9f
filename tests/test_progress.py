"""The progress file: kept, merged, set aside when damaged, done without when unwritable."""

import json
import os

import pytest

from course.progress import Progress, Record, current, progress


@pytest.fixture
def path(tmp_path):
    return tmp_path / ".progress.json"


def test_what_was_saved_is_read_again(path):
    Progress(path).update("a.b", attempted=True, solved=True, hints=2)
    assert Progress(path).record("a.b") == Record(attempts=1, solved=True, hints=2)
    assert Progress(path).record("never.tried") == Record()


def test_a_solved_exercise_stays_solved_and_hints_never_go_back(path):
    kept = Progress(path)
    kept.update("a", attempted=True, solved=True, hints=3)
    assert kept.update("a", attempted=True, hints=1) == Record(attempts=2, solved=True, hints=3)


def test_two_notebooks_at_once_keep_each_others_records(path):
    one, two = Progress(path), Progress(path)
    one.update("a", solved=True)
    two.update("b", solved=True)
    one.update("c", solved=True)
    assert set(Progress(path).records()) == {"a", "b", "c"}


@pytest.mark.parametrize(
    "damage",
    [
        b"",
        b"{",
        b"null",
        b"[]",
        b'"text"',
        b"\xff\xfe\x00",
        b'{"exercises": []}',
        b'{"exercises": {"a": 3}}',
        b'{"exercises": {"a": {"attempts": "many"}}}',
        b'{"exercises": {"a": {"attempts": -1}}}',
        b'{"exercises": {"a": {"solved": 1}}}',
        b"[" * 100_000,
    ],
    ids=lambda d: d[:40].decode("latin1"),
)
def test_a_damaged_file_is_kept_aside_said_and_begun_anew(path, capsys, damage):
    path.write_bytes(damage)
    kept = Progress(path)
    kept.update("a", solved=True)
    aside = path.with_name(".progress.json.damaged-1")
    assert aside.read_bytes() == damage
    assert "damaged" in capsys.readouterr().out
    assert Progress(path).record("a").solved


def test_each_damaged_file_is_kept(path):
    for text in ("one", "two"):
        path.write_text(text)
        Progress(path).records()
    assert path.with_name(".progress.json.damaged-1").read_text() == "one"
    assert path.with_name(".progress.json.damaged-2").read_text() == "two"


def test_a_file_that_cannot_be_read_is_kept_too(path, capsys, monkeypatch):
    """As one written by another user: renaming needs rights on the folder only."""
    path.write_text("another user's")
    read = type(path).read_text

    def refuse(self, *args, **options):
        if self == path and read(self) == "another user's":
            raise PermissionError(13, "Permission denied")
        return read(self, *args, **options)

    with monkeypatch.context() as patch:
        patch.setattr(type(path), "read_text", refuse)
        Progress(path).update("a", solved=True)
    assert path.with_name(".progress.json.damaged-1").read_text() == "another user's"
    assert "cannot be read (Permission denied). It is kept as" in capsys.readouterr().out
    assert Progress(path).record("a").solved


def test_unknown_fields_of_a_later_version_are_tolerated(path):
    path.write_text(json.dumps({"version": 9, "exercises": {"a": {"solved": True, "new": 1}}}))
    assert Progress(path).record("a").solved


def test_without_a_place_to_write_it_lives_in_memory_and_says_so_once(tmp_path, capsys):
    kept = Progress(tmp_path / "missing folder" / "p.json")
    kept.update("a", solved=True)
    kept.update("b", solved=True)
    assert kept.record("a").solved and kept.record("b").solved
    assert capsys.readouterr().out.count("cannot be saved") == 1


def test_a_folder_in_its_place_does_not_stop_anyone(path, capsys):
    path.mkdir()
    kept = Progress(path)
    kept.update("a", solved=True)
    assert kept.record("a").solved
    assert "cannot be" in capsys.readouterr().out


def test_a_save_that_dies_leaves_the_old_file_and_no_litter(path, monkeypatch, capsys):
    kept = Progress(path)
    kept.update("a", solved=True)
    before = path.read_bytes()

    def fail(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", fail)
    kept.update("b", solved=True)
    assert path.read_bytes() == before
    assert [p.name for p in path.parent.iterdir()] == [path.name]
    assert "No space left" in capsys.readouterr().out


def test_the_environment_names_the_file(path, monkeypatch):
    monkeypatch.setenv("GLOW_COURSE_PROGRESS", str(path))
    current().update("actnorm.forward", attempted=True, solved=True)
    assert json.loads(path.read_text())["exercises"]["actnorm.forward"]["solved"] is True
    table = progress()
    assert table.solved == 1
    assert f"1 of {len(table.rows)} exercises solved" in str(table)
    assert "1 try" in str(table)
    assert "<caption>1 of" in table._repr_html_()


def test_memory_writes_nothing(monkeypatch, tmp_path):
    monkeypatch.setenv("GLOW_COURSE_PROGRESS", "memory")
    monkeypatch.chdir(tmp_path)
    current().update("a", solved=True)
    assert current().record("a").solved
    assert list(tmp_path.iterdir()) == []
