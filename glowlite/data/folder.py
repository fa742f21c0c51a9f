"""`folder:PATH`: any images, in any sizes and modes, in any depth of sub-folders.

Sub-folders `train` and `test`, or `valid` (`val`), or all three, are the parts; else a tenth of the
images, by content, is the test part and a tenth `valid`. If the images lie in two or more
sub-folders (below these), the sub-folders are the classes.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from .errors import DataError, explain
from .pixels import SUFFIXES
from .source import PARTS, TOO_FEW, Job, Options, Row, Source, decode_jobs


def source(options: Options) -> Source:
    """Every image below PATH, by path in alphabetical order."""
    root = Path(options.name.removeprefix("folder:")).expanduser()
    if options.size is None:
        raise DataError("size must be given for a folder of images, for example 32 (--size 32)")
    files = list_images(root)
    tops = {_top(name) for name in files}
    own_parts = "train" in tops and bool(tops & {"test", "valid", "val"})
    if own_parts and options.part == "test" and "test" not in tops:
        raise DataError(
            f"folder: {root} has {', '.join(sorted(tops))} but no test: name the one to be tested "
            "on test, or put all images into one folder for a tenth to be kept out"
        )
    if own_parts:
        files = {name: path for name, path in files.items() if _part(name) in PARTS}
    below = {
        name: str(PurePosixPath(*PurePosixPath(name).parts[1:])) if own_parts else name
        for name in files
    }
    kinds = sorted({_top(short) for short in below.values()})
    classes = kinds if len(kinds) > 1 and "" not in kinds else []
    number = {kind: i for i, kind in enumerate(classes)}

    def rows() -> Iterator[Row]:
        jobs = (
            Job(
                str(path), path.read_bytes, _part(name) if own_parts else None,
                number.get(_top(below[name])),
            )
            for name, path in files.items()
        )  # fmt: skip
        yield from decode_jobs(jobs, options.size, options.channels)

    recipe = {"set": "folder", "crop": "square", "filter": "lanczos"}
    shape = (options.size, options.size, options.channels)
    lacking = TOO_FEW
    if own_parts:
        lacking = f"put some into {root / options.part}"
        if options.part == "valid":
            lacking += ", or do without held-out images (--holdout)"
    return Source(tuple(files.items()), recipe, shape, len(files), rows, tuple(classes), lacking)


def list_images(root: Path) -> dict[str, Path]:
    """Name relative to `root` (with /) -> path, of every file that is called like an image.

    Hidden files and folders are left out, links to folders not followed.

    Raises: DataError if `root` is not a folder, cannot be read or holds no image.
    """
    if not root.is_dir():
        raise DataError(f"folder: {root} is {'not a folder' if root.exists() else 'not there'}")

    def refuse(error: OSError) -> None:
        raise explain(error, root) from error

    found = {}
    for folder, folders, files in os.walk(root, onerror=refuse):
        folders[:] = [f for f in folders if not f.startswith(".")]
        for file in files:
            if file.lower().endswith(SUFFIXES) and not file.startswith("."):
                path = Path(folder, file)
                found[path.relative_to(root).as_posix()] = path
    if not found:
        raise DataError(f"folder: {root} holds no image ({', '.join(SUFFIXES)})")
    return dict(sorted(found.items()))


def _part(name: str) -> str:
    """The part that a file in `train`, `test`, `valid` or `val` belongs to."""
    return "valid" if _top(name) == "val" else _top(name)


def _top(name: str) -> str:
    """The first folder of a relative path, or nothing."""
    parts = PurePosixPath(name).parts
    return parts[0] if len(parts) > 1 else ""
