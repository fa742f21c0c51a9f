"""What a reader of one file format hands to the cache: a description and a stream of rows."""

from __future__ import annotations

import hashlib
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from .errors import DataError
from .pixels import Crop, decode

PARTS = ("train", "valid", "test")


@dataclass(frozen=True)
class Options:
    """What the user asked for. `part` is the split's part of the files: train, valid or test."""

    name: str
    part: str
    data_dir: Path
    size: int | None
    channels: int
    download: bool
    progress: bool | None


@dataclass
class Row:
    """One image: uint8 (H, W, C) in `pixels`, or the `error` that there is instead."""

    name: str
    part: str
    pixels: np.ndarray | None = None
    label: int | None = None
    attributes: np.ndarray | None = None
    error: str | None = None


@dataclass(frozen=True)
class Source:
    """A data set on disk.

    files: (name within the set, path) of every file; their contents are the cache's key.
    recipe: all else that decides the pixels (JSON-able), the other part of the key.
    shape: (H, W, C). total: the number of rows, at most. rows: opens the stream.
    names: of the attributes where there are any, else of the classes.
    lacking: what helps where the part that was asked for holds no image.
    """

    files: tuple[tuple[str, Path], ...]
    recipe: dict
    shape: tuple[int, int, int]
    total: int
    rows: Callable[[], Iterator[Row]]
    names: tuple[str, ...] = ()
    lacking: str = "add more images"


# `lacking` of a set that is cut by `part_by_hash`.
TOO_FEW = (
    "by their content a tenth of the images is valid and a tenth test, identical ones together: "
    "add more images, different ones"
)


def part_by_hash(data: bytes) -> str:
    """A tenth of all images is `test`, a tenth `valid`, the rest `train`, decided by content.

    So the cut stays as it is when images are added, renamed or resized, and two copies of
    one image never land on both sides.
    """
    tenth = int.from_bytes(hashlib.sha256(data).digest()[:8], "big") % 10
    return {0: "test", 1: "valid"}.get(tenth, "train")


@dataclass(frozen=True)
class Job:
    """An image still to be decoded; where `part` is None, its content decides."""

    name: str
    read: Callable[[], bytes]
    part: str | None = None
    label: int | None = None
    attributes: np.ndarray | None = field(default=None, repr=False)


def decode_jobs(jobs: Iterable[Job], size: int, channels: int, crop: Crop = min) -> Iterator[Row]:
    """Decode in threads (Pillow lets go of the lock), in order, a few images ahead at most."""

    def work(job: Job) -> Row:
        row = Row(job.name, job.part or "train", label=job.label, attributes=job.attributes)
        try:
            data = job.read()
            row.part = job.part or part_by_hash(data)
            row.pixels = decode(data, size, channels, crop)
        except DataError:
            raise
        except OSError as error:
            row.error = error.strerror or str(error)
        except ValueError as error:
            row.error = str(error)
        return row

    workers = min(16, os.cpu_count() or 1)
    with ThreadPoolExecutor(workers) as pool:
        ahead: deque = deque()
        for job in jobs:
            ahead.append(pool.submit(work, job))
            if len(ahead) >= 8 * workers:
                yield ahead.popleft().result()
        while ahead:
            yield ahead.popleft().result()
