"""CIFAR-10 in its original format: batches written as Python 2 wrote them, nothing executed."""

from __future__ import annotations

import hashlib
import io
import os
import pickle
import struct
import tarfile

import numpy as np
import pytest

from glowlite.data import DataError, cifar10, load, safe_pickle

N = 20


def text(value: bytes) -> bytes:
    """A Python 2 string as cPickle wrote it."""
    if len(value) < 256:
        return b"U" + bytes([len(value)]) + value
    return b"T" + struct.pack("<i", len(value)) + value


def number(value: int) -> bytes:
    return b"K" + bytes([value]) if value < 256 else b"M" + struct.pack("<H", value)


def batch_bytes(data: np.ndarray, labels: list[int], dtype: bytes = b"u1") -> bytes:
    """The layout of the original files, instruction by instruction."""
    n, d = data.shape
    array = (
        b"cnumpy.core.multiarray\n_reconstruct\nq\x06cnumpy\nndarray\nq\x07K\x00\x85U\x01b\x87Rq\x08"
        b"(K\x01" + number(n) + number(d) + b"\x86"
        b"cnumpy\ndtype\nq\x09" + text(dtype) + b"K\x00K\x01\x87Rq\x0a"
        b"(K\x03U\x01|NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb"
        b"\x89" + text(data.tobytes()) + b"tb"
    )
    names = b"".join(text(b"picture_%d.png" % i) for i in range(n))
    return (
        b"\x80\x02}q\x01("
        + text(b"batch_label") + b"q\x02" + text(b"training batch 1 of 5") + b"q\x03"
        + text(b"labels") + b"q\x04]q\x05(" + b"".join(map(number, labels)) + b"e"
        + text(b"data") + array
        + text(b"filenames") + b"]q\x0b(" + names + b"e"
        + b"u."
    )  # fmt: skip


@pytest.fixture
def batches(tmp_path, monkeypatch):
    """A folder of six small batches whose checksums count as the published ones."""
    rng = np.random.default_rng(1)
    folder = tmp_path / "raw" / cifar10.FOLDER
    folder.mkdir(parents=True)
    truth = {}
    for name in (*cifar10.TRAIN, "test_batch"):
        images = rng.integers(0, 256, (N, 32, 32, 3), np.uint8)
        labels = rng.integers(0, 10, N).tolist()
        raw = batch_bytes(images.transpose(0, 3, 1, 2).reshape(N, -1), labels)
        (folder / name).write_bytes(raw)
        monkeypatch.setitem(cifar10.MD5, name, hashlib.md5(raw).hexdigest())
        truth[name] = images, labels
    return folder, truth


def open_set(folder, split="train", **more):
    return load("cifar10", split, data_dir=folder.parent, cache_dir=folder.parents[1] / "c", **more)


def test_images_and_labels_are_those_in_the_batches(batches):
    folder, truth = batches
    train = open_set(folder)
    assert isinstance(train.images, np.memmap) and not train.images.flags.writeable
    want = np.concatenate([truth[name][0] for name in cifar10.TRAIN])
    assert np.array_equal(train.images, want)
    assert train.labels.tolist() == sum((truth[name][1] for name in cifar10.TRAIN), [])
    test = open_set(folder, "test")
    assert np.array_equal(test.images, truth["test_batch"][0])
    assert train.names[:2] == ("airplane", "automobile") and train.shape == (32, 32, 3)


def test_fit_and_valid_are_train_cut_in_two(batches):
    train, fit, valid = (open_set(batches[0], split) for split in ("train", "fit", "valid"))
    assert (len(train), len(fit), len(valid)) == (100, 90, 10)
    assert np.array_equal(np.concatenate([fit.images, valid.images]), train.images)
    assert np.array_equal(np.concatenate([fit.labels, valid.labels]), train.labels)
    assert len({train.fingerprint, fit.fingerprint, valid.fingerprint}) == 3


def archive(folder, monkeypatch, **more):
    path = folder.parent / "cifar-10-python.tar.gz"
    with tarfile.open(path, "w:gz") as tar:
        for file in sorted(folder.iterdir()):
            tar.add(file, f"{cifar10.FOLDER}/{file.name}")
            file.unlink()
    md5 = hashlib.md5(path.read_bytes()).hexdigest()
    remote = cifar10.REMOTES["cifar10"]
    monkeypatch.setitem(cifar10.REMOTES, "cifar10", type(remote)(remote.url, remote.file, md5))
    return path


def test_archive_gives_the_same_set_without_unpacking(batches, monkeypatch):
    folder, _ = batches
    unpacked = open_set(folder)
    path = archive(folder, monkeypatch)
    packed = open_set(folder)
    assert packed.fingerprint == unpacked.fingerprint
    assert list(folder.iterdir()) == [] and path.exists()


def test_archive_with_a_link_in_place_of_a_batch(batches, monkeypatch, tmp_path):
    folder, _ = batches
    (folder / "data_batch_1").unlink()
    (folder / "data_batch_1").symlink_to("/etc/hostname")
    archive(folder, monkeypatch)
    with pytest.raises(DataError, match="has no cifar-10-batches-py/data_batch_1"):
        open_set(folder)


def test_truncated_archive_is_named(batches, monkeypatch):
    path = archive(batches[0], monkeypatch)
    path.write_bytes(path.read_bytes()[:-200_000])
    with pytest.raises(DataError, match=r"tar\.gz: wrong checksum"):
        open_set(batches[0])
    remote = cifar10.REMOTES["cifar10"]
    md5 = hashlib.md5(path.read_bytes()).hexdigest()
    monkeypatch.setitem(cifar10.REMOTES, "cifar10", type(remote)(remote.url, remote.file, md5))
    with pytest.raises(DataError, match=r"tar\.gz: truncated or damaged archive"):
        open_set(batches[0])


