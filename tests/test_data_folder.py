"""Folders of any images, and arrays: every mode comes out as the same plain pixels."""

from __future__ import annotations

import io
import re
import zlib
from unittest import mock

import numpy as np
import pytest
from PIL import Image

from glowlite.cli import build_parser
from glowlite.data import DataError, load
from glowlite.data.pixels import decode
from glowlite.data.source import part_by_hash

RNG = np.random.default_rng(11)
RGB = RNG.integers(0, 256, (12, 12, 3), np.uint8)


def encoded(image: Image.Image | np.ndarray, kind: str = "PNG", **more) -> bytes:
    image = image if isinstance(image, Image.Image) else Image.fromarray(image)
    out = io.BytesIO()
    image.save(out, kind, **more)
    return out.getvalue()


# -- one image -------------------------------------------------------------------------------


def test_rgb_grey_and_one_bit():
    assert np.array_equal(decode(encoded(RGB), 12), RGB)
    grey = RGB[..., 0]
    assert np.array_equal(decode(encoded(grey), 12), np.repeat(grey[..., None], 3, -1))
    assert np.array_equal(decode(encoded(grey), 12, channels=1), grey[..., None])
    bits = Image.fromarray(grey > 127)
    assert bits.mode == "1"
    assert np.array_equal(decode(encoded(bits), 12)[..., 1], np.where(grey > 127, 255, 0))


def test_what_is_transparent_shows_white():
    alpha = np.zeros((12, 12), np.uint8)
    alpha[:6] = 255
    want = RGB.copy()
    want[6:] = 255
    assert np.array_equal(decode(encoded(np.dstack([RGB, alpha])), 12), want)
    grey = Image.fromarray(np.dstack([RGB[..., 0], alpha]), "LA")
    assert np.array_equal(decode(encoded(grey), 12)[6:], want[6:])
    half = np.full((12, 12), 128, np.uint8)
    got = decode(encoded(np.dstack([np.zeros_like(RGB), half])), 12)
    assert np.unique(got).tolist() == [127]


def test_palettes_with_and_without_transparency():
    image = Image.fromarray(RGB).quantize(16)
    want = np.asarray(image.convert("RGB"))
    assert np.array_equal(decode(encoded(image), 12), want)
    assert np.array_equal(decode(encoded(image, "GIF"), 12), want)
    index = int(np.asarray(image)[0, 0])
    got = decode(encoded(image, transparency=index), 12)
    hidden = np.asarray(image) == index
    assert (got[hidden] == 255).all() and np.array_equal(got[~hidden], want[~hidden])


def test_sixteen_bits_keep_the_high_byte():
    deep = RNG.integers(0, 65536, (12, 12), dtype=np.uint16)
    for kind in ("PNG", "TIFF", "PPM"):
        got = decode(encoded(Image.fromarray(deep), kind), 12)
        assert np.array_equal(got, np.repeat((deep >> 8).astype(np.uint8)[..., None], 3, -1))


def test_cmyk():
    cmyk = Image.new("CMYK", (12, 12), (0, 255, 255, 0))
    got = decode(encoded(cmyk, "TIFF"), 12)
    assert got.shape == (12, 12, 3) and (got[..., 0] > 200).all() and (got[..., 1:] < 50).all()
    assert decode(encoded(cmyk, "JPEG"), 12).shape == (12, 12, 3)


@pytest.mark.parametrize("channels", [1, 3])
def test_lab(channels):
    lab = Image.new("LAB", (12, 12), (255, 128, 128))
    assert (decode(encoded(lab, "TIFF"), 12, channels) > 240).all()


@pytest.mark.parametrize("orientation, turn", [(1, 0), (3, 2), (6, 3), (8, 1)])
def test_exif_rotation(orientation, turn):
    exif = Image.Exif()
    exif[0x0112] = orientation
    assert np.array_equal(decode(encoded(RGB, exif=exif), 12), np.rot90(RGB, turn))


@pytest.mark.parametrize("h, w", [(12, 31), (31, 12), (13, 16), (40, 41)])
def test_the_centre_is_kept(h, w):
    image = RNG.integers(0, 256, (h, w, 3), np.uint8)
    side = min(h, w)
    top, left = (h - side) // 2, (w - side) // 2
    square = image[top : top + side, left : left + side]
    assert np.array_equal(decode(encoded(image), side), square)
    small = decode(encoded(image), 6)
    want = np.asarray(Image.fromarray(square).resize((6, 6), Image.Resampling.LANCZOS))
    assert np.array_equal(small, want)
    assert decode(encoded(image), 64).shape == (64, 64, 3)


