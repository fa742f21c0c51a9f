"""The measuring tools run, measure the same work for all, and tell what they found.

Whoever has the extra `peers` installed has those programs checked too; without it they are not
among the programs at all, and `benchmarks.__main__.left_out` says so.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import sys

import pytest
import torch

from benchmarks import __main__ as everything
from benchmarks import exactness, memory, report, speed
from benchmarks.peers import MISSING, PEERS
from benchmarks.programs import PROGRAMS, Setting

TINY = Setting(shape=(3, 8, 8), levels=2, depth=1, width=10, batch=2)
NAMES = [name for name in (*PROGRAMS, *PEERS)]


def nets_by_formula(setting: Setting, first=lambda taps: taps, last=lambda taps: taps) -> int:
    """(9·c_in + width + 9·c_out)·width multiply-adds a pixel, as `CouplingNet` says; `first` and
    `last`: how long the rows of 9·c_in and 9·c_out numbers are made."""
    w = setting.width
    shapes = setting.level_shapes()
    return setting.depth * sum(
        h * wide * w * (first(9 * (c // 2)) + w + last(9 * c)) for c, h, wide in shapes
    )


def up(length: int) -> int:
    """To the next multiple of 8."""
    return -(-length // 8) * 8


@pytest.mark.parametrize("name", NAMES)
def test_every_program_does_the_same_convolutions(name):
    setting = Setting(shape=(3, 8, 8), levels=2, depth=2, width=10, batch=2)
    beside = 1 if "plain-nets" in name else 10  # the bias; with edge padding nine more
    if name in ("floor", *PEERS) or name.endswith("-layers"):
        expected = nets_by_formula(setting)
    else:
        expected = nets_by_formula(setting, lambda taps: up(taps + beside), up)
    assert speed.make(name, setting).net_macs() == expected


@pytest.mark.parametrize("name", NAMES)
def test_a_training_step_reaches_every_weight(name):
    program = speed.make(name, TINY)
    program.backward(TINY.noise_images())
    for key, p in program.model.named_parameters():
        if p.requires_grad:
            assert p.grad is not None and p.grad.isfinite().all(), key
    assert program.parameters == sum(
        p.numel() for p in program.model.parameters() if p.requires_grad
    )
    if name == "floor":  # in a flow, every net's input wants a gradient
        assert all(x.grad is not None for x in program.inputs[TINY.batch])


def test_the_floor_sends_each_net_a_whole_gradient():
    program = speed.make("floor", TINY)
    program.backward(TINY.noise_images())
    (h, x), g = (program.model[0], program.inputs[2][0]), program.gradients[2][0]
    assert torch.equal(g, torch.ones_like(g)) and g.stride() == h(x).stride()  # no copy before


@pytest.mark.parametrize("name", ["glowlite", *PEERS])
def test_log_det_and_inverse_are_right(name):
    found = exactness.whole(name)
    bound = 1e-5 if name == "FrEIA" else 1e-11  # FrEIA's fixed rotation is float32
    assert found["logdet"] < bound and found["round_trip"] < bound


def test_a_program_that_is_not_finite_is_called_so(monkeypatch):
    monkeypatch.setattr(PROGRAMS["floor"], "sample", lambda self, n: torch.tensor([torch.nan]))
    rows = speed.measure(["floor"], TINY, rounds=1, say=lambda _: None)
    assert rows[0]["not_finite"] == 2
    assert "floor: in 2 rounds" in report.speed_table(rows)


def test_ratios_are_of_the_same_round():
    rows = [
        {"name": "floor", "family": "floor", "seconds": {"train": [1.0, 10.0, 3.0]}},
        {"name": "a", "family": "peer", "seconds": {"train": [2.0, 20.0, 6.0]}},
        {"name": "b", "family": "peer", "seconds": {"train": [4.0, 40.0, 0.1]}},
    ]
    assert speed.quotient(rows, "a", "train", of="floor") == 0.5
    assert speed.best_peer(rows, "train") == "b"
    assert speed.best_peer(rows[:1], "train") is None


def test_memory_slopes_part_what_grows_with_the_batch_from_what_does_not():
    def row(depth: int, batch: int) -> dict:
        mib = 100 * depth + 7 * batch + 3 * depth * batch  # weights, a constant, activations
        return {"name": "x", "depth": depth, "batch": batch, "kept": mib * 2**20}

    rows = [row(k, n) for k in (2, 4, 8) for n in memory.BATCHES]
    assert memory.slopes(rows, "x", "kept") == pytest.approx((3, 100))


def test_kept_memory_is_that_of_the_tensors():
    """The floor keeps each net's two hidden layers for the way back, once each (ReLU in place)."""
    kept = [memory.one("floor", Setting(shape=(3, 8, 8), levels=2, depth=1, width=10, batch=n))
            for n in memory.BATCHES]  # fmt: skip
    (per_image, _) = memory.line(kept, "floor", "kept")[1]
    hidden = sum(2 * TINY.width * h * w for _, h, w in TINY.level_shapes())
    outputs = sum(c * h * w for c, h, w in TINY.level_shapes())
    assert per_image * 2**20 == 4 * (hidden + outputs)


