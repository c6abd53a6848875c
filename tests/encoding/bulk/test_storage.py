import errno
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from encoding.bulk.samples import ROWS
from trine.encoding.bulk import storage
from trine.encoding.bulk.storage import (
    EncodedTexts,
    clear_scratch,
    from_bytes,
    ids_agree,
    in_precision,
    to_bytes,
    write_whole,
)
from trine.errors import DataError, MissingExtra, UsageError
from trine.testing import HashingEncoder
from trine.types import MODES, Embeddings

IDS = tuple(row["id"] for row in ROWS)
FORMATS = ["safetensors", "parquet"]


def encoded(modes=MODES, precision="float32"):
    encoder = HashingEncoder(dense=8, sparse=64, multi_vector=4)
    embeddings = encoder.encode([row["text"] for row in ROWS], kind="passage", modes=modes)
    return EncodedTexts(IDS, in_precision(embeddings, precision))


def same(left, right):
    assert left.modes == right.modes
    for a, b in zip(storage.arrays_of(left).items(), storage.arrays_of(right).items(), strict=True):
        assert a[0] == b[0]
        assert a[1].dtype == b[1].dtype
        np.testing.assert_array_equal(a[1], b[1])


@pytest.mark.parametrize("shard_format", FORMATS)
@pytest.mark.parametrize("modes", [MODES, ("dense",), ("sparse",), ("multi_vector",)], ids=str)
@pytest.mark.parametrize("precision", ["float32", "float16"])
def test_what_is_written_comes_back(shard_format, modes, precision):
    if shard_format == "parquet":
        pytest.importorskip("pyarrow")
    texts = encoded(modes, precision)
    raw = to_bytes(texts, shard_format=shard_format, integer_ids=False)
    found = from_bytes(raw, shard_format=shard_format, name="x")
    assert found.ids == (IDS if shard_format == "safetensors" else tuple(map(str, IDS)))
    same(found.embeddings, texts.embeddings)


def test_whole_numbers_stay_numbers_in_parquet():
    pytest.importorskip("pyarrow")
    texts = EncodedTexts((7, -(1 << 63)), Embeddings(dense=np.ones((2, 3), np.float32)))
    raw = to_bytes(texts, shard_format="parquet", integer_ids=True)
    assert from_bytes(raw, shard_format="parquet", name="x").ids == (7, -(1 << 63))


def test_other_libraries_read_the_columns():
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    texts = encoded()
    raw = to_bytes(texts, shard_format="parquet", integer_ids=False)
    table = parquet.read_table(pyarrow.BufferReader(raw))
    assert table.column_names == ["id", "dense", "sparse_ids", "sparse_weights", "multi_vector"]
    row = table.slice(1, 1).to_pylist()[0]
    np.testing.assert_array_equal(np.float32(row["dense"]), texts.embeddings.dense[1])
    ids, weights = texts.embeddings.sparse.row(1)
    assert (row["sparse_ids"], row["sparse_weights"]) == (ids.tolist(), weights.tolist())
    np.testing.assert_array_equal(np.float32(row["multi_vector"]), texts.embeddings.multi_vector.row(1))


@pytest.mark.parametrize("shard_format", FORMATS)
def test_another_process_writes_the_same_bytes(shard_format):
    if shard_format == "parquet":
        pytest.importorskip("pyarrow")
    code = (
        f"import sys; sys.path.insert(0, {str(Path(__file__).parents[2])!r})\n"
        "from encoding.bulk.test_storage import encoded, to_bytes\n"
        f"print(to_bytes(encoded(), shard_format={shard_format!r}, integer_ids=False).hex())\n"
    )
    done = [subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True) for _ in range(2)]
    assert {each.stdout.strip() for each in done} == {
        to_bytes(encoded(), shard_format=shard_format, integer_ids=False).hex()
    }


@pytest.mark.parametrize("shard_format", FORMATS)
def test_broken_files_are_errors(shard_format):
    if shard_format == "parquet":
        pytest.importorskip("pyarrow")
    raw = to_bytes(encoded(), shard_format=shard_format, integer_ids=False)
    for broken in (b"", b"no shard at all", raw[:-9], raw[: len(raw) // 2]):
        with pytest.raises(DataError, match="here is no shard that can be read"):
            from_bytes(broken, shard_format=shard_format, name="here")


def test_parquet_needs_its_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(MissingExtra, match=r"trine\[parquet\]"):
        to_bytes(encoded(), shard_format="parquet", integer_ids=False)


def test_float16_rounds_and_refuses_what_it_cannot_hold():
    dense = np.array([[0.1, 1.0]], np.float32)
    np.testing.assert_array_equal(in_precision(Embeddings(dense=dense), "float16").dense, np.float16([[0.1, 1.0]]))
    with pytest.raises(UsageError, match="70000 is beyond float16; use float32"):
        in_precision(Embeddings(dense=dense * 70000), "float16")
    with pytest.raises(UsageError, match="no number"):
        in_precision(Embeddings(dense=dense * np.float32("nan")), "float32")


def test_a_file_takes_its_place_when_it_is_whole(tmp_path):
    path = tmp_path / "a"
    write_whole(path, b"old")
    write_whole(path, b"new")
    assert path.read_bytes() == b"new"
    assert [each.name for each in tmp_path.iterdir()] == ["a"]


def test_a_full_disk_names_the_file_and_leaves_the_old_one(tmp_path, monkeypatch):
    path = tmp_path / "a"
    write_whole(path, b"old")

    def full(descriptor):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(storage.os, "fsync", full)
    with pytest.raises(OSError, match=r"No space left on device: '.*/a'"):
        write_whole(path, b"new")
    assert path.read_bytes() == b"old"
    assert [each.name for each in tmp_path.iterdir()] == ["a"]


def test_until_the_new_file_is_whole_the_old_one_stands(tmp_path, monkeypatch):
    path = tmp_path / "a"
    write_whole(path, b"old")

    def killed(scratch, target):
        assert (scratch.read_bytes(), target) == (b"new", path)
        raise KeyboardInterrupt

    monkeypatch.setattr(storage.os, "replace", killed)
    with pytest.raises(KeyboardInterrupt):
        write_whole(path, b"new")
    assert path.read_bytes() == b"old"


def test_what_killed_processes_left_is_removed(tmp_path):
    for name in (".0123.partial", "shard-000000.safetensors", ".keep"):
        (tmp_path / name).write_bytes(b"")
    clear_scratch(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == [".keep", "shard-000000.safetensors"]


def test_ids_agree_also_where_numbers_became_text():
    assert ids_agree(("a", "5"), ("a", 5))
    assert ids_agree((5,), (5,))
    assert not ids_agree(("a",), ("b",))
    assert not ids_agree(("a",), ("a", "b"))
