import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trine.curation import duplicates
from trine.curation.duplicates import MinHashIndex, NearDuplicates, find_duplicates, remove_repeated_examples
from trine.curation.texts import jaccard, shingles
from trine.errors import UsageError
from trine.types import Example

SYLLABLES = [chr(code) for code in range(ord("가"), ord("가") + 3000, 7)]
LETTERS = "abcdefghijklmnopqrstuvwxyz"


def words(generator, letters, count):
    return ["".join(generator.choices(letters, k=generator.randint(2, 7))) for _ in range(count)]


def edited(generator, text_words, letters, share):
    copy = list(text_words)
    for place in generator.sample(range(len(copy)), max(1, int(share * len(copy)))):
        copy[place] = "".join(generator.choices(letters, k=4))
    return copy


def constructed(letters, *, seed=0, originals=150):
    """Texts of which every third is a light edit of the one before, and every third one a heavy rewrite."""
    generator = random.Random(seed)
    texts, copies = [], []
    for _ in range(originals):
        base = words(generator, letters, 60)
        texts += [base, edited(generator, base, letters, 0.04), edited(generator, base, letters, 0.5)]
        copies += [False, True, False]
    return [" ".join(text) for text in texts], np.array(copies)


@pytest.mark.parametrize("letters", [LETTERS, SYLLABLES], ids=["english", "korean"])
def test_near_copies_are_found_and_nothing_else(letters):
    texts, copies = constructed(letters)
    found = find_duplicates(texts)
    dropped = ~found.kept
    # Every light edit keeps about 86 % of its shingles, every rewrite under 35 %.
    assert (dropped & copies).sum() / copies.sum() >= 0.95
    assert not (dropped & ~copies).any()
    assert all(found.leaders[number] == number - 1 for number in np.flatnonzero(dropped))


@settings(max_examples=40)
@given(st.lists(st.text("abc ", min_size=1, max_size=25), max_size=12), st.sampled_from([0.3, 0.5, 0.8, 1.0]))
def test_every_dropped_text_is_as_near_to_a_kept_one_as_asked(texts, similarity):
    near = NearDuplicates(similarity=similarity, characters=2)
    found = find_duplicates(texts, settings=near)
    for number, leader in enumerate(found.leaders.tolist()):
        assert found.kept[leader]
        assert leader <= number
        if not found.kept[number] and not found.exact[number]:
            marks = [shingles(texts[which], characters=2) for which in (number, leader)]
            assert found.similarities[number] == pytest.approx(jaccard(*marks))
            assert found.similarities[number] >= similarity


def test_signatures_agree_as_often_as_the_sets_are_alike():
    # 1,200 shingles shared of 2,000 in all: similarity .6; four standard errors at 2,048 hashes are .043.
    index = MinHashIndex(NearDuplicates(hashes=2048))
    marks = np.random.default_rng(0).integers(0, 2**64, 2000, np.uint64)
    left, right = np.sort(marks[:1600]), np.sort(marks[400:])
    agreement = (index.signature(left) == index.signature(right)).mean()
    assert jaccard(left, right) == pytest.approx(0.6)
    assert agreement == pytest.approx(0.6, abs=0.043)


def test_bands_catch_the_similarity_asked_for():
    near = NearDuplicates()
    assert near.band_rows == 6
    assert near.meeting_probability(0.8) == pytest.approx(1 - (1 - 0.8**6) ** 21)
    assert near.meeting_probability(0.8) >= 0.99
    assert near.meeting_probability(0.8, 7) < 0.99


def test_exact_copies_differ_in_spelling_only():
    texts = ["대한민국의 수도는 서울이다.", "무엇", "대한민국의\n수도는 서울이다.", "WHAT", "What", "무엇"]
    found = find_duplicates(texts, near=False)
    assert found.leaders.tolist() == [0, 1, 0, 3, 3, 1]
    assert found.exact.tolist() == [False, False, True, False, True, True]
    assert found.groups == ((0, 2), (1, 5), (3, 4))


