import unicodedata

import pytest

from models import tiny
from trine.models.config import TextConfig
from trine.models.scripts import covered, script


@pytest.mark.parametrize(
    ("character", "expected"),
    [
        ("a", "LATIN"),
        ("É", "LATIN"),
        ("검", "HANGUL"),
        (unicodedata.normalize("NFD", "검")[0], "HANGUL"),
        ("漢", "CJK"),
        ("ひ", "HIRAGANA"),
        ("カ", "KATAKANA"),
        ("ж", "CYRILLIC"),
        ("م", "ARABIC"),
    ],
)
def test_scripts_of_letters(character, expected):
    assert script(character) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("search engine", True),
        ("검색 엔진", False),
        ("the 검 index", True),
        ("검색 engine", True),
        ("검색은 abc", False),
        ("12 + 3 = 15 🙂", True),
        ("", True),
        (unicodedata.normalize("NFD", "검색"), False),
    ],
)
def test_a_third_of_the_letters_may_be_foreign(text, expected):
    assert covered(text, ("LATIN",)) is expected


def test_no_scripts_named_means_all():
    assert covered("검색 エンジン", ())


def test_several_scripts():
    assert covered("검색 engine", ("LATIN", "HANGUL"))
    assert not covered("поиск", ("LATIN", "HANGUL"))


def test_encoders_say_what_they_cover():
    import msgspec

    encoder = tiny.encoder("bert")
    assert encoder.covers("검색 엔진")
    encoder.config = msgspec.structs.replace(encoder.config, text=TextConfig(max_length=9), scripts=("LATIN",))
    assert not encoder.covers("검색 엔진")
    assert encoder.covers("search engine")
