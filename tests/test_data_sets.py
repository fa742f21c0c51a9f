"""CelebA, ImageNet 32/64, LSUN and the drawn faces, from small files in the original formats."""

from __future__ import annotations

import io
import shutil
import sys
import zipfile

import numpy as np
import pytest
from PIL import Image

from glowlite.data import DataError, celeba, drawn, faces, load

RNG = np.random.default_rng(7)


def smooth(h: int, w: int) -> np.ndarray:
    """An image that survives JPEG: a slope in each channel."""
    y, x = np.mgrid[0:h, 0:w] / max(h, w)
    a = RNG.uniform(-90, 90, (3, 2))
    return np.stack([128 + p * y + q * x for p, q in a], -1).round().astype(np.uint8)


def encoded(image: np.ndarray, kind: str = "JPEG", **more) -> bytes:
    out = io.BytesIO()
    Image.fromarray(image).save(out, kind, **more)
    return out.getvalue()


# -- CelebA ----------------------------------------------------------------------------------

COLUMNS = ("Bangs", "Eyeglasses", "Smiling")


@pytest.fixture
def celeba_dir(tmp_path):
    """Thirty 178×218 faces, partitioned 20 + 6 + 4, Windows line ends as in the original."""
    root = tmp_path / "raw"
    (root / celeba.IMAGES).mkdir(parents=True)
    images = [smooth(218, 178) for _ in range(30)]
    signs = RNG.choice([-1, 1], (30, 3))
    names = [f"{i:06d}.jpg" for i in range(1, 31)]
    for name, image in zip(names, images, strict=True):
        (root / celeba.IMAGES / name).write_bytes(encoded(image, quality=100, subsampling=0))
    rows = [f"{n} " + " ".join(f"{v:2d}" for v in s) for n, s in zip(names, signs, strict=True)]
    (root / celeba.ATTRIBUTES).write_text("\r\n".join(["30", " ".join(COLUMNS), *rows, ""]))
    parts = [0] * 20 + [1] * 6 + [2] * 4
    lines = [f"{n} {p}" for n, p in zip(names, parts, strict=True)]
    (root / celeba.PARTITION).write_text("\r\n".join([*lines, ""]))
    return root, images, signs == 1


def open_celeba(root, split="train", **more):
    return load("celeba", split, data_dir=root, cache_dir=root.parent / "cache", **more)


def test_celeba_parts_attributes_and_crop(celeba_dir):
    root, images, truth = celeba_dir
    start = 0
    for split, count in (("train", 20), ("valid", 6), ("test", 4)):
        part = open_celeba(root, split, size=148)
        assert part.images.shape == (count, 148, 148, 3) and part.names == COLUMNS
        assert np.array_equal(part.attributes, truth[start : start + count])
        for got, image in zip(part.images, images[start:], strict=False):
            # 148 of 178 wide: nothing is resized and the crop starts at row 35, column 15.
            want = image[35:183, 15:163].astype(int)
            assert np.abs(got - want).mean() < 1
        start += count
    assert open_celeba(root).images.shape == (20, 64, 64, 3)
    assert len(open_celeba(root, "fit")) == 20


def test_celeba_crop_to_the_pixel(celeba_dir):
    # Noise without loss, so that a crop off by one pixel could not pass.
    noise = RNG.integers(0, 256, (218, 178, 3), np.uint8)
    (celeba_dir[0] / celeba.IMAGES / "000001.jpg").write_bytes(encoded(noise, "PNG"))
    assert np.array_equal(open_celeba(celeba_dir[0], size=148).images[0], noise[35:183, 15:163])


def test_celeba_zip_gives_the_same_pixels(celeba_dir):
    root = celeba_dir[0]
    folder = open_celeba(root)
    with zipfile.ZipFile(root / f"{celeba.IMAGES}.zip", "w") as archive:
        for file in (root / celeba.IMAGES).iterdir():
            archive.write(file, f"{celeba.IMAGES}/{file.name}")
    shutil.rmtree(root / celeba.IMAGES)
    # The owners keep the text files in sub-folders.
    for name, sub in ((celeba.ATTRIBUTES, "Anno"), (celeba.PARTITION, "Eval")):
        (root / sub).mkdir()
        (root / name).rename(root / sub / name)
    assert open_celeba(root).fingerprint == folder.fingerprint
    path = root / f"{celeba.IMAGES}.zip"
    path.write_bytes(path.read_bytes()[:5000])
    with pytest.raises(DataError, match=r"img_align_celeba\.zip: truncated or damaged archive"):
        open_celeba(root)


