"""The CIFAR-10 runs without a GPU: what is predicted, packed, started, collected and written."""

from __future__ import annotations

import json
import math
import os
import re
import shlex
import signal
import subprocess
import sys
import tarfile
import time
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.cifar10 import lease, predict, run
from benchmarks.peers import PEERS
from glowlite import Glow, checkpoint
from glowlite.data import drawn
from glowlite.glow import GlowConfig
from glowlite.info import macs
from glowlite.presets import PRESETS, TrainConfig
from glowlite.schedule import make_optimizer

PAPER = GlowConfig(shape=(3, 32, 32))

# -- predictions -------------------------------------------------------------------------------


def test_the_arithmetic_is_that_of_the_model():
    """Three times the multiply-adds that a live forward pass counts: 24 GFLOP an image."""
    for options in ({}, {"depth": 4, "width": 760}, {"levels": 2, "depth": 4, "width": 512}):
        config = GlowConfig(shape=(3, 32, 32), **options)
        model = Glow(config)
        model.fast = False
        live = 6 * macs(model)
        assert predict.training_flops(config) == pytest.approx(live, rel=0.03)
        assert predict.training_flops(config) <= live, "what is left out is small, and left out"
        weights = sum(p.numel() for p in model.parameters())
        assert predict.parameters(config) == pytest.approx(weights, rel=0.15)
    assert predict.training_flops(PAPER) == pytest.approx(24e9, rel=0.03)


def test_a_step_takes_the_longer_of_arithmetic_and_bytes():
    device = predict.Device("d", 100.0, 10.0, launch=0.0, kernel=0.0, memory=1.0)
    assert predict.Work(flops=200.0, moved=1.0).seconds(device, 3) == 6.0
    assert predict.Work(flops=1.0, moved=40.0).seconds(device, 3) == 12.0
    fused, unfused = (predict.step_seconds(PAPER, predict.H100, 256, f) for f in (True, False))
    floor = 256 * predict.training_flops(PAPER) / predict.H100.flops
    assert floor < fused < unfused
    # Every byte and operation twice as fast is the whole step twice as fast.
    twice = predict.Device("d", 2 * 798e12, 6.0e12, 6e-6, 2e-6, 1.0)
    assert predict.step_seconds(PAPER, twice, 256, True) == pytest.approx(fused / 2, rel=1e-12)


def test_the_arithmetic_of_muon_is_that_of_its_step():
    """But for the priors' kernels and those of the edges."""
    config = GlowConfig(shape=(3, 8, 8), levels=2, depth=3, width=48)
    model = Glow(config)
    optimizer = make_optimizer("muon", model.parameters(), lr=1e-3)
    for p in model.parameters():
        p.grad = torch.ones_like(p)
    with FlopCounterMode(display=False) as counter:
        optimizer.step()
    products, _ = predict.optimizer_work(config)
    assert products.flops == pytest.approx(counter.get_total_flops(), rel=0.05)
    assert products.flops < counter.get_total_flops()


def test_launches_grow_with_the_depth_alone():
    counts = [predict.launches(2, depth) for depth in (2, 3, 4)]  # one alone is not stacked
    assert counts[2] - counts[1] == counts[1] - counts[0] > 0


def test_the_note_holds_the_table_the_function_makes():
    """Numbers in results/cifar10/README.md are computed, not typed."""
    note = (run.RESULTS / "README.md").read_text()
    for config in (PAPER, GlowConfig(shape=(3, 32, 32), depth=16, width=760)):
        table = predict.table(config).splitlines()
        rows = [line for line in table if line.startswith("| ") and line[2].isdigit()]
        for line in rows:  # the columns that do not depend on how the step is written today
            predicted = line.rsplit("|", 4)[0]
            assert predicted in note, line
    rates = [512 / predict.step_seconds(PAPER, predict.H200, 512, f) for f in (True, False)]
    assert "bounded by {:,.0f} images/s fused and {:,.0f} unfused".format(*rates) in note


def test_the_predictions_of_another_card_are_a_word_away(monkeypatch, capsys):
    monkeypatch.setattr(predict, "launches", lambda *_: 1000)  # tested above
    for name, most in (("h100", "33,157"), ("h200", "32,742")):
        monkeypatch.setattr("sys.argv", ["predict", "--device", name])
        predict.main()
        assert f"no more than {most} images/s" in capsys.readouterr().out


# -- a lease -----------------------------------------------------------------------------------

