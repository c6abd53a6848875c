import gzip
import lzma
import sys
import unicodedata
from concurrent.futures import ThreadPoolExecutor

import pytest

from trine.data.records import CsvRows, JsonLines, TextLines, layout_of, unpacked
from trine.errors import DataError, MissingExtra


def read(path):
    content = unpacked(path)
    layout = layout_of(path, content)
    with content.stream() as stream:
        return content, layout, list(layout.slots(stream))


def test_each_record_is_found_again_by_its_place(tmp_path):
    path = tmp_path / "글.csv"
    path.write_text(
        '질문,답\n"가나,다","첫 줄\n둘째 ""줄"""\n\n😀,' + unicodedata.normalize("NFD", "한글") + "\n", "utf-8"
    )
    content, layout, slots = read(path)
    assert [slot.line for slot in slots] == [2, 5]
    rows = [layout.record(content.read(slot.start, len(slot.raw))) for slot in slots]
    assert rows == [
        {"질문": "가나,다", "답": '첫 줄\n둘째 "줄"'},
        {"질문": "😀", "답": unicodedata.normalize("NFD", "한글")},
    ]


@pytest.mark.parametrize(("suffix", "opener"), [("", open), (".gz", gzip.open), (".xz", lzma.open)])
def test_packed_files_read_the_same(tmp_path, suffix, opener):
    path = tmp_path / f"a.jsonl{suffix}"
    with opener(path, "wb") as stream:
        stream.write('\ufeff{"가": 1}\r\n\r\n{"나": [2]}'.encode())
    content, layout, slots = read(path)
    assert isinstance(layout, JsonLines)
    assert [layout.record(slot.raw) for slot in slots] == [{"가": 1}, {"나": [2]}]
    assert content.read(slots[1].start, len(slots[1].raw)).decode() == '{"나": [2]}'


@pytest.mark.parametrize(
    ("name", "text", "layout"),
    [
        ("a.txt", "그냥 글\n", TextLines),
        ("a.txt", ' {"text": "글"}\n', JsonLines),
        ("a.json", '{"a": 1}\n', JsonLines),
        ("noname", "plain\n", TextLines),
        ("a.tsv", "가\t나\n", CsvRows),
        ("a.csv", "가;나\n", CsvRows),
    ],
)
def test_the_layout_follows_suffix_and_content(tmp_path, name, text, layout):
    (tmp_path / name).write_text(text, "utf-8")
    found = layout_of(tmp_path / name, unpacked(tmp_path / name))
    assert type(found) is layout
    if layout is CsvRows:
        assert found.header == ["가", "나"]


def test_an_open_quotation_mark_costs_one_row_and_not_the_file(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text('a,b\n1,2\n3,"open\n5,6\n', "utf-8")
    _, layout, slots = read(path)
    assert [slot.line for slot in slots] == [2, 3, 4]
    with pytest.raises(DataError, match="quotation mark"):
        layout.record(slots[1].raw)
    assert layout.record(slots[2].raw) == {"a": "5", "b": "6"}


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        ("a.jsonl", b"", "is empty"),
        ("a.jsonl.gz", b"no gzip at all", "cannot be read"),
        ("a.jsonl.xz", lzma.compress(b"x" * 100)[:-8], "cannot be read"),
        ("a.jsonl.gz", gzip.compress(b""), "empty when unpacked"),
        ("a.json", b'[{"a": 1}]', "JSON array; write one object a line"),
        ("a.csv", b"a,a\n1,2\n", "names that differ"),
        ("a.csv", "가,나\n".encode("cp949"), "a.csv:1: not UTF-8"),
    ],
)
def test_files_that_cannot_be_used_say_why(tmp_path, name, data, message):
    path = tmp_path / name
    path.write_bytes(data)
    with pytest.raises(DataError, match=message):
        read(path)


def test_folders_and_missing_files_are_no_content(tmp_path):
    with pytest.raises(DataError, match="not a regular file"):
        unpacked(tmp_path)
    with pytest.raises(DataError, match="cannot be read"):
        unpacked(tmp_path / "nothing.jsonl")


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        (b'{"a": ', "not valid JSON"),
        (b"[1]", "this is a list"),
        (b"[" * 100_000, "not valid JSON"),
        ("{}가".encode("cp949"), "byte 3 of the record is 0xb0"),
    ],
)
def test_broken_json_says_what_is_wrong(raw, message):
    with pytest.raises(DataError, match=message):
        JsonLines().record(raw)


def test_a_row_with_other_cells_than_the_header_is_refused():
    with pytest.raises(DataError, match="3 cells where the header has 2"):
        CsvRows(["a", "b"], delimiter=",").record(b"1,2,3\n")


def test_fields_longer_than_the_csv_module_allows_are_read(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text("a,b\n" + "가" * 200_000 + ",2\n", "utf-8")
    _, layout, slots = read(path)
    assert len(layout.record(slots[0].raw)["a"]) == 200_000


def test_several_threads_read_one_content(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("".join(f"{number:05}\n" for number in range(2000)), "utf-8")
    content, _, slots = read(path)
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda slot: content.read(slot.start, 6), slots * 3))
    assert found == [slot.raw for slot in slots * 3]


def test_parquet_needs_its_extra(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    (tmp_path / "a.parquet").write_bytes(b"PAR1")
    with pytest.raises(MissingExtra, match=r"trine\[parquet\]"):
        unpacked(tmp_path / "a.parquet")


def test_parquet_reads_as_json_lines(tmp_path):
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    rows = [{"query": f"질문 {number}", "neg": ["가", "나"]} for number in range(3)]
    parquet.write_table(pyarrow.Table.from_pylist(rows), tmp_path / "a.parquet")
    _, layout, slots = read(tmp_path / "a.parquet")
    assert [layout.record(slot.raw) for slot in slots] == rows
    (tmp_path / "b.parquet").write_bytes(b"not parquet at all")
    with pytest.raises(DataError, match="not a Parquet file"):
        unpacked(tmp_path / "b.parquet")
