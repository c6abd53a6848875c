from pathlib import Path

import pytest

from trine.data.example_formats import FORMATS, Asked, detect, example_record
from trine.errors import DataError
from trine.tables import resolve
from trine.types import Example


def parse(format, record, **asked):
    return resolve(FORMATS, format, kind="format")(Asked(Path("x"), **asked))(record)


FLAG = {"query": "수도는?", "pos": ["서울이다.", "서울"], "neg": ["부산이다."]}


def test_flag_embedding_in_full():
    record = FLAG | {"pos_scores": [3, 2.5], "neg_scores": [-1], "prompt": "질문: ", "type": "normal", "id": 7}
    assert parse("flag_embedding", record) == Example(
        "수도는?", ("서울이다.", "서울"), ("부산이다.",), (3.0, 2.5), (-1.0,), query_prompt="질문: "
    )
    assert parse("flag_embedding", {"query": "q", "pos": ["p"]}) == Example("q", ("p",))
    symmetric = parse("flag_embedding", FLAG | {"prompt": "문장: ", "type": "symmetric_sts"})
    assert symmetric.passage_prompt == symmetric.query_prompt == "문장: "


def test_every_field_survives_writing():
    example = Example("q", ("p", "ㅍ"), ("n",), (1.5, 2.0), (0.0,), "Q: ", "P: ", "ko")
    assert parse("flag_embedding", example_record(example)) == example
    assert example_record(Example("q", ("p",))) == {"query": "q", "pos": ["p"], "neg": []}


def test_pairs_leave_further_columns_alone():
    record = {"query": "q", "positive": "p", "lang": "en-ko", "source": "s", "type": "translation", "mt": 1}
    assert parse("pairs", record) == Example("q", ("p",), lang="en-ko")
    assert parse("pairs", record | {"negatives": ["a", "b"]}).negatives == ("a", "b")


@pytest.mark.parametrize(
    ("record", "expected"),
    [
        ({"anchor": "a", "positive": "p"}, Example("a", ("p",))),
        ({"sentence2": "a", "sentence1": "p"}, Example("a", ("p",))),
        ({"a": "a", "p": "p", "negative_1": "n", "negative_2": None}, Example("a", ("p",), ("n",))),
        ({"a": "a", "p": "p", "score": "0.5"}, Example("a", ("p",), (), (0.5,))),
        ({"a": "a", "label": 1, "p": "p"}, Example("a", ("p",), (), (1.0,))),
        ({"a": "a", "p": "p", "n": "n", "label": 4.5}, Example("a", ("p",), ("n",), (4.5,), (0.0,))),
        ({"a": "a", "p": "p", "n": "n", "m": "m", "label": [4, 2]}, Example("a", ("p",), ("n", "m"), (0.0,), (-4, -2))),
        ({"a": "a", "p": "p", "n": "n", "label": "[9, 2]"}, Example("a", ("p",), ("n",), (9.0,), (2.0,))),
    ],
)
def test_columns_go_by_order(record, expected):
    assert parse("columns", record) == expected


def test_columns_can_be_chosen():
    record = {"id": "1", "answer": "p", "question": "q", "score": 2}
    assert parse("columns", record, columns=("question", "answer")) == Example("q", ("p",))
    assert parse("columns", record, columns=("question", "answer", "score")).positive_scores == (2.0,)
    with pytest.raises(DataError, match=r"no 'qestion'.*did you mean 'question'"):
        parse("columns", record, columns=("qestion", "answer"))


def test_distillation_takes_the_best_as_positive():
    record = {"query": "q", "document_2": "b", "document_10": "c", "document_1": "a", "scores": [1, 5, 3]}
    expected = Example("q", ("b",), ("a", "c"), (5.0,), (1.0, 3.0))
    assert parse("distillation", record) == expected
    assert parse("distillation", {"query": "q", "documents": ["a", "b", "c"], "scores": [1, 5, 3]}) == expected


def test_running_text_stands_on_both_sides():
    assert parse("text", "  한 줄 ") == Example("한 줄", ("한 줄",))
    assert parse("text", {"title": "제목", "text": "글", "lang": "ko", "id": 3}) == Example(
        "제목\n글", ("제목\n글",), lang="ko"
    )


