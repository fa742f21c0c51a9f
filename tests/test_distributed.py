"""Two processes on gloo compute what one does with the whole batch: actnorm, noise, gradients."""

from __future__ import annotations

import os
import socket

import numpy as np
import pytest
import torch
from torch import multiprocessing

from glowlite import runs
from glowlite import train as training
from glowlite.batches import Batches
from glowlite.data import ImageSet
from glowlite.data.faces import make_faces
from glowlite.evaluate import seeded
from glowlite.parallel import World
from glowlite.presets import TrainConfig

MODEL = {"levels": 2, "depth": 2, "width": 6, "n_bits": 5}
N = 40


def image_sets():
    images, truth = make_faces(N, 16, seed=3)
    labels = truth[:, 7].astype(np.int64)
    return [ImageSet(images, labels, truth, (), "faces", s, s) for s in ("train", "test")]


def config(**changes):
    given = {"epochs": 1.0, "batch": 8, "init_images": 24, "evals": 1, "eval_images": 8}
    return TrainConfig(**{**given, "draws": 1, "device": "cpu", "warmup": 0, **changes})


def gradients(folder, world, batch):
    """Weights after initialisation, and gradients of one batch, as the loop computes them."""
    torch.set_default_dtype(torch.float64)
    train_set, test_set = image_sets()
    run = runs.start(folder, config(batch=batch), MODEL, train_set, test_set, world)
    start = {k: v.clone() for k, v in run.model.state_dict().items()}
    with torch.no_grad():  # away from the zero initialisation, where gradients of nets vanish
        for i, p in enumerate(run.model.parameters()):
            p += 0.05 * torch.randn(p.shape, generator=seeded(i))
    batches = Batches(train_set, run.config, world)
    given = training.inputs(run, batches, world)
    bits, norm = training.gradients(run, world, run.model.loss, *given)
    found = {name: p.grad.clone() for name, p in run.model.named_parameters()}
    return start, found, torch.tensor([float(bits), float(norm)])


def share_the_same_rows(self, n):
    return slice(0, n, self.size)


def no_sum(self, parameters, *extra):
    return list(extra)


def own_rows(self, first, count):
    return ROWS(self, first + 3 * self.world.rank, count)


ROWS = Batches.rows
MUTANTS = {
    "no sum": [(World, "sum_gradients", no_sum)],
    "same rows": [(World, "share", share_the_same_rows)],
    "own initialisation": [
        (Batches, "rows", own_rows),
        (World, "same_weights", lambda self, model: None),
    ],
}
CASES = [(batch, None) for batch in (8, 7, 1)] + [(8, mutant) for mutant in MUTANTS]


def work(rank, port, folder):
    """Both processes go through all the cases: starting them is what takes long."""
    torch.set_num_threads(1)
    os.environ |= {"RANK": str(rank), "WORLD_SIZE": "2"}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    world = World("cpu")
    found = {}
    for batch, mutant in CASES:
        with pytest.MonkeyPatch.context() as patch:
            for target, name, value in MUTANTS.get(mutant, []):
                patch.setattr(target, name, value)
            found[f"{batch} {mutant}"] = gradients(f"{folder}/{batch}-{mutant}", world, batch)
    torch.set_default_dtype(torch.float32)
    for name, changes in WHOLE.items():
        found[name] = whole(f"{folder}/{name}", world, **changes)
    torch.save(found, f"{folder}/{rank}.pt")
    world.close()


WHOLE = {"whole": {}, "channels last": {"channels_last": True}}


def whole(folder, world, **changes):
    train_set, test_set = image_sets()
    run = runs.start(folder, config(**changes), MODEL, train_set, test_set, world)
    training.train(run, train_set, test_set, world, say=lambda _: None)
    return run.model.state_dict()


@pytest.fixture(scope="module")
def together(tmp_path_factory):
    """What each of two processes found, case by case."""
    folder = tmp_path_factory.mktemp("two")
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port = s.getsockname()[1]
    multiprocessing.spawn(work, (port, str(folder)), nprocs=2)
    return [torch.load(folder / f"{rank}.pt", weights_only=True) for rank in range(2)]


def alone(folder, batch):
    before = torch.get_default_dtype()
    try:
        return gradients(folder / "alone", World("cpu"), batch)
    finally:
        torch.set_default_dtype(before)


def gap(a, b):
    return max(float((a[k].double() - b[k].double()).abs().max()) for k in a)


@pytest.mark.parametrize("batch", [8, 7, 1])  # shares of 4 + 4, 4 + 3, and 1 + none
def test_two_processes_are_one(tmp_path, together, batch):
    start, grads, numbers = alone(tmp_path, batch)
    for found in together:
        their_start, their_grads, their_numbers = found[f"{batch} None"]
        assert gap(start, their_start) == 0, "actnorm: the same batch on every rank"
        assert gap(grads, their_grads) < 1e-12
        assert torch.allclose(numbers, their_numbers, rtol=1e-12)


@pytest.mark.parametrize("mutant", MUTANTS)
def test_the_test_above_would_notice(tmp_path, together, mutant):
    start, grads, _ = alone(tmp_path, 8)
    theirs = [found[f"8 {mutant}"] for found in together]
    assert max(gap(grads, their_grads) for _, their_grads, _ in theirs) > 1e-4
    if mutant == "own initialisation":
        assert max(gap(start, their_start) for their_start, _, _ in theirs) > 1e-4


@pytest.mark.parametrize("name", WHOLE)
def test_a_whole_run_ends_with_equal_weights(tmp_path, together, name):
    first, second = (found[name] for found in together)
    assert gap(first, second) == 0
    assert gap(first, whole(tmp_path / "alone", World("cpu"), **WHOLE[name])) < 1e-4


def test_every_process_works_on_its_own_gpu(monkeypatch):
    taken = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "set_device", taken.append)
    for asked in ("cuda:1", "cuda", "cpu"):
        World(asked)
    monkeypatch.setenv("LOCAL_RANK", "3")
    assert World("cuda").device == torch.device("cuda:3")
    assert taken == [torch.device("cuda:1"), torch.device("cuda:3")]
