"""The one exception a user of the data sets has to know."""

from __future__ import annotations

import errno
from pathlib import Path

FULL_DISK = (errno.ENOSPC, errno.EDQUOT)


class DataError(ValueError):
    """Data that cannot be used, said in a line or two: which file, why, and what to do about it."""


def explain(error: OSError, path: Path | str) -> DataError:
    """The `DataError` for a failed file operation on `path`."""
    if error.errno in FULL_DISK:
        return DataError(
            f"the disk that holds {path} is full; make room there, or name another place "
            "with cache_dir (--cache-dir). Nothing half-written was left"
        )
    if isinstance(error, PermissionError):
        return DataError(f"no permission to use {error.filename or path}")
    return DataError(f"{path}: {error.strerror or error}")