def test_floating_point_and_other_formats_are_refused():
    with pytest.raises(ValueError, match="floating-point"):
        decode(encoded(Image.fromarray(np.ones((4, 4), np.float32)), "TIFF"), 4)
    # EPS is a program: Pillow would start Ghostscript.
    with pytest.raises(ValueError, match="unknown format"):
        decode(encoded(RGB, "EPS"), 12)
    with pytest.raises(ValueError, match="unknown format"):
        decode(b"hello", 12)


def test_an_image_of_a_gigapixel_is_refused():
    raw = bytearray(encoded(Image.new("1", (8, 8))))
    raw[16:24] = (40_000).to_bytes(4, "big") * 2
    raw[29:33] = zlib.crc32(raw[12:29]).to_bytes(4, "big")
    with pytest.raises(ValueError, match="exceeds limit"):
        decode(bytes(raw), 8)


# -- a folder --------------------------------------------------------------------------------


@pytest.fixture
def folder(tmp_path):
    root = tmp_path / "my pictures"
    (root / "deep" / "er").mkdir(parents=True)
    for i in range(40):
        where = root / ("deep/er" if i % 3 == 0 else "deep" if i % 3 == 1 else "")
        (where / f"{i}.PNG").write_bytes(encoded(RNG.integers(0, 256, (9, 10 + i, 3), np.uint8)))
    (root / "notes.txt").write_text("not an image")
    (root / ".hidden.png").write_text("not an image")
    return root


def open_folder(root, split="train", size=8, **more):
    return load(f"folder:{root}", split, size=size, cache_dir=root.parent / "cache", **more)


def sets(root, **more):
    return [open_folder(root, split, **more) for split in ("train", "valid", "test")]


def test_all_images_once_and_the_cut_stays_as_images_come(folder):
    before = sets(folder)
    assert sum(map(len, before)) == 40 and len(before[0]) > 25
    rows = [{image.tobytes() for image in part.images} for part in before]
    assert len(set.union(*rows)) == 40
    for i in range(10):
        (folder / f"new{i}.png").write_bytes(encoded(RNG.integers(0, 256, (9, 9, 3), np.uint8)))
    # Copies under other names fall on the same side as what they were copied from.
    for i in range(1, 40, 3):
        (folder / f"copy{i}.png").write_bytes((folder / "deep" / f"{i}.PNG").read_bytes())
    parts = sets(folder)
    after = [{image.tobytes() for image in part.images} for part in parts]
    assert sum(map(len, parts)) == 63 and sum(map(len, after)) == 50
    for old, new in zip(rows, after, strict=True):
        assert old <= new
    assert before[0].labels is None


def test_val_is_valid_and_no_class(tmp_path):
    for part, n in (("train", 3), ("val", 2)):
        (tmp_path / "a" / part).mkdir(parents=True)
        for i in range(n):
            (tmp_path / "a" / part / f"{i}.png").write_bytes(
                encoded(np.full((8, 8, 3), i, np.uint8))
            )
    assert [len(open_folder(tmp_path / "a", part)) for part in ("train", "valid")] == [3, 2]
    with pytest.raises(DataError, match="has train, val but no test: name the one"):
        open_folder(tmp_path / "a", "test")
    (tmp_path / "a" / "test").mkdir()
    (tmp_path / "a" / "test" / "0.png").write_bytes(encoded(np.full((8, 8, 3), 9, np.uint8)))
    assert [len(part) for part in sets(tmp_path / "a")] == [3, 2, 1]


def test_own_parts_and_classes(tmp_path):
    root = tmp_path / "pets"
    for part, n in (("train", 4), ("test", 2), ("other", 3)):
        for kind in ("cat", "dog"):
            (root / part / kind).mkdir(parents=True)
            for i in range(n):
                image = np.full((8, 8, 3), 100 * (kind == "dog") + i, np.uint8)
                (root / part / kind / f"{i}.png").write_bytes(encoded(image))
    train, test = open_folder(root), open_folder(root, "test")
    assert (len(train), len(test)) == (8, 4) and train.names == ("cat", "dog")
    for part in (train, test):
        assert np.array_equal(part.labels, part.images[:, 0, 0, 0] >= 100)
    lacks = (
        r"no valid images \(it holds: test 4, train 8\); put .* into .*pets/valid, or .*--holdout"
    )
    with pytest.raises(DataError, match=lacks):
        open_folder(root, "valid")


