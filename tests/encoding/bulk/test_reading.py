import gzip
import lzma
import sys
import unicodedata

import pytest

from encoding.bulk.samples import ROWS, json_lines
from trine.encoding.bulk.reading import BadRow, InputFile, Row, list_input, read_file
from trine.errors import DataError, MissingExtra, UnknownName, UsageError

TEXTS = [(row["id"], row["text"]) for row in ROWS]


def rows(path, form="auto", prefix=""):
    return list(read_file(InputFile(path, path.name, prefix), form=form))


def pairs(found):
    return [(row.id, row.text) for row in found]


@pytest.mark.parametrize("opener", [gzip.open, lzma.open], ids=["gz", "xz"])
def test_packed_json_lines_read_as_plain_ones(tmp_path, opener):
    plain = json_lines(tmp_path / "a.jsonl")
    packed = tmp_path / f"a.jsonl.{'gz' if opener is gzip.open else 'xz'}"
    with opener(packed, "wb") as stream:
        stream.write(plain.read_bytes())
    assert pairs(rows(plain)) == pairs(rows(packed)) == TEXTS


def test_parquet_reads_as_json_lines_do(tmp_path):
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    table = pyarrow.table({"text": [text for _, text in TEXTS], "_id": [str(key) for key, _ in TEXTS], "x": [0] * 7})
    parquet.write_table(table, tmp_path / "a.parquet", row_group_size=2)
    assert pairs(rows(tmp_path / "a.parquet")) == [(str(key), text) for key, text in TEXTS]
    parquet.write_table(pyarrow.table({"text": ["a", None, "c"]}), tmp_path / "b.parquet")
    found = rows(tmp_path / "b.parquet")
    assert pairs([found[0], found[2]]) == [(1, "a"), (3, "c")]
    assert found[1].line == 2
    assert "must be a text; it is None" in found[1].reason


def test_parquet_that_cannot_be_used(tmp_path):
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    parquet.write_table(pyarrow.table({"passage": ["a"]}), tmp_path / "a.parquet")
    with pytest.raises(DataError, match=r"a\.parquet: no column 'text'; it has passage"):
        rows(tmp_path / "a.parquet")
    (tmp_path / "b.parquet").write_bytes(b"PAR1 nothing PAR1")
    with pytest.raises(DataError, match=r"b\.parquet: not Parquet that can be read"):
        rows(tmp_path / "b.parquet")
    with pytest.raises(UsageError, match="is Parquet, not jsonl"):
        rows(tmp_path / "a.parquet", form="jsonl")


def test_parquet_needs_its_extra(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    (tmp_path / "a.parquet").write_bytes(b"PAR1")
    with pytest.raises(MissingExtra, match=r"trine\[parquet\]"):
        rows(tmp_path / "a.parquet")


def test_lines_are_texts_and_blank_ones_are_left_out(tmp_path):
    path = tmp_path / "a.txt"
    nfd = unicodedata.normalize("NFD", "조합형")
    path.write_bytes(f"\ufeff첫째\r\n\n \u3000\n{nfd}\n{{not json\n끝".encode())
    assert pairs(rows(path)) == [(1, "첫째"), (4, nfd), (5, "{not json"), (6, "끝")]
    assert pairs(rows(path, prefix="b/a.txt:"))[1][0] == "b/a.txt:4"


def test_bad_lines_come_with_their_place_and_the_good_ones_stay(tmp_path):
    path = tmp_path / "a.jsonl"
    lines = [b'{"text": "a"}', b"{broken", b'{"text": 3}', b'{"body": "b"}', b'["text"]', b"\xb1\xb9"]
    lines += [b'{"id": true, "text": "x"}', b'{"id": 1.5, "text": "x"}', b'{"id": null, "text": "y"}']
    path.write_bytes(b"\n".join(lines))
    found = rows(path)
    assert pairs(row for row in found if isinstance(row, Row)) == [(1, "a"), (9, "y")]
    bad = {row.line: row.reason for row in found if isinstance(row, BadRow)}
    assert list(bad) == [2, 3, 4, 5, 6, 7, 8]
    for line, reason in {2: "not valid JSON", 3: "it is 3", 4: '{"body": "b"}', 5: "list", 6: "not UTF-8"}.items():
        assert reason in bad[line]
    assert "it is True" in bad[7]
    assert "it is 1.5" in bad[8]
    with pytest.raises(DataError, match=r"a\.jsonl, line 2: not valid JSON"):
        raise next(row for row in found if isinstance(row, BadRow)).error()


def test_a_packed_file_that_ends_too_soon(tmp_path):
    raw = gzip.compress(json_lines(tmp_path / "a.jsonl").read_bytes())
    (tmp_path / "a.jsonl.gz").write_bytes(raw[: len(raw) // 2])
    with pytest.raises(DataError, match=r"a\.jsonl\.gz: cannot be read"):
        rows(tmp_path / "a.jsonl.gz")
    (tmp_path / "b.txt.xz").write_bytes(b"no xz")
    with pytest.raises(DataError, match=r"b\.txt\.xz: cannot be read"):
        rows(tmp_path / "b.txt.xz")


def test_an_unknown_format_suggests_the_nearest(tmp_path):
    with pytest.raises(UnknownName, match="did you mean 'jsonl'"):
        rows(tmp_path / "a", form="json")


def test_a_folder_is_read_by_name_without_what_comes_out(tmp_path):
    for name in ("b.txt", "a.jsonl.gz", "z/c.ndjson", "z/한.parquet", "notes.md", ".hidden.txt", ".git/x.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    (tmp_path / "out" / "deep").mkdir(parents=True)
    (tmp_path / "out" / "deep" / "log.jsonl").write_bytes(b"")
    listing = list_input(tmp_path, leave_out=tmp_path / "out")
    assert [file.name for file in listing.files] == ["a.jsonl.gz", "b.txt", "z/c.ndjson", "z/한.parquet"]
    assert listing.files[1].prefix == "b.txt:"
    assert listing.ignored == {".md": 1}


def test_a_single_file_may_have_any_name_and_numbers_its_lines(tmp_path):
    (tmp_path / "notes.md").write_text("one")
    (file,) = list_input(tmp_path / "notes.md", leave_out=tmp_path / "out").files
    assert (file.name, file.prefix) == ("notes.md", "")


def test_nothing_to_read_says_what_there_is(tmp_path):
    with pytest.raises(UsageError, match="no file or folder"):
        list_input(tmp_path / "none", leave_out=tmp_path / "out")
    (tmp_path / "a.pdf").write_bytes(b"")
    with pytest.raises(UsageError, match=r"holds none of \.jsonl.* but 1 \.pdf"):
        list_input(tmp_path, leave_out=tmp_path / "out")