def test_celeba_sample_of_the_training_part_is_cut_by_content(celeba_dir):
    root = celeba_dir[0]
    path = root / celeba.PARTITION
    path.write_text("".join(f"{i:06d}.jpg 0\n" for i in range(1, 31)))
    parts = {}
    for split in ("train", "valid", "test"):
        try:
            parts[split] = open_celeba(root, split)
        except DataError as error:
            assert f"no {split} images" in str(error)
    assert sum(map(len, parts.values())) == 30 and len(parts["train"]) > 15
    # The same image, the same side, in whatever size.
    assert len(open_celeba(root, size=16)) == len(parts["train"])


def test_celeba_missing_image_and_listed_strangers(celeba_dir):
    root = celeba_dir[0]
    (root / celeba.IMAGES / "000003.jpg").unlink()
    with pytest.raises(DataError, match=r"img_align_celeba/000003\.jpg: .*No such file"):
        open_celeba(root)
    skipped = open_celeba(root, on_corrupt="skip")
    assert len(skipped) == 19 and skipped.skipped == 1
    text = (root / celeba.ATTRIBUTES).read_text()
    (root / celeba.ATTRIBUTES).write_text(text.replace("000003.jpg", "../secret.jpg"))
    with pytest.raises(DataError, match="line 5"):
        open_celeba(root)


@pytest.mark.parametrize(
    "old, new, words",
    [
        ("30\n", "31\n", "30 rows where the first line says 31"),
        ("Bangs ", "", "line 3"),
        ("000002.jpg", "\n000002.jpg", "line 4: expected a file name"),
    ],
)
def test_celeba_damaged_attribute_file(celeba_dir, old, new, words):
    path = celeba_dir[0] / celeba.ATTRIBUTES
    path.write_text(path.read_text().replace(old, new, 1))
    with pytest.raises(DataError, match=words):
        open_celeba(celeba_dir[0])


@pytest.mark.parametrize("download", [False, True])
@pytest.mark.parametrize("lost", [celeba.ATTRIBUTES, celeba.PARTITION, celeba.IMAGES])
def test_celeba_missing_files_come_with_instructions(celeba_dir, lost, download):
    path = celeba_dir[0] / lost
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    with pytest.raises(DataError, match="mmlab.ie.cuhk.edu.hk") as caught:
        open_celeba(celeba_dir[0], download=download)
    assert lost in str(caught.value) and "cannot be downloaded for you" in str(caught.value)


# -- ImageNet --------------------------------------------------------------------------------


@pytest.fixture
def imagenet_dir(tmp_path):
    root = tmp_path / "raw"
    root.mkdir()
    truth = {}
    for batch in [f"train_data_batch_{i}" for i in range(1, 11)] + ["val_data"]:
        n = int(RNG.integers(3, 6))
        images = RNG.integers(0, 256, (n, 32, 32, 3), np.uint8)
        labels = RNG.integers(1, 1001, n)
        rows = images.transpose(0, 3, 1, 2).reshape(n, -1)
        mean = rows.mean(0)
        np.savez_compressed(root / f"{batch}.npz", data=rows, labels=labels, mean=mean)
        truth[batch] = images, labels
    return root, truth


def open_imagenet(root, split="train", name="imagenet32", **more):
    return load(name, split, data_dir=root, cache_dir=root.parent / "cache", **more)


def test_imagenet_batches_in_order(imagenet_dir, monkeypatch):
    root, truth = imagenet_dir
    # Blocks of two images, so that one batch needs several and the last is short.
    monkeypatch.setattr("glowlite.data.npy._BLOCK_BYTES", 2 * 3072)
    train, test = open_imagenet(root), open_imagenet(root, "test")
    batches = [truth[f"train_data_batch_{i}"] for i in range(1, 11)]
    assert np.array_equal(train.images, np.concatenate([b[0] for b in batches]))
    assert np.array_equal(train.labels, np.concatenate([b[1] for b in batches]) - 1)
    assert np.array_equal(test.images, truth["val_data"][0])
    fit, valid = open_imagenet(root, "fit"), open_imagenet(root, "valid")
    assert len(fit) + len(valid) == len(train) and len(valid) == len(train) // 10


