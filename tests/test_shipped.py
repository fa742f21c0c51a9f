"""The model that comes with the project: found, whole, and said to be missing when it is."""

import json
from pathlib import Path

import pytest

import glowlite
from glowlite import shipped
from glowlite.checkpoint import CheckpointError, digest, save_model


def test_an_unknown_name_lists_what_there_is():
    with pytest.raises(ValueError, match="'faces64'; accepted: 'faces32', 'cifar10'"):
        glowlite.pretrained("faces64")


def test_a_missing_file_says_how_to_get_one(tmp_path, monkeypatch):
    monkeypatch.setattr(shipped, "_FOLDER", tmp_path)
    with pytest.raises(
        FileNotFoundError, match="glowlite train faces --epochs 11 --out runs/faces32"
    ):
        glowlite.pretrained()


def test_a_damaged_file_is_refused_by_name(tmp_path, monkeypatch):
    monkeypatch.setattr(shipped, "_FOLDER", tmp_path)
    (tmp_path / "faces32.safetensors").write_bytes(b"nothing")
    with pytest.raises(CheckpointError, match="faces32.safetensors"):
        glowlite.pretrained()


def test_what_is_there_is_loaded(tmp_path, monkeypatch):
    monkeypatch.setattr(shipped, "_FOLDER", tmp_path)
    model = glowlite.Glow(shape=(3, 4, 4), levels=1, depth=1, width=4)
    save_model(tmp_path / "faces32.safetensors", model, {"seconds": 7})
    found = glowlite.pretrained("faces32")
    assert found.header["seconds"] == 7
    assert not found.training


@pytest.mark.parametrize(
    ("name", "results"), [("faces32", "faces32"), ("cifar10", "real_data/cifar10")]
)
def test_the_log_in_results_is_of_the_model_that_ships(name, results):
    folder = Path(shipped.__file__).parents[1] / "results" / results
    header = glowlite.pretrained(name).header
    last = json.loads((folder / "metrics.jsonl").read_text().splitlines()[-1])
    assert (header["step"], header["images"]) == (last["step"], last["images"])
    made = json.loads((folder / "config.json").read_text())["made"]["command"]
    wanted = shipped._MADE_BY[name].replace("--data-dir FOLDER ", "").split()
    assert set(wanted) <= set(made.split())


def test_the_grades_in_results_are_of_the_model_that_ships():
    results = Path(shipped.__file__).parents[1] / "results" / "faces32" / "edit_scores.json"
    graded = json.loads(results.read_text())["weights"]
    assert graded == digest(glowlite.pretrained("faces32").state_dict(), {})[:16], (
        "another model ships now: run python -m benchmarks.edit_scores, then notebook 10"
    )