def test_an_exact_copy_of_a_near_copy_goes_to_the_text_that_is_kept():
    base = " ".join(words(random.Random(1), LETTERS, 60))
    near = base + " tail"
    found = find_duplicates([base, near, near])
    assert found.leaders.tolist() == [0, 0, 0]
    assert found.exact.tolist() == [False, False, True]
    assert found.similarities[2] == found.similarities[1] < 1


def test_spaces_and_short_or_empty_texts():
    found = find_duplicates(["띄어 쓰기가 다른 글 입니다", "띄어쓰기가 다른 글입니다", "", " ", "가", "나", "🙂"])
    assert found.leaders.tolist() == [0, 0, 2, 2, 4, 5, 6]


def test_a_signature_is_the_same_in_blocks(monkeypatch):
    index = MinHashIndex(NearDuplicates())
    marks = np.sort(np.random.default_rng(0).integers(0, 2**64, 1000, np.uint64))
    whole = index.signature(marks)
    monkeypatch.setattr(duplicates, "_BLOCK", 7)
    assert index.signature(marks).tolist() == whole.tolist()


def test_texts_longer_than_one_block():
    generator = random.Random(3)
    base = words(generator, LETTERS, 3000)
    found = find_duplicates([" ".join(base), " ".join(edited(generator, base, LETTERS, 0.02)), "x" * 9000])
    assert found.leaders.tolist() == [0, 0, 2]


def test_the_index_gives_the_most_similar_text():
    base = words(random.Random(4), LETTERS, 80)
    index = MinHashIndex(NearDuplicates(similarity=0.5))
    assert index.nearest(" ".join(base)) is None
    index.add(" ".join([*base[:-8], "quite", "another", "end"]))
    index.add(" ".join([*base[:-2], "end"]))
    number, similarity = index.nearest(" ".join(base))
    assert number == 1
    assert 0.9 < similarity < 1
    assert [number for number, _ in index.near(" ".join(base))] == [0, 1]
    assert len(index) == 2


def test_the_summary_counts():
    found = find_duplicates(["one text here", "One text here", "something else"])
    summary = found.summary()
    assert {key: summary[key] for key in ("texts", "kept", "exact", "near", "groups", "largest_group")} == {
        "texts": 3,
        "kept": 2,
        "exact": 1,
        "near": 0,
        "groups": 1,
        "largest_group": 2,
    }
    assert summary["settings"]["similarity"] == 0.8


def test_the_same_seed_gives_the_same_signature():
    marks = shingles("어떤 글이든 같은 씨앗이면 같은 서명이다", characters=5)
    same = [MinHashIndex(NearDuplicates(seed=seed)).signature(marks).tolist() for seed in (1, 1, 2)]
    assert same[0] == same[1] != same[2]


@pytest.mark.parametrize("options", [{"similarity": 0}, {"similarity": 1.2}, {"characters": 0}, {"hashes": 4}])
def test_settings_that_cannot_work_are_refused(options):
    with pytest.raises(UsageError, match=str(next(iter(options.values())))):
        NearDuplicates(**options)


def test_an_example_is_repeated_only_with_query_and_positive():
    passage, other = (
        "서울은 대한민국의 수도이며 가장 큰 도시이다. 한강이 흐른다.",
        "부산은 항구 도시이다. 바다가 있다.",
    )
    examples = [
        Example("수도는?", (passage,)),
        Example("한강은 어디에 흐르나?", (passage,)),
        Example("수도는?", (other,)),
        Example("수도는? ", (passage.replace(". ", ".\n"),)),
    ]
    unique = remove_repeated_examples(examples)
    assert unique.leaders.tolist() == [0, 1, 2, 0]
    assert unique.examples == tuple(examples[:3])
    assert unique.summary()["repeated"] == 1
    assert unique.summary()["examples"] == 4
