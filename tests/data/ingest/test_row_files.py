import csv

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trine.data.ingest.csv import read as read_csv
from trine.data.ingest.jsonl import read as read_jsonl
from trine.data.sources import Limits, Skipped
from trine.errors import DocumentError


def rows(read, path, data, **limits):
    path.write_bytes(data if isinstance(data, bytes) else data.encode())
    return list(read(path, name="rows", limits=Limits(**limits)))


def split(items):
    documents = [item for item in items if not isinstance(item, Skipped)]
    return documents, {item.line: item.reason for item in items if isinstance(item, Skipped)}


def test_jsonl_columns_become_documents_and_metadata(tmp_path):
    items = rows(
        read_jsonl,
        tmp_path / "a.jsonl",
        '{"_id": "d1", "title": "제목", "text": "하나\\r\\n둘", "year": 2024, "ok": true, "score": 0.5, "none": null,'
        ' "list": [1], "metadata": {"lang": "ko", "deep": {}}}\n\n'
        '{"id": 7, "text": "셋", "big": 99999999999999999999}\n'
        '{"text": "넷", "metadata": "글"}',
    )
    assert [(item.id, item.title, item.text) for item in items] == [
        ("d1", "제목", "하나\n둘"),
        ("7", "", "셋"),
        ("rows#4", "", "넷"),
    ]
    assert [item.metadata for item in items] == [
        {"lang": "ko", "year": 2024, "ok": True, "score": 0.5},
        {"big": "99999999999999999999"},
        {"metadata": "글"},
    ]


def test_a_bad_json_row_is_skipped_by_line_and_the_others_go_on(tmp_path):
    bad = [
        "not json",
        "[1]",
        '{"id": 1}',
        '{"text": 5}',
        '{"text": " "}',
        '{"text": "x", "title": 5}',
        '{"text": "x", "id": [1]}',
    ]
    bad += ['{"text": NaN}', '{"text": "\\ud800"}', "[" * 100_000, '{"text": "x", "id": true}']
    documents, skipped = split(rows(read_jsonl, tmp_path / "a.jsonl", "\n".join([*bad, '{"text": "좋은 줄"}'])))
    assert [document.text for document in documents] == ["좋은 줄"]
    assert sorted(skipped) == list(range(1, len(bad) + 1))
    assert "not valid JSON" in skipped[1]
    assert "not a JSON object but list" in skipped[2]


def test_a_row_too_long_to_hold_is_skipped_without_holding_it(tmp_path):
    data = '{"text": "%s"}\n{"text": "짧다"}\n' % ("가" * 5000)
    documents, skipped = split(rows(read_jsonl, tmp_path / "a.jsonl", data, characters=100))
    assert [document.text for document in documents] == ["짧다"]
    assert "longer" in skipped[1]


def test_a_row_with_bytes_of_another_encoding_is_skipped(tmp_path):
    lines = ['{"text": "연차휴가는 15일입니다."}'.encode()] * 60
    lines[30] = '{"text": "다른 부호화"}'.encode("cp949")
    documents, skipped = split(rows(read_jsonl, tmp_path / "a.jsonl", b"\n".join(lines)))
    assert len(documents) == 59
    assert list(skipped) == [31]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "cp949", "utf-16"])
@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
def test_csv_delimiters_and_encodings(tmp_path, encoding, delimiter):
    lines = ["ID,제목,Text", '1,휴가,"첫 줄, 둘', '째 줄 ""인용"""', "", '2,,"끝"']
    data = "\r\n".join(lines).replace(",", delimiter).encode(encoding)
    items = rows(read_csv, tmp_path / "a.csv", data)
    assert [(item.id, item.text, item.metadata) for item in items] == [
        ("1", f'첫 줄{delimiter} 둘\n째 줄 "인용"', {"제목": "휴가"}),
        ("2", "끝", {}),
    ]


def test_csv_values_stay_strings(tmp_path):
    (item,) = rows(read_csv, tmp_path / "a.csv", "text,code,year\n본문,007,2024\n")
    assert item.metadata == {"code": "007", "year": "2024"}
    assert item.id == "rows#2"


def test_a_bad_csv_row_is_skipped_by_line_and_the_others_go_on(tmp_path):
    data = 'id,text\n1,하나\n2\n3,셋,넷\n4,\n5,"a"b\n6,여섯\n'
    documents, skipped = split(rows(read_csv, tmp_path / "a.csv", data))
    assert [document.id for document in documents] == ["1", "6"]
    assert sorted(skipped) == [3, 4, 5, 6]
    assert "1 cells where the header has 2" in skipped[3]


def test_a_quotation_mark_that_is_never_closed_costs_one_row(tmp_path):
    data = "id,text\n" + '1,"열기만 했다\n' + "".join(f"{number},본문 {number}\n" for number in range(2, 50))
    documents, skipped = split(rows(read_csv, tmp_path / "a.csv", data))
    assert [document.id for document in documents] == [str(number) for number in range(2, 50)]
    assert list(skipped) == [2]


def test_a_quotation_mark_never_closed_in_a_long_file_is_given_up_at_the_limit(tmp_path):
    data = "id,text\n" + '1,"열기만 했다\n' + "".join(f"{number},본문 {number}\n" for number in range(2, 500))
    documents, skipped = split(rows(read_csv, tmp_path / "a.csv", data, characters=300))
    assert len(documents) == 498
    assert list(skipped) == [2]


def test_a_cell_longer_than_the_csv_modules_own_limit_is_read(tmp_path):
    before = csv.field_size_limit()
    (item,) = rows(read_csv, tmp_path / "a.csv", "text\n" + "가" * 200_000)
    assert len(item.text) == 200_000
    assert csv.field_size_limit() == before


@pytest.mark.parametrize("data", ["id,body\n1,x\n", "\n", "본문만 있는 줄\n"])
def test_a_file_without_a_text_column_says_so(tmp_path, data):
    with pytest.raises(DocumentError, match="no column 'text'"):
        rows(read_csv, tmp_path / "a.csv", data)


CELLS = st.text(st.characters(codec="utf-8", exclude_characters="\0\r"), max_size=20).filter(str.strip)


@given(st.lists(st.tuples(CELLS, CELLS), min_size=1, max_size=8))
def test_what_pythons_csv_writes_comes_back(tmp_path_factory, pairs):
    path = tmp_path_factory.mktemp("csv") / "a.csv"
    with path.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(["name", "text"])
        writer.writerows(pairs)
    items = list(read_csv(path, name="rows", limits=Limits()))
    assert [(item.metadata["name"], item.text) for item in items] == pairs


SOUP = st.lists(
    st.sampled_from(
        [b'"', b",", b"\n", b"\r", b"text", b"id", b"{", b"}", b":", b"\xff", b"\0", b"\xef\xbb\xbf", b"[", b" "]
    )
    | st.binary(max_size=6),
    min_size=1,
    max_size=40,
).map(b"".join)


@pytest.mark.parametrize("read", [read_csv, read_jsonl])
@given(data=SOUP, header=st.sampled_from([b"", b"id,text\n", b"text\n"]))
def test_any_bytes_give_documents_or_reasons(tmp_path_factory, read, data, header):
    path = tmp_path_factory.mktemp("soup") / "a"
    path.write_bytes(header + data)
    try:
        items = list(read(path, name="rows", limits=Limits(characters=50)))
    except DocumentError:
        return
    assert all(item.line if isinstance(item, Skipped) else item.text.strip() for item in items)
