"""Where the data sets live, and fetching those whose owners allow it.

Pooch (https://www.fatiando.org/pooch) does the fetching and the checking. It starts a broken
download again from nothing, so `ResumingDownloader` teaches it to go on where it was cut off.
"""

from __future__ import annotations

import os
import shutil
import time
from dataclasses import dataclass
from pathlib import Path

from .errors import DataError, explain


@dataclass(frozen=True)
class Remote:
    """A file its owner offers for direct download."""

    url: str
    file: str
    md5: str


#: Every address the package can download from. Nothing is fetched unless asked for.
REMOTES = {
    "cifar10": Remote(
        "https://www.cs.toronto.edu/~kriz/cifar-10-python.tar.gz",
        "cifar-10-python.tar.gz",
        "c58f30108f718f92721af3b95e74349a",
    ),
}

_IMAGENET = (
    "ImageNet asks you to log in and accept its terms: "
    "at https://image-net.org/download-images.php take, under 'Download downsampled image data', "
    "the npz archives of this size for training and validation, and unpack both into {data_dir}"
)
_LSUN = (
    "LSUN is fetched with its owners' script: git clone https://github.com/fyu/lsun; "
    "python lsun/download.py -c {category} -o {data_dir}; unzip both zip files there"
)

#: How to get each set, printed when its files are missing.
INSTRUCTIONS = {
    "cifar10": "ask for it with download=True (--download), or fetch "
    + REMOTES["cifar10"].url
    + " (163 MiB) into {data_dir}",
    "celeba": "CelebA is for non-commercial research, under an agreement: from "
    "https://mmlab.ie.cuhk.edu.hk/projects/CelebA.html take img_align_celeba.zip, "
    "list_attr_celeba.txt and list_eval_partition.txt into {data_dir}",
    "imagenet32": _IMAGENET,
    "imagenet64": _IMAGENET,
    "lsun-bedroom": _LSUN,
    "lsun-tower": _LSUN,
    "lsun-church_outdoor": _LSUN,
}


def missing(name: str, what: str, data_dir: Path) -> DataError:
    """The error for a file that is not there: what was looked for, where, how to get it."""
    how = INSTRUCTIONS[name].format(data_dir=data_dir, category=name.removeprefix("lsun-"))
    by_hand = "" if name in REMOTES else " (it cannot be downloaded for you)"
    return DataError(f"{name}: no {what} in {data_dir}.\nTo get it{by_hand}: {how}.")


def fetch(name: str, folder: Path, progress: bool | None = None) -> Path:
    """Download `name`, one of `REMOTES`, into `folder`, its checksum verified; the file's path.

    Raises: DataError if the connection fails for good (what has arrived is kept and the next call
    goes on from there), or the checksum is wrong.
    """
    import pooch
    import requests

    remote = REMOTES[name]
    try:
        return Path(
            pooch.retrieve(
                remote.url,
                known_hash=f"md5:{remote.md5}",
                fname=remote.file,
                path=folder,
                downloader=ResumingDownloader(folder / f"{remote.file}.part", progress),
            )
        )
    except requests.RequestException as error:
        raise DataError(
            f"{name}: the download of {remote.url} failed ({error}). Run the same again "
            "to go on from where it stopped"
        ) from error
    except OSError as error:
        raise explain(error, folder) from error
    except ValueError as error:
        raise DataError(f"{name}: {error}") from error


class ResumingDownloader:
    """A downloader for pooch that keeps what has arrived in `part` and asks for the rest.

    It tries again after a dropped connection, `tries` times in a row without a byte of progress,
    and in the next run goes on from the file `part`. Pooch checks the hash of the whole.
    """

    def __init__(
        self, part: Path, progress: bool | None = None, tries: int = 5, pause: float = 1.0
    ) -> None:
        self.part, self.progress, self.tries, self.pause = part, progress, tries, pause

    def __call__(self, url: str, output_file: str, pooch: object) -> None:
        """Called by pooch: bring `url` to `output_file`."""
        from requests import exceptions

        dropped = (
            exceptions.ConnectionError, exceptions.Timeout, exceptions.ChunkedEncodingError,
        )  # fmt: skip
        failures = 0
        while True:
            before = self._have()
            try:
                self._go_on(url)
                break
            except dropped:
                failures = 0 if self._have() > before else failures + 1
                if failures >= self.tries:
                    raise
                time.sleep(self.pause * max(failures, 1))
        shutil.move(self.part, output_file)

    def _have(self) -> int:
        return os.path.getsize(self.part) if self.part.exists() else 0

    def _go_on(self, url: str) -> None:
        import requests
        from tqdm import tqdm

        have = self._have()
        # Compressed in transit, byte positions would mean something else.
        headers = {"Accept-Encoding": "identity"}
        if have:
            headers["Range"] = f"bytes={have}-"
        with requests.get(url, headers=headers, stream=True, timeout=30) as response:
            if response.status_code == 416:
                # Nothing after what we have: it is whole, or (the hash will tell) another file's.
                return
            response.raise_for_status()
            wanted = response.headers.get("Content-Range", "").startswith(f"bytes {have}-")
            resumed = have > 0 and response.status_code == 206 and wanted
            start = have if resumed else 0
            length = response.headers.get("Content-Length")
            with (
                open(self.part, "ab" if resumed else "wb") as file,
                tqdm(
                    total=start + int(length) if length else None, initial=start,
                    desc=os.path.basename(url), unit="B", unit_scale=True,
                    disable=None if self.progress is None else not self.progress,
                ) as bar,
            ):  # fmt: skip
                # A chunk cut short by a dropped connection is lost, so it is small.
                for chunk in response.iter_content(2**13):
                    file.write(chunk)
                    bar.update(len(chunk))
        if length and self._have() != start + int(length):
            raise requests.ConnectionError(f"{url} ended early")
