"""Files are whole or absent, say what they are, and never run code."""

from __future__ import annotations

import json
import os
import pickle
import resource
import tempfile
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

import glowlite
from glowlite import checkpoint
from glowlite.checkpoint import CheckpointError, load_tensors, save_model, save_tensors
from glowlite.registry import build

TINY = {"model": "glow", "shape": [3, 4, 8], "levels": 1, "depth": 2, "width": 4, "n_bits": 5}


def trained(description=TINY, seed=0):
    """A model whose every parameter has moved, actnorm initialised."""
    generator = torch.Generator().manual_seed(seed)
    model = build(description)
    images = torch.randint(256, (16, *model.shape), dtype=torch.uint8, generator=generator)
    model.initialize(images, generator=generator)
    with torch.no_grad():
        for p in model.parameters():
            p += 0.1 * torch.randn(p.shape, generator=generator)
    return model


@pytest.fixture
def file(tmp_path):
    return save_model(tmp_path / "model.safetensors", trained(), {"step": 3})


@pytest.mark.parametrize(
    "description",
    [
        TINY,
        {**TINY, "permutation": "shuffle", "seed": 5},
        {**TINY, "permutation": "plain", "coupling": "additive", "n_classes": 3},
        {"model": "realnvp", "shape": [3, 4, 8], "levels": 2, "width": 4, "blocks": 1},
        {"model": "nice", "shape": [1, 4, 6], "width": 5, "hidden": 1, "couplings": 2},
    ],
    ids=["lu", "shuffle", "classes", "realnvp", "nice"],
)
def test_a_loaded_model_is_the_saved_one(tmp_path, description):
    model = build(description)
    generator = torch.Generator().manual_seed(1)
    images = torch.randint(256, (8, *model.shape), dtype=torch.uint8, generator=generator)
    classes = torch.arange(8) % 3 if model.n_classes else None
    model.initialize(images, classes, generator=generator)
    with torch.no_grad():
        for p in model.parameters():
            p += 0.02 * torch.randn(p.shape, generator=generator)
    path = save_model(tmp_path / "m.safetensors", model, {})
    loaded = glowlite.load(path)
    noise = torch.rand(images.shape, generator=generator)
    ours, theirs = (m.bits_per_dim(images, classes, noise=noise).detach() for m in (model, loaded))
    assert torch.equal(ours, theirs)
    assert loaded.initialized, "a loaded model must not initialise actnorm again"
    z = torch.randn(3, model.dims, generator=generator)
    few = None if classes is None else classes[:3]
    assert torch.equal(model.inverse(z, few), loaded.inverse(z, few))


def test_the_header_comes_back(file):
    assert load_tensors(file)[1]["step"] == 3
    assert glowlite.load(file).header["model"]["depth"] == 2


def test_float64_stays_float64(tmp_path):
    model = trained().double()
    with torch.no_grad():
        next(model.parameters()).add_(1e-12)
    again = glowlite.load(checkpoint.save_model(tmp_path / "m.safetensors", model, {}))
    for name, tensor in model.state_dict().items():
        assert torch.equal(again.state_dict()[name], tensor), name


def test_channels_last_weights_are_saved(tmp_path):
    model = trained().to(memory_format=torch.channels_last)
    loaded = glowlite.load(save_model(tmp_path / "m.safetensors", model, {}))
    for name, value in model.state_dict().items():
        assert torch.equal(value, loaded.state_dict()[name])


@pytest.mark.parametrize("part", [0.0, 0.01, 0.3, 0.99])
def test_a_truncated_file_is_refused(file, part):
    data = file.read_bytes()
    file.write_bytes(data[: int(part * len(data))])
    with pytest.raises(CheckpointError, match="model.safetensors is not a whole safetensors file"):
        glowlite.load(file)


def test_every_altered_byte_is_noticed(file):
    data = file.read_bytes()
    for place in range(9, len(data), 97):
        broken = bytearray(data)
        broken[place] ^= 1
        file.write_bytes(bytes(broken))
        with pytest.raises(CheckpointError):
            load_tensors(file)


def test_altered_numbers_are_called_so(file):
    data = bytearray(file.read_bytes())
    data[-10] ^= 64
    file.write_bytes(bytes(data))
    with pytest.raises(CheckpointError, match="was altered"):
        glowlite.load(file)


def test_another_format_is_told(file, monkeypatch):
    monkeypatch.setattr(glowlite.checkpoint, "FORMAT", 2)
    with pytest.raises(CheckpointError, match="has format 1; this glowlite reads format 2"):
        glowlite.load(file)


@pytest.mark.parametrize(
    "change", [{"width": 5}, {"depth": 3}, {"depth": 1}, {"coupling": "additive"}]
)
def test_another_architecture_is_refused(tmp_path, change):
    state = trained().state_dict()
    path = save_tensors(tmp_path / "m.safetensors", state, {"model": {**TINY, **change}})
    with pytest.raises(CheckpointError, match="another architecture"):
        glowlite.load(path)


@pytest.mark.parametrize(
    "model", [None, {}, {**TINY, "levels": 99}, {**TINY, "surprise": 1}, {"model": "os.system"}, 7]
)
def test_a_description_that_cannot_be_built_is_refused(tmp_path, model):
    header = {} if model is None else {"model": model}
    path = save_tensors(tmp_path / "m.safetensors", trained().state_dict(), header)
    with pytest.raises(CheckpointError, match="cannot build"):
        glowlite.load(path)


