"""`npy:PATH`: images one already has as an array, uint8 (N, H, W, C) or (N, H, W).

PATH is an `.npy` file, or an `.npz` with one array or one called `images` (another by
`npy:PATH.npz:KEY`); an array `labels` of N integers in the same npz is taken as classes.
"""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from PIL import Image

from .errors import DataError, explain
from .pixels import square
from .source import TOO_FEW, Options, Row, Source, part_by_hash

_BLOCK_BYTES = 2**24


def source(options: Options) -> Source:
    """The array's rows, cropped and resized only where a size is given that they do not have."""
    path, key = _path_and_key(options.name.removeprefix("npy:"))
    labels = None
    if path.suffix == ".npz":
        members = npz_members(path)
        key = key or ("images" if "images" in members or len(members) != 1 else members[0])
        if "labels" in members and key != "labels":
            labels = read_npz_array(path, "labels")
    shape, dtype = _head(path, key)
    if dtype != np.uint8 or len(shape) not in (3, 4) or 0 in shape:
        raise DataError(f"{path}: {dtype} {shape}; expected uint8 (N, H, W, C) or (N, H, W)")
    n, h, w, c = (*shape, 1) if len(shape) == 3 else shape
    if h in (1, 3) and c not in (1, 2, 3, 4):
        raise DataError(f"{path}: {shape} has the channels first; write it as (N, H, W, C)")
    if labels is not None and (labels.shape != (n,) or labels.dtype.kind not in "iu"):
        raise DataError(f"{path}: labels are {labels.dtype} {labels.shape}; expected {n} integers")
    size = options.size
    resize = size is not None and (h, w) != (size, size)
    if resize and c not in (1, 3):
        raise DataError(f"{path}: {c} channels cannot be resized; leave size out")

    def rows() -> Iterator[Row]:
        i = 0
        for block in _blocks(path, key):
            for image in block.reshape(-1, h, w, c):
                part = part_by_hash(image.tobytes())
                if resize:
                    image = square(Image.fromarray(image[..., 0] if c == 1 else image), size)
                yield Row(f"{path}[{i}]", part, image, None if labels is None else int(labels[i]))
                i += 1

    shape = (size, size, c) if resize else (h, w, c)
    recipe = {"set": "npy", "key": key}
    return Source(((path.name, path),), recipe, shape, n, rows, lacking=TOO_FEW)


def npz_members(path: Path) -> list[str]:
    """The names of the arrays in an npz file. Raises: DataError if it is not one."""
    try:
        with zipfile.ZipFile(path) as archive:
            return [name[:-4] for name in archive.namelist() if name.endswith(".npy")]
    except zipfile.BadZipFile as error:
        raise DataError(f"{path}: truncated or not an npz archive ({error})") from error
    except OSError as error:
        raise explain(error, path) from error


def read_npz_array(path: Path, key: str) -> np.ndarray:
    """One whole (small) array of an npz file."""
    with _errors(path), np.load(path, allow_pickle=False) as archive:
        return archive[key]


def npz_head(path: Path, key: str) -> tuple[tuple[int, ...], np.dtype]:
    """Shape and dtype of an array in an npz file, without reading it."""
    with _errors(path), zipfile.ZipFile(path) as archive, archive.open(f"{key}.npy") as file:
        return _array_header(file)


def npz_blocks(path: Path, key: str) -> Iterator[np.ndarray]:
    """The rows of an array in an npz file, some at a time: a batch of ImageNet 64 has 1.6 GB."""
    with _errors(path), zipfile.ZipFile(path) as archive, archive.open(f"{key}.npy") as file:
        shape, dtype = _array_header(file)
        row = int(np.prod(shape[1:])) * dtype.itemsize
        step = max(1, _BLOCK_BYTES // row)
        for start in range(0, shape[0], step):
            count = min(step, shape[0] - start)
            data = file.read(count * row)
            if len(data) != count * row:
                raise EOFError(f"{key} ends after {start} of {shape[0]} rows")
            yield np.frombuffer(data, dtype).reshape(count, *shape[1:])
        file.read(1)  # the end, where the zip's own checksum is compared


def _array_header(file) -> tuple[tuple[int, ...], np.dtype]:
    version = np.lib.format.read_magic(file)
    read = {
        (1, 0): np.lib.format.read_array_header_1_0,
        (2, 0): np.lib.format.read_array_header_2_0,
    }[version]
    shape, fortran, dtype = read(file)
    if fortran or dtype.hasobject:
        raise ValueError("Fortran order" if fortran else "Python objects, which are not read")
    return shape, dtype


def _path_and_key(text: str) -> tuple[Path, str | None]:
    path, colon, key = text.rpartition(".npz:")
    path = Path(f"{path}.npz" if colon else text).expanduser()
    if not path.is_file():
        raise DataError(f"npy: no file {path}")
    if path.suffix not in (".npy", ".npz"):
        raise DataError(f"{path}: expected a name that ends in .npy or .npz")
    return path, key if colon else None


def _head(path: Path, key: str | None) -> tuple[tuple[int, ...], np.dtype]:
    if key is not None:
        return npz_head(path, key)
    with _errors(path):
        array = np.load(path, mmap_mode="r", allow_pickle=False)
        return array.shape, array.dtype


def _blocks(path: Path, key: str | None) -> Iterator[np.ndarray]:
    if key is not None:
        yield from npz_blocks(path, key)
        return
    with _errors(path):
        array = np.load(path, mmap_mode="r", allow_pickle=False)
        for start in range(0, len(array), 256):
            yield np.ascontiguousarray(array[start : start + 256])


@contextmanager
def _errors(path: Path) -> Iterator[None]:
    """What zipfile and NumPy raise on a damaged file, as a DataError that names it."""
    try:
        yield
    except DataError:
        raise
    except PermissionError as error:
        raise explain(error, path) from error
    except KeyError as error:
        raise DataError(f"{path}: {error.args[0]}") from error
    except (ValueError, EOFError, OSError, zipfile.BadZipFile, zlib.error) as error:
        raise DataError(f"{path}: truncated or damaged array ({error})") from error
