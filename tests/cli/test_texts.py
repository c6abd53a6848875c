import pytest

from trine.cli.exits import NotFound
from trine.cli.texts import read_all, read_texts
from trine.errors import DataError


def test_lines_are_texts_and_blank_ones_are_left_out(tmp_path):
    path = tmp_path / "a.txt"
    path.write_bytes("\ufeff첫째 줄\r\n\n  \nsecond\n".encode())
    assert list(read_texts(str(path))) == [(1, "첫째 줄"), (4, "second")]


@pytest.mark.parametrize("name", ["a.jsonl", "a.txt"])
def test_json_lines_are_told_by_their_name_or_their_first_line(tmp_path, name):
    path = tmp_path / name
    path.write_text('{"id": "x", "text": "one"}\n{"text": "둘"}\n{"_id": 7, "text": ""}\n', "utf-8")
    assert list(read_texts(str(path))) == [("x", "one"), (2, "둘"), (7, "")]


def test_the_format_can_be_forced(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text('{"text": "one"}\n')
    assert list(read_texts(str(path), form="lines")) == [(1, '{"text": "one"}')]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b'{"text": "a"}\nno json\n', r"a.txt, line 2: not valid JSON"),
        (b'{"text": "a"}\n{"text": 3}\n', r"a.txt, line 2: 'text' must be a text; it is 3"),
        (b'{"text": "a"}\n{"id": 3}\n', r"a.txt, line 2: not an object with a \"text\": {\"id\": 3}"),
        (b"ok\n\xb1\xb9\xbe\xee\n", r"line 2: not UTF-8"),
    ],
)
def test_a_broken_line_is_named(tmp_path, content, message):
    path = tmp_path / "a.txt"
    path.write_bytes(content)
    with pytest.raises(DataError, match=message):
        list(read_texts(str(path)))


def test_a_missing_file_is_not_found(tmp_path):
    with pytest.raises(NotFound, match="no such file"):
        list(read_texts(str(tmp_path / "none")))


def test_a_text_stands_for_itself():
    assert read_all("text") == "text"
