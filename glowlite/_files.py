"""What writing a file safely needs in more than one place."""

from __future__ import annotations

import errno
import os
import tempfile
from collections.abc import Callable
from pathlib import Path


def sync_folder(folder: Path) -> None:
    """A rename is on the disk only once its folder is."""
    if not hasattr(os, "O_DIRECTORY"):  # Windows opens no folders: when it writes is its affair
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def write_atomically(path: str | Path, write: Callable[[Path], None]) -> Path:
    """Let `write` fill a temporary file beside `path`, then put it in place in one step.

    Raises OSError naming `path` when the disk is full or the folder may not be written; the
    temporary file is removed and whatever stood at `path` before still stands.
    """
    path = Path(path)
    temporary = None
    try:
        # A name of our own, so that two processes cannot write into one temporary file.
        handle, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".tmp", dir=path.parent)
        os.close(handle)
        temporary = Path(name)
        write(temporary)
        with open(temporary, "rb") as file:
            os.fsync(file.fileno())
        temporary.chmod(0o666 & ~umask())  # mkstemp makes files only the owner can read
        os.replace(temporary, path)
        sync_folder(path.parent)
    except OSError as error:
        number = error.errno or errno.EIO
        raise OSError(number, f"could not write: {error.strerror or error}", str(path)) from error
    finally:
        if temporary is not None:
            temporary.unlink(missing_ok=True)
    return path


def umask() -> int:
    """The permissions that new files of this process lack."""
    mask = os.umask(0)
    os.umask(mask)
    return mask
