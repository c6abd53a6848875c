import unicodedata

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from trine.curation.texts import (
    canonical,
    canonical_words,
    has_dense_letters,
    is_mostly_dense,
    jaccard,
    length_of,
    mix,
    ngram_hashes,
    shingles,
)


@pytest.mark.parametrize(
    "other",
    [
        "ＡＢＣ  검색\n엔진",
        unicodedata.normalize("NFD", "abc 검색 엔진"),
        "\u200babc 검색\t엔진 ",
        "Abc 검색\u00a0엔진",
    ],
)
def test_one_spelling_for_width_case_spaces_and_decomposition(other):
    assert canonical(other) == "abc 검색 엔진"


def test_punctuation_counts_in_the_spelling_but_not_in_the_words():
    assert canonical("Is it C++?") == "is it c++?"
    assert canonical_words("Is it, “C++”? 검색-엔진!") == ["is", "it", "c", "검색", "엔진"]


def test_odd_input_has_a_spelling():
    assert canonical("\ud800 a\ud83d") == "a"
    assert canonical("") == ""
    assert canonical("👩‍👩‍👧") == canonical("👩👩👧")


def test_a_korean_letter_counts_two():
    assert length_of("검색 engine 2!") == 2 * 2 + 6 + 1
    assert length_of("... --- 🙂") == 0


def test_dense_scripts_are_told_apart():
    assert is_mostly_dense("한국어 문장 with two")
    assert not is_mostly_dense("an English sentence with 한글")
    assert has_dense_letters("an English sentence with 한글")
    assert not has_dense_letters("plain")


def test_ngrams_are_equal_exactly_where_the_units_are():
    units = np.array([1, 2, 3, 1, 2, 3, 4], np.uint64)
    hashes = ngram_hashes(units, 3)
    assert len(hashes) == 5
    assert hashes[0] == hashes[3]
    assert len(set(hashes.tolist())) == 4
    assert len(ngram_hashes(units, 8)) == 0


def test_the_order_of_units_matters():
    assert ngram_hashes(np.array([1, 2], np.uint64), 2) != ngram_hashes(np.array([2, 1], np.uint64), 2)


def test_mixing_is_a_bijection_as_far_as_one_can_look():
    assert len(np.unique(mix(np.arange(100_000, dtype=np.uint64)))) == 100_000


@given(st.text(max_size=60), st.integers(1, 6))
def test_shingles_are_the_distinct_runs_of_characters(text, characters):
    squeezed = canonical(text).replace(" ", "")
    size = min(characters, len(squeezed))
    runs = {squeezed[at : at + size] for at in range(len(squeezed) - size + 1)} if squeezed else set()
    assert len(shingles(text, characters=characters)) == len(runs)


@given(st.text("abc", min_size=3, max_size=40), st.text("abc", min_size=3, max_size=40))
def test_jaccard_of_shingles_is_that_of_the_sets(left, right):
    sets = [{text[at : at + 3] for at in range(len(text) - 2)} for text in (left, right)]
    found = jaccard(shingles(left, characters=3), shingles(right, characters=3))
    assert found == pytest.approx(len(sets[0] & sets[1]) / len(sets[0] | sets[1]))


def test_nothing_is_like_nothing():
    assert jaccard(shingles("", characters=5), shingles("  ", characters=5)) == 0.0
