"""CelebA (Liu et al. 2015): aligned faces, 40 attributes, the owners' partition.

The crop: the centred square of side 148/178 of the width, which in the original 178×218 images is
148×148 and shows the face without most of the background; then resized.
"""

from __future__ import annotations

import os
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import numpy as np

from .download import missing
from .errors import DataError
from .source import PARTS, TOO_FEW, Job, Options, Row, Source, decode_jobs

IMAGES = "img_align_celeba"
ATTRIBUTES = "list_attr_celeba.txt"
PARTITION = "list_eval_partition.txt"


def crop(w: int, h: int) -> int:
    """The side of the square that is kept.

    >>> crop(178, 218), crop(89, 109)
    (148, 74)
    """
    return min(round(w * 148 / 178), w, h)


def source(options: Options) -> Source:
    """All images the attribute file lists, each row with its part.

    Where the partition file knows training rows only (as a sample of the set may), the parts
    are cut by the images' content: a tenth valid, a tenth test.
    """
    size = options.size or 64
    data_dir = options.data_dir
    attributes_file = _text_file(options, ATTRIBUTES, "Anno")
    partition_file = _text_file(options, PARTITION, "Eval")
    columns, attributes = read_attributes(attributes_file)
    partition = read_partition(partition_file)
    cut_by_hash = set(partition.values()) == {0}
    images, archive = data_dir / IMAGES, data_dir / f"{IMAGES}.zip"
    if images.is_dir():
        present = {entry.name for entry in os.scandir(images)}
        files = tuple((name, images / name) for name in attributes if name in present)
        opener = partial(_folder, images)
    elif archive.is_file():
        files, opener = ((archive.name, archive),), partial(_zip, archive)
    else:
        raise missing("celeba", f"folder {IMAGES}/ or {IMAGES}.zip", data_dir)
    if not files:
        raise DataError(f"{images}: holds none of the images {attributes_file} lists")

    def rows() -> Iterator[Row]:
        with opener() as read:
            jobs = (
                Job(
                    f"{IMAGES}/{name}",
                    lambda name=name: read(name),
                    None if cut_by_hash else PARTS[partition.get(name, 0)],
                    attributes=values,
                )
                for name, values in attributes.items()
            )
            yield from decode_jobs(jobs, size, options.channels, crop)

    recipe = {"set": "celeba", "crop": "148/178 of the width", "filter": "lanczos"}
    texts = ((ATTRIBUTES, attributes_file), (PARTITION, partition_file))
    shape = (size, size, options.channels)
    lacking = TOO_FEW if cut_by_hash else Source.lacking
    return Source(files + texts, recipe, shape, len(attributes), rows, columns, lacking)


def _text_file(options: Options, name: str, subfolder: str) -> Path:
    for folder in (options.data_dir, options.data_dir / subfolder):
        if (folder / name).is_file():
            return folder / name
    raise missing("celeba", name, options.data_dir)


def read_attributes(path: Path) -> tuple[tuple[str, ...], dict[str, np.ndarray]]:
    """The names of the columns, and file name -> bool (columns,).

    The format: a line with the count, a line of names, then `000001.jpg -1  1 …`.

    Raises: DataError naming the line that is wrong.
    """
    lines = _lines(path)
    names = tuple(lines[1].split()) if len(lines) > 1 else ()
    if not names or not lines[0].strip().isdigit():
        raise DataError(f"{path}: expected a count and a line of names")
    rows = {}
    for number, line in enumerate(lines[2:], 3):
        file, *values = line.split() or [""]
        if len(values) != len(names) or not set(values) <= {"1", "-1"} or _strange(file):
            raise DataError(f"{path}, line {number}: expected a file name and {len(names)} of ±1")
        rows[file] = np.array([value == "1" for value in values])
    if len(rows) != int(lines[0]):
        raise DataError(f"{path}: {len(rows)} rows where the first line says {int(lines[0])}")
    return names, rows


def read_partition(path: Path) -> dict[str, int]:
    """File name -> 0 train, 1 valid, 2 test. Raises: DataError naming the line that is wrong."""
    rows = {}
    for number, line in enumerate(_lines(path), 1):
        words = line.split()
        if len(words) != 2 or words[1] not in ("0", "1", "2"):
            raise DataError(f"{path}, line {number}: expected a file name and 0, 1 or 2")
        rows[words[0]] = int(words[1])
    return rows


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="ascii").splitlines()
    except ValueError as error:
        raise DataError(f"{path}: not a plain text file") from error


def _strange(file: str) -> bool:
    # The list decides which files are opened: names only, no paths.
    return "/" in file or "\\" in file or file in (".", "..")


@contextmanager
def _folder(path: Path) -> Iterator[Callable[[str], bytes]]:
    yield lambda name: (path / name).read_bytes()


@contextmanager
def _zip(path: Path) -> Iterator[Callable[[str], bytes]]:
    try:
        archive = zipfile.ZipFile(path)
    except zipfile.BadZipFile as error:
        raise DataError(f"{path}: truncated or damaged archive ({error})") from error

    def read(name: str) -> bytes:
        try:
            return archive.read(f"{IMAGES}/{name}")
        except (KeyError, zipfile.BadZipFile, zlib.error, EOFError) as error:
            raise ValueError(f"in {path}: {error}") from error

    with archive:
        yield read
