import sqlite3
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trine.errors import UnknownName, UsageError
from trine.search.filters import Condition, normal, parse_filters, storable, stored_form, unknown_key, where

DOCUMENTS = {
    1: {"lang": "ko", "year": 2020, "draft": False, "언어": "한국어"},
    2: {"lang": "en", "year": 2023, "draft": True, "note": None},
    3: {"lang": "ko", "year": "2023", "draft": "true", "tag": 'a"b|c'},
    4: {"year": 2023.5, "언어": "영어", "empty": ""},
    5: {},
}


@pytest.fixture(scope="module")
def database():
    connection = sqlite3.connect(":memory:")
    connection.execute("CREATE TABLE documents (number INTEGER PRIMARY KEY)")
    connection.execute("CREATE TABLE metadata (document, key, kind, value)")
    for number, metadata in DOCUMENTS.items():
        connection.execute("INSERT INTO documents VALUES (?)", (number,))
        for key, value in metadata.items():
            connection.execute("INSERT INTO metadata VALUES (?, ?, ?, ?)", (number, normal(key), *stored_form(value)))
    yield connection
    connection.close()


def found(database, filters):
    clause, parameters = where(parse_filters(filters))
    return [row[0] for row in database.execute(f"SELECT number FROM documents WHERE {clause} ORDER BY 1", parameters)]


@pytest.mark.parametrize(
    ("filters", "expected"),
    [
        (None, [1, 2, 3, 4, 5]),
        ({}, [1, 2, 3, 4, 5]),
        ({"lang": "ko"}, [1, 3]),
        ({"lang": ["ko", "en"]}, [1, 2, 3]),
        ({"lang": []}, []),
        ({"lang": {"!=": "ko"}}, [2, 4, 5]),
        ({"lang": {"!=": ["ko", "en"]}}, [4, 5]),
        ({"year": {">=": 2020, "<": 2023.5}}, [1, 2]),
        ({"year": {">": 2020}}, [2, 4]),
        ({"year": 2023.0}, [2]),
        ({"year": "2023"}, [3]),
        ({"year": {">=": "2"}}, [3]),
        ({"draft": True}, [2]),
        ({"draft": 1}, []),
        ({"draft": False}, [1]),
        ({"year": True}, []),
        ({"note": None}, [2]),
        ({"note": {"!=": None}}, [1, 3, 4, 5]),
        ({"lang": "ko", "year": 2020}, [1]),
        ({"언어": "한국어"}, [1]),
        ({unicodedata.normalize("NFD", "언어"): unicodedata.normalize("NFD", "한국어")}, [1]),
        ({"empty": ""}, [4]),
        ({"lang": {"==": "en"}}, [2]),
    ],
)
def test_mappings_compare_like_with_like(database, filters, expected):
    assert found(database, filters) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("lang=ko", [1, 3]),
        (" lang == ko ", [1, 3]),
        ("lang!=en", [1, 3, 4, 5]),
        ("lang=ko|en", [1, 2, 3]),
        ("year=2023", [2, 3]),
        ('year="2023"', [3]),
        ("year>=2023", [2, 3, 4]),
        ("year<2023", [1]),
        ("year<=2023", [1, 2, 3]),
        ("year>2023", [4]),
        ("draft=true", [2, 3]),
        ('draft="true"', [3]),
        ("note=null", [2]),
        ('tag="a\\"b|c"', [3]),
        ('"언어"=한국어', [1]),
        ("언어=한국어|영어", [1, 4]),
        ('empty=""', [4]),
        ("year=2.0235e3", [4]),
    ],
)
def test_strings_stand_for_every_reading_of_a_bare_word(database, text, expected):
    assert found(database, text) == expected
    assert found(database, [text]) == expected


def test_several_strings_must_all_hold(database):
    assert found(database, ["lang=ko", "year<2021"]) == [1]


@pytest.mark.parametrize(
    "attempt",
    [
        "'; DROP TABLE documents; --",
        "x' OR '1'='1",
        "ko') OR 1=1 --",
        "?",
        ":a",
        "\x00",
        "\ud800",
        "%",
        "*",
    ],
)
def test_values_and_keys_never_become_sql(database, attempt):
    assert found(database, {"lang": attempt}) == []
    assert found(database, {attempt: "ko"}) == []
    assert found(database, {"lang": {"!=": [attempt]}}) == [1, 2, 3, 4, 5]
    assert found(database, None) == [1, 2, 3, 4, 5]
    clause, _ = where(parse_filters({attempt: [attempt, attempt]}))
    assert set(clause) <= set("1 ANDORnumberINOT(SELECTdocumentFROMmetadataWHEREkey=?kindvalue,)")


@pytest.mark.parametrize(
    ("text", "position", "reason"),
    [
        ("lang", 5, "expected one of"),
        ("=ko", 1, "key is missing"),
        ("", 1, "key is missing"),
        ("lang=", 6, "value is missing"),
        ("lang=a||b", 8, "value is missing"),
        ('lang="ko', 6, "never closed"),
        ('lang="ko" x', 10, "only | may follow"),
        ("year>1|2", 7, "one value only"),
        ('"lang', 1, "never closed"),
        ('"lang" ko', 8, "expected one of"),
    ],
)
def test_what_cannot_be_read_is_refused_with_its_position(text, position, reason):
    with pytest.raises(UsageError) as error:
        parse_filters(text)
    assert f"character {position}:" in str(error.value)
    assert reason in str(error.value)


@pytest.mark.parametrize(
    "filters",
    [
        {"year": {"~": 1}},
        {"year": {}},
        {"year": {">": [1, 2]}},
        {"year": {">": None}},
        {"year": {">": True}},
        {"year": float("nan")},
        {"year": [1, float("inf")]},
        {"year": b"x"},
        {"year": [["nested"]]},
        {7: "x"},
        {"year": list(range(10_001))},
        [b"lang=ko"],
    ],
)
def test_conditions_that_make_no_sense_are_refused(filters):
    with pytest.raises(UsageError):
        parse_filters(filters)


def test_unknown_operators_and_keys_suggest_the_nearest():
    with pytest.raises(UnknownName, match="did you mean '>='"):
        parse_filters({"year": {"=>=": 1}})
    assert "did you mean 'language'" in str(unknown_key("lanuage", ["language", "year"]))
    assert "no document of this collection has metadata" in str(unknown_key("x", []))


scalars = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False, allow_infinity=False), st.text()
)


@given(st.text(min_size=1).filter(str.strip), st.text(), st.sampled_from(["=", "!="]))
def test_quoting_carries_any_text(key, value, operator):
    def quoted(text):
        return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'

    assert parse_filters(quoted(key) + operator + quoted(value)) == (Condition(key, operator, (value,)),)


@given(scalars)
def test_every_scalar_equals_itself_in_sqlite(value):
    connection = sqlite3.connect(":memory:")
    try:
        connection.execute("CREATE TABLE documents (number)")
        connection.execute("CREATE TABLE metadata (document, key, kind, value)")
        connection.execute("INSERT INTO documents VALUES (1)")
        connection.execute("INSERT INTO metadata VALUES (1, 'k', ?, ?)", stored_form(value))
        assert found(connection, {"k": value}) == [1]
        assert found(connection, {"k": {"!=": value}}) == []
    finally:
        connection.close()


def test_what_sqlite_cannot_keep_is_replaced_one_for_one():
    assert storable("a\ud800b\x00c😀") == "a\ufffdb\ufffdc😀"
