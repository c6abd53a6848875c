import os
import socket
from pathlib import Path

import pytest

from trine.data.sources import Limits, check_source, open_source, printable, read_source
from trine.errors import DocumentError, UsageError


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "empty").touch()
    (tmp_path / "folder").mkdir()
    (tmp_path / "large").write_bytes(b"x" * 100)
    os.mkfifo(tmp_path / "pipe")
    return tmp_path


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("missing", "No such file"),
        ("empty", "0 bytes"),
        ("folder", "not a regular file"),
        ("pipe", "not a regular file"),
        ("large", "100 bytes, more than the limit of 99"),
    ],
)
def test_what_cannot_be_read_says_why_and_never_blocks(folder, name, reason):
    with pytest.raises(DocumentError, match=reason):
        check_source(folder / name, most_bytes=99)


def test_devices_and_sockets_are_not_opened(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with socket.socket(socket.AF_UNIX) as server:
        server.bind("socket")
        with pytest.raises(DocumentError, match="not a regular file"), open_source(tmp_path / "socket"):
            pass
    with pytest.raises(DocumentError, match="not a regular file"), open_source(tmp_path / "/dev/zero"):
        pass


def test_read_source_gives_the_bytes(folder):
    assert read_source(folder / "large", limits=Limits(file_bytes=100)) == b"x" * 100


@pytest.mark.parametrize("name", ["file_bytes", "characters", "seconds", "archive_entries", "archive_ratio"])
def test_a_limit_of_nothing_is_refused(name):
    with pytest.raises(UsageError, match=f"{name} must be positive, not 0"):
        Limits(**{name: 0})


def test_memory_that_the_worker_could_not_start_in_is_refused():
    with pytest.raises(UsageError, match="1048576"):
        Limits(memory_bytes=2**20)


@pytest.mark.parametrize(
    ("raw", "shown"),
    [
        ("문서/휴가.txt".encode(), "문서/휴가.txt"),
        ("문서/".encode() + "휴가.txt".encode("cp949"), "문서/휴가.txt"),
        (b"/\xff\xff.txt", "/\ufffd\ufffd.txt"),
        (b"a.txt", "a.txt"),
    ],
)
def test_any_file_name_can_be_printed(raw, shown):
    assert printable(Path(os.fsdecode(raw))) == shown
