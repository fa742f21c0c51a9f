"""CIFAR-10 (Krizhevsky 2009): the original batches of the python version, or their tar.gz.

Each batch is a pickled dictionary; `safe_pickle` reads it, so that no file can run code.
"""

from __future__ import annotations

import hashlib
import tarfile
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from . import safe_pickle
from .download import REMOTES, fetch, missing
from .errors import DataError, explain
from .source import Options, Row, Source

FOLDER = "cifar-10-batches-py"
TRAIN = tuple(f"data_batch_{i}" for i in range(1, 6))
#: Published with the files.
MD5 = {
    "data_batch_1": "c99cafc152244af753f735de768cd75f",
    "data_batch_2": "d4bba439e000b95fd0a9bffe97cbabec",
    "data_batch_3": "54ebc095f3ab1f0389bbae665268c751",
    "data_batch_4": "634d18415352ddfa80567beed471001a",
    "data_batch_5": "482c414d41f54cd18b22e5b47cb7c3cb",
    "test_batch": "40351d587109b95175f43aff81a1287e",
}
CLASSES = (
    "airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck",
)  # fmt: skip
PER_BATCH = 10_000


def source(options: Options) -> Source:
    """The training or the test batches, as rows of 32×32×3."""
    if options.size not in (None, 32):
        raise DataError(f"size must be 32 for cifar10, not {options.size}")
    batches = ("test_batch",) if options.part == "test" else TRAIN
    files = _find(options, batches)

    def rows() -> Iterator[Row]:
        for batch in batches:
            yield from _rows(batch, _read(batch, files), options.part)

    return Source(
        tuple(files.items()), {"set": "cifar10", "part": options.part}, (32, 32, 3),
        PER_BATCH * len(batches), rows, CLASSES,
    )  # fmt: skip


def _find(options: Options, batches: tuple[str, ...]) -> dict[str, Path]:
    """Name -> path: of the batches, else of the archive."""
    archive = REMOTES["cifar10"].file
    for folder in (options.data_dir, options.data_dir / FOLDER):
        if all((folder / batch).is_file() for batch in batches):
            return {batch: folder / batch for batch in batches}
    if not (options.data_dir / archive).is_file():
        if not options.download:
            folder = options.data_dir / FOLDER
            lost = next((b for b in batches if not (folder / b).is_file()), batches[0])
            raise missing("cifar10", f"{FOLDER}/{lost} or {archive}", options.data_dir)
        fetch("cifar10", options.data_dir, options.progress)
    return {archive: options.data_dir / archive}


def _read(batch: str, files: dict[str, Path]) -> bytes:
    """One batch's bytes, with the published checksum verified."""
    path = files.get(batch)
    try:
        if path is not None:
            if path.stat().st_size > safe_pickle.MAX_BYTES:
                raise DataError(f"{path}: too long for a batch of CIFAR-10")
            data = path.read_bytes()
        else:
            path = files[REMOTES["cifar10"].file]
            if batch in (TRAIN[0], "test_batch"):
                with open(path, "rb") as file:
                    found = hashlib.file_digest(file, "md5").hexdigest()
                check(path, found, REMOTES["cifar10"].md5)
            data = _from_archive(path, batch)
            path = path / batch
    except OSError as error:
        raise explain(error, path) from error
    check(path, hashlib.md5(data).hexdigest(), MD5[batch])
    return data


def check(path: Path, found: str, published: str) -> None:
    """Compare checksums, both MD5 in hexadecimal. Raises: DataError with both."""
    if found != published:
        raise DataError(
            f"{path}: wrong checksum, MD5 {found} where {published} is published. "
            "The file is damaged or another: fetch it again"
        )


def _from_archive(path: Path, batch: str) -> bytes:
    # A member's bytes are read by its exact name and never extracted, so no path can escape.
    wanted = f"{FOLDER}/{batch}"
    try:
        with tarfile.open(path, "r:gz") as archive:
            for member in archive:
                fits = member.isreg() and member.size <= safe_pickle.MAX_BYTES
                if member.name == wanted and fits:
                    return archive.extractfile(member).read()
    except (tarfile.TarError, EOFError, zlib.error, OSError) as error:
        raise DataError(f"{path}: truncated or damaged archive ({error})") from error
    raise DataError(f"{path}: the archive has no {wanted}")


def _rows(batch: str, data: bytes, part: str) -> Iterator[Row]:
    try:
        content = safe_pickle.read(data)
        pixels, labels = content["data"], content["labels"]
        # Row by row: 1024 red, 1024 green, 1024 blue.
        images = pixels.reshape(len(labels), 3, 32, 32).transpose(0, 2, 3, 1)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(f"{batch}: not a batch of CIFAR-10 ({error})") from error
    for i, (image, label) in enumerate(zip(np.ascontiguousarray(images), labels, strict=True)):
        yield Row(f"{batch}[{i}]", part, image, label)
