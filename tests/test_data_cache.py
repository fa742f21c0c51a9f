"""The cache: made once, atomically, found by content; what happens when the disk says no."""

from __future__ import annotations

import errno
import json
import os
import shutil
import threading
import time
from unittest import mock

import numpy as np
import pytest

from glowlite.data import DataError, cache, default_cache, load
from glowlite.data.source import Row, Source

RNG = np.random.default_rng(3)


@pytest.fixture
def array(tmp_path):
    images = RNG.integers(0, 256, (60, 6, 4, 3), np.uint8)
    np.save(tmp_path / "x.npy", images)
    return tmp_path / "x.npy"


def open_array(path, **more):
    return load(f"npy:{path}", cache_dir=path.parent / "cache", **more)


def built():
    """A spy that counts the decodings."""
    return mock.patch.object(cache, "_build", wraps=cache._build)


def test_second_time_nothing_is_decoded_or_hashed(array):
    first = open_array(array)
    with built() as build, mock.patch("hashlib.file_digest") as digest:
        second = open_array(array)
    assert not build.called and not digest.called
    assert second.fingerprint == first.fingerprint
    assert np.array_equal(second.images, first.images)


def test_moved_files_are_hashed_again_but_not_decoded(array):
    open_array(array)
    moved = array.parent / "moved"
    moved.mkdir()
    shutil.move(array, moved / "x.npy")
    with built() as build:
        load(f"npy:{moved}/x.npy", cache_dir=array.parent / "cache")
    assert not build.called


def test_changed_content_or_recipe_is_another_entry(array):
    first = open_array(array)
    assert open_array(array, size=3).shape == (3, 3, 3)
    np.save(array, 255 - np.load(array))
    with built() as build:
        second = open_array(array)
    assert build.called and second.fingerprint != first.fingerprint
    assert not set(map(bytes, second.images)) & set(map(bytes, first.images))


def test_the_fingerprint_covers_pixels_and_labels(tmp_path):
    images = RNG.integers(0, 256, (40, 4, 4, 3), np.uint8)
    prints = set()
    for labels in (np.zeros(40, int), np.arange(40)):
        np.savez(tmp_path / "x.npz", images=images, labels=labels)
        prints.add(load(f"npy:{tmp_path}/x.npz", cache_dir=tmp_path).fingerprint)
    assert len(prints) == 2


def entries(path):
    return sorted(os.listdir(path.parent / "cache"))


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_full_disk_leaves_nothing_and_says_so(array, number):
    """Full at the 21st image, as `write` reports it."""
    add, calls = cache._PartWriter.add, []

    def full(self, row):
        calls.append(row)
        if len(calls) > 20:
            raise OSError(number, os.strerror(number))
        add(self, row)

    with mock.patch.object(cache._PartWriter, "add", full):
        with pytest.raises(DataError, match=r"full; make room .*--cache-dir"):
            open_array(array)
    assert entries(array) == ["known"]
    assert len(open_array(array)) > 30


def test_a_disk_too_small_is_noticed_before_decoding(array):
    usage = shutil.disk_usage("/")._replace(free=1000)
    with (
        mock.patch("shutil.disk_usage", return_value=usage),
        mock.patch.object(cache, "_write") as w,
    ):
        with pytest.raises(DataError, match=r"needs 0 MB .* has 0 MB free"):
            open_array(array)
    assert not w.called


@pytest.mark.parametrize("where", ["mkdir", "replace"])
def test_no_permission(array, where):
    target = {"mkdir": "pathlib.Path.mkdir", "replace": "os.replace"}[where]
    refusal = PermissionError(errno.EACCES, "Permission denied", "/the/cache")
    with mock.patch(target, side_effect=refusal):
        with pytest.raises(DataError, match="no permission to use /.*cache"):
            open_array(array)
    assert len(open_array(array)) > 30


def test_a_file_one_may_not_read(array):
    with mock.patch.object(
        cache, "open", create=True, side_effect=PermissionError(13, "no", "x.npy")
    ):
        with pytest.raises(DataError, match=r"no permission to use x\.npy"):
            open_array(array)


@pytest.mark.parametrize("stop", [KeyboardInterrupt, MemoryError])
def test_stopped_half_way_leaves_nothing(array, stop):
    with mock.patch.object(cache._PartWriter, "finish", side_effect=stop):
        with pytest.raises(stop):
            open_array(array)
    assert entries(array) == ["known"]