def test_not_a_number_is_refused(tmp_path):
    state = trained().state_dict()
    state["levels.0.steps.0.actnorm.b"][1] = torch.nan
    path = save_tensors(tmp_path / "m.safetensors", state, {"model": TINY})
    with pytest.raises(CheckpointError, match="actnorm.b holds NaN"):
        glowlite.load(path)


def test_a_strangers_safetensors_is_refused(tmp_path):
    save_file({"x": torch.zeros(2)}, tmp_path / "x.safetensors")
    with pytest.raises(CheckpointError, match="glowlite did not write it"):
        glowlite.load(tmp_path / "x.safetensors")


class Bomb:
    def __reduce__(self):
        return os.mkdir, (os.environ["BOMB"],)


@pytest.mark.parametrize("protocol", ["pickle", "torch"])
def test_a_strangers_pickle_is_not_run(tmp_path, monkeypatch, protocol):
    monkeypatch.setenv("BOMB", str(tmp_path / "exploded"))
    path = tmp_path / "model.safetensors"
    if protocol == "pickle":
        path.write_bytes(pickle.dumps(Bomb()))
    else:
        torch.save(Bomb(), path)
    with pytest.raises(CheckpointError, match="not a whole safetensors file"):
        glowlite.load(path)
    assert not (tmp_path / "exploded").exists()
    pickle.loads(pickle.dumps(Bomb()))
    assert (tmp_path / "exploded").exists(), "the bomb of this test must be a live one"


def test_a_file_replaced_while_it_is_read_is_one_file_or_the_other(tmp_path, monkeypatch):
    path = tmp_path / "state.safetensors"
    save_tensors(path, {"x": torch.zeros(5)}, {"step": 0})
    real = Path.read_bytes

    def read_then_lose_the_race(self):
        data = real(self)
        save_tensors(path, {"x": torch.ones(5)}, {"step": 1})
        return data

    monkeypatch.setattr(Path, "read_bytes", read_then_lose_the_race)
    tensors, header = load_tensors(path)
    assert (tensors["x"] == header["step"]).all()


def test_saving_does_without_opening_folders(tmp_path, monkeypatch):
    """As on Windows, which opens none and has no O_DIRECTORY."""
    system_open = os.open

    def open_files(path, *more, **options):
        if os.path.isdir(path):
            raise PermissionError(13, "Permission denied", str(path))
        return system_open(path, *more, **options)

    monkeypatch.setattr(os, "open", open_files)
    with pytest.raises(OSError, match="could not write"):  # here the folder is flushed too
        save_tensors(tmp_path / "a.safetensors", {"x": torch.ones(2)}, {})
    monkeypatch.delattr(os, "O_DIRECTORY")
    save_tensors(tmp_path / "a.safetensors", {"x": torch.ones(2)}, {})
    assert torch.equal(load_tensors(tmp_path / "a.safetensors")[0]["x"], torch.ones(2))


def test_missing_files_are_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="nothing.safetensors"):
        glowlite.load(tmp_path / "nothing.safetensors")
    with pytest.raises(FileNotFoundError, match="holds no checkpoint"):
        glowlite.load(tmp_path)
    with pytest.raises(ValueError, match="weights is 'best'"):
        glowlite.load(tmp_path, weights="best")


def test_a_write_that_fails_leaves_the_old_file(tmp_path):
    path = save_tensors(tmp_path / "a.safetensors", {"x": torch.zeros(10)}, {})
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:  # the system itself refuses in the middle of the write, as it does when a disk is full
        resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, hard))
        with pytest.raises(OSError, match="could not write: File too large"):
            save_tensors(path, {"x": torch.ones(10_000)}, {})
        with pytest.raises(OSError, match="could not write: File too large"):
            checkpoint.write_json(tmp_path / "a.json", ["x"] * 10_000)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert load_tensors(path)[0]["x"].sum() == 0
    assert [p.name for p in tmp_path.iterdir()] == ["a.safetensors"], "no half-written file"


def test_a_save_leaves_no_file_open(tmp_path):
    def next_free() -> int:
        number = os.dup(1)  # a system gives the lowest number that no open file has
        os.close(number)
        return number

    before = next_free()
    for _ in range(3):
        checkpoint.write_json(tmp_path / "a.json", 1)
    assert next_free() == before


def test_a_full_disk_keeps_its_name(tmp_path, monkeypatch):
    def full(*_):
        raise checkpoint.SafetensorError(
            "Error while serializing: I/O error: No space left on device (os error 28)"
        )

    monkeypatch.setattr(checkpoint, "save_file", full)
    with pytest.raises(OSError, match="could not write: No space left on device") as caught:
        save_tensors(tmp_path / "a.safetensors", {"x": torch.zeros(10)}, {})
    assert caught.value.errno == 28 and caught.value.filename.endswith("a.safetensors")
    assert not list(tmp_path.iterdir())


def test_no_permission_names_the_folder(tmp_path, monkeypatch):
    def refuse(**_):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(tempfile, "mkstemp", refuse)
    with pytest.raises(PermissionError, match="a.json"):
        checkpoint.write_json(tmp_path / "a.json", 1)


def test_json_that_is_not(tmp_path):
    (tmp_path / "c.json").write_text('{"a": ')
    with pytest.raises(CheckpointError, match="c.json is not valid JSON"):
        checkpoint.read_json(tmp_path / "c.json")


def test_the_file_is_as_readable_as_any_other(tmp_path):
    path = checkpoint.write_json(tmp_path / "a.json", {"x": 1})
    (tmp_path / "b.json").write_text("1")
    assert path.stat().st_mode == (tmp_path / "b.json").stat().st_mode
    assert json.loads(path.read_text()) == {"x": 1}
