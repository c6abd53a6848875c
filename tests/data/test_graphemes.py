import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trine.data.graphemes import grapheme_cut, starts_grapheme

FAMILY = "👨\u200d👩\u200d👧"


def cuts(text):
    return [position for position in range(len(text) + 1) if starts_grapheme(text, position)]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("가나", [0, 1, 2]),
        (unicodedata.normalize("NFD", "각나"), [0, 3, 5]),
        ("가\u11a8", [0, 2]),
        ("e\u0301x", [0, 2, 3]),
        (FAMILY, [0, 5]),
        ("👍🏽!", [0, 2, 3]),
        ("🇰🇷🇯🇵", [0, 2, 4]),
        ("x🇰🇷", [0, 1, 3]),
        ("❤\ufe0f.", [0, 2, 3]),
        ("a\r\nb", [0, 1, 3, 4]),
        ("\u200d x", [0, 1, 2, 3]),
        ("", [0]),
    ],
)
def test_cuts_fall_between_characters_a_reader_sees(text, expected):
    assert cuts(text) == expected


@given(st.text(st.characters(min_codepoint=0xAC00, max_codepoint=0xD7A3), max_size=20))
def test_decomposed_hangul_has_one_cut_per_syllable(text):
    assert len(cuts(unicodedata.normalize("NFD", text))) == len(text) + 1


def test_grapheme_cut_goes_back_to_a_whole_character():
    text = f"ab{FAMILY}cd"
    assert grapheme_cut(text, 5, after=0) == 2
    assert grapheme_cut(text, 7, after=0) == 7


def test_grapheme_cut_gives_up_where_one_character_fills_everything():
    assert grapheme_cut("e" + "\u0301" * 9, 5, after=0) == 5
