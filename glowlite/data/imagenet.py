"""ImageNet at 32×32 and 64×64 (Chrabaszcz et al. 2017): the npz batches.

`train_data_batch_1.npz` … `_10.npz` and `val_data.npz`, each with `data`, uint8 (N, 3·s·s), red
before green before blue, `labels` from 1 to 1000 and `mean` (not used). The validation images
are the test part, as in the literature.

Figures of the paper's time were measured on an older downsampled version (PNG files, since
withdrawn), whose filter was another: bits/dim on the two cannot be compared. `folder:PATH` reads
the older one.
"""

from __future__ import annotations

import zipfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from .download import missing
from .errors import DataError
from .npy import npz_blocks, npz_head, read_npz_array
from .source import Options, Row, Source

TRAIN = tuple(f"train_data_batch_{i}" for i in range(1, 11))


def source(options: Options) -> Source:
    """The training batches, or the validation images as the test part."""
    side = int(options.name.removeprefix("imagenet"))
    if options.size not in (None, side):
        raise DataError(f"size must be {side} for {options.name}, not {options.size}")
    batches = ("val_data",) if options.part == "test" else TRAIN
    files = {f"{batch}.npz": _find(options, batch) for batch in batches}
    total = sum(_count(path, side) for path in files.values())

    def rows() -> Iterator[Row]:
        for path in files.values():
            labels = read_npz_array(path, "labels").astype(np.int64).ravel() - 1
            if len(labels) != _count(path, side):
                raise DataError(f"{path}: {len(labels)} labels for {_count(path, side)} images")
            i = 0
            for block in npz_blocks(path, "data"):
                images = block.reshape(-1, 3, side, side).transpose(0, 2, 3, 1)
                for image in np.ascontiguousarray(images):
                    yield Row(f"{path.name}[{i}]", options.part, image, int(labels[i]))
                    i += 1

    recipe = {"set": options.name, "part": options.part}
    return Source(tuple(files.items()), recipe, (side, side, 3), total, rows)


def _find(options: Options, batch: str) -> Path:
    for name in (f"{batch}.npz", batch):
        for path in (options.data_dir / name, *sorted(options.data_dir.glob(f"*/{name}"))):
            if path.is_file():
                if not zipfile.is_zipfile(path):
                    raise DataError(
                        f"{path}: truncated, or the pickled version of the set, which is not read "
                        "because a pickle can run code; take the npz version"
                    )
                return path
    raise missing(options.name, f"{batch}.npz", options.data_dir)


def _count(path: Path, side: int) -> int:
    shape, dtype = npz_head(path, "data")
    if dtype != np.uint8 or shape[1:] != (3 * side * side,):
        raise DataError(f"{path}: {dtype} {shape}; expected uint8 (N, {3 * side * side})")
    return shape[0]