UNPACK = """
import pathlib, sys
_, verb, source, target, name = sys.argv
data = pathlib.Path(source, name + ".cfx").read_bytes()
assert data.startswith(b"packed ")
pathlib.Path(target, name).write_bytes(data[7:])
"""


@pytest.fixture
def packed(tmp_path):
    source = tmp_path / "packed"
    source.mkdir()
    (source / lease.UNPACKER).write_text(UNPACK)
    for i, name in enumerate(name for half in lease.HALVES for name in half):
        (source / (name + lease.SUFFIX)).write_bytes(b"packed " + bytes([i]) * 1000)
    root = tmp_path / "root"
    root.mkdir()
    subprocess.run(["git", "init", "-q", str(root)], check=True)
    (root / "code.py").write_text("x = 1\n")
    return source, root


def test_two_halves_travel_and_arrive(packed, tmp_path):
    source, root = packed
    one, two = lease.pack(source, root / ".lease", root)
    listed = subprocess.run(["git", "-C", str(root), "status", "--porcelain"], capture_output=True)
    assert b".lease" not in listed.stdout, "never committed by accident"
    work = tmp_path / "work"
    assert lease.unpack(one, work) == list(lease.HALVES[0])
    assert lease.unpack(two, work) == list(lease.HALVES[1])
    folder = work / "data" / "cifar-10-batches-py"
    assert {p.name for p in folder.iterdir()} == {n for half in lease.HALVES for n in half}
    assert (folder / "test_batch").read_bytes() == bytes([5]) * 1000


def test_damage_and_too_much_are_told(packed, tmp_path):
    source, root = packed
    with pytest.raises(ValueError, match="a call takes 0"):
        lease.pack(source, root / ".lease", root, limit=3000)
    one, _ = lease.pack(source, root / ".lease", root)
    (one / "data_batch_2.cfx").write_bytes(b"packed other")
    with pytest.raises(ValueError, match="data_batch_2.cfx is missing or damaged"):
        lease.unpack(one, tmp_path / "work")
    (source / "test_batch.cfx").unlink()
    with pytest.raises(FileNotFoundError):
        lease.pack(source, root / ".lease", root)


def test_the_real_halves_fit_into_a_call():
    """16.7 MB a packed file, three at a time; the repository has to leave them room."""
    half = 3 * 16_800_000
    assert lease.tree_bytes(lease.ROOT) + half < lease.CALL


@pytest.mark.parametrize("minutes", [9, 10.5, 12, 15, 20, 30])
def test_every_command_of_the_plan_can_be_given(minutes, monkeypatch):
    """What the runs' own parser makes of each word, in each call; nothing is run."""
    text, asked = lease.plan(minutes), []
    for name in run.MEASUREMENTS:
        monkeypatch.setitem(run.MEASUREMENTS, name, lambda options, _: asked.append(options.run))
    monkeypatch.setattr(run, "train", lambda name, *_: asked.append(name) or 0)
    for calls in lease.plans(minutes).values():
        assert sum(minutes for minutes, _, _ in calls) < 0.96 * minutes
        for length, half, command in calls:
            assert 1 < length < 10 and len(command) < 2000 and half in ("", "1", "2")
            assert command in text
            waited = command.split(" wait ")[1:]
            assert all(int(w.split("--seconds ")[1]) < 60 * length for w in waited)
            for words in (c.split() for c in command.split(" && ") if " start " in c):
                runs = shlex.split(" ".join(words))
                at = runs.index("--seconds")
                # What does not fit is cut off by the clock, and the call after it brings it back.
                assert int(runs[at + 1]) < 60 * sum(length for length, _, _ in calls[1:]) - 45
                for line in runs[4:at]:
                    for one in line.split(lease.OR_ELSE):
                        assert run.main(shlex.split(one)) == 0
        assert all('--out "$OUT"' in command for _, _, command in calls[1:]), "or nothing returns"
    wanted = {"throughput", "a10", "verify", "sampling", "memory"}
    wanted |= {"b25", "realnvp-10", *run.FIGURE3} if minutes >= 12 else set()
    assert wanted <= set(asked)
    assert ("a25" in asked) == (minutes > 20) and ("small" in asked) == (minutes >= 20)
    # What is unpacked from different leases must not take another's place.
    named = [one.split(" --seconds ")[0] for calls in lease.plans(minutes).values()
             for _, _, c in calls for one in c.split(" start ")[1:]]  # fmt: skip
    names = [n for text in named for n in re.findall(r"--name (\S+)", text)]
    assert len(names) == len(set(names))


