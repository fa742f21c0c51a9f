"""Training: falls, resumes bit for bit, stops on NaN, counts every image once."""

from __future__ import annotations

import json
import math
import os
import shutil
import signal
import subprocess
import sys
import time
from contextlib import nullcontext
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from torch._dynamo.utils import counters
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from glowlite import fused, look, progress, runs
from glowlite import train as training
from glowlite.batches import Batches
from glowlite.checkpoint import CheckpointError, load_tensors, save_tensors
from glowlite.cli import main
from glowlite.data import ImageSet, epoch_order, load
from glowlite.data.faces import make_faces
from glowlite.evaluate import NotFinite, baseline, evaluate, seeded
from glowlite.flow import MEMORY_MODES
from glowlite.glow import Glow
from glowlite.graph import CompiledSteps, Graphed
from glowlite.parallel import World, use_tf32
from glowlite.plots import read_metrics
from glowlite.presets import MEMORY, OPTIMIZERS, PRESETS, TrainConfig
from glowlite.registry import build
from glowlite.schedule import lr_factor, make_optimizer, update_average
from glowlite.train import TrainingStopped

TINY = {"levels": 2, "depth": 1, "width": 6, "n_bits": 5}
N = 90  # with batches of 16 the epochs do not line up with the steps


def faces(n, split):
    images, truth = make_faces(n, 16, seed=3, split=split)
    return ImageSet(images, truth[:, 7].astype(np.int64), truth, (), "faces", split, f"{split}-{n}")


TRAIN, TEST = faces(N, "train"), faces(37, "test")


def config(**changes):
    given = {"epochs": 3.0, "batch": 16, "warmup": 64, "init_images": 32, "evals": 2}
    given |= {"eval_images": 20, "draws": 1, "device": "cpu", "lr": 3e-3, "seed": 2}
    return TrainConfig(**{**given, **changes})


def begin(folder, model=TINY, train_set=TRAIN, **changes):
    return runs.start(folder, config(**changes), model, train_set, TEST, World("cpu"))


def go(run, **more):
    lines = []
    result = training.train(run, TRAIN, TEST, World("cpu"), say=lines.append, **more)
    return result, lines


@pytest.fixture(scope="module")
def straight(tmp_path_factory):
    """A run that was never stopped."""
    folder = tmp_path_factory.mktemp("runs") / "straight"
    run = begin(folder)
    result, lines = go(run)
    return folder, run, result, lines


def test_bits_per_dim_fall(straight):
    folder, run, result, lines = straight
    tests = [r["test"]["mean"] for r in read_metrics(folder / "metrics.jsonl") if "test" in r]
    assert run.step == round(3 * N / 16)
    assert len(tests) == 3 and tests[-1] < tests[0] - 0.1
    assert result.mean == tests[-1] and result.images == len(TEST.images)
    assert "baseline" in lines[0]


def test_the_folder_holds_what_was_promised(straight):
    folder, run, result, _ = straight
    names = {p.name for p in folder.iterdir()}
    files = ("config.json", "model.safetensors", "ema.safetensors", "state.safetensors")
    assert names == {*files, "metrics.jsonl", "samples", "curve.png"}
    for picture in [*(folder / "samples").iterdir(), folder / "curve.png"]:
        Image.open(picture).verify()
    from glowlite import load

    again = evaluate(load(folder), TEST.images, draws=1, batch=16, seed=2)
    assert again.mean == pytest.approx(result.mean, abs=1e-12), "the EMA is what was evaluated"
    raw = evaluate(load(folder, weights="model"), TEST.images, draws=1, batch=16, seed=2)
    last = read_metrics(folder / "metrics.jsonl")[-1]
    assert raw.mean == last["raw"]["mean"] != again.mean
    assert {"round_trip", "smallest_scale", "condition", "exploded"} <= set(last)
    assert 0 < last["round_trip"] < 1e-4 and last["smallest_scale"] < 1 < last["condition"]


def stop_at(monkeypatch, step):
    """A real Ctrl-C, while batch `step` is being fetched."""
    fetch = Batches.__call__

    def interrupted(self, number):
        if number == step:
            os.kill(os.getpid(), signal.SIGINT)
        return fetch(self, number)

    monkeypatch.setattr(Batches, "__call__", interrupted)


def state(folder):
    return load_tensors(folder / "state.safetensors")[0]


