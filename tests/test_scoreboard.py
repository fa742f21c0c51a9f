"""``python -m reference``: every layer on it, every verdict true, the exit code too."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest
from mutants import RIGHT, Wrong

import reference
from reference.__main__ import HEAD, cases, main


def few(seed):
    layer, x = RIGHT["ActNorm"]()
    yield "ActNorm", layer, x
    yield "Squeeze", *RIGHT["Squeeze"]()


def broken(seed):
    yield from few(seed)
    layer, x = RIGHT["Conv1x1"]()
    yield "Conv1x1, broken", Wrong(layer, lambda x, y, right: right / 20), x


def test_all_layers_pass_from_the_command_line():
    done = subprocess.run(
        [sys.executable, "-m", "reference", "--json"],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONIOENCODING": "utf-8"},
        timeout=60,  # seconds; 3 of them on one idle core, so that it can be run at every change
    )
    assert done.returncode == 0, done.stdout + done.stderr
    board = json.loads(done.stdout)
    assert board["failed"] == []
    whole = [r for r in board["layers"] if r["layer"] == "Glow"]
    assert len(whole) >= 2
    for report in whole:
        assert report["structure"] == "dense" and report["shape"][1] != report["shape"][2]
        for said, seen in zip(report["analytic"], report["numeric"], strict=True):
            assert abs(said - seen) <= 1e-8 * abs(seen)
    assert all(r["smallest"] < 1e-6 and r["round_trip"] is not None for r in board["layers"])


def test_no_layer_is_missing():
    names = {type(layer).__name__ for _, layer, _ in cases(0)}
    public = {
        name
        for name, thing in vars(reference).items()
        if isinstance(thing, type) and hasattr(thing, "forward") and hasattr(thing, "inverse")
    }
    assert public - {"Layer", "MultiScale", "from_torch"} <= names


def test_nothing_on_it_is_square_or_starts_at_zero():
    for label, _, x in cases(3):
        assert x.shape[1] != x.shape[2], label
        assert np.all(x != 0)


def test_a_broken_layer_fails_the_board(capsys):
    assert main([], broken) == 1
    out = capsys.readouterr().out
    assert "FAIL (h·w missing)" in out and "1 FAILED" in out
    assert main([], few) == 0
    assert "all agree" in capsys.readouterr().out


def test_forms(capsys):
    assert main(["--markdown"], few) == 0
    lines = capsys.readouterr().out.strip().splitlines()
    assert len(lines) == 4 and all(line.count("|") == len(HEAD) + 1 for line in lines)
    assert main(["--json", "--seed", "5"], broken) == 1
    board = json.loads(capsys.readouterr().out)
    assert board["failed"] == ["Conv1x1, broken"] and board["seed"] == 5


@pytest.mark.parametrize("arguments", [["--seed", "-1"], ["--seed", "x"], ["--nonsense"]])
def test_bad_arguments(arguments, capsys):
    with pytest.raises(SystemExit) as stop:
        main(arguments, few)
    assert stop.value.code == 2
    assert "usage" in capsys.readouterr().err


def test_help_shows_an_example(capsys):
    with pytest.raises(SystemExit) as stop:
        main(["--help"])
    assert stop.value.code == 0
    assert "example: python -m reference" in capsys.readouterr().out
