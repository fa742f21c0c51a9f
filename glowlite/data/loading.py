"""`load`: one door to every data set."""

from __future__ import annotations

import hashlib
import os
import re
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path

import numpy as np

from .cache import entry, open_array
from .errors import DataError, explain
from .source import Options

#: Data set -> the module that reads it.
SETS = {
    "faces": "drawn",
    "cifar10": "cifar10",
    "celeba": "celeba",
    "imagenet32": "imagenet",
    "imagenet64": "imagenet",
    "lsun-bedroom": "lsun",
    "lsun-tower": "lsun",
    "lsun-church_outdoor": "lsun",
    "folder:PATH": "folder",
    "npy:PATH": "npy",
}
SPLITS = ("train", "fit", "valid", "test")
# Their files have no validation part: the last tenth of the training part serves.
_LAST_TENTH = ("drawn", "cifar10", "imagenet", "lsun")
_ANY_CHANNELS = ("celeba", "lsun", "folder")


@dataclass(frozen=True)
class ImageSet:
    """A split of a data set, ready to train on.

    images: uint8 (N, H, W, C), memory-mapped, read-only: rows come into memory when used.
    labels: int64 (N,), classes from 0, or None. attributes: bool (N, A) or None.
    names: of the A attributes where there are any, else of the classes (may be empty).
    name, split: as asked for. fingerprint: SHA-256 of the pixels, labels and attributes, the
    same by whatever way they were read. skipped: corrupt images left out of the whole set.
    """

    images: np.ndarray
    labels: np.ndarray | None
    attributes: np.ndarray | None
    names: tuple[str, ...]
    name: str
    split: str
    fingerprint: str
    skipped: int = 0

    def __len__(self) -> int:
        return len(self.images)

    @property
    def shape(self) -> tuple[int, int, int]:
        """(H, W, C)."""
        return self.images.shape[1:]

    @property
    def classes(self) -> tuple[str, ...]:
        """The names of the classes, by number; none where they are numbers only."""
        return self.names if self.labels is not None and self.attributes is None else ()


def load(
    name: str,
    split: str = "train",
    *,
    data_dir: str | Path | None = None,
    size: int | None = None,
    channels: int = 3,
    cache_dir: str | Path | None = None,
    download: bool = False,
    on_corrupt: str = "error",
    progress: bool | None = None,
) -> ImageSet:
    """Open a data set in its original format; decode it once, then memory-map it.

    name: one of `SETS`, with a path after `folder:` or `npy:`.
    split: `train` and `test` share no image. For tuning, never the test part: `valid`, and
        `fit` to go with it, which is `train` without `valid`. In cifar10 `valid` is the
        last 5,000 training images; likewise the last tenth in faces, imagenet and lsun. celeba
        has a part of its own, and folders and arrays a tenth (cut by content), so that
        there `train` and `fit` are the same.
    data_dir: where the original files are; else `default_cache()/downloads/NAME`.
    size: side in pixels. faces 16, 32 (default), 64; celeba and lsun 64 by default; a folder has
        none; an array keeps its own.
    channels: 3, or 1 for grey (celeba, lsun, folders).
    cache_dir: where decoded pixels are kept, else `default_cache()`.
    download: fetch the files if they are missing and their owner allows it.
    on_corrupt: "error", or "skip" to leave out single images that cannot be read or decoded. A
        damaged archive or array is always an error.
    progress: show bars; None shows them on a terminal.

    Checksums: CIFAR-10's files must have their published MD5s, downloaded or not. Files of the
    other sets, CelebA's among them, are taken as they are; `fingerprint` says which pixels they
    held, and a run does not resume on others.

    Cost: the first time, one pass over all source files; later, their names, sizes and times.

    Raises: DataError, in a line or two: an unknown name, missing files and how to get them, a
    wrong checksum, damaged files, an empty folder, a full disk, no permission.
    """
    module = _module(name)
    if split not in SPLITS:
        raise DataError(f"split must be one of {', '.join(SPLITS)}, not {split!r}")
    if on_corrupt not in ("error", "skip"):
        raise DataError(f"on_corrupt must be 'error' or 'skip', not {on_corrupt!r}")
    if size is not None and not 1 <= size <= 4096:
        raise DataError(f"size must be from 1 to 4096 pixels, not {size}")
    if channels not in (1, 3) or (channels == 1 and not can_be_grey(name)):
        raise DataError(f"channels must be 3 (or 1 for images in files), not {channels} for {name}")
    cache = Path(cache_dir).expanduser() if cache_dir else default_cache()
    data_dir = Path(data_dir).expanduser() if data_dir else cache / "downloads" / name
    last_tenth = module in _LAST_TENTH
    part = "test" if split == "test" else "valid" if split == "valid" else "train"
    files_part = "train" if last_tenth and part == "valid" else part
    options = Options(name, files_part, data_dir, size, channels, download, progress)
    try:
        source = import_module(f"{__package__}.{module}").source(options)
    except OSError as error:
        raise explain(error, data_dir) from error
    short = re.sub(r"[^\w.-]+", "-", name.partition(":")[0])
    label = f"{short}-{files_part}" if last_tenth else short
    folder, index = entry(source, cache, label, on_corrupt, progress)
    found = index["parts"].get(files_part)
    if found is None:
        counts = ", ".join(f"{p} {v['count']}" for p, v in index["parts"].items()) or "nothing"
        raise DataError(f"{name} has no {split} images (it holds: {counts}); {source.lacking}")
    rows, fingerprint = slice(None), found["fingerprint"]
    if last_tenth and split in ("fit", "valid"):
        cut = found["count"] - found["count"] // 10
        rows = slice(None, cut) if split == "fit" else slice(cut, None)
        fingerprint = hashlib.sha256(f"{fingerprint} {split}".encode()).hexdigest()

    def read(what: str = "") -> np.ndarray | None:
        path = folder / f"{files_part}{what}.npy"
        return open_array(path)[rows] if not what or path.is_file() else None

    images = read()
    if len(open_array(folder / f"{files_part}.npy")) != found["count"] or not len(images):
        raise DataError(f"{name}: the {split} split is empty or the cache {folder} is damaged")
    return ImageSet(
        images, read("-labels"), read("-attributes"), tuple(index["names"]), name, split,
        fingerprint, len(index["skipped"]),
    )  # fmt: skip


def can_be_grey(name: str) -> bool:
    """Whether `load` takes channels=1 for it. Raises: DataError, an unknown name."""
    return _module(name) in _ANY_CHANNELS


def default_cache() -> Path:
    """$GLOWLITE_CACHE, else the operating system's folder for caches."""
    if path := os.environ.get("GLOWLITE_CACHE"):
        return Path(path).expanduser()
    import pooch

    return Path(pooch.os_cache("glowlite"))


def _module(name: str) -> str:
    kind, colon, path = name.partition(":")
    known = SETS.get(f"{kind}:PATH" if colon and path else name)
    if known is None or name.endswith(":PATH"):
        raise DataError(f"unknown data set {name!r}; known are {', '.join(SETS)}")
    return known