def test_imagenet_damage_is_named(imagenet_dir):
    root = imagenet_dir[0]
    path = root / "train_data_batch_7.npz"
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DataError, match=r"train_data_batch_7\.npz: truncated"):
        open_imagenet(root)
    flipped = bytearray(whole)
    flipped[len(whole) // 2] ^= 0x40
    path.write_bytes(flipped)
    with pytest.raises(DataError, match=r"train_data_batch_7\.npz: truncated or damaged"):
        open_imagenet(root)
    path.unlink()
    with pytest.raises(DataError, match=r"(?s)train_data_batch_7\.npz in .*image-net\.org"):
        open_imagenet(root)
    with pytest.raises(DataError, match=r"uint8 \(\d, 3072\); expected uint8 \(N, 12288\)"):
        open_imagenet(root, "test", "imagenet64")


def test_imagenet_objects_are_not_unpickled(imagenet_dir, tmp_path):
    path = imagenet_dir[0] / "val_data.npz"

    class Evil:
        def __reduce__(self):
            return (tmp_path / "was-here").mkdir, ()

    np.savez(path, data=np.array([Evil()]), labels=np.array([1]))
    with pytest.raises(DataError, match="Python objects"):
        open_imagenet(imagenet_dir[0], "test")
    good = np.zeros((1, 3072), np.uint8)
    np.savez(path, data=good, labels=np.array([Evil()]))
    with pytest.raises(DataError, match="val_data"):
        open_imagenet(imagenet_dir[0], "test")
    assert not (tmp_path / "was-here").exists()


# -- LSUN ------------------------------------------------------------------------------------


def test_lsun_without_lmdb_says_what_to_install(tmp_path, monkeypatch):
    folder = tmp_path / "tower_train_lmdb"
    folder.mkdir()
    (folder / "data.mdb").write_bytes(b"")
    monkeypatch.setitem(sys.modules, "lmdb", None)
    with pytest.raises(DataError, match=r"pip install 'glow-course\[lsun\]'"):
        load("lsun-tower", data_dir=tmp_path, cache_dir=tmp_path / "c")


@pytest.mark.parametrize("download", [False, True])
def test_lsun_missing_files_come_with_instructions(tmp_path, download):
    with pytest.raises(DataError, match="(?s)no church_.*cannot.*fyu/lsun.*-c church_outdoor"):
        load("lsun-church_outdoor", data_dir=tmp_path, cache_dir=tmp_path, download=download)


def write_lsun(root, category, part, values):
    lmdb = pytest.importorskip("lmdb", reason="LSUN's format needs the extra 'lsun'")
    path = root / f"{category}_{part}_lmdb"
    with lmdb.open(str(path), map_size=2**26) as database, database.begin(write=True) as write:
        for i, value in enumerate(values):
            write.put(b"%040x" % i, value)
    return path


def test_lsun_databases(tmp_path):
    images = [smooth(256, 341), smooth(300, 256), smooth(256, 256)] * 7
    values = [encoded(x, "WEBP" if i % 2 else "JPEG", quality=95) for i, x in enumerate(images)]
    write_lsun(tmp_path, "bedroom", "train", values)
    write_lsun(tmp_path, "bedroom", "val", values[:4])
    options = {"data_dir": tmp_path, "cache_dir": tmp_path / "c"}
    train = load("lsun-bedroom", **options)
    assert train.images.shape == (21, 64, 64, 3)
    assert len(load("lsun-bedroom", "test", **options)) == 4
    assert len(load("lsun-bedroom", "valid", **options)) == 2
    wide = images[0][:, 42 : 42 + 256].reshape(64, 4, 64, 4, 3).mean((1, 3))
    assert np.abs(train.images[0] - wide).max() <= 4
    assert load("lsun-bedroom", size=32, **options).shape == (32, 32, 3)


def test_lsun_truncated_database_and_image(tmp_path):
    values = [encoded(smooth(256, 256)) for _ in range(30)]
    values[5] = values[5][:400]
    path = write_lsun(tmp_path, "tower", "train", values)
    options = {"data_dir": tmp_path, "cache_dir": tmp_path / "c"}
    with pytest.raises(DataError, match=r"tower_train_lmdb\[0+5\]: cannot be read as an image"):
        load("lsun-tower", **options)
    kept = load("lsun-tower", on_corrupt="skip", **options)
    assert (len(kept), kept.skipped) == (29, 1)
    data = path / "data.mdb"
    for end in (-1, 3 * 4096):
        data.write_bytes(data.read_bytes()[:end])
        with pytest.raises(DataError, match="truncated lmdb"):
            load("lsun-tower", **options)
    data.write_bytes(b"not a database" * 1000)
    with pytest.raises(DataError, match="truncated or damaged lmdb"):
        load("lsun-tower", **options)


# -- the drawn faces -------------------------------------------------------------------------


def test_faces_are_those_of_make_faces(tmp_path, monkeypatch):
    monkeypatch.setattr(drawn, "COUNTS", {"train": 300, "test": 20})
    for split, n in (("train", 300), ("test", 20)):
        got = load("faces", split, size=16, cache_dir=tmp_path)
        images, truth = faces.make_faces(n, 16, 0, split)
        assert np.array_equal(got.images, images) and np.array_equal(got.attributes, truth)
        assert got.names == faces.ATTRIBUTES and got.labels is None
    assert len(load("faces", "valid", size=16, cache_dir=tmp_path)) == 30
    with pytest.raises(DataError, match=r"size must be one of \(16, 32, 64\) for faces, not 48"):
        load("faces", size=48, cache_dir=tmp_path)
