import errno
import json
import math

import pytest

from trine.curation import teacher
from trine.curation.teacher import teacher_scores
from trine.errors import DataError, UsageError
from trine.types import Example

EXAMPLES = [Example(f"질문 {number}", ("가" * number + "나",), ("다", "라" * number)) for number in range(6)]


def by_length(pairs):
    return [len(query) / 100 + len(passage) for query, passage in pairs]


def expected(example):
    rows = [by_length([(example.query, text) for text in texts]) for texts in (example.positives, example.negatives)]
    return tuple(map(tuple, rows))


class Interrupted:
    """A teacher that dies after some calls."""

    def __init__(self, calls):
        self.calls = calls
        self.seen = []

    def __call__(self, pairs):
        if not self.calls:
            raise KeyboardInterrupt
        self.calls -= 1
        self.seen += pairs
        return by_length(pairs)


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch):
    monkeypatch.setattr(teacher, "_PAIRS", 4)


def test_every_positive_and_negative_gets_its_score(tmp_path):
    result = teacher_scores(EXAMPLES, by_length, path=tmp_path / "s.jsonl", teacher="length")
    assert [(example.positive_scores, example.negative_scores) for example in result.examples] == [
        expected(example) for example in EXAMPLES
    ]
    assert [(example.query, example.positives, example.negatives) for example in result.examples] == [
        (example.query, example.positives, example.negatives) for example in EXAMPLES
    ]
    assert result.pairs == 18
    assert result.resumed == 0
    manifest = json.loads((tmp_path / "s.jsonl.json").read_text(encoding="utf-8"))
    assert manifest["complete"]
    assert manifest["teacher"] == "length"
    assert manifest["pairs"] == 18
    # Lengths n + 1 against 1 and n: only the first example's positive ties, none is beaten.
    assert manifest["negative_first"] == 0


def test_an_interrupted_run_goes_on_where_it_was(tmp_path):
    path = tmp_path / "s.jsonl"
    with pytest.raises(KeyboardInterrupt):
        teacher_scores(EXAMPLES, Interrupted(2), path=path, teacher="length")
    assert not (tmp_path / "s.jsonl.json").exists()
    rest = Interrupted(9)
    result = teacher_scores(EXAMPLES, rest, path=path, teacher="length")
    assert result.resumed == 4
    assert {query for query, _ in rest.seen} == {"질문 4", "질문 5"}
    whole = teacher_scores(EXAMPLES, by_length, path=tmp_path / "other.jsonl", teacher="length")
    assert result.examples == whole.examples
    assert path.read_bytes() == (tmp_path / "other.jsonl").read_bytes()


@pytest.mark.parametrize("cut", [1, 5, 20])
def test_a_torn_last_line_is_scored_again(tmp_path, cut):
    path = tmp_path / "s.jsonl"
    whole = teacher_scores(EXAMPLES, by_length, path=path, teacher="length")
    content = path.read_bytes()
    path.write_bytes(content[:-cut])
    again = teacher_scores(EXAMPLES, by_length, path=path, teacher="length")
    assert again.examples == whole.examples
    assert path.read_bytes() == content
    assert again.resumed < len(EXAMPLES)


def test_a_long_torn_line_leaves_nothing_behind(tmp_path):
    path = tmp_path / "s.jsonl"
    teacher_scores(EXAMPLES, by_length, path=path, teacher="length")
    content = path.read_bytes()
    path.write_bytes(content + b'{"scores": [' + b"1.0, " * 500)
    assert teacher_scores(EXAMPLES, by_length, path=path, teacher="length").resumed == 6
    assert path.read_bytes() == content


def test_a_torn_first_line_is_written_again(tmp_path):
    path = tmp_path / "s.jsonl"
    path.write_bytes(b'{"trine": "teach')
    assert teacher_scores(EXAMPLES, by_length, path=path, teacher="length").resumed == 0


def test_a_finished_run_asks_the_teacher_nothing(tmp_path):
    path = tmp_path / "s.jsonl"
    first = teacher_scores(EXAMPLES, by_length, path=path, teacher="length")
    again = teacher_scores(EXAMPLES, Interrupted(0), path=path, teacher="length")
    assert again.examples == first.examples
    assert again.resumed == 6


@pytest.mark.parametrize(
    ("examples", "name", "message"),
    [(EXAMPLES, "other", "teacher is 'length', but this run has 'other'"), (EXAMPLES[:2], "length", "examples is")],
)
def test_scores_of_another_run_are_not_mixed_in(tmp_path, examples, name, message):
    path = tmp_path / "s.jsonl"
    teacher_scores(EXAMPLES, by_length, path=path, teacher="length")
    before = path.read_bytes()
    with pytest.raises(DataError, match=f"s.jsonl, line 1: {message}"):
        teacher_scores(examples, by_length, path=path, teacher=name)
    assert path.read_bytes() == before


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (b"not json\n", "line 3: not JSON"),
        (b"[1]\n", "line 3: a JSON object is needed, not list"),
        (b'{"scores": [1]}\n', "line 3: 3 finite scores"),
        (b'{"scores": [1, 2, NaN]}\n', "line 3: 3 finite scores"),
        (b'{"scores": [1, 2, true]}\n', "line 3: 3 finite scores"),
    ],
)
def test_a_damaged_file_is_named_with_its_line(tmp_path, line, message):
    path = tmp_path / "s.jsonl"
    teacher_scores(EXAMPLES, by_length, path=path, teacher="length")
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join([*lines[:2], line, *lines[3:]]))
    with pytest.raises(DataError, match=message):
        teacher_scores(EXAMPLES, by_length, path=path, teacher="length")


def test_a_file_of_something_else_is_left_alone(tmp_path):
    path = tmp_path / "precious.txt"
    path.write_text("one line without an end", encoding="utf-8")
    with pytest.raises(DataError, match="line 1: not a file of teacher scores"):
        teacher_scores(EXAMPLES, by_length, path=path, teacher="length")
    assert path.read_text(encoding="utf-8") == "one line without an end"


@pytest.mark.parametrize(
    ("scores", "message"),
    [
        (lambda pairs: [1.0], "shape .1,. for 6 pairs"),
        (lambda pairs: [[1.0]] * len(pairs), "shape .6, 1. for 6 pairs"),
        (lambda pairs: [math.nan] * len(pairs), "scored nan for the query '질문 0' and the passage '나'"),
    ],
)
def test_a_teacher_that_gives_no_scores_is_named(tmp_path, scores, message):
    with pytest.raises(UsageError, match=message):
        teacher_scores(EXAMPLES, scores, path=tmp_path / "s.jsonl", teacher="bad")


def test_a_full_disk_names_the_file_and_loses_nothing(tmp_path, monkeypatch):
    path = tmp_path / "s.jsonl"
    syncs = []

    def full(number):
        syncs.append(number)
        if len(syncs) == 3:
            raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(teacher.os, "fsync", full)
        with pytest.raises(OSError, match=r"No space left on device: .*s.jsonl"):
            teacher_scores(EXAMPLES, by_length, path=path, teacher="length")
    assert teacher_scores(EXAMPLES, by_length, path=path, teacher="length").resumed >= 2


def test_the_summary_says_how_often_a_negative_comes_first(tmp_path):
    examples = [Example("q", ("a",), ("bbb",)), Example("q", ("aaa",), ("b",)), Example("q", ("a",))]
    result = teacher_scores(examples, by_length, path=tmp_path / "s.jsonl", teacher="length")
    assert result.summary()["negative_first"] == 0.5
    assert (
        teacher_scores([], by_length, path=tmp_path / "e.jsonl", teacher="length").summary()["negative_first"] is None
    )