def test_what_is_trained_fits_into_the_lease():
    """The runs that are to end: their minutes, and each the compiling and the test images."""
    for minutes in (12, 15, 30, 60):
        for name, calls in list(lease.plans(minutes).items())[2:]:
            trained = [float(m) for m in re.findall(r"--minutes (\S+?)[ ']", calls[1][2])]
            until = int(re.findall(r"--seconds (\d+)", calls[1][2])[0]) / 60
            assert min(trained) >= 0.5, f"{name} of {minutes} minutes"
            assert sum(trained) + lease.BESIDE * len(trained) <= until
    for minutes in (8, 61, math.nan):
        with pytest.raises(ValueError, match="a plan is made for 9 to 60"):
            lease.plans(minutes)


def test_the_rehearsal_is_commands_that_run(tmp_path):
    """In a shell, with a Python that only says what it was given."""
    (tmp_path / "python3").write_text('#!/bin/sh\necho "$@"\n')
    (tmp_path / "python3").chmod(0o755)
    told = subprocess.run(
        ["sh", "-c", lease.REHEARSE],
        env={"PATH": f"{tmp_path}:{os.environ['PATH']}", "OUT": "/out dir"},
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    where = "--rehearse --runs /tmp/try --results /out dir --cache-dir /tmp/try"
    assert told.stdout.splitlines() == [
        f"-u -m benchmarks.cifar10.run a10 --name rehearsal-1 {where}",
        f"-u -m benchmarks.cifar10.run throughput --batches 16 --name rehearsal-2 {where}",
    ]
    (tmp_path / "python3").write_text("#!/bin/sh\nexit 3\n")
    told = subprocess.run(
        ["sh", "-c", lease.REHEARSE], env={"PATH": f"{tmp_path}:{os.environ['PATH']}"},
        capture_output=True, text=True,
    )  # fmt: skip
    assert told.stdout.splitlines() == ["REHEARSAL 1 FAILED: 3", "REHEARSAL 2 FAILED: 3"]


def test_the_rehearsal_needs_no_package_that_is_not_there(tmp_path, monkeypatch):
    """A GPU's image has what torch's users have: not pooch, which knows where caches go."""
    for name in ("pooch", "platformdirs", "lmdb", "tensorboard"):
        monkeypatch.setitem(sys.modules, name, None)
    monkeypatch.delenv("GLOWLITE_CACHE", raising=False)
    monkeypatch.setattr(drawn, "COUNTS", {"train": 100, "test": 10})
    training, _ = lease.REHEARSE.replace("/tmp/try", str(tmp_path)).split("; ")
    words = shlex.split(training.split(" || ")[0].replace("$OUT", str(tmp_path)))
    words = words[words.index("benchmarks.cifar10.run") + 1 :]
    assert run.main([*words, "--minutes", "0.01", "--device", "cpu"]) == 0
    assert (tmp_path / "rehearsal-1-seed0.json").exists()


def test_a_job_finds_what_was_carried(tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", "/tmp/site")
    seen = []

    class Process:
        def __init__(self, *_, env, **__):
            seen.append(env["PYTHONPATH"])
            self.pid = 1

    monkeypatch.setattr(lease.subprocess, "Popen", Process)
    lease.start("x", ["--list"], tmp_path, 1)
    assert seen == [f"{tmp_path / 'jobs' / 'x' / 'code'}{os.pathsep}/tmp/site"]


def test_a_job_runs_on_its_own_and_is_stopped_by_the_clock(tmp_path, capsys, monkeypatch):
    work = tmp_path / "work"
    assert lease.start("quick", ["--list"], work, 60) > 0
    assert lease.wait("quick", work, 60) == 0
    assert "figure3" in capsys.readouterr().out
    folder = tmp_path / "root" / "benchmarks" / "cifar10"
    folder.mkdir(parents=True)
    (tmp_path / "root" / "glowlite").mkdir()
    for package in (folder, folder.parent):
        (package / "__init__.py").touch()
    (folder / "run.py").write_text("import time\nprint('begun')\ntime.sleep(60)\n")
    monkeypatch.setattr(lease, "ROOT", tmp_path / "root")
    lease.start("long", ["--list"], work, 3)
    with pytest.raises(RuntimeError, match="long is running"):
        lease.start("long", ["--list"], work, 3)
    assert lease.wait("long", work, 0.1) is None
    assert lease.wait("long", work, 30) in (124, 143)
    assert "begun" in capsys.readouterr().out


@pytest.fixture
def job(tmp_path, monkeypatch):
    """A lease whose runs do what their first word says."""
    folder = tmp_path / "root" / "benchmarks" / "cifar10"
    folder.mkdir(parents=True)
    (tmp_path / "root" / "glowlite").mkdir()
    for package in (folder, folder.parent):
        (package / "__init__.py").touch()
    (folder / "run.py").write_text(
        "import pathlib, signal, sys, time\n"
        "signal.signal(signal.SIGTERM, lambda *_: sys.exit(130))\n"
        "print(*sys.argv[1:2], *sys.argv[sys.argv.index('--results') + 2:], flush=True)\n"
        "if sys.argv[1] == 'sleep': time.sleep(60)\n"
        "sys.exit(sys.argv[1] == 'fail')\n"
    )
    monkeypatch.setattr(lease, "ROOT", tmp_path / "root")
    return tmp_path / "work"


def test_the_other_run_is_made_where_the_one_failed(job, capsys):
    lease.start("j", ["fail || second -- --lr 3e-4", "third || never"], job, 60)
    assert lease.wait("j", job, 60) == 0
    assert (job / "jobs/j/log").read_text().splitlines() == ["fail", "second -- --lr 3e-4", "third"]
    lease.start("k", ["fail || fail", *["third"] * 50], job, 60)
    assert lease.wait("k", job, 60) == 1, "one failed, the others were made"
    said = capsys.readouterr().out.splitlines()[-42:]
    assert said[0] == "FAILED: fail || fail" and said[1:] == ["third"] * 40 + ["k: ended with 1"]


def test_the_clock_is_no_failure(job):
    """A run that is told to end, and ends with a code of its own, is not begun another way."""
    lease.start("j", ["sleep || never", "never"], job, 4)
    assert lease.wait("j", job, 60) in (124, 143)
    assert (job / "jobs/j/log").read_text().splitlines() == ["sleep"]


def test_no_minute_is_waited_for_what_is_not_there(job, capsys):
    """Another machine has no such job; one that was killed leaves no code, and goes on anew."""
    began = time.monotonic()
    with pytest.raises(RuntimeError, match="no job j"):
        lease.wait("j", job, 60)
    process = lease.start("j", ["sleep"], job, 60)
    os.killpg(process, signal.SIGKILL)
    assert lease.wait("j", job, 60) is None
    assert "was killed" in capsys.readouterr().out
    lease.start("j", ["third"], job, 60)
    assert lease.wait("j", job, 60) == 0
    assert time.monotonic() - began < 40


def test_a_call_without_the_first_half_says_so(packed, tmp_path, capsys):
    """What follows "&&" would train on nothing, for all the minutes there are."""
    source, root = packed
    one, two = lease.pack(source, root / ".lease", root)
    assert lease.main(["unpack", str(two), "--work", str(tmp_path / "other machine")]) == 1
    assert lease.MISSING in capsys.readouterr().out
    assert lease.main(["unpack", str(one), "--work", str(tmp_path / "work")]) == 0


def test_what_a_failed_run_had_measured_is_kept(tmp_path, monkeypatch, capsys):
    def broken(*_, **__):
        raise TypeError("an illegal memory access")

    where = ["--runs", str(tmp_path / "runs"), "--results", str(tmp_path / "results")]
    go = ["a10", "--rehearse", "--minutes", "0.01", *where]
    monkeypatch.setattr("glowlite.train.update_average", broken)  # after the first evaluation
    assert run.main(go) == 1
    assert "Traceback" in capsys.readouterr().err, "the machine will be gone"
    kept = json.loads((tmp_path / "results" / "a10-seed0.json").read_text())
    assert not kept["complete"] and kept["curve"] and "test" not in kept["final"]
    monkeypatch.undo()
    assert run.main(go) == 0
    assert json.loads((tmp_path / "results" / "a10-seed0.json").read_text())["complete"]


def test_what_is_there_is_brought_while_one_waits(job, tmp_path, monkeypatch):
    """A call that is cut short brings what it had: its files of the last minute."""
    monkeypatch.setattr(lease, "COLLECT_SECONDS", 0.2)
    (job / "results").mkdir(parents=True)
    seen, collect = [], lease.collect
    monkeypatch.setattr(lease, "collect", lambda *a: seen.append(time.monotonic()) or collect(*a))
    lease.start("j", ["sleep"], job, 3)
    lease.wait("j", job, 60, out=tmp_path / "out")
    assert len(seen) > 2 and {p.name for p in (tmp_path / "out").iterdir()} == {"results.tar.gz"}


def test_what_comes_back_is_small_and_whole(tmp_path):
    work, out = tmp_path / "work", tmp_path / "out"
    for name, content in {
        "results/a10-seed0.json": b"{}", "jobs/a/log": b"begun\n", "runs/a/metrics.jsonl": b"{}\n",
        "runs/a/samples/0000001.png": b"1", "runs/a/samples/0000002.png": b"2",
        "runs/a/ema.safetensors": b"w" * 100, "runs/b/ema.safetensors": os.urandom(5000),
        "data/cifar-10-batches-py/test_batch": b"images",
    }.items():  # fmt: skip
        (work / name).parent.mkdir(parents=True, exist_ok=True)
        (work / name).write_bytes(content)
    made = lease.collect(out, work, limit=2000)
    assert [p.name for p in made] == ["results.tar.gz", "a.safetensors"]
    with tarfile.open(made[0]) as file:
        names = set(file.getnames())
    assert names == {"a10-seed0.json", "a.log", "runs/a/metrics.jsonl", "runs/a/0000002.png"}
    with pytest.raises(ValueError, match="too large"):
        lease.collect(out, work, limit=10)


# -- runs --------------------------------------------------------------------------------------


@pytest.fixture
def finished(tmp_path):
    folder = tmp_path / "a10-seed0"
    folder.mkdir()
    config = {
        "model": {"model": "glow"}, "data": {"name": "cifar10", "images": 100},
        "train": {"seed": 3, "data_dir": "/secret", "cache_dir": "/secret"},
        "made": {"command": "glowlite train --data-dir /secret", "torch": "2", "commit": None},
    }  # fmt: skip
    health = {"round_trip": 1e-6, "smallest_scale": 0.1, "condition": 2.0}
    bits = {"mean": 4.0, "standard_error": 0.1, "images": 20, "draws": 1}
    at = [{"step": i, "images": 50 * i, "seconds": 30.0 * i} for i in range(4)]
    rows = [
        {**at[0], "prepare_seconds": 2.0},
        {**at[0], "held_out": bits, "baseline": 7.0, **health, "memory_mib": 10.0},
        {**at[1], "bits_per_dim": 5.0, "images_per_s": 10.0},
        {**at[2], "bits_per_dim": 3.0, "images_per_s": 20.0},
        {**at[3], "held_out": bits, "test": {**bits, "mean": 3.9}, "raw": bits, "baseline": 7.0,
         **health, "memory_mib": 12.0},
    ]  # fmt: skip
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "metrics.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    return folder


def test_a_record_tells_everything_but_this_machine(finished):
    found = run.record(finished, "a10", "python -m x --data-dir FOLDER")
    assert "/secret" not in json.dumps(found)
    assert found["command"] == "python -m x --data-dir FOLDER" and found["seed"] == 3
    assert {"commit", "device", "software", "date", "prepare_seconds"} <= set(found)
    assert [p["minutes"] for p in found["curve"]] == [0.0, 1.5]
    assert found["curve"][1]["epochs"] == 1.5 and found["curve"][1]["train"] == 4.0
    assert ["test" in p for p in found["curve"]] == [False, True]
    assert found["final"]["test"]["mean"] == 3.9
    assert (found["images_per_s"], found["memory_mib"], found["baseline"]) == (15.0, 12.0, 7.0)


def test_commands_can_be_repeated_by_another_reader(tmp_path, monkeypatch):
    seen = []
    monkeypatch.setattr(run, "train", lambda name, options, more: seen.append(
        (name, options.command, more)) or 0)  # fmt: skip
    data = str(tmp_path)
    assert run.main(["a10", "--minutes", "2", "--seed", "1", "--data-dir", data, "--name", "x",
                     "--", "--lr", "2e-3"]) == 0  # fmt: skip
    assert seen == [("a10", "python -m benchmarks.cifar10.run a10 --name x --minutes 2.0 --seed 1 "
                     "--data-dir FOLDER -- --lr 2e-3", ["--lr", "2e-3"])]  # fmt: skip
    seen.clear()
    assert run.main(["figure3"]) == 0
    assert [name for name, _, _ in seen] == list(run.FIGURE3) and len(seen) == 6


def test_one_failed_run_does_not_cost_the_others(monkeypatch):
    seen, codes = [], iter([1, 0, 2, 130])
    monkeypatch.setattr(run, "train", lambda name, *_: seen.append(name) or next(codes))
    assert run.main(["figure3"]) == 130 and len(seen) == 4, "Ctrl-C ends the group"
    codes = iter([1, 0, 2, 0, 0, 0])
    assert run.main(["figure3"]) == 2
    with pytest.raises(SystemExit):
        run.main(["figure3", "--name", "x"])


def test_a_folder_takes_up_the_run_it_holds_and_no_other(tmp_path, capsys):
    def go(*words):
        where = ["--runs", str(tmp_path / "runs"), "--results", str(tmp_path / "results")]
        return run.main(["a10", "--rehearse", "--minutes", "0.01", *where, *words])

    folder = tmp_path / "runs" / "a10-seed0"
    folder.mkdir(parents=True)
    (folder / "config.json").write_text("{}")  # killed before its first save: begun again
    assert go() == 0
    first = (tmp_path / "results" / "a10-seed0.json").read_text()
    assert json.loads(first)["final"]["test"]["images"] > 0
    assert go() == 0, "complete: written down anew"
    capsys.readouterr()
    assert go("--", "--lr", "2e-3") == 1
    assert "holds another run" in capsys.readouterr().err
    assert go("--minutes", "0.02") == 1


def test_every_run_names_settings_that_exist():
    from glowlite.cli import build_parser

    for name, words in run.RUNS.items():
        args = build_parser().parse_args(["train", "cifar10", *words])
        train = {**PRESETS[args.preset].train}
        if args.minutes:
            train["minutes"] = args.minutes
        assert TrainConfig(**train).holdout, name
    assert {"minutes", "bf16"} <= set(PRESETS["cifar10-b25"].train)


@pytest.mark.parametrize("name", ["cifar10-a10", "cifar10-a25", "cifar10-b25"])
def test_warm_up_and_average_are_short_beside_the_run(name):
    """Even at a third of the images a second that are predicted."""
    config = TrainConfig(**PRESETS[name].train)
    steps = 60 * config.minutes * 2000 / config.batch
    assert config.warmup / config.batch < steps / 20
    assert 1 / (1 - config.ema) < steps / 20


def test_the_fastest_way_is_held_against_the_faster_floor():
    rows = [
        {"program": p, "batch": 8, "images_per_s": s, "said": []}
        for p, s in (("floor", 90.0), ("floor, graph", 100.0), ("fused", 50.0), ("layers", 80.0))
    ]
    rows.append({"program": "half", "batch": 8, "images_per_s": None, "said": ["OutOfMemory"]})
    rows.append({"program": "x, graph", "batch": 8, "images_per_s": 85.0, "said": ["no graph"]})
    for peer in PEERS:  # whoever is faster than the floor, it is not our ratio
        rows.append({"program": peer, "batch": 8, "images_per_s": 300.0, "said": []})
    assert run.ratios(rows) == {"8": 0.8}


def test_the_floor_and_the_trainer_are_timed_on_the_same_work():
    world = run.World("cpu")
    model = {**PRESETS["cifar10-a10"].model, "depth": 1, "width": 8}
    said = []
    step = run.train_step(model, 32, 2, world, said.append)
    taken = [run.timed(step, world.device, 1, 1, 1)]
    floor = run.floor_step(model, 2, world, said.append, False)
    taken.append(run.timed(floor, world.device, 1, 1, 1))
    assert all(math.isfinite(t) and t > 0 for t in taken) and said == []


def test_a_machine_without_git_is_told_the_commit(monkeypatch):
    monkeypatch.setenv("PATH", "")
    monkeypatch.setenv("GLOWLITE_COMMIT", "abc with changes")
    found = run.about("x")
    assert found["commit"] == "abc with changes" and found["uncommitted"] is True
    monkeypatch.delenv("GLOWLITE_COMMIT")
    assert run.about("x")["commit"] is None


def test_what_the_gpu_does_not_hold_is_a_result():
    said = []
    for error in (torch.OutOfMemoryError("no"), RuntimeError("CUBLAS_STATUS_ALLOC_FAILED\nmore")):

        def too_much(error=error):
            raise error

        assert run.fits(too_much, said.append) is None and run.fits(lambda: 3, print) == 3
    assert said == ["OutOfMemoryError: no", "RuntimeError: CUBLAS_STATUS_ALLOC_FAILED"]


def test_a_failure_costs_one_row_and_every_row_is_written_at_once(tmp_path, monkeypatch):
    """The clock may end a measurement at any row: what was measured is on disk by then."""
    calls = []

    def train_step(model, size, batch, world, say, **way):
        calls.append(way)
        if way.get("memory"):
            raise RuntimeError("unable to find an engine")
        if not way.get("fast", True):
            raise KeyboardInterrupt
        return lambda: None

    monkeypatch.setattr(run, "train_step", train_step)
    monkeypatch.setattr(run, "floor_step", lambda *_: lambda: None)
    with pytest.raises(KeyboardInterrupt):
        run.main(["throughput", "--rehearse", "--device", "cpu", "--results", str(tmp_path)])
    rows = json.loads((tmp_path / "throughput.json").read_text())["rows"]
    assert [r["program"] for r in rows] == ["floor", "fused", "fused, half"]
    assert rows[2]["ms"] is None and rows[2]["said"] == ["RuntimeError: unable to find an engine"]


@pytest.fixture
def gpu(monkeypatch):
    """What measures believes in a GPU; steps are stand-ins, some of which do not fit."""

    def train_step(model, size, batch, world, say, **way):
        asked.append((size, batch, way))
        if batch > 512 or way.get("memory") == "half" and not way.get("cuda_graph"):
            raise torch.OutOfMemoryError("CUDA out of memory")
        return lambda: None

    asked = []
    monkeypatch.setattr(run, "World", lambda _: SimpleNamespace(device=torch.device("cuda")))
    monkeypatch.setattr(run, "wait", lambda _: None)
    monkeypatch.setattr(run.gc, "collect", lambda: None)  # a second each, of sixty
    monkeypatch.setattr(torch.cuda, "reset_peak_memory_stats", lambda: None)
    monkeypatch.setattr(run, "peak_memory", lambda _: 5.0)
    monkeypatch.setattr(run, "train_step", train_step)
    monkeypatch.setattr(run, "floor_step", lambda *_: lambda: None)
    return asked


def test_throughput_on_a_gpu_begins_with_what_counts(gpu, tmp_path):
    assert run.main(["throughput", "--batches", "128", "512", "--results", str(tmp_path)]) == 0
    found = json.loads((tmp_path / "throughput.json").read_text())
    names = [r["program"] for r in found["rows"] if r["batch"] == 512]
    first = ["floor", "floor, graph", "fused, graph", "fused, compiled, graph"]
    assert names[:4] == first and names[-1] == "layers, graph" and len(names) == len(set(names))
    assert sorted(names) == sorted([*first, "fused", "fused, half", "layers", "fused, half, graph",
                                    "layers, graph"])  # fmt: skip
    assert [batch for _, batch, way in gpu if way.get("compile")] == [512], "it takes a minute"
    assert [r["program"] for r in found["rows"] if r["said"]] == ["fused, half"] * 2
    assert set(found["ratios"]) == {"128", "512"}


def test_memory_on_a_gpu_finds_what_fits(gpu, tmp_path):
    assert run.main(["memory", "--results", str(tmp_path)]) == 0
    rows = json.loads((tmp_path / "memory.json").read_text())["rows"]
    peaks = [r for r in rows if "peak_mib" in r]
    assert {(r["mode"], r["depth"]) for r in peaks} == {
        (mode, depth) for mode in run.MEMORY_MODES for depth in (4, 8, 16, 32)
    }
    assert all(r["peak_mib"] == (None if r["mode"] == "half" else 5.0) for r in peaks)
    largest = {r["size"]: r["largest_power_of_two"] for r in rows if r["mode"] == "default"
               and "largest_power_of_two" in r}  # fmt: skip
    assert largest == {32: 512, 256: 512}


def test_a_picture_of_all_curves(tmp_path, finished):
    found = run.record(finished, "a10", "x")
    checkpoint.write_json(tmp_path / "a10-seed0.json", found)
    assert run.picture(tmp_path).stat().st_size > 1000


def test_noise_sets_are_images():
    data = run.noise_set(3, 8)
    assert data.images.dtype == np.uint8 and data.shape == (8, 8, 3) and len(data) == 3
