"""LSUN scenes (Yu et al. 2015): one lmdb a category and part, its values image files.

The centred square is resized to 64 (or `size`). `test` is the owners' validation lmdb of 300
images, on which bits/dim are quoted.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from .download import missing
from .errors import DataError
from .source import Job, Options, Row, Source, decode_jobs


def source(options: Options) -> Source:
    """All images of one category's training or validation database."""
    size = options.size or 64
    category = options.name.removeprefix("lsun-")
    folder = f"{category}_{'val' if options.part == 'test' else 'train'}_lmdb"
    path = options.data_dir / folder
    if not (path / "data.mdb").is_file():
        raise missing(options.name, f"{folder}/data.mdb", options.data_dir)

    def rows() -> Iterator[Row]:
        with _open(path) as database, database.begin(buffers=False) as transaction:
            jobs = (
                Job(f"{folder}[{key.decode('latin-1')}]", lambda value=value: value, options.part)
                for key, value in transaction.cursor()
            )
            yield from decode_jobs(jobs, size, options.channels)

    with _open(path) as database:
        total = database.stat()["entries"]
    recipe = {"set": options.name, "part": options.part, "crop": "square", "filter": "lanczos"}
    files = ((f"{folder}/data.mdb", path / "data.mdb"),)
    return Source(files, recipe, (size, size, options.channels), total, rows)


def _open(path: Path):
    try:
        import lmdb
    except ImportError as error:
        raise DataError(
            "LSUN's files need the package lmdb: pip install 'glow-course[lsun]' (or lmdb)"
        ) from error
    try:
        database = lmdb.open(str(path), readonly=True, lock=False, max_readers=1)
    except lmdb.Error as error:
        raise DataError(f"{path}: truncated or damaged lmdb ({error})") from error
    # lmdb reads through a memory map: a page beyond the file's end would kill the process.
    need = (database.info()["last_pgno"] + 1) * database.stat()["psize"]
    have = (path / "data.mdb").stat().st_size
    if have < need:
        database.close()
        raise DataError(f"{path}: truncated lmdb, {have} bytes of at least {need}")
    return database