def test_killed_processes_leave_what_a_later_one_sweeps(array):
    home = array.parent / "cache"
    old, young = home / ".building-old", home / ".building-young"
    for folder in (old, young):
        folder.mkdir(parents=True)
        (folder / "train.npy").write_bytes(b"half")
    os.utime(old, (time.time() - 2 * 86400,) * 2)
    open_array(array)
    assert not old.exists() and young.exists()


def test_two_processes_at_once_agree(array):
    """Both build; the second to finish finds the entry there and takes it."""
    gate = threading.Barrier(2)
    write, results, errors = cache._write, [], []

    def together(*arguments):
        index = write(*arguments)
        gate.wait(10)
        return index

    def work():
        try:
            results.append(open_array(array, progress=False).fingerprint)
        except Exception as error:
            errors.append(error)

    with mock.patch.object(cache, "_write", together):
        threads = [threading.Thread(target=work) for _ in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert not errors and len(set(results)) == 1 and len(results) == 2
    assert [name for name in entries(array) if name.startswith(".")] == []


@pytest.mark.parametrize("damage", ["short", "gone", "index", "empty index", "no index"])
def test_a_damaged_entry_is_named(array, damage):
    open_array(array)
    (folder,) = (array.parent / "cache").glob("npy-*")
    path = folder / "train.npy"
    if damage == "short":
        os.truncate(path, path.stat().st_size // 2)
    elif damage == "gone":
        path.unlink()
    elif damage == "no index":
        (folder / "index.json").unlink()
    else:
        (folder / "index.json").write_text("{}" if damage == "empty index" else "{")
    with pytest.raises(DataError, match=f"{folder.name} is damaged.*delete"):
        open_array(array)


def test_an_entry_is_as_readable_as_any_other_folder(array):
    open_array(array)
    (folder,) = (array.parent / "cache").glob("npy-*")
    (array.parent / "other").mkdir()
    assert folder.stat().st_mode == (array.parent / "other").stat().st_mode


def test_the_index_says_what_was_done(array):
    got = open_array(array)
    (folder,) = (array.parent / "cache").glob("npy-*")
    index = json.loads((folder / "index.json").read_text())
    assert index["parts"]["train"] == {"count": len(got), "fingerprint": got.fingerprint}
    assert sum(part["count"] for part in index["parts"].values()) == 60
    assert index["recipe"]["set"] == "npy" and index["skipped"] == []


def test_rows_are_written_as_they_come(tmp_path):
    """At no time are more than a few images in memory, however many there are."""
    alive, most = [], []

    class Counted(np.ndarray):
        def __del__(self):
            alive.pop()

    def rows():
        for i in range(2000):
            image = np.full((4, 4, 3), i % 256, np.uint8).view(Counted)
            alive.append(None)
            most.append(len(alive))
            yield Row(str(i), "train", image, i % 7)

    (tmp_path / "f").write_bytes(b"x")
    source = Source((("f", tmp_path / "f"),), {}, (4, 4, 3), 5000, rows)
    folder, index = cache.entry(source, tmp_path / "c", "many", progress=False)
    images = cache.open_array(folder / "train.npy")
    # Fewer came than announced, and the header tells the truth.
    assert images.shape == (2000, 4, 4, 3) and index["parts"]["train"]["count"] == 2000
    assert np.array_equal(images[:, 0, 0, 0], np.arange(2000) % 256)
    assert max(most) <= 4


def test_a_row_of_another_shape_is_refused(tmp_path):
    (tmp_path / "f").write_bytes(b"x")
    wrong = [Row("one", "train", np.zeros((4, 5, 3), np.uint8))]
    source = Source((("f", tmp_path / "f"),), {}, (4, 4, 3), 1, lambda: iter(wrong))
    with pytest.raises(DataError, match=r"one: uint8 \(4, 5, 3\), expected"):
        cache.entry(source, tmp_path / "c", "x", progress=False)


def test_where_the_cache_is(monkeypatch, tmp_path):
    monkeypatch.setenv("GLOWLITE_CACHE", str(tmp_path))
    assert default_cache() == tmp_path
    monkeypatch.delenv("GLOWLITE_CACHE")
    assert default_cache().name == "glowlite"
