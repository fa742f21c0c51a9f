"""The command line: writes where it says, refuses to overwrite, fails in a line or two."""

from __future__ import annotations

import copy
import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
from argparse import SUPPRESS, Namespace
from dataclasses import fields
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
import torch
from PIL import Image

import glowlite
import glowlite.evaluate
from glowlite import bench, checkpoint, commands, data, runs
from glowlite.batches import Batches
from glowlite.cli import _VERBS, build_parser, main
from glowlite.data import drawn
from glowlite.info import macs
from glowlite.nice import NICEConfig
from glowlite.presets import MODEL_OPTIONS
from glowlite.realnvp import RealNVPConfig
from glowlite.schedule import make_optimizer


@pytest.fixture(scope="module", autouse=True)
def few_faces(tmp_path_factory):
    """A cache of its own with few faces in it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GLOWLITE_CACHE", str(tmp_path_factory.mktemp("cache")))
        patch.setattr(drawn, "COUNTS", {"train": 240, "test": 60})
        yield


def pictures(folder, n, seed=0):
    """A folder of n pictures of noise."""
    rng = np.random.default_rng(seed)
    folder.mkdir(parents=True)
    for i in range(n):
        pixels = rng.integers(0, 256, (16, 16, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{i}.png")


TRAIN = ["train", "faces", "--size", "16", "--preset", "tiny", "--epochs", "1", "--device", "cpu"]
TRAIN += ["--evals", "1", "--draws", "1"]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "a"
    assert main([*TRAIN, "--out", str(folder)]) == 0
    return folder


def fails(capsys, *arguments, code=1):
    """Run a command that must fail -> what it says: one or two lines, no traceback."""
    capsys.readouterr()
    assert main([str(a) for a in arguments]) == code
    said = capsys.readouterr().err
    message = said[said.index("glowlite:") :].strip()
    assert len(message.splitlines()) <= 2 and "Traceback" not in said
    return message


def size(path):
    with Image.open(path) as picture:
        return picture.size


@pytest.mark.parametrize("verb", _VERBS)
def test_help_shows_an_example(capsys, verb):
    with pytest.raises(SystemExit) as stop:
        main([verb, "--help"])
    said = capsys.readouterr().out
    assert stop.value.code == 0 and f"  glowlite {verb} " in said


def test_help_tells_every_default():
    """Training's settings have none here: they are the preset's."""
    (verbs,) = (action for action in build_parser()._actions if action.dest == "verb")
    for name, verb in verbs.choices.items():
        for option in verb._actions:
            if option.option_strings and option.default not in (None, False, SUPPRESS):
                values = option.default if isinstance(option.default, list) else [option.default]
                said = " ".join(f"{v:g}" if isinstance(v, float) else str(v) for v in values)
                assert f"(default: {said})" in (option.help or ""), (name, option.dest)


def test_help_needs_no_torch():
    code = "import sys, glowlite.cli as c\ntry: c.main(['--help'])\nexcept SystemExit: pass\n"
    code += "assert 'torch' not in sys.modules and 'matplotlib' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)


def test_a_terminal_without_the_signs_stops_nothing():
    """Training would end with its first evaluation, at a "±"."""
    told = subprocess.run(
        [sys.executable, "-m", "glowlite", "info", "tiny"],
        env={**os.environ, "PYTHONIOENCODING": "ascii"}, capture_output=True, text=True,
    )  # fmt: skip
    assert told.returncode == 0 and told.stderr == "" and "3 ? 32 ? 32" in told.stdout


def test_training_says_what_it_did_and_what_is_next(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main([*TRAIN[:-4], "--evals", "1", "--draws", "2", "--seed", "3"]) == 0
    said = capsys.readouterr()
    assert "240 training, 60 test images" in said.out
    assert "every number by itself" in said.out and "glowlite sample runs/faces-1" in said.out
    assert "images/s" in said.err or "left" in said.err
    config = json.loads((tmp_path / "runs/faces-1/config.json").read_text())
    assert config["train"]["seed"] == 3 and config["model"]["seed"] == 3
    assert config["made"]["command"] and config["model"]["shape"] == [3, 16, 16]
    assert main([*TRAIN, "--lr", "0.002"]) == 0
    assert (tmp_path / "runs/faces-2").is_dir()


def test_options_reach_the_model_and_the_run(tmp_path):
    more = ["--coupling", "additive", "--permutation", "shuffle", "--width", "5", "--n-bits", "3"]
    more += ["--optimizer", "adamax", "--schedule", "constant", "--flip", "--clip", "0"]
    assert main([*TRAIN, *more, "--out", str(tmp_path / "a")]) == 0
    config = json.loads((tmp_path / "a" / "config.json").read_text())
    assert config["model"]["permutation"] == "shuffle" and config["model"]["n_bits"] == 3
    assert config["train"]["optimizer"] == "adamax" and config["train"]["flip"] is True
    assert glowlite.load(tmp_path / "a").config.width == 5


def test_every_option_of_every_model_can_be_given(tmp_path):
    """All but what the data, --seed and --ycond decide."""
    decided = {"shape", "seed", "n_classes"}
    for config in (glowlite.GlowConfig, RealNVPConfig, NICEConfig):
        assert {f.name for f in fields(config)} - decided <= set(MODEL_OPTIONS), config
    more = ["--no-net-actnorm", "--no-learn-split-prior", "--no-learn-top"]
    assert main([*TRAIN, *more, "--out", str(tmp_path / "a")]) == 0
    config = glowlite.load(tmp_path / "a").config
    assert not (config.net_actnorm or config.learn_split_prior or config.learn_top)
    more = ["--model", "realnvp", "--blocks", "0", "--no-logit"]
    assert main([*TRAIN, *more, "--out", str(tmp_path / "b")]) == 0
    assert glowlite.load(tmp_path / "b").config.logit is False


@pytest.mark.parametrize("model", ["realnvp", "nice"])
def test_the_ancestors_train_too(tmp_path, model):
    more = ["--width", "6"] + (["--blocks", "1"] if model == "realnvp" else ["--hidden", "1"])
    assert main([*TRAIN, "--model", model, *more, "--out", str(tmp_path / "a")]) == 0
    assert main(["sample", str(tmp_path / "a"), "-n", "4"]) == 0


def test_nothing_is_overwritten_unless_told(run, tmp_path, capsys):
    assert "--force" in fails(capsys, *TRAIN, "--out", run)
    assert "--force" in fails(capsys, "sample", run, "--out", run / "curve.png")
    out = tmp_path / "s.png"
    assert main(["sample", str(run), "-n", "4", "--out", str(out)]) == 0
    before = out.read_bytes()
    assert "--force" in fails(capsys, "sample", run, "-n", "2", "--out", out)
    assert out.read_bytes() == before
    assert main(["sample", str(run), "-n", "2", "--out", str(out), "--force"]) == 0
    assert out.read_bytes() != before
    assert "no such folder" in fails(capsys, "sample", run, "--out", tmp_path / "no" / "s.png")


def test_samples(run, tmp_path, capsys):
    out = tmp_path / "s.png"
    command = ["sample", str(run), "-n", "3", "--temperature", "0", "0.7", "--out", str(out)]
    assert main(command) == 0
    assert size(out) == (3 * 66 - 2, 2 * 66 - 2)
    pixels = np.asarray(Image.open(out))
    assert np.array_equal(pixels[:64, :64], pixels[:64, 66:130]), "temperature 0: one image"
    assert not np.array_equal(pixels[66:, :64], pixels[66:, 66:130])
    assert "rows: temperature 0, 0.7" in capsys.readouterr().out
    first = out.read_bytes()
    assert main([*command, "--force"]) == 0 and out.read_bytes() == first, "seeded"


def test_pictures_of_latents(run, tmp_path, capsys):
    for verb, more, shape in [
        ("reconstruct", ["-n", "3"], (3, 2)),
        ("interpolate", ["-n", "2", "--steps", "5"], (5, 2)),
        ("edit", ["smiling", "-n", "2", "--strengths", "-1", "0", "1", "--learn", "90"], (3, 2)),
    ]:
        out = tmp_path / f"{verb}.png"
        assert main([verb, str(run), *more, "--out", str(out)]) == 0
        columns, rows = shape
        assert size(out) == (columns * 66 - 2, rows * 66 - 2)
        assert f"wrote {out}" in capsys.readouterr().out
    pixels = np.asarray(Image.open(tmp_path / "reconstruct.png"))
    assert np.array_equal(pixels[:64], pixels[66:]), "pixel for pixel"


def test_a_run_finds_its_images_from_anywhere(tmp_path, capsys, monkeypatch):
    pictures(tmp_path / "here/pets", 60)
    array = np.random.default_rng(0).integers(0, 256, (60, 16, 16, 3), np.uint8)
    np.save(tmp_path / "here/x.npy", array)
    pictures(tmp_path / "there/pets", 60, seed=1)
    monkeypatch.chdir(tmp_path / "here")
    train = ["train", "folder:pets", *TRAIN[2:], "--cache-dir", "cache", "--data-dir", "raw"]
    assert main([*train, "--out", "a"]) == 0
    found = json.loads(Path("a/config.json").read_text())["train"]
    assert found["data"] == f"folder:{tmp_path}/here/pets"
    assert found["cache_dir"] == f"{tmp_path}/here/cache"
    assert found["data_dir"] == f"{tmp_path}/here/raw"
    monkeypatch.chdir(tmp_path / "there")
    assert main(["eval", "../here/a", "--limit", "2"]) == 0
    said = capsys.readouterr().out
    assert f"folder:{tmp_path}/here/pets test" in said
    assert main(["resume", "../here/a", "--epochs", "2"]) == 0
    # What one hands on does not say where they are.
    for name in ("ema", "model", "state"):
        assert str(tmp_path).encode() not in Path(f"../here/a/{name}.safetensors").read_bytes()
    file = shutil.copy("../here/a/ema.safetensors", "handed-on.safetensors")
    assert "on folder:pets" in (main(["info", file]), capsys.readouterr().out)[1]
    assert "name the images with --data" in fails(capsys, "eval", file)
    other = ["--data", "folder:../here/pets", "--out", "eval.json"]
    assert main(["eval", file, "--limit", "2", *other]) == 0
    assert json.loads(Path("eval.json").read_text())["data"] == "folder:pets"
    # Moved, they are found again, and taken for what they are.
    shutil.move(tmp_path / "here", tmp_path / "moved")
    assert "here/pets is not there" in fails(capsys, "resume", "../moved/a")
    assert "other images" in fails(capsys, "resume", "../moved/a", "--data", "folder:pets")
    assert main(["resume", "../moved/a", "--epochs", "3", "--data", "folder:../moved/pets"]) == 0
    assert main(["eval", "../moved/a", "--limit", "2"]) == 0
    assert main(["eval", "../moved/a", "--limit", "2", "--data", "npy:../moved/x.npy"]) == 0


def test_own_pictures(run, tmp_path, capsys):
    for name, mode, shape in [("a.png", "RGBA", (30, 20)), ("b.png", "L", (9, 40))]:
        Image.new(mode, shape, 90).save(tmp_path / name)
    files = [str(tmp_path / n) for n in ("a.png", "b.png")]
    out = str(tmp_path / "i.png")
    assert main(["interpolate", str(run), "--images", *files, "--steps", "4", "--out", out]) == 0
    assert size(out) == (4 * 66 - 2, 64)
    more = ["--images", *files, "--learn", "60", "--strengths", "0", "1"]
    assert main(["edit", str(run), "smiling", *more, "--out", out, "--force"]) == 0
    assert size(out) == (2 * 66 - 2, 2 * 66 - 2)
    assert "two files" in fails(capsys, "interpolate", run, "--images", files[0])
    (tmp_path / "c.png").write_text("no picture")
    Image.new("RGB", (64, 64), "red").save(tmp_path / "whole.jpg")
    (tmp_path / "half.jpg").write_bytes((tmp_path / "whole.jpg").read_bytes()[:-100])
    whole = bytearray((tmp_path / "a.png").read_bytes())
    whole[40:60] = bytes(20)
    (tmp_path / "broken.png").write_bytes(whole)
    # Pillow hands PostScript to Ghostscript, which would run it.
    (tmp_path / "program.png").write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n")
    for name in ("c.png", "half.jpg", "broken.png", "program.png"):
        message = fails(capsys, "reconstruct", run, "--images", *files, tmp_path / name)
        assert f"{name} cannot be read as a picture: " in message
    assert "none.png" in fails(capsys, "reconstruct", run, "--images", tmp_path / "none.png")


def test_own_pictures_are_upright_and_white_where_transparent(run, tmp_path):
    """As the loaders of data sets make them."""
    exif = Image.Exif()
    exif[0x0112] = 6  # lies on its side
    pixels = np.zeros((8, 16, 3), np.uint8)
    pixels[:, :8] = 255
    Image.fromarray(pixels).save(tmp_path / "turned.png", exif=exif)
    Image.new("RGBA", (8, 8), (0, 0, 0, 0)).save(tmp_path / "nothing.png")
    out = tmp_path / "r.png"
    names = [str(tmp_path / n) for n in ("turned.png", "nothing.png")]
    assert main(["reconstruct", str(run), "--images", *names, "--out", str(out)]) == 0
    shown = np.asarray(Image.open(out))[:64]
    assert shown[0, :64].min() > 240 and shown[-1, :64].max() < 16
    assert shown[:, 66:].min() > 240


def test_few_test_images_walk_in_the_pairs_there_are(run, tmp_path, capsys):
    def images_with_test(n):
        """An array cut by content into parts: the first length at which the test part is of n."""
        rng = np.random.default_rng(0)
        array = rng.integers(0, 256, (400, 16, 16, 3), dtype=np.uint8)
        for count in range(10, 400):
            np.save(tmp_path / f"{n}.npy", array[:count])
            try:
                found = len(data.load(f"npy:{tmp_path}/{n}.npy", "test", cache_dir=tmp_path / "c"))
            except data.DataError:
                continue
            if found == n:
                return f"npy:{tmp_path}/{n}.npy"

    out = tmp_path / "i.png"
    more = ["--data", images_with_test(5), "--steps", "3", "--out", str(out)]
    assert main(["interpolate", str(run), *more]) == 0
    assert size(out) == (3 * 66 - 2, 2 * 66 - 2)
    message = fails(capsys, "interpolate", run, "--data", images_with_test(1))
    assert "at least two test images" in message


def test_evaluation_writes_what_it_says(run, tmp_path, capsys, monkeypatch):
    out = tmp_path / "e.json"
    command = ["eval", str(run), "--draws", "2", "--limit", "25", "--out", str(out)]
    assert main(command) == 0
    value = json.loads(out.read_text())
    assert value["images"] == 25 and value["draws"] == 2 and value["weights"] == "ema"
    assert f"{value['mean']:.4f} ± {value['standard_error']:.4f}" in capsys.readouterr().out
    from glowlite import evaluate

    with monkeypatch.context() as patch:
        patch.setattr(evaluate, "evaluate", None)  # refused before the work, not after it
        assert "--force" in fails(capsys, *command)


def test_one_file_is_enough(run, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    shutil.copy(run / "ema.safetensors", tmp_path / "model.safetensors")
    for command in (["sample"], ["info"], ["eval", "--limit", "8"], ["verify"]):
        assert main([command[0], "model.safetensors", *command[1:]]) == 0
    assert "sample-1.png" in {p.name for p in tmp_path.iterdir()}


def test_verify_is_green_and_can_be_red(run, capsys, monkeypatch):
    assert main(["verify", str(run), "--full"]) == 0
    said = capsys.readouterr().out
    assert "all 17 agree" in said and "the whole map, 16×16" in said and "seconds" in said
    from glowlite.actnorm import ActNorm

    forward = ActNorm.forward

    def forgetful(self, x):  # h·w forgotten
        y, logdet = forward(self, x)
        return y, logdet / (x.shape[2] * x.shape[3])

    monkeypatch.setattr(ActNorm, "forward", forgetful)
    assert main(["verify", str(run)]) == 1
    said, following = capsys.readouterr().out.splitlines()[-2:]
    assert said.startswith("WRONG: ") and "actnorm ActNorm" in said and "Conv1x1" not in said
    assert following.startswith("next: ")


def test_verify_checks_the_map_as_it_runs(run, capsys, monkeypatch):
    """Fused steps, not layers, are what trains: an error there is found in the whole map."""
    from glowlite import fused

    steps = fused.run

    def forgetful(*args):
        y, logdet = steps(*args)
        return y, logdet + 1e-3

    monkeypatch.setattr(fused, "run", forgetful)
    assert main(["verify", str(run)]) == 1
    assert capsys.readouterr().out.splitlines()[-2] == "WRONG: the whole map, 4×8"


def test_a_full_verification_goes_on_where_it_was_stopped(run, capsys, monkeypatch):
    from glowlite import verify

    differentiate, done = torch.autograd.grad, []

    def interrupted(y, x, seeds, **more):
        done.append(len(seeds))
        if len(done) == stop:
            raise KeyboardInterrupt
        return differentiate(y, x, seeds, **more)

    images = torch.randint(256, (1, 3, 16, 16), dtype=torch.uint8)
    model = glowlite.load(run)
    monkeypatch.setattr(verify.torch.autograd, "grad", interrupted)
    stop = 4
    with pytest.raises(KeyboardInterrupt):
        verify.verify_map(model, images, full=True, folder=run)
    (kept,) = run.glob("jacobian-*.npy")
    assert np.isfinite(np.load(kept)).all(1).sum() == 3 * 128
    stop, done[:] = None, []
    line = verify.verify_map(model, images, full=True, folder=run)
    assert line.ok and done == [128] * 3 and not list(run.glob("jacobian-*"))
    verify.verify_map(model, 255 - images, full=True, folder=run)
    assert len(done) == 3 + 6, "another image is another matrix"


def test_a_matrix_that_could_not_be_begun_is_not_there(tmp_path, monkeypatch):
    """Zeros would pass for rows that are done, and a full disk must raise, not kill."""
    from glowlite import verify

    def full(*_):
        raise OSError(28, "No space left on device")

    x, keep = torch.randn(1, 6, dtype=torch.float64), tmp_path / "j.npy"
    with monkeypatch.context() as patch:
        patch.setattr(np, "save", full)
        with pytest.raises(OSError, match="No space left") as caught:
            verify.dense_jacobian(torch.sin, x, keep=keep)
    assert caught.value.filename == str(keep) and not list(tmp_path.iterdir())
    with monkeypatch.context() as patch:
        patch.setattr(torch.autograd, "grad", None)
        with pytest.raises(TypeError):
            verify.dense_jacobian(torch.sin, x, keep=keep)
    assert np.isnan(np.load(keep)).all(), "begun: no row of it is done"
    assert torch.equal(verify.dense_jacobian(torch.sin, x, keep=keep), x.cos()[0].diag())


def test_held_out_images_steer_a_run(tmp_path, capsys):
    assert main([*TRAIN, "--holdout", "--out", str(tmp_path / "a")]) == 0
    said = capsys.readouterr().out
    assert "216 training, 24 held-out, 60 test images" in said and "test: " in said
    rows = [json.loads(r) for r in (tmp_path / "a/metrics.jsonl").read_text().splitlines()]
    assert rows[-1]["test"]["images"] == 60 and rows[-1]["held_out"]["images"] == 24
    assert sum("test" in row for row in rows) == 1
    assert main([*TRAIN, "--holdout", "--no-test", "--out", str(tmp_path / "b")]) == 0
    assert "held out: " in capsys.readouterr().out
    rows = [json.loads(r) for r in (tmp_path / "b/metrics.jsonl").read_text().splitlines()]
    assert rows[-1]["held_out"]["images"] == 24 and not any("test" in row for row in rows)
    assert main(["resume", str(tmp_path / "a"), "--epochs", "2"]) == 0


def test_a_run_that_only_tries_settings_needs_no_test_images(tmp_path, capsys, monkeypatch):
    for part, n in (("train", 40), ("valid", 5)):
        pictures(tmp_path / "pets" / part, n, seed=n)
    train = ["train", f"folder:{tmp_path}/pets", *TRAIN[2:], "--holdout"]
    with monkeypatch.context() as patch:
        patch.setattr(data.cache, "_build", None)  # told before anything is decoded
        assert "but no test" in fails(capsys, *train, "--out", tmp_path / "a")
    assert main([*train, "--no-test", "--out", str(tmp_path / "a")]) == 0
    said = capsys.readouterr().out
    assert ": 40 training, 5 held-out images\n" in said and "held out: " in said
    assert main(["resume", str(tmp_path / "a"), "--epochs", "2"]) == 0


def test_info_draws_live_shapes(run, capsys):
    assert main(["info", str(run)]) == 0
    said = capsys.readouterr().out
    assert "12 × 8 × 8" in said and "24 × 4 × 4" in said and "60 images" not in said
    assert f"{sum(p.numel() for p in glowlite.load(run).parameters()):,} parameters" in said
    assert main(["info", "small", "--size", "16"]) == 0
    assert "8 × Conv1x1LU" in capsys.readouterr().out


PASSES = {"training step": 3, "bits/dim": 1, "sampling": 1}


def test_bench_prints_three_rows(run, capsys, monkeypatch):
    """With a clock by which everything takes a quarter of a second."""
    monkeypatch.setattr(bench, "seconds", lambda work, *_: (work(), 0.25)[1])
    monkeypatch.setattr(bench, "multiply_adds_a_second", lambda _: 1e6)
    assert main(["bench", str(run), "--batch", "2", "--device", "cpu"]) == 0
    _, head, *rows = capsys.readouterr().out.splitlines()
    assert "ms a batch" in head and "images/s" in head and "floor" in head
    floor = 2 * macs(glowlite.load(run)) / 1e6 * 1e3
    for row, (name, passes) in zip(rows[:3], PASSES.items(), strict=True):
        taken, speed, least = map(float, row.removeprefix(name).split())
        assert (taken, speed) == (250.0, 8.0) and least == pytest.approx(passes * floor, abs=0.06)


@pytest.mark.parametrize(
    ("arguments", "trained_by"),
    [((), "adamax"), (("--optimizer", "muon"), "muon")],
)
def test_bench_steps_with_the_optimiser_of_the_run(
    arguments, trained_by, tmp_path, capsys, monkeypatch
):
    model = glowlite.Glow(shape=(1, 4, 4), levels=1, depth=1, width=2)
    file = tmp_path / "m.safetensors"
    checkpoint.save_model(file, model, {"train": {"optimizer": "adamax"}})
    made = []
    monkeypatch.setattr(bench, "seconds", lambda work, *_: (work(), 0.25)[1])

    def noted(name, *args, **options):
        made.append(name)
        return make_optimizer(name, *args, **options)

    monkeypatch.setattr(bench, "make_optimizer", noted)
    assert main(["bench", str(file), "--batch", "2", "--device", "cpu", *arguments]) == 0
    assert made == [trained_by] and f"trained by {trained_by};" in capsys.readouterr().out
    made.clear()
    small = glowlite.Glow(shape=(3, 8, 8), levels=1, depth=1, width=2)
    monkeypatch.setattr(commands, "_model_or_preset", lambda _: small)
    assert main(["bench", "small", "--batch", "2", "--device", "cpu", *arguments]) == 0
    assert made == ["muon"], "the preset's own, and the one that is named"


def test_bench_leaves_the_model_as_it_is():
    model = glowlite.Glow(shape=(1, 4, 4), levels=1, depth=1, width=2)
    before = copy.deepcopy(model.state_dict())
    bench.measure(model, batch=2)
    assert not model.initialized
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())


def test_two_runs_at_once_take_two_folders(tmp_path):
    names = [runs.next_folder("folder:pets", tmp_path).name for _ in range(2)]
    assert names == ["folder-1", "folder-2"]


def test_a_folder_is_trained_in_by_one_process(run, tmp_path, capsys):
    """A second `resume`, or `train --force`, would share the log and the files of the first."""
    folder = shutil.copytree(run, tmp_path / "a")
    before = {p: p.read_bytes() for p in folder.rglob("*") if p.is_file()}
    code = (
        "import sys, glowlite.runs as r\nwith r.alone(sys.argv[1]): print(1, flush=True); input()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code, folder], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as other:
        assert other.stdout.readline()
        for words in (["resume", folder, "--epochs", "2"], [*TRAIN, "--out", folder, "--force"]):
            said = fails(capsys, *words)
            assert said == f"glowlite: {folder}: another process is training in this folder"
        assert before == {p: p.read_bytes() for p in folder.rglob("*") if p.is_file()}
        other.kill()  # the lock goes with it
    assert main(["resume", str(folder), "--epochs", "2"]) == 0


@pytest.mark.parametrize("new", [True, False])
def test_a_folder_given_is_left_as_it_was_by_a_run_that_could_not_start(tmp_path, capsys, new):
    folder = tmp_path / "a"
    if not new:
        folder.mkdir()
    fails(capsys, *TRAIN, "--out", folder, "--levels", "9")
    assert folder.exists() is not new


def test_a_run_that_could_not_start_leaves_no_folder(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(runs, "start", mock.Mock(side_effect=ValueError("no")))
    fails(capsys, *TRAIN)
    assert list((tmp_path / "runs").iterdir()) == []
    assert runs.start.call_args.args[0].parent.name == "runs"


def test_the_commit_of_another_project_is_not_ours(tmp_path):
    """glowlite installed somewhere below a repository that is not its own."""
    package = Path(glowlite.__file__).parent
    here = tmp_path / "theirs" / "site-packages"
    shutil.copytree(package, here / "glowlite", ignore=shutil.ignore_patterns("weights", "__pyc*"))
    (tmp_path / "theirs" / "file").touch()
    as_them = ["git", "-C", str(tmp_path / "theirs"), "-c", "user.name=x", "-c", "user.email=x@y"]
    for words in (["init", "-q"], ["add", "file"], ["commit", "-qm", "x"]):
        subprocess.run([*as_them, *words], check=True)
    code = "from glowlite.commands import _notes; from glowlite.parallel import World\n"
    code += "print(_notes(World('cpu'))['commit'])"
    environment = {k: v for k, v in os.environ.items() if k != "GLOWLITE_COMMIT"}
    told = subprocess.run(
        [sys.executable, "-c", code], cwd=here, env={**environment, "PYTHONPATH": str(here)},
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert told.stdout.strip() == "None"


def test_a_run_remembers_that_it_skips_damaged_images(tmp_path, capsys):
    rng = np.random.default_rng(0)
    (tmp_path / "pictures").mkdir()
    for i in range(60):
        pixels = rng.integers(0, 256, (16, 16, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / "pictures" / f"{i}.png")
    (tmp_path / "pictures" / "broken.png").write_bytes(b"no picture")
    run = str(tmp_path / "a")
    arguments = ["train", f"folder:{tmp_path}/pictures", *TRAIN[2:], "--out", run]
    assert "--skip-corrupt" in fails(capsys, *arguments)
    assert main([*arguments, "--skip-corrupt"]) == 0
    assert "left out: 1 of the files" in capsys.readouterr().out
    assert main(["resume", run, "--epochs", "2"]) == 0
    assert main(["eval", run, "--limit", "2"]) == 0
    other = ["--data", f"folder:{tmp_path}/pictures"]
    assert "--skip-corrupt" in fails(capsys, "eval", run, *other), "asked for this run's data only"


def test_a_folders_classes_are_its_attributes(tmp_path, capsys):
    rng = np.random.default_rng(0)
    for kind in ("dark", "light"):
        (tmp_path / "pictures" / kind).mkdir(parents=True)
        for i in range(40):
            pixels = rng.integers(0, 100, (16, 16, 3)) + 150 * (kind == "light")
            path = tmp_path / "pictures" / kind / f"{i}.png"
            Image.fromarray(pixels.astype(np.uint8)).save(path)
    run, name = str(tmp_path / "a"), f"folder:{tmp_path}/pictures"
    assert main(["train", name, *TRAIN[2:], "--out", run]) == 0
    assert f"glowlite edit {run} --help" in capsys.readouterr().out
    # 20 images in the folder's order would all be dark.
    lighter = ["edit", run, "light", "--learn", "20", "--strengths", "0", "1", "-n", "3"]
    assert main([*lighter, "--out", str(tmp_path / "light.png")]) == 0
    assert "learned from 20 labelled images" in capsys.readouterr().out
    with Image.open(tmp_path / "light.png") as picture:
        columns = np.asarray(picture.convert("L"), float).mean(0)
    assert columns[66:].mean() > columns[:64].mean() + 10
    assert "one of dark, light" in fails(capsys, "edit", run, "smiling")


def test_what_follows_a_run_without_labels_works(tmp_path, capsys):
    rng = np.random.default_rng(0)
    (tmp_path / "pictures").mkdir()
    for i in range(60):
        pixels = rng.integers(0, 256, (16, 16, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / "pictures" / f"{i}.png")
    run = str(tmp_path / "a")
    assert main(["train", f"folder:{tmp_path}/pictures", *TRAIN[2:], "--out", run]) == 0
    said = capsys.readouterr().out
    assert f"glowlite interpolate {run}" in said and "edit" not in said
    assert "edit needs labelled images" in fails(capsys, "edit", run, "smiling")


def test_options_are_checked_before_a_folder_is_decoded(tmp_path, capsys, monkeypatch):
    def never(*_, **__):
        raise AssertionError("the images were read")

    monkeypatch.setattr(data, "load", never)
    train = ["train", f"folder:{tmp_path}", "--out", tmp_path / "a", "--size"]
    assert "multiples of 2^3 = 8" in fails(capsys, *train, 30)
    assert "coupling is 'x'" in fails(capsys, *train, 32, "--coupling", "x")
    assert "seed is" in fails(capsys, *train, 32, "--seed", 2**70)
    assert "the images were read" in fails(capsys, *train, 32, "--ycond", "--weight-y", 0.1)
    assert not (tmp_path / "a").exists()


@pytest.mark.parametrize(
    ("option", "value"), [("--seed", "-1"), ("--temperature", "inf"), ("--temperature", "nan")]
)
def test_numbers_that_mean_nothing(run, capsys, option, value):
    with pytest.raises(SystemExit, match="2"):
        main(["sample", str(run), option, value])
    assert f"argument {option}: {value} is not" in capsys.readouterr().err


def test_a_device_nobody_knows(run, capsys):
    assert "must be cpu, cuda or auto" in fails(capsys, "sample", run, "--device", "gpu")


def test_grey_pictures(tmp_path, capsys):
    rng = np.random.default_rng(0)
    (tmp_path / "pictures").mkdir()
    for i in range(60):
        pixels = rng.integers(0, 256, (16, 16, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / "pictures" / f"{i}.png")
    run, name = str(tmp_path / "a"), f"folder:{tmp_path}/pictures"
    assert main(["train", name, *TRAIN[2:], "--channels", "1", "--out", run]) == 0
    assert glowlite.load(run).shape == (1, 16, 16)
    assert main(["resume", run, "--epochs", "2"]) == 0
    assert main(["eval", run, "--limit", "2"]) == 0
    assert main(["eval", run, "--limit", "2", "--data", name, "--channels", "1"]) == 0
    assert main(["eval", run, "--limit", "2", "--data", name]) == 0, "read as the model's are"
    said = fails(capsys, "verify", run, "--data", "faces")
    assert "shape (16, 16, 3), in colour; this model needs (16, 16, 1), grey" in said
    assert "channels must be 3" in fails(capsys, *TRAIN, "--channels", "1", "--out", run + "b")


def test_ctrl_c_saves_and_says_how_to_go_on(tmp_path, capsys, monkeypatch):
    fetch = Batches.__call__
    with monkeypatch.context() as patch:

        def interrupted(self, number):
            if number == 2:
                signal.raise_signal(signal.SIGINT)
            return fetch(self, number)

        patch.setattr(Batches, "__call__", interrupted)
        assert main([*TRAIN, "--out", str(tmp_path / "a")]) == 130
    assert f"glowlite resume {tmp_path}/a" in capsys.readouterr().out
    assert main(["resume", str(tmp_path / "a")]) == 0
    assert "going on at step 3" in capsys.readouterr().out
    assert main(["resume", str(tmp_path / "a")]) == 0
    said = capsys.readouterr().out
    assert "is complete" in said and "test:" not in said
    assert main(["resume", str(tmp_path / "a"), "--epochs", "2"]) == 0
    assert checkpoint.load_tensors(tmp_path / "a/state.safetensors")[1]["step"] == 8
    capsys.readouterr()
    assert main(["resume", str(tmp_path / "a"), "--epochs", "1"]) == 0
    said = capsys.readouterr().out
    assert "at step 8, after 2.133 epochs" in said and "must lie beyond" in said
    config = json.loads((tmp_path / "a/config.json").read_text())
    assert config["train"]["epochs"] == 2, "a run that is over keeps its end"


@pytest.mark.parametrize("place", ["evaluation", "save"])
def test_a_run_stopped_in_its_last_evaluation_is_not_complete(tmp_path, capsys, monkeypatch, place):
    """One Ctrl-C is enough there, or while the last state is saved: nobody asks for it after."""
    from glowlite import train as training

    look, save = training.look, runs.Run.save

    def interrupted(*args, last=None, **more):
        if last is not None:
            assert place == "evaluation", "stopped before it"
            signal.raise_signal(signal.SIGTERM)
        return look(*args, last=last, **more)

    def saved(self):
        if place == "save" and self.step:
            signal.raise_signal(signal.SIGTERM)
        save(self)

    with monkeypatch.context() as patch:
        patch.setattr(training, "look", interrupted)
        patch.setattr(runs.Run, "save", saved)
        assert fails(capsys, *TRAIN, "--out", tmp_path / "a", code=130)
    assert main(["resume", str(tmp_path / "a")]) == 0
    assert "test: " in capsys.readouterr().out
    rows = [json.loads(r) for r in (tmp_path / "a/metrics.jsonl").read_text().splitlines()]
    assert rows[-1]["test"]["images"] == 60
    assert main(["resume", str(tmp_path / "a")]) == 0
    assert "is complete" in capsys.readouterr().out


def test_classes_of_every_part_are_counted(tmp_path, capsys):
    """A class may come in the test part alone; and an evaluation can do without labels."""
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (40, 16, 16, 3), dtype=np.uint8)
    whole = f"npy:{tmp_path}/x.npz"
    np.savez(tmp_path / "x.npz", images=images, labels=np.zeros(40, np.int64))
    test = data.load(whole, "test", cache_dir=tmp_path / "c").images
    labels = [int(any(np.array_equal(image, t) for t in test)) for image in images]
    assert 0 < sum(labels) < 20
    np.savez(tmp_path / "x.npz", images=images, labels=np.array(labels))
    arguments = ["train", whole, "--preset", "tiny", "--epochs", "1", "--device", "cpu"]
    assert main([*arguments, "--evals", "1", "--ycond", "--out", str(tmp_path / "a")]) == 0
    assert glowlite.load(tmp_path / "a").n_classes == 2
    np.save(tmp_path / "plain.npy", images)
    more = ["--data", f"npy:{tmp_path}/plain.npy", "--limit", "2"]
    capsys.readouterr()
    assert main(["eval", str(tmp_path / "a"), *more]) == 0
    assert "no classes: bits/dim are of the mean over the model's 2" in capsys.readouterr().out
    assert main(["eval", str(tmp_path / "a"), "--limit", "2"]) == 0, "its classes are numbers"
    assert "no classes" not in capsys.readouterr().out
    np.savez(tmp_path / "y.npz", images=images, labels=np.array(labels) + 1)
    message = fails(capsys, "eval", tmp_path / "a", "--data", f"npy:{tmp_path}/y.npz")
    assert message.endswith("this model does not know 2: its classes are 0, 1")


KINDS = ["Zé bra", "cat", "dog"]


@pytest.fixture(scope="module")
def conditional(tmp_path_factory):
    """A class-conditional run on three kinds of pictures, and where these are."""
    root = tmp_path_factory.mktemp("classes")
    for i, kind in enumerate(KINDS):
        pictures(root / "pets" / kind, 40, seed=i)
    train = ["train", f"folder:{root}/pets", *TRAIN[2:], "--ycond", "--n-bits", "3"]
    assert main([*train, "--out", str(root / "run")]) == 0
    return root


def evaluated_as(*arguments):
    """How many images an evaluation takes for each of the three kinds."""
    plain = glowlite.evaluate.evaluate
    with mock.patch("glowlite.evaluate.evaluate", side_effect=plain) as spy:
        assert main(["eval", *map(str, arguments)]) == 0
    return np.bincount(spy.call_args.args[2], minlength=3).tolist()


def test_classes_are_known_by_their_names(conditional, tmp_path, capsys):
    """Their numbers shift with every folder that comes or goes."""
    folder, run = shutil.copytree(conditional / "pets", tmp_path / "pets"), conditional / "run"
    other = ["--data", f"folder:{folder}"]
    assert checkpoint.load_tensors(run / "ema.safetensors")[1]["classes"] == KINDS
    zebras, cats, dogs = evaluated_as(run, *other)
    assert min(zebras, cats, dogs) > 0 and len({zebras, cats, dogs}) > 1
    shutil.move(folder / "Zé bra", tmp_path)
    assert evaluated_as(run, *other) == [0, cats, dogs]
    pictures(folder / "ant", 40, seed=9)
    said = fails(capsys, "eval", run, *other)
    assert "images of ant, cat, dog; this model does not know ant: " in said
    assert said.endswith("its classes are Zé bra, cat, dog")
    said = fails(capsys, "sample", run, "--class", 3)
    assert said.endswith("has 3 classes: 0 Zé bra, 1 cat, 2 dog")


def test_a_run_whose_classes_have_changed_is_told(conditional, tmp_path, capsys):
    root = shutil.copytree(conditional, tmp_path / "a")
    config = (root / "run/config.json").read_text().replace(str(conditional), str(root))
    (root / "run/config.json").write_text(config)
    before = evaluated_as(root / "run")
    (root / "pets/cat").rename(root / "pets/car")  # the pictures, and their order, are the same
    for verb in ("eval", "resume"):
        assert "does not know car: " in fails(capsys, verb, root / "run")
    (root / "pets/car").rename(root / "pets/cat")
    # A run from before names were kept.
    for name in ("ema", "state"):
        tensors, header = checkpoint.load_tensors(root / f"run/{name}.safetensors")
        del header["classes"]
        checkpoint.save_tensors(root / f"run/{name}.safetensors", tensors, header)
    assert evaluated_as(root / "run") == before
    assert main(["resume", str(root / "run"), "--epochs", "2"]) == 0
    assert "classes" in checkpoint.load_tensors(root / "run/state.safetensors")[1]


def test_a_second_ctrl_c_does_not_wait(tmp_path, capsys, monkeypatch):
    def interrupted(self, number):
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(Batches, "__call__", interrupted)
    before = signal.getsignal(signal.SIGINT)  # ignored, where the tests run in the background
    assert fails(capsys, *TRAIN, "--out", tmp_path / "a", code=130) == "glowlite: stopped"
    assert signal.getsignal(signal.SIGINT) is before


def test_sizes_the_levels_cannot_halve(tmp_path, capsys):
    message = fails(capsys, *TRAIN, "--levels", "5", "--out", tmp_path / "a")
    assert "multiples of 2^5 = 32" in message and not (tmp_path / "a").exists()


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (["--minutes", "1"], "minutes and epochs"),
        (["--batch", "0"], "batch is 0"),
        (["--epochs", "0"], "epochs is 0.0"),
        (["--coupling", "magic"], "coupling is 'magic'"),
        (["--n-bits", "9"], "n_bits is 9"),
        (["--ycond"], "no class labels"),
        (["--no-test"], "test is False without holdout"),
        (["--lr", "-1"], "lr is -1.0"),
        (["--model", "nice", "--levels", "2"], "unknown options ['levels']"),
        (["--size", "17"], "size must be one of"),
    ],
)
def test_bad_options_are_named(tmp_path, capsys, more, words):
    assert words in fails(capsys, *TRAIN, *more, "--out", tmp_path / "a")
    assert not (tmp_path / "a").exists(), "nothing half-made is left"


@pytest.mark.parametrize("more", [["--preset", "huge"], ["--optimizer", "sgd"], ["--lr", "fast"]])
def test_usage_errors_exit_with_two(capsys, more):
    with pytest.raises(SystemExit) as stop:
        main([*TRAIN, *more])
    assert stop.value.code == 2 and more[1] in capsys.readouterr().err


@pytest.mark.parametrize(
    ("data", "words"),
    [
        ("cats", "unknown data set 'cats'"),
        ("folder:{0}/empty", "empty"),
        ("folder:{0}/none", "none"),
        ("npy:{0}/none.npy", "none.npy"),
        ("cifar10", "cifar"),
    ],
)
def test_missing_data_are_named(tmp_path, capsys, data, words):
    (tmp_path / "empty").mkdir()
    arguments = ["train", data.format(tmp_path), "--epochs", "1", "--size", "32"]
    arguments += ["--data-dir", tmp_path / "empty"]
    assert words in fails(capsys, *arguments, "--out", tmp_path / "a")
    assert not (tmp_path / "a").exists()


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda p: p.write_bytes(p.read_bytes()[:-100]), "not a whole safetensors file"),
        (lambda p: p.write_bytes(b"hello"), "not a whole safetensors file"),
        (lambda p: p.write_bytes(p.read_bytes()[:-1] + b"\x99"), "was altered"),
        (lambda p: p.unlink(), "holds no checkpoint"),
        (lambda p: torch.save({"x": torch.zeros(2)}, p), "not a whole safetensors file"),
    ],
    ids=["truncated", "text", "altered", "missing", "pickle"],
)
@pytest.mark.parametrize("verb", ["sample", "eval", "verify", "info"])
def test_damaged_checkpoints_are_told(run, tmp_path, capsys, damage, words, verb):
    shutil.copytree(run, tmp_path / "a")
    damage(tmp_path / "a" / "ema.safetensors")
    assert words in fails(capsys, verb, tmp_path / "a")


def test_a_damaged_state_does_not_resume(run, tmp_path, capsys):
    shutil.copytree(run, tmp_path / "a")
    state = tmp_path / "a" / "state.safetensors"
    state.write_bytes(state.read_bytes()[:1000])
    before = {p.name: p.read_bytes() for p in (tmp_path / "a").iterdir() if p.is_file()}
    assert "state.safetensors" in fails(capsys, "resume", tmp_path / "a", "--epochs", "2")
    assert before == {p.name: p.read_bytes() for p in (tmp_path / "a").iterdir() if p.is_file()}
    said = fails(capsys, "resume", tmp_path / "none")
    assert said.endswith("none/config.json: no such file: this is not a run folder")
    (tmp_path / "none").mkdir()  # left by a run that was killed before it saved anything
    (tmp_path / "none" / ".config.json.x.tmp").write_text("half")
    assert "nothing was saved yet; start it again" in fails(capsys, "resume", tmp_path / "none")
    shutil.copy(run / "config.json", tmp_path / "none")  # the first file that is whole
    assert "nothing was saved yet; start it again" in fails(capsys, "resume", tmp_path / "none")


def test_a_full_disk_is_told_and_the_last_state_kept(tmp_path, capsys, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    folder = tmp_path / "a"
    assert main([*TRAIN, "--out", str(folder)]) == 0
    before = (folder / "state.safetensors").read_bytes()
    monkeypatch.setattr(checkpoint, "save_file", full)
    message = fails(capsys, "resume", folder, "--epochs", "2")
    assert "No space left on device" in message and "safetensors" in message
    assert (folder / "state.safetensors").read_bytes() == before
    assert not [p for p in folder.iterdir() if p.name.endswith(".tmp")]


def test_a_file_in_the_way(tmp_path, capsys):
    (tmp_path / "a").write_text("mine")
    assert "there is a file of that name" in fails(capsys, *TRAIN, "--out", tmp_path / "a")
    assert "Not a directory" in fails(capsys, *TRAIN, "--out", tmp_path / "a" / "b")
    assert (tmp_path / "a").read_text() == "mine"


def test_editing_needs_attributes_and_a_known_name(run, capsys, tmp_path):
    assert "must be one of eyeglasses" in fails(capsys, "edit", run, "beard")
    np.save(tmp_path / "x.npy", np.zeros((40, 16, 16, 3), np.uint8))
    message = fails(capsys, "edit", run, "smiling", "--data", f"npy:{tmp_path}/x.npy")
    assert message.startswith("glowlite: npy:")


def test_images_of_another_size_are_refused(run, capsys, tmp_path):
    rng = np.random.default_rng(0)
    np.save(tmp_path / "x.npy", rng.integers(0, 256, (60, 8, 8, 1), dtype=np.uint8))
    message = fails(capsys, "eval", run, "--data", f"npy:{tmp_path}/x.npy")
    assert "this model needs (16, 16, 3)" in message


def test_debug_shows_the_traceback(tmp_path):
    with pytest.raises(FileNotFoundError):
        main(["sample", str(tmp_path / "none.safetensors"), "--debug"])


def test_scores_of_every_attribute(run, tmp_path, capsys, monkeypatch):
    from glowlite import grading

    train_reader = grading.train_reader
    monkeypatch.setattr(
        grading,
        "train_reader",
        lambda size, bits, faces, epochs, progress: train_reader(size, bits, faces=64, epochs=1),
    )
    out = tmp_path / "s.png"
    command = ["edit", str(run), "--score", "--learn", "200"]
    assert main([*command, "--out", str(out)]) == 0
    value = json.loads((tmp_path / "s.json").read_text())
    assert np.shape(value["after"]) == (13, 13) and size(out)[0] > 500
    assert "unwanted" in capsys.readouterr().out


def test_the_numbers_of_a_score_are_not_overwritten_either(run, tmp_path, capsys, monkeypatch):
    from glowlite import latent

    monkeypatch.setattr(latent, "attribute_vectors", None)  # refused before the work
    (tmp_path / "s.json").write_text("mine")
    message = fails(capsys, "edit", run, "--score", "--out", tmp_path / "s.png")
    assert "s.json" in message and "--force" in message
    assert "name the picture" in fails(capsys, "edit", run, "--score", "--out", tmp_path / "t.json")
    assert [p.name for p in tmp_path.iterdir()] == ["s.json"]


def test_a_new_name_is_free_for_every_file_under_it(tmp_path):
    (tmp_path / "scores-1.json").write_text("mine")
    args = Namespace(out=None, run=tmp_path)
    assert commands._output(args, "scores.png", ".json").name == "scores-2.png"
    assert commands._output(args, "scores.png").name == "scores-1.png"


@pytest.mark.parametrize(
    ("command", "following"),
    [
        (["sample", "-n", "2"], "interpolate"),
        (["reconstruct", "-n", "2"], "interpolate"),
        (["interpolate", "-n", "1", "--steps", "2"], "edit"),
        (["edit", "smiling", "-n", "1", "--learn", "60"], "edit"),
        (["eval", "--limit", "2", "--draws", "1"], "sample"),
        (["info"], "sample"),
        (["verify"], "verify"),
    ],
)
def test_every_command_says_what_is_next(run, tmp_path, capsys, command, following):
    folder = shutil.copytree(run, tmp_path / "a run")
    verb, *more = command
    assert main([verb, str(folder), *more]) == 0
    *_, last = capsys.readouterr().out.splitlines()
    assert last.startswith("next: ")
    words = shlex.split(last.removeprefix("next: "))
    if words[-1] != "--help":
        args = build_parser().parse_args(words[1:])
        assert (args.verb, args.run) == (following, str(folder))
    assert words[:3] == ["glowlite", following, str(folder)]
