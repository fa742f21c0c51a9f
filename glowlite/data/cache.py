"""Decode once: one memory-mapped uint8 array a part, made atomically, found again by content.

A cache entry is a folder `NAME-KEY/` of `train.npy`, `train-labels.npy`, … and an `index.json`.

KEY is the SHA-256 of what decides the pixels: the recipe (size, crop, filter, …) and the contents
of every source file. Hashing 40 GB at each start would be a nuisance, so the content hash is noted
in `known/` under the files' paths, sizes and modification times; while these stay, the note
is believed. A file changed with its size and time in nanoseconds kept would go unnoticed.

The array is written with plain `write` and only read through a memory map: writing through a map
on a full disk kills the process (SIGBUS) where `write` raises an error one can handle.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import shutil
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from tqdm import tqdm

from glowlite._files import sync_folder, umask, write_atomically

from .errors import DataError, explain
from .source import Row, Source

# Part of every key: raise it when the decoding or the layout changes.
FORMAT = 1
_DAY = 24 * 3600


def entry(
    source: Source,
    home: Path,
    label: str,
    on_corrupt: str = "error",
    progress: bool | None = None,
) -> tuple[Path, dict]:
    """The cache entry of `source` under `home`, built if it is not there: (folder, index).

    Raises: DataError for unreadable sources, a corrupt image (unless `on_corrupt` is "skip"),
    a full disk, missing permission, a damaged entry.
    """
    try:
        (home / "known").mkdir(parents=True, exist_ok=True)
        content = content_digest(source.files, home / "known", progress, on_corrupt)
    except OSError as error:
        raise explain(error, error.filename or home) from error
    recipe = {"format": FORMAT, "shape": source.shape, "content": content, **source.recipe}
    key = hashlib.sha256(json.dumps(recipe, sort_keys=True).encode()).hexdigest()
    folder = home / f"{label}-{key[:16]}"
    if not (folder / "index.json").is_file():
        _build(source, folder, recipe, on_corrupt, progress)
    try:
        index = json.loads((folder / "index.json").read_text())
        skipped = index["skipped"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"the cache {folder} is damaged ({error}); delete it") from error
    if skipped and on_corrupt == "error":
        name, reason = skipped[0]
        more = len(skipped) - 1
        raise _corrupt(name, reason, f" and {more} more" if more else "")
    return folder, index


def open_array(path: Path) -> np.ndarray:
    """Memory-map a cached array for reading.

    Raises: DataError if it is missing or shorter than its header says.
    """
    try:
        return np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise DataError(
            f"the cache {path.parent} is damaged ({error}); delete that folder and run again"
        ) from error


def content_digest(
    files: Sequence[tuple[str, Path]],
    known: Path,
    progress: bool | None = None,
    on_corrupt: str = "error",
) -> str:
    """SHA-256 over the names and contents of `files`, remembered in `known`.

    With `on_corrupt` "skip" a file that cannot be read has a name and no contents.
    """
    stats = [(name, path, _stat(path, on_corrupt)) for name, path in files]
    note_key = hashlib.sha256()
    for name, path, stat in stats:
        what = f"{stat.st_size}\0{stat.st_mtime_ns}" if stat else "not there"
        note_key.update(os.fsencode(f"{name}\0{os.path.abspath(path)}\0{what}\n"))
    note = known / note_key.hexdigest()
    if note.is_file() and len(digest := note.read_text().strip()) == 64:
        return digest
    total, lasting = hashlib.sha256(), True
    size = sum(stat.st_size for *_, stat in stats if stat)
    # A bar only where there is something to wait for.
    disable = progress if progress is None else not progress
    with tqdm(
        total=size, desc="hashing", unit="B", unit_scale=True,
        disable=True if size < 2**28 else disable, leave=False,
    ) as bar:  # fmt: skip
        for name, path, stat in stats:
            try:
                with open(path, "rb") as file:
                    digest = hashlib.file_digest(file, "sha256").hexdigest()
            except OSError:
                if on_corrupt != "skip":
                    raise
                digest = "unreadable"
                # Were it allowed to be read, its size and time would not tell.
                lasting = lasting and stat is None
            total.update(os.fsencode(f"{name}\0{digest}\n"))
            bar.update(stat.st_size if stat else 0)
    if lasting:
        write_atomically(note, lambda p: p.write_text(total.hexdigest()))
    return total.hexdigest()


def _stat(path: Path, on_corrupt: str) -> os.stat_result | None:
    """None of a link that leads nowhere, where such files are to be skipped."""
    try:
        return os.stat(path)
    except OSError:
        if on_corrupt != "skip":
            raise
        return None


def _build(
    source: Source, folder: Path, recipe: dict, on_corrupt: str, progress: bool | None
) -> None:
    home = folder.parent
    _sweep(home)
    need = source.total * int(np.prod(source.shape))
    free = shutil.disk_usage(home).free
    if need > free:
        raise DataError(
            f"the cache needs {need / 1e6:.0f} MB and the disk that holds {home} has "
            f"{free / 1e6:.0f} MB free; name another place with cache_dir (--cache-dir)"
        )
    try:
        with tempfile.TemporaryDirectory(prefix=".building-", dir=home) as temporary:
            index = _write(source, Path(temporary), on_corrupt, progress)
            index["recipe"] = recipe
            text = json.dumps(index, indent=1)
            write_atomically(Path(temporary, "index.json"), lambda p: p.write_text(text))
            os.chmod(temporary, 0o777 & ~umask())  # made for its owner alone
            try:
                os.replace(temporary, folder)
            except OSError as error:
                # Another process was faster; the same key means the same bytes.
                if not (folder / "index.json").is_file():
                    if folder.exists():
                        raise DataError(f"the cache {folder} is damaged; delete it") from error
                    raise
            sync_folder(home)
    except OSError as error:
        raise explain(error, home) from error


def _write(source: Source, folder: Path, on_corrupt: str, progress: bool | None) -> dict:
    writers: dict[str, _PartWriter] = {}
    skipped: list[tuple[str, str]] = []
    disable = progress if progress is None else not progress
    rows = source.rows()
    try:
        for row in tqdm(rows, total=source.total, desc="decoding", unit="img", disable=disable):
            if row.error is not None:
                if on_corrupt == "error":
                    raise _corrupt(row.name, row.error)
                skipped.append((row.name, row.error))
                continue
            if row.part not in writers:
                writers[row.part] = _PartWriter(folder / row.part, source.shape, source.total)
            writers[row.part].add(row)
        parts = {part: writer.finish() for part, writer in writers.items()}
    finally:
        if hasattr(rows, "close"):
            rows.close()
        for writer in writers.values():
            writer.file.close()
    return {"parts": parts, "skipped": skipped, "names": list(source.names)}


class _PartWriter:
    """Appends images to `PATH.npy`; the header is written again at the end with the true count."""

    def __init__(self, path: Path, shape: tuple[int, int, int], most: int) -> None:
        self.path, self.shape = path, tuple(shape)
        self.file = open(f"{path}.npy", "wb")
        self.header_length = len(self._header(most))
        self.file.write(bytes(self.header_length))
        self.hash = hashlib.sha256(repr(self.shape).encode())
        self.count = 0
        self.labels: list[int] = []
        self.attributes: list[np.ndarray] = []

    def _header(self, count: int) -> bytes:
        # NumPy pads the header so that the first axis may grow to any length.
        out = io.BytesIO()
        np.lib.format.write_array_header_1_0(
            out, {"descr": "|u1", "fortran_order": False, "shape": (count, *self.shape)}
        )
        return out.getvalue()

    def add(self, row: Row) -> None:
        pixels = np.ascontiguousarray(row.pixels)
        if pixels.dtype != np.uint8 or pixels.shape != self.shape:
            raise DataError(
                f"{row.name}: {pixels.dtype} {pixels.shape}, expected uint8 {self.shape}"
            )
        self.file.write(pixels)
        self.hash.update(pixels)
        self.count += 1
        if row.label is not None:
            self.labels.append(row.label)
        if row.attributes is not None:
            self.attributes.append(row.attributes)

    def finish(self) -> dict:
        header = self._header(self.count)
        if len(header) != self.header_length:
            raise RuntimeError("NumPy's header changed its length with the count")
        self.file.seek(0)
        self.file.write(header)
        self.file.flush()
        os.fsync(self.file.fileno())
        self.file.close()
        if self.labels:
            self._save("labels", np.array(self.labels, np.int64))
        if self.attributes:
            self._save("attributes", np.array(self.attributes, bool))
        return {"count": self.count, "fingerprint": self.hash.hexdigest()}

    def _save(self, what: str, values: np.ndarray) -> None:
        if len(values) != self.count:
            raise DataError(f"{self.path.name}: {len(values)} {what} for {self.count} images")
        # They describe the images, so they belong to the fingerprint.
        self.hash.update(values)
        out = io.BytesIO()
        np.lib.format.write_array(out, values, allow_pickle=False)
        with open(f"{self.path}-{what}.npy", "wb") as file:
            file.write(out.getvalue())
            file.flush()
            os.fsync(file.fileno())


def _corrupt(name: str, reason: str, more: str = "") -> DataError:
    return DataError(
        f"{name}{more}: cannot be read as an image ({reason}). Repair or remove it, or leave out "
        "such images with on_corrupt='skip' (--skip-corrupt)"
    )


def _sweep(home: Path) -> None:
    """Remove what a killed process left; a day old, so that nothing at work is hit."""
    for left in home.glob(".building-*"):
        if time.time() - left.stat().st_mtime > _DAY:
            shutil.rmtree(left, ignore_errors=True)