def test_which_tenths_are_kept_out_never_changes():
    """Or a run that is resumed would be tested on what it has learned."""
    parts = [part_by_hash(b"%d" % i) for i in range(60)]
    assert [i for i in range(60) if parts[i] == "test"] == [0, 7, 9, 10, 33, 40, 44, 51, 57, 59]
    assert [i for i in range(60) if parts[i] == "valid"] == [14, 17, 26, 31]


def test_a_part_of_identical_pictures_needs_others(tmp_path):
    (tmp_path / "a").mkdir()
    for i in range(50):
        (tmp_path / "a" / f"{i}.png").write_bytes(encoded(RGB))
    with pytest.raises(DataError, match="a tenth .* identical ones together: .* different"):
        sets(tmp_path / "a")


def test_a_truncated_image_is_named_and_skipped_only_when_asked(folder):
    whole = encoded(RNG.integers(0, 256, (40, 40, 3), np.uint8), "JPEG")
    (folder / "broken.jpg").write_bytes(whole[: len(whole) // 2])
    (folder / "empty.png").write_bytes(b"")
    with pytest.raises(DataError, match=r"broken\.jpg: cannot be read.*truncated") as caught:
        open_folder(folder)
    (option,) = re.findall(r"--[\w-]+", str(caught.value))
    args = build_parser().parse_args(["train", "faces", option])
    assert args.skip_corrupt is True, "the message names an option there is"
    kept = sets(folder, on_corrupt="skip")
    assert sum(map(len, kept)) == 40 and kept[0].skipped == 2
    # The cache of the willing must not serve the strict.
    with pytest.raises(DataError, match=r"broken\.jpg and 1 more"):
        open_folder(folder)


def test_a_link_to_nowhere_and_a_file_one_may_not_read_are_skipped_too(folder):
    (folder / "gone.png").symlink_to(folder / "nowhere.png")
    with pytest.raises(DataError, match=r"gone\.png: No such file"):
        open_folder(folder)

    def refused(path, mode="rb"):
        if str(path).endswith("/7.PNG"):
            raise PermissionError(13, "Permission denied", str(path))
        return open(path, mode)

    with (
        mock.patch("glowlite.data.cache.open", refused, create=True),
        mock.patch("pathlib.Path.read_bytes", lambda path: refused(path).read()),
    ):
        kept = sets(folder, on_corrupt="skip")
    assert sum(map(len, kept)) == 39 and kept[0].skipped == 2
    # Readable again, with its size and time as they were, it is not passed over.
    assert sum(map(len, sets(folder, on_corrupt="skip"))) == 40


def test_size_must_be_said(folder):
    with pytest.raises(DataError, match="size must be given for a folder"):
        load(f"folder:{folder}", cache_dir=folder.parent)


def test_empty_missing_and_not_a_folder(tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "file.png").write_bytes(encoded(RGB))
    for name, words in (
        ("empty", "holds no image"),
        ("none", "not there"),
        ("file.png", "not a f"),
    ):
        with pytest.raises(DataError, match=words):
            open_folder(tmp_path / name)


def test_no_permission_on_an_image_or_a_sub_folder(folder):
    refusal = PermissionError(13, "Permission denied", "7.PNG")
    with mock.patch("pathlib.Path.read_bytes", side_effect=refusal):
        with pytest.raises(DataError, match="Permission denied"):
            open_folder(folder)
    with mock.patch("os.scandir", side_effect=PermissionError(13, "no", "deep")):
        with pytest.raises(DataError, match="no permission to use deep"):
            open_folder(folder)


def test_grey(folder):
    grey, colour = open_folder(folder, channels=1), open_folder(folder)
    assert grey.shape == (8, 8, 1) and colour.shape == (8, 8, 3)


# -- arrays ----------------------------------------------------------------------------------


def all_rows(name, cache, **more):
    found = []
    for split in ("train", "valid", "test"):
        try:
            found.append(load(name, split, cache_dir=cache, **more))
        except DataError as error:
            assert f"no {split} images" in str(error)
    return found


@pytest.mark.parametrize("shape", [(30, 7, 5, 3), (30, 7, 5), (30, 4, 6, 2), (30, 3, 4, 1)])
def test_npy_keeps_every_row(tmp_path, shape):
    array = RNG.integers(0, 256, shape, np.uint8)
    np.save(tmp_path / "x.npy", array)
    parts = all_rows(f"npy:{tmp_path}/x.npy", tmp_path)
    assert sum(map(len, parts)) == 30
    assert parts[0].shape == (*shape[1:], 1)[:3]
    assert {r.tobytes() for p in parts for r in p.images} == {r.tobytes() for r in array}


def test_npz_keys_labels_and_size(tmp_path):
    array, labels = RNG.integers(0, 256, (30, 8, 8, 3), np.uint8), np.arange(30)
    np.savez_compressed(
        tmp_path / "x.npz", images=array, labels=labels, other=array[:, :4], more=~array
    )
    whole = all_rows(f"npy:{tmp_path}/x.npz", tmp_path)
    for part in whole:
        assert np.array_equal(part.images, array[part.labels])
    for part in all_rows(f"npy:{tmp_path}/x.npz:more", tmp_path):
        assert np.array_equal(part.images, ~array[part.labels])  # not those of the other key
    parts = all_rows(f"npy:{tmp_path}/x.npz:other", tmp_path)
    assert parts[0].shape == (4, 8, 3)
    small = all_rows(f"npy:{tmp_path}/x.npz", tmp_path, size=4)
    assert small[0].shape == (4, 4, 3) and sum(map(len, small)) == 30
    for part, smaller in zip(whole, small, strict=True):
        assert np.array_equal(part.labels, smaller.labels)  # no image changes sides
    np.savez(tmp_path / "y.npz", alone=array)
    assert sum(map(len, all_rows(f"npy:{tmp_path}/y.npz", tmp_path))) == 30
    with pytest.raises(DataError, match="nothing"):
        load(f"npy:{tmp_path}/x.npz:nothing", cache_dir=tmp_path)


def test_npy_refusals(tmp_path):
    def refused(array, words, name="x.npy"):
        np.save(tmp_path / name, array, allow_pickle=True)
        with pytest.raises(DataError, match=words):
            load(f"npy:{tmp_path}/{name}", cache_dir=tmp_path)

    refused(np.zeros((4, 8, 8, 3)), "float64 .*expected uint8")
    refused(np.zeros((4, 8), np.uint8), "expected uint8")
    refused(np.zeros((4, 3, 8, 8), np.uint8), "channels first")
    refused(np.zeros((0, 8, 8, 3), np.uint8), "expected uint8")
    refused(np.array([{}]), "truncated or damaged")
    for more, words in (({"labels": np.ones(4)}, "4 integers"), ({}, "Fortran order")):
        order = "C" if more else "F"  # read in the wrong order it would be noise
        np.savez(tmp_path / "f.npz", images=np.zeros((4, 8, 8, 3), np.uint8, order), **more)
        with pytest.raises(DataError, match=words):
            load(f"npy:{tmp_path}/f.npz", cache_dir=tmp_path)
    np.save(tmp_path / "x.npy", np.zeros((4, 8, 8, 4), np.uint8))
    with pytest.raises(DataError, match="4 channels cannot be resized"):
        load(f"npy:{tmp_path}/x.npy", cache_dir=tmp_path, size=4)
    np.save(tmp_path / "x.npy", np.zeros((4, 8, 8, 3), np.uint8))
    raw = (tmp_path / "x.npy").read_bytes()
    (tmp_path / "x.npy").write_bytes(raw[:-10])
    with pytest.raises(DataError, match=r"x\.npy: truncated or damaged"):
        load(f"npy:{tmp_path}/x.npy", cache_dir=tmp_path)
    with pytest.raises(DataError, match="no file"):
        load(f"npy:{tmp_path}/y.npy", cache_dir=tmp_path)
    (tmp_path / "z.npz").write_bytes(b"PK nothing")
    with pytest.raises(DataError, match=r"z\.npz: truncated or not an npz"):
        load(f"npy:{tmp_path}/z.npz", cache_dir=tmp_path)


# -- the door --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name, more, words",
    [
        ("cifar100", {}, "unknown data set 'cifar100'; known are faces, cifar10"),
        ("folder:", {}, "unknown data set"),
        ("folder:PATH", {}, "unknown data set"),
        ("faces", {"split": "dev"}, "split must be one of train, fit, valid, test"),
        ("faces", {"on_corrupt": "ignore"}, "on_corrupt must be"),
        ("faces", {"channels": 1}, "channels must be 3"),
        ("folder:x", {"size": 0}, "size must be from 1"),
    ],
)
def test_bad_arguments(name, more, words):
    with pytest.raises(DataError, match=words):
        load(name, **more)
