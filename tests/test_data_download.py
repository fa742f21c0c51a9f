"""Downloads: only when asked, checked, resumed where a connection broke. A local server, no net."""

from __future__ import annotations

import errno
import hashlib
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from unittest import mock

import numpy as np
import pytest

from glowlite.data import DataError, download, load

BODY = np.random.default_rng(5).bytes(300_000)


class Server(ThreadingHTTPServer):
    """Serves BODY; `cuts` lists after how many bytes the next answers break off."""

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.cuts: list[int] = []
        self.ranges: list[str | None] = []
        self.understands_ranges = True
        self.status = None
        self.url = f"http://127.0.0.1:{self.server_port}/set.tar.gz"


class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        server = self.server
        asked = self.headers.get("Range")
        server.ranges.append(asked)
        start = 0
        if asked and server.understands_ranges:
            start = int(asked.removeprefix("bytes=").rstrip("-"))
        if server.status or start >= len(BODY):
            self.send_response(server.status or 416)
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        body = BODY[start:]
        self.send_response(206 if start else 200)
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(BODY) - 1}/{len(BODY)}")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body[: server.cuts.pop(0)] if server.cuts else body)
        self.close_connection = True

    def log_message(self, *_):
        pass


@pytest.fixture
def server(monkeypatch):
    with Server() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        remote = download.Remote(server.url, "set.tar.gz", hashlib.md5(BODY).hexdigest())
        monkeypatch.setitem(download.REMOTES, "cifar10", remote)
        monkeypatch.setattr(download.time, "sleep", lambda seconds: None)
        yield server
        server.shutdown()
        thread.join()


def test_whole(server, tmp_path):
    path = download.fetch("cifar10", tmp_path, progress=False)
    assert path.read_bytes() == BODY and server.ranges == [None]
    assert [p.name for p in tmp_path.iterdir()] == ["set.tar.gz"]
    # It is there: nothing is asked again.
    download.fetch("cifar10", tmp_path, progress=False)
    assert len(server.ranges) == 1


def test_goes_on_where_the_connection_broke(server, tmp_path):
    server.cuts = [12 * 2**13, 5 * 2**13 + 77]
    assert download.fetch("cifar10", tmp_path, progress=False).read_bytes() == BODY
    assert server.ranges == [None, f"bytes={12 * 2**13}-", f"bytes={17 * 2**13}-"]


def test_goes_on_in_another_process(server, tmp_path):
    (tmp_path / "set.tar.gz.part").write_bytes(BODY[:123_456])
    assert download.fetch("cifar10", tmp_path, progress=False).read_bytes() == BODY
    assert server.ranges == ["bytes=123456-"]


def test_a_part_that_is_whole_already(server, tmp_path):
    (tmp_path / "set.tar.gz.part").write_bytes(BODY)
    assert download.fetch("cifar10", tmp_path, progress=False).read_bytes() == BODY


def test_a_server_without_ranges_starts_anew(server, tmp_path):
    server.understands_ranges = False
    server.cuts = [100_000]
    assert download.fetch("cifar10", tmp_path, progress=False).read_bytes() == BODY
    assert len(server.ranges) == 2


@pytest.mark.parametrize("came", [[], [2**13]])
def test_gives_up_after_five_tries_without_a_byte_and_keeps_what_came(server, tmp_path, came):
    server.cuts = came + [0] * 50
    with pytest.raises(DataError, match="(?s)download of http.*failed.*go on from where"):
        download.fetch("cifar10", tmp_path, progress=False)
    assert len(server.ranges) == len(came) + 5
    assert (tmp_path / "set.tar.gz.part").read_bytes() == BODY[: sum(came)]
    server.cuts = []
    assert download.fetch("cifar10", tmp_path, progress=False).read_bytes() == BODY


def test_wrong_checksum_names_both_and_leaves_nothing(server, tmp_path, monkeypatch):
    monkeypatch.setitem(
        download.REMOTES, "cifar10", download.Remote(server.url, "set.tar.gz", "0" * 32)
    )
    with pytest.raises(DataError) as caught:
        download.fetch("cifar10", tmp_path, progress=False)
    assert "0" * 32 in str(caught.value) and hashlib.md5(BODY).hexdigest() in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_not_found(server, tmp_path):
    server.status = 404
    with pytest.raises(DataError, match="404"):
        download.fetch("cifar10", tmp_path, progress=False)
    assert len(server.ranges) == 1


def test_full_disk(server, tmp_path):
    full = OSError(errno.ENOSPC, "No space left on device")
    with mock.patch.object(download.ResumingDownloader, "_go_on", side_effect=full):
        with pytest.raises(DataError, match="is full"):
            download.fetch("cifar10", tmp_path, progress=False)


def test_nothing_is_fetched_unless_asked(server, tmp_path):
    with pytest.raises(
        DataError, match="(?s)no cifar-10-batches-py/data_batch_1 or .* in .*To get it"
    ):
        load("cifar10", data_dir=tmp_path, cache_dir=tmp_path / "c")
    assert server.ranges == []
    # Asked for, it comes; that it is no archive is found out afterwards.
    with pytest.raises(DataError, match=r"set\.tar\.gz"):
        load("cifar10", data_dir=tmp_path, cache_dir=tmp_path / "c", download=True, progress=False)
    assert server.ranges == [None]


@pytest.mark.parametrize("name", download.INSTRUCTIONS)
def test_what_is_missing_comes_with_instructions(name, tmp_path):
    said = str(download.missing(name, "file", tmp_path))
    assert said.startswith(f"{name}: no file in {tmp_path}.\nTo get it") and "https://" in said
    assert ("cannot be downloaded for you" in said) == (name not in download.REMOTES)