@pytest.mark.parametrize(
    ("record", "format"),
    [
        ("글", "text"),
        (FLAG, "flag_embedding"),
        ({"querry": "q", "pos": ["p"]}, "flag_embedding"),
        ({"query": "q", "positive": "p", "negatives": ["n"], "group": 1}, "pairs"),
        ({"query": "q", "positive": "p", "negative": "n"}, "columns"),
        ({"query": "q", "positive": "p", "negative_1": "n", "negative_2": "m"}, "columns"),
        ({"question": "q", "answer": "p"}, "columns"),
        ({"sentence1": "q", "sentence2": "p", "score": 3}, "columns"),
        ({"query": "q", "document_1": "p", "document_2": "p", "scores": [1, 2]}, "distillation"),
        ({"id": "1", "title": "t", "text": "x", "lang": "ko"}, "text"),
    ],
)
def test_formats_are_recognised(record, format):
    assert detect(record) == format


@pytest.mark.parametrize(
    ("record", "message"),
    [
        ({"query": "q", "postive": "p", "lang": "ko"}, r"'query', 'postive', 'lang' \(did you mean 'positive'"),
        ({"a": "b"}, "cannot be told from the columns 'a'"),
        ({"a": "b", "c": "d", "e": "f"}, "columns=\\('question', 'answer'\\)"),
        ({"_id": "1", "body": "d"}, "cannot be told"),
        ({}, "columns none"),
    ],
)
def test_what_cannot_be_recognised_says_what_is_there(record, message):
    with pytest.raises(DataError, match=message):
        detect(record)


@pytest.mark.parametrize(
    ("format", "record", "message"),
    [
        ("flag_embedding", {"querry": "q", "pos": ["p"]}, "'querry' is not read; did you mean 'query'"),
        ("flag_embedding", {"question": "q", "pos": ["p"]}, "no 'query'; the columns are 'question', 'pos'"),
        ("flag_embedding", FLAG | {"negs": ["n"], "neg": None}, None),
        ("flag_embedding", {"query": "q", "pos": ["p"], "negs": ["n"]}, "'negs' is not read; did you mean 'neg'"),
        ("flag_embedding", FLAG | {"query": " \n"}, "'query' is empty"),
        ("flag_embedding", FLAG | {"query": 3}, "'query' must be a text; it is 3"),
        ("flag_embedding", FLAG | {"pos": "서울"}, "'pos' must be a list of texts"),
        ("flag_embedding", FLAG | {"pos": []}, "'pos' is an empty list"),
        ("flag_embedding", FLAG | {"neg": ["a", ""]}, r"neg\[1\] is empty"),
        ("flag_embedding", FLAG | {"neg": [None]}, r"neg\[0\] must be a text; it is None"),
        ("flag_embedding", FLAG | {"pos_scores": [1]}, "'pos_scores' has 1 numbers and 'pos' has 2"),
        ("flag_embedding", FLAG | {"neg_scores": ["x"]}, "'neg_scores' must hold finite numbers; it holds 'x'"),
        ("flag_embedding", FLAG | {"neg_scores": 3}, "'neg_scores' must be a list"),
        ("flag_embedding", FLAG | {"prompt": ["x"]}, "'prompt' must be a text"),
        ("flag_embedding", "글", "this is plain text"),
        ("pairs", {"query": "q"}, "no 'positive'"),
        ("pairs", {"query": "q", "positive": "p", "negative": ["n"]}, "did you mean 'negatives'"),
        ("columns", {"a": "b"}, "two columns of text are needed"),
        ("columns", {"a": "b", "c": ""}, "'c' is empty"),
        ("columns", {"a": "b", "c": "d", "label": 0}, "'label' is 0: no pair"),
        ("columns", {"a": "b", "c": "d", "e": "f", "g": "h", "label": 1}, "one number for 2 negatives"),
        ("columns", {"a": "b", "c": "d", "e": "f", "scores": [1, 2, 3]}, "3 numbers for 1 positive and 1 negatives"),
        ("columns", {"a": "b", "c": "d", "score": "nan"}, "finite"),
        ("columns", {"a": "b", "c": "d", "scores": "[1,"}, "not a list of numbers"),
        ("distillation", {"query": "q", "document_1": "a", "scores": [1]}, "1 scored documents"),
        ("distillation", {"query": "q", "documents": ["a", "b"], "score": [1, 2]}, "no 'scores'.*did you mean 'score'"),
        ("text", {"title": "t"}, "no 'text'"),
        ("text", {"title": 3, "text": "t"}, "'title' must be a text"),
    ],
)
def test_broken_records_say_what_is_wrong(format, record, message):
    if message is None:
        assert parse(format, record).negatives == ()
        return
    with pytest.raises(DataError, match=message):
        parse(format, record)