def test_wrong_checksum_names_both(batches):
    file = batches[0] / "data_batch_3"
    raw = bytearray(file.read_bytes())
    raw[-5000] ^= 1
    file.write_bytes(raw)
    with pytest.raises(DataError) as caught:
        open_set(batches[0])
    for words in (str(file), hashlib.md5(raw).hexdigest(), cifar10.MD5["data_batch_3"]):
        assert words in str(caught.value)
    # Nothing half-made is left behind, and the test part is not concerned.
    left = os.listdir(batches[0].parents[1] / "c")
    assert left == ["known"]
    assert len(open_set(batches[0], "test")) == N


def test_missing_batch_says_what_where_and_how(batches):
    (batches[0] / "data_batch_4").unlink()
    with pytest.raises(DataError) as caught:
        open_set(batches[0])
    for words in ("data_batch_4", str(batches[0].parent), "--download", "cs.toronto.edu"):
        assert words in str(caught.value)


def test_another_size_is_refused(batches):
    with pytest.raises(DataError, match="size must be 32 for cifar10, not 64"):
        open_set(batches[0], size=64)


# -- the restricted reader -------------------------------------------------------------------


class Evil:
    def __init__(self, target):
        self.target = str(target)

    def __reduce__(self):
        return os.mkdir, (self.target,)


@pytest.mark.parametrize("protocol", range(6))
def test_a_pickle_that_calls_is_refused_and_nothing_runs(tmp_path, protocol):
    target = tmp_path / "was-here"
    evil = pickle.dumps({"data": Evil(target), "labels": []}, protocol)
    with pytest.raises(safe_pickle.UnsafePickle):
        safe_pickle.read(evil)
    assert not target.exists()
    # The pickle does what the test fears: unpickling it leaves a trace.
    pickle.loads(evil)
    assert target.exists()


def test_an_evil_batch_with_the_right_checksum_is_refused(batches, monkeypatch, tmp_path):
    evil = pickle.dumps({"data": Evil(tmp_path / "was-here"), "labels": []}, 2)
    (batches[0] / "test_batch").write_bytes(evil)
    monkeypatch.setitem(cifar10.MD5, "test_batch", hashlib.md5(evil).hexdigest())
    with pytest.raises(DataError, match="test_batch.*asks for GLOBAL 'posix mkdir'"):
        open_set(batches[0], "test")
    assert not (tmp_path / "was-here").exists()


BATCH = batch_bytes(np.arange(2 * 3072, dtype=np.uint8).reshape(2, -1), [3, 7])


@pytest.mark.parametrize(
    "instruction",
    [
        b"cbuiltins\neval\n", b"cnumpy.core.multiarray\nscalar\n", b"cnumpy\nload\n",
        b"ios\nsystem\n", b"Pname\n", b"U\x01xQ", b"\x82\x01", b"S'x'\n", b"2", b"0", b"\x93",
        b"\x95" + bytes(8), b"I5\n", b"\x8a\x01\x01",
    ],
)  # fmt: skip
def test_instructions_outside_the_list_are_refused(instruction):
    data = BATCH[:2] + b"}" + instruction + BATCH[3:]
    with pytest.raises(safe_pickle.UnsafePickle, match="asks for"):
        safe_pickle.read(data)


def test_reads_what_the_original_layout_says():
    content = safe_pickle.read(BATCH)
    assert content["labels"] == [3, 7] and content["batch_label"] == "training batch 1 of 5"
    assert content["data"].shape == (2, 3072) and content["data"].dtype == np.uint8
    assert np.array_equal(content["data"].ravel(), np.arange(2 * 3072, dtype=np.uint8))


def test_every_truncation_is_refused():
    for end in [*range(0, 200), *range(200, len(BATCH), 97), len(BATCH) - 1]:
        with pytest.raises(safe_pickle.UnsafePickle):
            safe_pickle.read(BATCH[:end])


def test_damaged_bytes_give_an_answer_or_a_refusal():
    rng = np.random.default_rng(0)
    for _ in range(2000):
        raw = bytearray(BATCH)
        for at in rng.integers(0, len(raw), 3):
            raw[at] = rng.integers(256)
        try:
            safe_pickle.read(bytes(raw))
        except safe_pickle.UnsafePickle:
            pass


def test_bounds_on_memory_and_time():
    with pytest.raises(safe_pickle.UnsafePickle, match="more than 500000 instructions"):
        safe_pickle.read(b"\x80\x02](" + b"N" * 600_000 + b"e.")
    with pytest.raises(safe_pickle.UnsafePickle, match="bytes, more than"):
        safe_pickle.read(bytes(safe_pickle.MAX_BYTES + 1))
    # A memo index or a length of 4 GB must not be believed.
    with pytest.raises(safe_pickle.UnsafePickle):
        safe_pickle.read(b"\x80\x02]r\xff\xff\xff\xffT\xff\xff\xff\x7fx.")
    with pytest.raises(safe_pickle.UnsafePickle):
        safe_pickle.read(BATCH.replace(number(3072), number(3071)))


def test_wrong_dtype_is_refused():
    with pytest.raises(safe_pickle.UnsafePickle, match="expected uint8"):
        safe_pickle.read(batch_bytes(np.zeros((2, 3072), np.uint8), [0, 0], dtype=b"O8"))


def test_python3_arrays_need_more_and_are_refused():
    out = io.BytesIO()
    pickle.dump({"data": np.zeros((2, 3072), np.uint8)}, out, protocol=2)
    with pytest.raises(safe_pickle.UnsafePickle, match="GLOBAL"):
        safe_pickle.read(out.getvalue())
