"""The embedded faces as a data set: 20,000 to learn from, 2,000 to test on, drawn once."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from . import _draw, _face, faces
from .errors import DataError
from .source import Options, Row, Source

COUNTS = {"train": 20_000, "test": 2_000}
SEED = 0


def source(options: Options) -> Source:
    """Faces 0, 1, … of the stream (seed 0, part); the attributes are the truth."""
    size = options.size or 32
    if size not in faces.SIZES:
        raise DataError(f"size must be one of {faces.SIZES} for faces, not {size}")
    total = COUNTS[options.part]

    def rows() -> Iterator[Row]:
        for start in range(0, total, 256):
            count = min(256, total - start)
            images, truth = faces.make_faces(count, size, SEED, options.part, start)
            for i in range(count):
                name = f"face {start + i}"
                yield Row(name, options.part, images[i], attributes=truth[i])

    # Drawn otherwise, they are other faces: the drawing code is the content.
    code = [Path(module.__file__) for module in (_draw, _face, faces)]
    files = tuple((path.name, path) for path in code)
    recipe = {"set": "faces", "part": options.part, "count": total, "seed": SEED}
    return Source(files, recipe, (size, size, 3), total, rows, faces.ATTRIBUTES)
