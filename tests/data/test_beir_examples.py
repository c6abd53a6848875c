import gzip
import json

import pytest

from trine.data.examples import open_examples, read_examples
from trine.errors import DataError
from trine.types import Example

CORPUS = [
    {"_id": "d1", "title": "서울", "text": "수도이다."},
    {"_id": "d2", "text": "부산은 항구다."},
    {"_id": 3, "text": "unjudged"},
]
QUERIES = [{"_id": "q1", "text": "수도는?"}, {"_id": "q2", "text": "항구는?"}, {"_id": "q3", "text": "없음"}]
QRELS = "query-id\tcorpus-id\tscore\nq1\td1\t1\nq1\td2\t0\nq2\td2\t2\nq2\td1\t1\n"


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "qrels").mkdir()
    for name, rows in (("corpus", CORPUS), ("queries", QUERIES)):
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "qrels" / "train.tsv").write_text(QRELS)
    return tmp_path


EXPECTED = [
    Example("수도는?", ("서울\n수도이다.",), ("부산은 항구다.",)),
    Example("항구는?", ("부산은 항구다.", "서울\n수도이다.")),
]


def test_judged_queries_become_examples(folder):
    source = open_examples(folder)
    assert list(source) == EXPECTED == list(read_examples(folder))
    assert source[1] == EXPECTED[1]
    assert (source.format, source.where(1)) == ("beir", f"{folder / 'queries.jsonl'}:2")


def test_judgements_without_header_packed_and_in_trec_columns_read_the_same(folder):
    (folder / "qrels" / "train.tsv").unlink()
    (folder / "qrels.tsv.gz").write_bytes(gzip.compress(b"q1 0 d1 1\nq1 0 d2 0\nq2 0 d2 2\nq2 0 d1 1\n"))
    assert list(open_examples(folder)) == EXPECTED


def test_the_fingerprint_follows_corpus_and_judgements(folder):
    first = open_examples(folder).fingerprint
    (folder / "qrels" / "train.tsv").write_text(QRELS.replace("d2\t2", "d2\t1"))
    second = open_examples(folder).fingerprint
    (folder / "corpus.jsonl").write_text((folder / "corpus.jsonl").read_text() + '{"_id": "d9", "text": "new"}\n')
    assert len({first, second, open_examples(folder).fingerprint}) == 3


@pytest.mark.parametrize(
    ("file", "text", "message"),
    [
        ("qrels/train.tsv", "q1\td1\n", r"train.tsv:1: 2 columns"),
        ("qrels/train.tsv", "q1\td1\tx\n", r"train.tsv:1: grade 'x'"),
        ("qrels/train.tsv", "q1\td1\t1\nq1\td1\t0\n", r"train.tsv:2: query 'q1', document 'd1' has another grade"),
        ("qrels/train.tsv", "query-id\tcorpus-id\tscore\n", "no judgements"),
        ("qrels/train.tsv", "q1\td8\t1\n", r"queries.jsonl:1: judged document 'd8' is not in"),
        ("corpus.jsonl", '{"_id": "d1", "text": "a"}\n{bad\n', r"corpus.jsonl:2: not valid JSON"),
        (
            "corpus.jsonl",
            '{"_id": "d1", "text": "a"}\n{"_id": "d1", "text": "b"}\n',
            r"corpus.jsonl:2: _id 'd1' is alr",
        ),
        ("corpus.jsonl", '{"id": "d1"}\n', r"corpus.jsonl:1: _id is None"),
        ("corpus.jsonl", '{"_id": "d1", "text": 3}\n{"_id": "d2", "text": "a"}\n', r"corpus.jsonl:1: 'text' must"),
        ("queries.jsonl", '{"_id": "q1", "title": "x"}\n', r"queries.jsonl:1: no 'text'"),
        ("queries.jsonl", '{"_id": "other", "text": "x"}\n', "no example that can be used"),
    ],
)
def test_what_is_broken_names_file_and_line(folder, file, text, message):
    (folder / file).write_text(text)
    with pytest.raises(DataError, match=message):
        open_examples(folder)


def test_a_split_that_is_missing_names_those_there(folder):
    with pytest.raises(DataError, match=r"no qrels/dev.tsv .*splits there: train"):
        open_examples(folder, split="dev")
