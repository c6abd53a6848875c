import struct
import zipfile

import pytest

from data.samples import write_bomb
from trine.data.archives import check_zip
from trine.data.sources import Limits
from trine.errors import DocumentError


def write_zip(path, members):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return path


def refused(path, reason, **limits):
    with pytest.raises(DocumentError, match=reason):
        check_zip(path, limits=Limits(**limits))


def test_an_ordinary_archive_passes(tmp_path):
    check_zip(write_zip(tmp_path / "a.zip", {"a.xml": "<a/>" * 1000, "b.bin": b"\0" * 10_000}), limits=Limits())


def test_small_archives_may_be_as_repetitive_as_they_like(tmp_path):
    write_bomb(tmp_path / "a.zip", "a.xml", megabytes=10)
    check_zip(tmp_path / "a.zip", limits=Limits())


def test_bombs_are_refused_by_ratio_and_by_size(tmp_path):
    write_bomb(tmp_path / "a.zip", "a.xml", megabytes=40)
    refused(tmp_path / "a.zip", "limit of 200 times")
    refused(tmp_path / "a.zip", "limit of 1000", archive_bytes=1000)


def test_too_many_members(tmp_path):
    path = write_zip(tmp_path / "a.zip", {f"{number}.xml": "" for number in range(11)})
    refused(path, "11 zip members, more than the limit of 10", archive_entries=10)


def test_a_directory_that_lies_about_sizes_is_caught_while_inflating(tmp_path):
    path = write_zip(tmp_path / "a.zip", {"a.xml": b" " * 3_000_000})
    path.write_bytes(path.read_bytes().replace(struct.pack("<I", 3_000_000), struct.pack("<I", 1000)))
    refused(path, "CRC")


def test_encrypted_members(tmp_path):
    path = write_zip(tmp_path / "a.zip", {"a.xml": "text"})
    data = bytearray(path.read_bytes())
    data[data.index(b"PK\x01\x02") + 8] |= 1
    path.write_bytes(data)
    refused(path, "encrypted")


@pytest.mark.parametrize("data", [b"", b"not a zip", b"PK\x05\x06" + b"\0" * 10])
def test_files_that_are_no_archive(tmp_path, data):
    (tmp_path / "a.zip").write_bytes(data)
    refused(tmp_path / "a.zip", "broken zip")


def test_a_truncated_archive(tmp_path):
    path = write_zip(tmp_path / "a.zip", {"a.xml": "text" * 1000, "b.xml": "more" * 1000})
    data = path.read_bytes()
    path.write_bytes(data[:20] + data[60:])
    refused(path, "broken zip|cannot be unpacked")