def test_everything_runs_and_the_report_is_made_from_its_json_alone(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(memory, "subprocess", argparse.Namespace(run=in_this_process))
    words = ["--size", "16", "--levels", "2", "--width", "10", "--batch", "2", "--depth", "1"]
    words += ["--rounds", "2", "--only", "floor", "glowlite", "glowlite-checkpoint", *PEERS]
    words += ["--memory-depth", "1", "2", "--exact-width", "10", "--exact-steps", "2"]
    monkeypatch.setattr(sys, "argv", ["bench", *words, "--out", str(tmp_path)])
    everything.main()
    printed = capsys.readouterr().out
    table = (tmp_path / "table.txt").read_text()
    assert printed.endswith(table)
    assert report.text(json.loads((tmp_path / "speed.json").read_text())) == table
    for part in ("Speed, K = 1", "Activation memory", "Exactness", "glowlite checkpoint"):
        assert part in table
    for name in MISSING:
        assert f"{name} is not installed" in table
    (tmp_path / "table.txt").unlink()
    monkeypatch.setattr(sys, "argv", ["report", str(tmp_path)])
    report.main()
    assert (tmp_path / "table.txt").read_text() == table
    assert (tmp_path / "speed.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("uncommitted", [False, True])
def test_only_parts_of_the_same_code_stand_in_one_file(tmp_path, monkeypatch, uncommitted):
    """Which changes there were is not known: they may be others than those of the file."""
    told = {"commit": "abc", "uncommitted": uncommitted, "device": "d", "software": "s"}
    monkeypatch.setattr(everything, "surroundings", lambda command: {**told, "command": command})
    monkeypatch.setattr(everything.speed, "run", lambda _: ["a"])
    monkeypatch.setattr(everything.memory, "measure", lambda *_: ["b"])
    monkeypatch.setattr(everything.report, "write", lambda *_: None)
    monkeypatch.setattr(everything.report, "text", lambda _: "")
    for part in ("speed", "memory"):
        monkeypatch.setattr(sys, "argv", ["bench", "--parts", part, "--out", str(tmp_path)])
        everything.main()
    found = json.loads((tmp_path / "speed.json").read_text())
    assert found["memory"] == ["b"] and ("speed" in found) == (not uncommitted)


def in_this_process(asked: list[str], **_: object) -> argparse.Namespace:
    """`subprocess.run` without a new process, which takes seconds: python -m benchmarks.memory …"""
    assert asked[:3] == [sys.executable, "-m", "benchmarks.memory"]
    printed = io.StringIO()
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(printed):
        patch.setattr(sys, "argv", asked[2:])
        memory.main()
    return argparse.Namespace(returncode=0, stdout=printed.getvalue(), stderr="")
