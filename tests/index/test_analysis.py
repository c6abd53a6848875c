import unicodedata

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trine.errors import MissingExtra
from trine.index import ANALYZERS, analysis
from trine.index.analysis import BigramAnalyzer, default_analyzer
from trine.tables import resolve


def terms(text):
    return BigramAnalyzer().terms(text)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", []),
        (" \n\t ", []),
        ("--- ... !?", []),
        ("검색했다", ["검색", "색했", "했다"]),
        ("한 글", ["한", "글"]),
        ("제12조", ["제", "12", "조"]),
        ("東京タワー", ["東京", "京タ", "タワ", "ワー"]),
        ("本", ["本"]),
        ("ไทย", ["ไท", "ทย"]),
        ("हिन्दी में", ["हिन्दी", "में"]),
        ("Über für", ["über", "für"]),
        ("STRASSE straße", ["strasse", "strasse"]),
        ("Cats queries boxes glasses class bus is", ["cat", "query", "boxe", "glasse", "class", "bus", "is"]),
        ("the patient's patients’", ["the", "patient", "patient"]),
        ("snake_case", ["snakecase", "snake", "case"]),
        ("snakeCase", ["snakecase", "snake", "case"]),
        ("HTTPServer", ["httpserver", "http", "server"]),
        ("utf-8", ["utf8", "utf", "8"]),
        ("UTF8", ["utf8", "utf", "8"]),
        ("v1.2", ["v1.2", "v", "1", "2"]),
        ("IPv6", ["ipv6", "i", "pv", "6"]),
        ("3.14, 1,000원", ["3.14", "3", "14", "1000", "원"]),
        ("1,2,3", ["1", "2", "3"]),
        ("don't", ["dont", "don", "t"]),
        ("C++ C# c", ["c++", "c", "c#", "c", "c"]),
        ("__init__.py", ["init", "py"]),
        ("end.Next", ["end.next", "end", "next"]),
        ("ＡＢＣ ﬁne ①", ["abc", "fine", "1"]),
        ("soft\u00adhyphen", ["softhyphen"]),
        ("🍎👨‍👩‍👧", ["🍎", "👨", "👩", "👧"]),
        ("\ud800깨진", ["깨진"]),
        ("نمی‌خواهم", ["نمیخواهم"]),
    ],
)
def test_bigram_terms(text, expected):
    assert terms(text) == expected


def test_writing_styles_of_one_name_meet():
    assert set(terms("maxPoolSize")) & set(terms("max_pool_size")) == {"maxpoolsize", "max", "pool", "size"}
    assert "email" in terms("e-mail")
    assert "email" in terms("Emails")


def test_encoded_data_does_not_fill_the_vocabulary():
    assert terms("aGVsbG8" * 1000) == [("aGVsbG8" * 1000)[:64].lower()]


def test_long_runs_without_spaces_are_not_cut():
    assert len(terms("가나" * 500)) == 999


@settings(deadline=None, derandomize=True)
@given(st.text(max_size=40))
def test_composition_and_case_of_the_input_make_no_difference_to_hangul(text):
    hangul = "".join(character for character in text if "가" <= character <= "힣" or character == " ")
    assert terms(unicodedata.normalize("NFD", hangul)) == terms(hangul)


def test_decomposed_text_gives_the_same_terms():
    text = "한국어 café 검색 Ｆｕｌｌ 가나다라"
    assert terms(unicodedata.normalize("NFD", text)) == terms(text)


@settings(deadline=None, derandomize=True)
@given(st.text(max_size=60))
def test_any_text_gives_normal_terms_without_spaces(text):
    for term in terms(text):
        assert term
        assert not any(character.isspace() for character in term)
        assert term == unicodedata.normalize("NFKC", term)
        assert terms(term)


def test_default_is_kiwi_only_where_it_is_installed(monkeypatch):
    monkeypatch.setattr(analysis.importlib.util, "find_spec", lambda name: object() if name == "kiwipiepy" else None)
    assert default_analyzer() == "kiwi"
    monkeypatch.setattr(analysis.importlib.util, "find_spec", lambda name: None)
    assert default_analyzer() == "bigram"
    with pytest.raises(MissingExtra, match=r"pip install 'trine\[korean\]'"):
        resolve(ANALYZERS, "kiwi", kind="analyzer")()