def same(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


@pytest.mark.parametrize("step", [0, 5, 9])
def test_resume_is_bit_equal(straight, tmp_path, monkeypatch, step):
    with monkeypatch.context() as patch:
        stop_at(patch, step)
        run = begin(tmp_path / "a")
        assert go(run)[0] is None and run.step == step + 1
    left = [tmp_path / "a" / name for name in (".state.safetensors.x.tmp", "samples/.1.png.x.tmp")]
    for path in left:
        path.write_text("half")
    run = runs.restart(tmp_path / "a", TRAIN, World("cpu"))
    assert run.step == step + 1 and not any(path.exists() for path in left)
    result, _ = go(run)
    assert same(state(tmp_path / "a"), state(straight[0]))
    assert result == straight[2]
    rows = [read_metrics(folder / "metrics.jsonl") for folder in (tmp_path / "a", straight[0])]
    ours, theirs = ([(r["step"], r["test"]) for r in part if "test" in r] for part in rows)
    assert ours == theirs, "every evaluation once, with the same numbers"


@pytest.mark.parametrize(("fast", "optimizer"), [(True, "adam"), (False, "adam"), (True, "muon")])
def test_resume_is_bit_equal_in_another_memory_format(tmp_path, monkeypatch, fast, optimizer):
    """A fused optimiser walks weights and moments side by side: both have to lie alike."""
    options = {"channels_last": True, "fast": fast, "optimizer": optimizer}
    go(begin(tmp_path / "whole", **options))
    with monkeypatch.context() as patch:
        stop_at(patch, 5)
        go(begin(tmp_path / "a", **options))
    run = runs.restart(tmp_path / "a", TRAIN, World("cpu"))
    go(run)
    assert same(state(tmp_path / "a"), state(tmp_path / "whole"))

    def lies(tensor):  # the stride of a single row or column says nothing
        return [step for step, n in zip(tensor.stride(), tensor.shape, strict=True) if n > 1]

    for p, q in zip(run.model.parameters(), run.average.parameters(), strict=True):
        moments = run.optimizer.state[p]
        beside = (moments.get("exp_avg", moments.get("momentum_buffer")), p.grad, q)
        assert all(lies(tensor) == lies(p) for tensor in beside)


def forget_optimizer(run):
    run.optimizer.state.clear()


def forget_average(run):
    run.average.load_state_dict(run.model.state_dict())


def forget_position(run):
    run.step -= 1


def forget_seed(run):
    run.config = config(seed=3)


@pytest.mark.parametrize("forget", [forget_optimizer, forget_average, forget_position, forget_seed])
def test_the_test_above_would_notice(straight, tmp_path, monkeypatch, forget):
    with monkeypatch.context() as patch:
        stop_at(patch, 5)
        go(begin(tmp_path / "a"))
    run = runs.restart(tmp_path / "a", TRAIN, World("cpu"))
    forget(run)
    go(run)
    assert not same(state(tmp_path / "a"), state(straight[0]))


def test_a_killed_run_loses_nothing_but_the_interval(tmp_path):
    rng = np.random.default_rng(0)
    np.save(tmp_path / "images.npy", rng.integers(0, 256, (300, 8, 8, 3), dtype=np.uint8))
    options = [f"npy:{tmp_path}/images.npy", "--preset", "tiny", "--epochs", "6", "--batch", "16"]
    options += ["--cache-dir", str(tmp_path / "cache"), "--device", "cpu", "--evals", "1"]
    assert main(["train", *options, "--out", str(tmp_path / "whole")]) == 0
    command = [sys.executable, "-m", "glowlite", "train", *options, "--save-minutes", "1e-9"]
    killed = tmp_path / "killed"
    process = subprocess.Popen(
        [*command, "--out", str(killed)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    deadline = time.monotonic() + 100
    while process.poll() is None and time.monotonic() < deadline:
        path = killed / "state.safetensors"
        if path.exists() and load_tensors(path)[1]["step"] >= 4:  # never half a file
            break
    process.kill()
    assert process.wait() == -signal.SIGKILL, "it was meant to be killed half-way"
    assert 4 <= load_tensors(killed / "state.safetensors")[1]["step"] < 90
    assert main(["resume", str(killed)]) == 0
    assert same(state(killed), state(tmp_path / "whole"))


def test_not_a_number_stops_the_run(tmp_path):
    run = begin(tmp_path / "a")
    before = (tmp_path / "a" / "state.safetensors").read_bytes()
    with torch.no_grad():
        next(run.model.parameters()).fill_(torch.nan)
    with pytest.raises(TrainingStopped, match=r"stopped at step 0: bits/dim is nan.*\n.*--lr"):
        go(run)
    assert (tmp_path / "a" / "state.safetensors").read_bytes() == before


def test_an_infinite_gradient_stops_the_run(tmp_path):
    run = begin(tmp_path / "a")
    weights = [p.detach().clone() for p in run.model.parameters()]
    next(run.model.parameters()).register_hook(lambda g: g + torch.inf)
    with pytest.raises(TrainingStopped, match="the gradient's norm is (inf|nan)"):
        go(run)
    assert all(torch.equal(a, b) for a, b in zip(weights, run.model.parameters(), strict=True))


def step_of(run):
    batches = Batches(TRAIN, run.config, World("cpu"))
    step = training.make_step(run, batches, World("cpu"), say=print)
    return lambda: step(*training.inputs(run, batches, World("cpu")))


@pytest.mark.parametrize("bad", [0, 2, 4])
def test_a_window_of_steps_names_the_first_bad_one(tmp_path, bad):
    """As on a GPU, where nobody asks a step how it went until the log is written."""
    run = begin(tmp_path / "a")
    run.step = 12
    window = [torch.tensor([4.0 - i, 2.0 + i], dtype=torch.float64) for i in range(5)]
    assert training.check(run, window) == (2.0, 6.0)
    window[bad][1] = torch.inf
    window[4][0] = torch.nan
    words = "bits/dim is nan" if bad == 4 else "the gradient's norm is inf"
    with pytest.raises(TrainingStopped, match=rf"stopped at step {7 + bad}: {words}"):
        training.check(run, window)


def test_a_bad_step_is_never_saved_even_if_nobody_looked(tmp_path, monkeypatch):
    """A step that is not asked, as on a GPU: its weights are spoilt, what is on disk is not."""
    monkeypatch.setattr(training, "make_step", make_step_that_is_not_asked)
    run = begin(tmp_path / "a")
    before = (tmp_path / "a" / "state.safetensors").read_bytes()
    next(run.model.parameters()).register_hook(lambda g: g + torch.nan)
    with pytest.raises(TrainingStopped, match="stopped at step 0: the gradient's norm is nan"):
        go(run)
    assert run.step > 0 and not next(run.model.parameters()).isfinite().all()
    assert (tmp_path / "a" / "state.safetensors").read_bytes() == before


def make_step_that_is_not_asked(run, batches, world, say):
    def step(*inputs):
        bits, norm = training.gradients(run, world, run.model.loss, *inputs)
        run.optimizer.step()
        return torch.stack([bits, norm.double()])

    return step


class Waits(TorchDispatchMode):
    """Notes every operation that would make the host wait for a GPU."""

    WAITING = ("_local_scalar_dense", "nonzero", "is_nonzero", "equal", "item", "masked_select")

    def __init__(self):
        super().__init__()
        self.found = []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        name = function.overloadpacket.__name__
        if name in self.WAITING or (name == "index" and has_mask(args[1])):
            self.found.append(name)
        return function(*args, **(kwargs or {}))


def has_mask(indices):
    return any(i is not None and i.dtype == torch.bool for i in indices)


@pytest.mark.parametrize("memory", MEMORY)
@pytest.mark.parametrize("optimizer", ["adam", "muon"])
def test_no_step_waits_for_the_device(tmp_path, memory, optimizer):
    run = begin(tmp_path / "a", flip=True, shift=0.1, memory=memory, optimizer=optimizer)
    training.prepare(run.model, run.config, None, print)
    batches, world = Batches(TRAIN, run.config, World("cpu")), World("cpu")
    step = make_step_that_is_not_asked(run, batches, world, print)
    with Waits() as waits:
        step(*training.inputs(run, batches, world))
        update_average(run.average, run.model, 0.9, 1)
        # A fused optimiser is one operation, which reads its own count of steps on the device.
    assert waits.found == []
    with Waits() as waits:
        step_of(run)()
    assert waits.found, "asking on a CPU is seen: the check can fail"


class OnTheHost(TorchDispatchMode):
    """Notes every operation that a tensor of the CPU goes into or comes out of, and
    `torch.tensor`, which makes one wherever it is to be."""

    def __enter__(self):
        self.found, self.tensor = [], torch.tensor
        torch.tensor = lambda *a, **k: self.found.append("tensor") or self.tensor(*a, **k)
        return super().__enter__()

    def __exit__(self, *error):
        torch.tensor = self.tensor
        return super().__exit__(*error)

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        tensors = [t for t in tree_leaves((args, kwargs, result)) if isinstance(t, torch.Tensor)]
        # Nothing to copy in an empty one: PyTorch 2.11's checkpoint makes some.
        if any(t.device.type == "cpu" and t.numel() for t in tensors):
            self.found.append(str(function))
        return result


STEPS = (
    {},
    {"permutation": "plain", "scale": "exp"},
    {"permutation": "shuffle", "coupling": "additive", "net_actnorm": False, "padding": "zero"},
)


def gradients_on(device, memory, bf16, fast, options):
    """Those of one batch, on a device that is not the CPU: `meta` has shapes and no numbers."""
    model = build({**TINY, "shape": [3, 8, 8], **options})
    model.initialize(torch.randint(256, (4, 3, 8, 8), dtype=torch.uint8))
    run = runs.assemble(None, config(batch=4), model, N, torch.device("cpu"))
    model.to(device)
    model.memory, model.fast = memory, fast
    model.set_net_dtype(torch.bfloat16 if bf16 else None)
    images = torch.empty(4, 3, 8, 8, dtype=torch.uint8, device=device)
    world = SimpleNamespace(device=images.device, sum_gradients=lambda _parameters, *e: e)
    run.optimizer = SimpleNamespace(zero_grad=model.zero_grad)  # there is none for `meta`
    with OnTheHost() as host:
        training.gradients(run, world, model.loss, images, None, images.float())
    return model, host.found


@pytest.mark.parametrize("memory", MEMORY)
def test_a_step_is_on_its_device_as_a_whole(memory):
    """A tensor made on the host would be copied over in every step, and a graph forbids that."""
    for options in STEPS:
        for bf16, fast in ((True, True), (False, False)):  # autocast does not know `meta`
            model, found = gradients_on("meta", memory, bf16, fast, options)
            assert found == [], options
            for name, p in model.named_parameters():  # or a fused optimiser would copy it first
                assert p.grad.device.type == "meta" and p.grad.dtype == p.dtype, name
    assert gradients_on("cpu", memory, False, True, {})[1], "the host is seen: this can fail"


def test_damage_to_the_state_is_told(straight, tmp_path):
    folder = tmp_path / "copy"
    shutil.copytree(straight[0], folder)
    with pytest.raises(ValueError, match="other images"):
        runs.restart(folder, TEST, World("cpu"))
    saved = json.loads((folder / "config.json").read_text())
    saved["model"]["width"] = 7
    (folder / "config.json").write_text(json.dumps(saved))
    with pytest.raises(CheckpointError, match="another architecture"):
        runs.restart(folder, TRAIN, World("cpu"))
    for text in ("{}", json.dumps({k: v for k, v in saved.items() if k != "data"})):
        (folder / "config.json").write_text(text)
        with pytest.raises(CheckpointError, match="cannot be used"):
            runs.restart(folder, TRAIN, World("cpu"))
    (folder / "config.json").unlink()
    with pytest.raises(FileNotFoundError, match="not a run folder"):
        runs.restart(folder, TRAIN, World("cpu"))


@pytest.mark.parametrize(
    "damage",
    [
        lambda tensors, header: header.pop("step"),
        lambda tensors, header: header.update(step="many"),
        lambda tensors, header: tensors.update({"optimizer/x/step": torch.zeros(1)}),
        lambda tensors, header: tensors.update({"optimizer/9999/step": torch.zeros(1)}),
    ],
    ids=["no step", "step in words", "no number", "no parameter"],
)
def test_a_whole_file_that_is_no_state_is_told(straight, tmp_path, damage):
    shutil.copytree(straight[0], tmp_path / "a")
    path = tmp_path / "a" / "state.safetensors"
    tensors, header = load_tensors(path)
    damage(tensors, header)
    save_tensors(path, tensors, header)
    with pytest.raises(CheckpointError, match="state.safetensors is not a run's state"):
        runs.restart(tmp_path / "a", TRAIN, World("cpu"))


def test_metrics_cut_off_anywhere_are_read(tmp_path):
    path = tmp_path / "metrics.jsonl"
    for tail in (b'{"step": 2, "im', b"\0\0\0", b"\xff\xfe", b"[2]", b"{}"):
        path.write_bytes(b'{"step": 1}\n' + tail)
        assert read_metrics(path) == [{"step": 1}], tail
        path.write_bytes(tail + b'\n{"step": 1}\n')
        with pytest.raises(ValueError, match="metrics.jsonl, line 1 is not a row"):
            read_metrics(path)


def test_the_last_evaluation_shows_how_far_it_is(tmp_path, monkeypatch):
    told = []

    class Seen(progress.tqdm):
        """On a terminal, told what it shows: the end it runs to, each advance, and its close."""

        def __init__(self, *args, disable=False, **options):
            super().__init__(*args, disable=True, **options)
            self.name = options.get("desc") if disable is not True else "hidden"
            told.append((self.name, "to", options["total"]))

        def update(self, n=1):
            told.append((self.name, n))

        def close(self):
            told.append((self.name, "closed"))

    for module in (progress, look):
        monkeypatch.setattr(module, "tqdm", Seen)
    go(begin(tmp_path / "a", epochs=0.5))
    assert told.index((None, "closed")) < told.index(("evaluating", "to", 37)), "one bar at a time"
    assert told.count(("evaluating", "to", 37)) == 2, "the averaged weights and the last ones"
    steps = [what for name, what, *_ in told if name == "evaluating" and isinstance(what, int)]
    assert sum(steps) == 2 * 37


def test_nothing_is_overwritten(tmp_path):
    (tmp_path / "mine.txt").write_text("keep me")
    with pytest.raises(FileExistsError, match="--force"):
        begin(tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == ["mine.txt"]
    run = runs.start(tmp_path, config(), TINY, TRAIN, TEST, World("cpu"), force=True)
    assert run.step == 0 and (tmp_path / "mine.txt").read_text() == "keep me"


def test_an_old_run_stands_until_the_new_one_has_begun(tmp_path, monkeypatch):
    begin(tmp_path)
    extra = [tmp_path / "tensorboard" / "events.out.1", tmp_path / "samples" / "0000003.png"]
    extra += [tmp_path / ".ema.safetensors.x_1.tmp", tmp_path / "jacobian-0.npy"]
    extra += [tmp_path / "mine.txt"]
    for path in extra:
        path.parent.mkdir(exist_ok=True)
        path.write_text("old")
    before = {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()}
    again = (tmp_path, config(seed=9), TINY, TRAIN, TEST, World("cpu"))
    with monkeypatch.context() as patch:
        patch.setattr("glowlite.model.FlowModel.initialize", None)
        with pytest.raises(TypeError):
            runs.start(*again, force=True)
    assert before == {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()}
    runs.start(*again, force=True)
    assert [path.exists() for path in extra] == [False, False, False, False, True]


class Board:
    """What TensorBoard would be told."""

    made: list[Board] = []

    def __init__(self, folder, purge_step):
        self.folder, self.purge_step, self.told = folder, purge_step, []
        self.made.append(self)

    def add_scalar(self, key, value, images):
        self.told.append((key, float(value), images))

    def close(self):
        self.made.append("closed")


def test_tensorboard_is_told_what_the_metrics_hold_once(tmp_path, monkeypatch):
    monkeypatch.setitem(
        sys.modules, "torch.utils.tensorboard", SimpleNamespace(SummaryWriter=Board)
    )
    monkeypatch.setattr(Board, "made", [])
    with monkeypatch.context() as patch:
        stop_at(patch, 5)
        go(begin(tmp_path / "a", tensorboard=True))
    run = runs.restart(tmp_path / "a", TRAIN, World("cpu"))
    go(run)
    first, _, second, _ = Board.made
    assert Board.made[1::2] == ["closed", "closed"]
    assert first.folder == second.folder == tmp_path / "a" / "tensorboard"
    # From there on: rows up to the state that the run goes on from are kept, as in the metrics.
    assert first.purge_step is None and second.purge_step == 6 * 16 + 1
    rows = read_metrics(tmp_path / "a" / "metrics.jsonl")
    tests = [(r["test"]["mean"], r["images"]) for r in rows if "test" in r]
    assert len(tests) == 3
    assert [(v, i) for key, v, i in first.told + second.told if key == "test"] == tests


def test_without_tensorboard_that_is_said(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    result, _ = go(begin(tmp_path / "a", tensorboard=True, epochs=0.2))
    assert result and "tensorboard: not installed" in capsys.readouterr().out


def test_a_look_that_fails_is_told_and_training_goes_on(tmp_path, monkeypatch, straight):
    calls = []

    def sometimes(*arguments, **options):
        calls.append(options)
        if len(calls) in bad:
            raise NotFinite("bits/dim is not finite for 1 images, the first is number 7")
        return evaluate(*arguments, **options)

    monkeypatch.setattr(look, "evaluate", sometimes)
    bad = (2,)
    result, lines = go(begin(tmp_path / "a"))
    assert result == straight[2] and same(state(tmp_path / "a"), state(straight[0]))
    assert any("number 7; training goes on" in line for line in lines)
    rows = read_metrics(tmp_path / "a" / "metrics.jsonl")
    assert [r["step"] for r in rows if "not_finite" in r] == [9]
    calls, bad = [], (3,)  # the last
    run = begin(tmp_path / "b")
    with pytest.raises(TrainingStopped, match=f"kept in {tmp_path / 'b'}; but .*number 7"):
        go(run)
    assert same(state(tmp_path / "b"), state(straight[0]))
    assert runs.finished(straight[1]) and not runs.finished(run)


def test_a_run_stopped_before_its_first_step_looks_once(tmp_path):
    run = begin(tmp_path / "a", epochs=0.2)
    with progress.Log(run, World("cpu")) as log:
        look.look(run, TEST, log, 20)
    go(runs.restart(tmp_path / "a", TRAIN, World("cpu")))
    rows = [r for r in read_metrics(tmp_path / "a" / "metrics.jsonl") if "test" in r]
    assert [r["step"] for r in rows] == [0, 1]


def test_both_weights_are_evaluated_as_they_will_be_loaded(tmp_path):
    from glowlite import load

    run = begin(tmp_path / "a", epochs=0.5, bf16=True, fast=False)
    go(run)
    assert run.average.fast is False
    last = read_metrics(tmp_path / "a" / "metrics.jsonl")[-1]
    for kind, weights in (("raw", "model"), ("test", "ema")):
        again = evaluate(load(run.folder, weights=weights), TEST.images, draws=1, batch=16, seed=2)
        assert last[kind]["mean"] == pytest.approx(again.mean, abs=1e-5)


def test_every_image_once_an_epoch():
    batches = Batches(TRAIN, config(), World("cpu"))
    rows = [batches.rows(16 * t, 16) for t in range(45)]
    flat = np.concatenate(rows)
    for epoch in range(len(flat) // N):
        assert sorted(flat[epoch * N : (epoch + 1) * N]) == list(range(N))
    assert (flat[:N] != flat[N : 2 * N]).any()
    again = Batches(TRAIN, config(), World("cpu")).rows(16 * 7, 16)
    assert np.array_equal(again, rows[7])
    images, labels = batches(7)
    assert np.array_equal(images.permute(0, 2, 3, 1).numpy(), TRAIN.images[rows[7]])
    assert np.array_equal(labels.numpy(), TRAIN.labels[rows[7]])


@pytest.mark.parametrize("count", [1, 16, N, N + 1, 3 * N])
def test_rows_are_the_epochs_one_after_the_other(count):
    """The definition, one position at a time: batches may end, begin and span epochs anywhere."""
    batches = Batches(TRAIN, config(), World("cpu"))
    for first in (0, 5, N - 1, N, 2 * N + 7):
        one_by_one = [
            epoch_order(N, config().seed, p // N)[p % N] for p in range(first, first + count)
        ]
        assert batches.rows(first, count).tolist() == one_by_one


def test_shifts_repeat_the_border_and_move_whole_pixels():
    ramp = np.arange(20, dtype=np.uint8)[None, None, :, None].repeat(10, 1).repeat(3, 3)
    images = np.concatenate([ramp] * 64)
    data = ImageSet(images, None, None, (), "ramp", "train", "")
    batches = Batches(data, config(batch=64, shift=0.1), World("cpu"))
    moved, _ = batches(3)
    seen = set()
    for image in moved[:, 0].numpy():
        shift = int(image[0, 10]) - 10
        seen.add(shift)
        assert np.array_equal(image, np.clip(np.arange(20) + shift, 0, 19)[None].repeat(10, 0))
    assert seen == {-2, -1, 0, 1, 2}
    flipped = Batches(data, config(batch=64, flip=True), World("cpu"))(0)[0][:, 0, 0].tolist()
    there = tuple(range(20))
    assert set(map(tuple, flipped)) == {there, there[::-1]}


def test_the_learning_rate_is_multiplied_once(tmp_path):
    rates = []
    run = begin(tmp_path / "a", schedule="constant", warmup=64, epochs=1.0)
    step = run.optimizer.step
    run.optimizer.step = lambda: (rates.append(run.optimizer.param_groups[0]["lr"]), step())
    go(run)
    assert rates == pytest.approx([3e-3 * f for f in (0.25, 0.5, 0.75, 1, 1, 1)])


def test_each_step_has_noise_of_its_own_uniform_in_the_cell(tmp_path):
    run = begin(tmp_path / "a")
    batches = Batches(TRAIN, run.config, World("cpu"))
    noise = []
    for run.step in (3, 4, 3):
        noise.append(training.inputs(run, batches, World("cpu"))[2])
    assert torch.equal(noise[0], noise[2]) and not torch.equal(noise[0], noise[1])
    for u in noise:
        assert 0 <= u.min() < 0.001 and 0.999 < u.max() < 1
        assert u.var().item() == pytest.approx(1 / 12, rel=0.03)


def test_gradients_are_clipped_to_the_norm(tmp_path):
    run = begin(tmp_path / "a", clip=0.01, epochs=0.5)
    norms = []
    step = run.optimizer.step

    def watched():
        norms.append(float(sum(p.grad.double().square().sum() for p in run.model.parameters())))
        step()

    run.optimizer.step = watched
    go(run)
    assert np.sqrt(norms) == pytest.approx([0.01] * len(norms), rel=1e-4)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_every_optimiser_trains_and_resumes(tmp_path, name):
    run = begin(tmp_path / "a", optimizer=name, epochs=0.5, beta2=0.0, ema=0.0)
    assert run.optimizer.param_groups[0]["betas"][1] == 1 - 1 / round(N / 16)
    go(run)
    moments = {k: v for k, v in state(tmp_path / "a").items() if k.startswith("optimizer/")}
    again = runs.restart(tmp_path / "a", TRAIN, World("cpu"), epochs=1.0)
    again.save()
    assert moments and same(
        moments, {k: v for k, v in state(tmp_path / "a").items() if k.startswith("optimizer/")}
    )


def test_a_measure_without_a_number_is_still_json(tmp_path, monkeypatch):
    """It is there to tell that the inverse is lost: the file then has a null, the line says nan."""
    monkeypatch.setattr(look, "telemetry", lambda *_: {
        "round_trip": math.inf, "smallest_scale": math.nan, "condition": 2.0})  # fmt: skip
    _, lines = go(begin(tmp_path / "a", epochs=0.2))
    assert "round trip inf" in lines[0]
    text = (tmp_path / "a" / "metrics.jsonl").read_text()
    json.dumps([json.loads(line) for line in text.splitlines()], allow_nan=False)
    rows = [r for r in read_metrics(tmp_path / "a" / "metrics.jsonl") if "round_trip" in r]
    assert rows[0]["round_trip"] is rows[0]["smallest_scale"] is None and rows[0]["condition"] == 2


def test_unknown_names_are_refused():
    p = [torch.nn.Parameter(torch.zeros(1))]
    with pytest.raises(ValueError, match="optimizer is 'sgd'"):
        make_optimizer("sgd", p, lr=1.0)
    with pytest.raises(ValueError, match="schedule is 'steps'"):
        lr_factor("steps", 1, 0.5, 0)


def test_the_average_is_the_formula():
    generator = torch.Generator().manual_seed(0)
    models = [torch.nn.Linear(3, 2).double() for _ in range(4)]
    for model in models:
        for p in model.parameters():
            p.data = torch.randn(p.shape, generator=generator, dtype=torch.float64)
    average, *later = models
    expected = average.weight.detach().clone()
    for step, model in enumerate(later, 1):
        update_average(average, model, 0.2, step)
        d = min(0.2, (1 + step) / (10 + step))
        expected = d * expected + (1 - d) * model.weight
    assert torch.allclose(average.weight, expected, rtol=1e-14, atol=0)


def test_an_evaluation_counts_every_image_once():
    model = build({"model": "glow", "shape": [3, 16, 16], **TINY})
    images = torch.from_numpy(TRAIN.images.copy()).permute(0, 3, 1, 2)
    model.initialize(images, generator=seeded(0))
    results = [evaluate(model.double(), TEST.images, batch=b, draws=2) for b in (37, 16, 36)]
    middle = torch.full((37, 3, 16, 16), 0.5, dtype=torch.float64)
    few = torch.from_numpy(TEST.images.copy()).permute(0, 3, 1, 2)
    exact = model.bits_per_dim(few, noise=middle).detach().numpy()
    for result in results:
        assert result.images == 37 and result.draws == 2
        # Dequantisation noise differs with the batch; a lone image in the last batch must weigh
        # 1/37, not 1/2.
        assert abs(result.mean - exact.mean()) < 0.01
    assert results[0].standard_error == pytest.approx(exact.std(ddof=1) / np.sqrt(37), rel=0.05)
    with pytest.raises(ValueError, match="needs images"):
        evaluate(model, TEST.images[:0])


def test_an_evaluation_draws_anew_for_each_batch_and_leaves_the_mode():
    class Draws(Glow):
        def bits_per_dim(self, x, classes, generator):
            assert not self.training
            return torch.rand(len(x), generator=generator, dtype=torch.float64)

    model = Draws(shape=(1, 2, 2), levels=1, depth=1, width=1)
    images = np.zeros((4, 2, 2, 1), np.uint8)
    first, second = (torch.rand(2, generator=seeded(0, 1, s), dtype=torch.float64) for s in (0, 2))
    drawn = torch.cat([first, second])
    assert not torch.equal(first, second)
    found = evaluate(model, images, batch=2)
    assert found.mean == pytest.approx(drawn.mean().item(), rel=1e-12)
    assert found.standard_error == pytest.approx(drawn.std().item() / 2, rel=1e-12)
    assert model.training
    assert lr_factor("cosine", 1, 1.3, 0) == 0.0 and lr_factor("cosine", 1, -0.1, 0) == 1.0


def test_the_error_of_a_single_image_is_unknown(tmp_path):
    run = begin(tmp_path / "a", epochs=0.2)
    result = evaluate(run.average, TEST.images[:1])
    assert result.standard_error is None
    assert "±" not in str(result) and "(1 image, 1 dequantisation draw each)" in str(result)
    one = replace(TEST, images=TEST.images[:1])
    lines = []
    training.train(run, TRAIN, one, World("cpu"), lines.append)
    assert "±" not in lines[0]
    rows = read_metrics(tmp_path / "a" / "metrics.jsonl")
    assert [r["test"]["standard_error"] for r in rows if "test" in r] == [None, None]
    Image.open(tmp_path / "a" / "curve.png").verify()


def test_an_evaluation_drops_nothing_in_silence():
    model = build({"model": "glow", "shape": [3, 16, 16], **TINY})
    with torch.no_grad():
        model.levels[1].steps[0].actnorm.b.fill_(torch.inf)
    with pytest.raises(ValueError, match="not finite for 37 images, the first is number 0"):
        evaluate(model, TEST.images)
    assert model.training
    with pytest.raises(ValueError, match="images has shape"):
        evaluate(model, TEST.images[:, :8])
    assert model.training, "whatever happens inside, the mode is what it was"


def test_the_baseline_is_a_probability():
    rng = np.random.default_rng(0)
    noise = rng.integers(0, 256, (4000, 2, 3, 1), dtype=np.uint8)
    assert baseline(noise[:2000], noise[2000:], 5) == pytest.approx(5, abs=0.02)
    assert baseline(noise[:2000], noise[2000:], 1) == pytest.approx(1, abs=0.002)
    same_pixel = np.full((1000, 1, 1, 1), 200, np.uint8)
    expected = -np.log2(1000.5 / (1000 + 0.5 * 256))
    assert baseline(same_pixel, same_pixel, 8) == pytest.approx(expected, abs=1e-12)
    few = baseline(noise[:2000], noise[2000:], 5, limit=500)
    assert few == baseline(noise[:500], noise[2000:2500], 5) != baseline(noise, noise[2000:], 5)


def test_options_of_the_machine_train_the_same_model(tmp_path):
    plain = begin(tmp_path / "a", epochs=0.5)
    go(plain)
    last = begin(tmp_path / "b", epochs=0.5, channels_last=True, memory="checkpoint")
    go(last)
    for p, q in zip(plain.model.parameters(), last.model.parameters(), strict=True):
        assert torch.allclose(p, q, rtol=1e-3, atol=1e-5)
    half = begin(tmp_path / "c", epochs=0.5, bf16=True)
    result, _ = go(half)
    assert np.isfinite(result.mean)
    assert {p.dtype for p in half.model.parameters()} == {torch.float32}


def test_what_cannot_be_had_is_said_and_done_without(tmp_path, monkeypatch):
    def broken(_function, **_):
        def compiled(*_, **__):
            raise RuntimeError("no compiler here")

        return compiled

    monkeypatch.setattr(torch, "compile", broken)
    run = begin(tmp_path / "a", epochs=0.2, compile=True)
    _, lines = go(run)
    what = "RuntimeError: no compiler here"
    assert lines[0].startswith("compile: once for each level")  # it is long before the next is said
    assert lines[1] == f"compile: not possible here ({what}); training without it"
    assert run.step > 0
    for name, model, changes in (("b", {**TINY, "model": "realnvp", "levels": 1}, {}),
                                 ("c", TINY, {"fast": False})):  # fmt: skip
        model = {k: v for k, v in model.items() if name == "c" or k != "depth"}
        _, lines = go(begin(tmp_path / name, model, epochs=0.2, compile=True, **changes))
        assert lines[0] == "compile: only a Glow's fused steps are compiled; training without it"


def test_the_steps_are_compiled_and_nothing_else_is(tmp_path, monkeypatch, straight):
    """A compiler that only counts: the steps go through it, evaluations do not."""
    calls = []

    def counting(function, **options):
        assert options == {"dynamic": False}

        def compiled(*args):
            if "ready" not in function.__name__:  # which sees weights, no images
                calls.append(len(args[0]))
            return function(*args)

        return compiled

    monkeypatch.setattr(torch, "compile", counting)
    run = begin(tmp_path / "a", compile=True)
    go(run)
    assert calls and set(calls) == {16}, "training batches, never the 20 images of an evaluation"
    assert same(state(tmp_path / "a"), state(straight[0]))


@pytest.mark.parametrize("bf16", [False, True])
@pytest.mark.parametrize("together", [1, 2])
def test_the_steps_can_be_traced_whole(tmp_path, monkeypatch, bf16, together):
    """The compiler's first half, without the code it would write: the same gradients."""
    monkeypatch.setattr(fused, "TOGETHER", together)
    run = begin(tmp_path / "a", model={**TINY, "depth": 2}, bf16=bf16)
    batches, world = Batches(TRAIN, run.config, World("cpu")), World("cpu")
    loss_of, _ = training.prepare(run.model, run.config, batches, print)
    found = []
    for within in (nullcontext(), CompiledSteps(backend="aot_eager", dynamic=False)):
        with within:
            training.gradients(run, world, loss_of, *training.inputs(run, batches, world))
        found.append([p.grad.clone() for p in run.model.parameters()])
    assert all(torch.equal(a, b) for a, b in zip(*found, strict=True))
    assert counters["graph_break"] == {}


@pytest.mark.parametrize("together", [1, 3])
def test_a_step_is_compiled_once_a_level(tmp_path, monkeypatch, together):
    """Whichever step of a level it is, and whatever other models had compiled before."""
    monkeypatch.setattr(fused, "TOGETHER", together)
    made = []

    def compiler(graph, _inputs):
        made.append(graph)
        return graph.forward

    for coupling in ("additive", "affine", "additive"):
        made.clear()
        model = {**TINY, "depth": 3, "coupling": coupling}
        run = begin(tmp_path / f"{coupling}{len(list(tmp_path.iterdir()))}", model=model)
        batches, world = Batches(TRAIN, run.config, World("cpu")), World("cpu")
        with CompiledSteps(backend=compiler, dynamic=False):
            loss_of = run.model.loss
            training.gradients(run, world, loss_of, *training.inputs(run, batches, world))
        assert len(made) == 4 * TINY["levels"], "forward and backward, of the step and its weights"


def test_a_class_conditional_model_trains(tmp_path):
    run = begin(tmp_path / "a", model={**TINY, "n_classes": 2, "weight_y": 0.01}, epochs=1.0)
    result, _ = go(run)
    assert np.isfinite(result.mean)
    unlabelled = ImageSet(TRAIN.images, None, None, (), "faces", "train", "x")
    with pytest.raises(ValueError, match="have no labels"):
        begin(tmp_path / "b", model={**TINY, "n_classes": 2}, train_set=unlabelled)


def test_minutes_end_a_run_and_reach_rate_zero(tmp_path):
    run = begin(tmp_path / "a", epochs=None, minutes=0.02)
    result, _ = go(run)
    assert run.progress(N) == 1.0 and np.isfinite(result.mean)
    rows = [r for r in read_metrics(tmp_path / "a" / "metrics.jsonl") if "lr" in r]
    assert all(r["lr"] <= 3e-3 for r in rows)
    with pytest.raises(ValueError, match="minutes or epochs"):
        go(begin(tmp_path / "b", epochs=None))


@pytest.mark.parametrize(
    ("field", "value"),
    [("batch", 0), ("lr", -1.0), ("beta2", 1.0), ("shift", 0.5), ("optimizer", "sgd"),
     ("schedule", "x"), ("minutes", 0.0), ("seed", -1), ("ema", 1.5), ("memory", "none"),
     ("epochs", math.inf), ("lr", math.inf), ("clip", math.nan), ("lr", None), ("batch", 1.5),
     ("batch", "64"), ("evals", True), ("flip", "no"), ("data", 5), ("minutes", True)],
)  # fmt: skip
def test_bad_settings_are_named(field, value):
    with pytest.raises(ValueError, match=f"{field} is {value!r}; it must be"):
        TrainConfig(**{field: value})


def test_presets_are_the_published_rows():
    rows = {
        "paper-cifar10": (3, 32, "affine", 8, 512, 32),
        "paper-imagenet32": (3, 48, "affine", 8, 512, 32),
        "paper-imagenet64": (4, 48, "affine", 8, 128, 64),
        "paper-lsun": (3, 48, "affine", 8, 128, 64),
        "paper-celebahq": (6, 32, "additive", 5, 40, 256),
        "paper-lsun128": (5, 64, "additive", 5, 160, 128),
    }
    for name, (levels, depth, coupling, bits, batch, size) in rows.items():
        model, train = PRESETS[name].model, TrainConfig(**PRESETS[name].train)
        got = (model["levels"], model["depth"], model["coupling"], model["n_bits"], train.batch)
        assert got == (levels, depth, coupling, bits, batch)
        assert size % 2**levels == 0 and (train.size or 32) == size  # what `info` draws
        assert (train.optimizer, train.lr, train.schedule) == ("adamax", 1e-3, "constant")
        assert (train.warmup, train.epoch_images, train.shift) == (500_000, 50_000, 0.1)
    assert len([name for name in PRESETS if "ablation" in name]) == 6


def test_the_names_of_the_memory_modes_are_those_of_flow():
    assert MEMORY == MEMORY_MODES
    assert dict(TrainConfig.__dataclass_fields__["memory"].metadata)["choices"] == MEMORY_MODES


@pytest.mark.parametrize("name", ["cifar10-a10", "cifar10-b25"])
def test_presets_for_one_gpu_build_and_step(tmp_path, monkeypatch, name):
    """At the full size, one image a step: what a lease would trip over is tripped over here."""
    preset = PRESETS[name]
    settings = {**preset.train, "batch": 1, "init_images": 1, "device": "cpu", "seed": 0}
    config = TrainConfig(**{**settings, "compile": False})
    monkeypatch.setattr(runs.Run, "save", lambda run: None)  # a gigabyte
    assert config.holdout and config.minutes in (10.0, 25.0)
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (2, 32, 32, 3), dtype=np.uint8)
    data = ImageSet(images, None, None, (), "cifar10", "fit", "x")
    run = runs.start(tmp_path / "a", config, preset.model, data, data, World("cpu"))
    millions = sum(p.numel() for p in run.model.parameters()) / 1e6
    assert 42 < millions < 45
    lines = []
    batches, world = Batches(data, config, World("cpu")), World("cpu")
    step = training.make_step(run, batches, world, lines.append)
    assert step(*training.inputs(run, batches, world)).isfinite().all()
    assert lines == [
        "cuda graph: not possible here (it needs one process on one GPU); training without it"
    ]


def test_held_out_images_are_looked_at_and_the_test_set_read_once(tmp_path):
    """`fit` and `valid` share no image; the test images are opened after the last step."""
    opened = []

    class Told(np.ndarray):
        def __getitem__(self, key):
            opened.append(run.step)
            return super().__getitem__(key)

    test = replace(TEST, images=TEST.images.view(Told))
    held_out = replace(faces(25, "train"), split="valid")
    run = runs.start(tmp_path / "a", config(), TINY, TRAIN, held_out, World("cpu"))
    lines = []
    result = training.train(run, TRAIN, test, World("cpu"), lines.append, watched=held_out)
    assert opened and set(opened) == {run.step}
    rows = [r for r in read_metrics(tmp_path / "a" / "metrics.jsonl") if "held_out" in r]
    assert [r["held_out"]["images"] for r in rows] == [20, 20, 25]
    assert [("test" in r) for r in rows] == [False, False, True]
    assert rows[-1]["test"]["images"] == result.images == len(TEST)
    assert rows[-1]["test"]["mean"] == result.mean != rows[-1]["held_out"]["mean"]
    assert lines[0].startswith("step      0  held out ")


def test_a_gpu_rounds_no_factors_unless_it_is_told():
    """PyTorch lets convolutions round from the start: whoever is on its own has to forbid it."""
    for act, allowed in ((lambda: use_tf32(True), True), (lambda: World("cpu"), False)):
        act()
        assert torch.backends.cuda.matmul.allow_tf32 is allowed
        assert torch.backends.cudnn.allow_tf32 is allowed


def test_an_evaluation_times_no_convolutions(tmp_path, monkeypatch):
    """What pays in a step, which comes thousands of times, costs a look more than it takes."""
    monkeypatch.setattr(torch.backends.cudnn, "benchmark", True)
    seen = []
    for name in ("evaluate", "telemetry", "draw_samples"):
        plain = getattr(look, name)
        monkeypatch.setattr(look, name, lambda *args, plain=plain, **kwargs: (
            seen.append(torch.backends.cudnn.benchmark), plain(*args, **kwargs))[1])  # fmt: skip
    go(begin(tmp_path / "a", epochs=0.2))
    assert len(seen) > 3 and not any(seen) and torch.backends.cudnn.benchmark


def test_splits_for_tuning_share_no_image(tmp_path):
    """What --holdout asks the data for: 45,000 + 5,000 of CIFAR-10's 50,000, here of 60."""
    rng = np.random.default_rng(0)
    np.save(tmp_path / "images.npy", rng.integers(0, 256, (400, 4, 4, 3), dtype=np.uint8))
    sets = {
        split: {
            i.tobytes()
            for i in load(f"npy:{tmp_path}/images.npy", split, cache_dir=tmp_path / "c").images
        }
        for split in ("fit", "valid", "test")
    }
    assert sum(map(len, sets.values())) == 400 == len(set().union(*sets.values()))


class Recorded(Graphed):
    """A graph's contract without a GPU: recording runs nothing, a replay sees what lies in its
    inputs now and writes where it wrote before."""

    plain_calls = 1

    def run_plain(self, *inputs):
        return self.step(*inputs)

    def record(self):
        self.result = torch.full((2,), torch.nan, dtype=torch.float64)
        return lambda: self.result.copy_(self.step(*self.inputs))


def test_a_replayed_step_trains_the_same_model(tmp_path, straight, monkeypatch):
    make_step = training.make_step
    monkeypatch.setattr(training, "make_step", lambda *a: Recorded(make_step(*a), print))
    run = begin(tmp_path / "a")
    for group in run.optimizer.param_groups:  # as for a GPU: the rate is a tensor
        group["lr"] = torch.tensor(group["lr"])
    go(run)
    ours, theirs = state(tmp_path / "a"), state(straight[0])
    assert ours.keys() == theirs.keys()
    for name, tensor in ours.items():  # a rate in float32 is not the rate in float64
        assert torch.allclose(tensor, theirs[name], rtol=1e-4, atol=1e-6), name


def test_a_graph_that_cannot_be_recorded_is_said_and_done_without(tmp_path, capsys):
    class Broken(Recorded):
        def record(self):
            try:
                raise RuntimeError("this operation waits")
            finally:  # as torch.cuda.graph: what is raised last says least
                raise RuntimeError("due to a previous error")

    lines, seen = [], []
    step = Broken(lambda x: seen.append(x) or x, lines.append)
    for i in range(4):
        assert step(torch.tensor(i)) == i
    what = "RuntimeError: this operation waits"
    assert lines == [f"cuda graph: not possible here ({what}); training without it"]
    assert len(seen) == 4 and "in record" in capsys.readouterr().err


def test_a_recording_leaves_the_stream_as_it_was(monkeypatch):
    """With torch.cuda played by a stand-in, whose `graph` sets a stream and does not come back."""
    now = ["ours"]

    class Graph:
        def __init__(self, _graph, stream):
            now[0] = stream

        def __enter__(self):
            raise RuntimeError("no")

        def __exit__(self, *_):
            pass

    for name, value in {
        "CUDAGraph": object, "graph": Graph, "current_stream": lambda: now[0],
        "set_stream": lambda stream: now.__setitem__(0, stream),
    }.items():  # fmt: skip
        monkeypatch.setattr(torch.cuda, name, value)
    step = Graphed(lambda: None, print)
    step.side = "the plain calls'"
    with pytest.raises(RuntimeError, match="no"):
        step.record()
    assert now == ["ours"]
