import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from trine.curation import negatives
from trine.curation.negatives import (
    Candidates,
    Mining,
    draw,
    draw_random,
    mine_negatives,
    random_negatives,
    under_absolute_margin,
    under_relative_margin,
    under_score,
    within_window,
)
from trine.curation.retrievers import Bm25Retriever, EncoderRetriever, FusedRetriever
from trine.errors import UnknownName, UsageError
from trine.index.base import Ranking
from trine.testing import HashingEncoder
from trine.types import Example


class Given:
    """A retriever whose scores are the same for all queries."""

    name = "given"

    def __init__(self, scores, *, ratio_scale=True):
        self.passages = list(scores)
        self.values = np.array(list(scores.values()), np.float32)
        self.ratio_scale = ratio_scale

    def search(self, queries, *, k, include=None):
        rows = []
        for number in range(len(queries)):
            order = np.argsort(-self.values, kind="stable")
            wanted = set(order[:k].tolist()) | set(include[number].tolist())
            ids = np.array([place for place in order if place in wanted], np.int64)
            rows.append((ids, self.values[ids]))
        return Ranking.from_rows(rows)


SCORES = {"pos": 0.80, "top": 0.95, "close": 0.77, "at": 0.76, "hard": 0.70, "mid": 0.50, "far": 0.10}
OPEN = {"relative_margin": None, "near_copy": None}


def mined(examples=None, scores=SCORES, **options):
    return mine_negatives(examples or [Example("q", ("pos",))], Given(scores), settings=Mining(**options))


def test_the_best_others_are_taken_when_no_rule_applies():
    result = mined(negatives=3, **OPEN)
    assert result.examples[0].negatives == ("top", "close", "at")
    assert result.candidates == 6
    assert result.dropped == {"window": 0, "repeated": 0, "not drawn": 3}


def test_percpos_drops_what_scores_over_95_percent_of_the_positive():
    # The limit is .95 * .8 = .76: .95 and .77 go, .76 in float32 is not over it by more than rounding.
    result = mined(negatives=3, relative_margin=0.0499, near_copy=None)
    assert result.examples[0].negatives == ("at", "hard", "mid")
    assert result.dropped["relative margin"] == 2


def test_every_limit_has_its_own_count():
    result = mined(
        negatives=2, window=(2, 5), most_score=0.765, absolute_margin=0.05, relative_margin=0.2, near_copy=None
    )
    # The window's first rank leaves out "top"; over .765: "close"; over .75: "at"; over .64: "hard"; "mid" is left.
    assert result.examples[0].negatives == ("mid",)
    assert result.dropped == {
        "window": 1,
        "repeated": 0,
        "score": 1,
        "absolute margin": 1,
        "relative margin": 1,
        "not drawn": 0,
    }
    assert result.summary()["short"] == 1
    assert sum(result.dropped.values()) + int(result.mined.sum()) == result.candidates


def test_the_least_of_several_positives_sets_the_limit():
    examples = [Example("q", ("pos", "mid"))]
    assert mined(examples, negatives=2, absolute_margin=0.0, **OPEN).examples[0].negatives == ("far",)


def test_the_limit_lies_under_a_negative_score_too():
    candidates = Candidates(np.arange(3), np.array([-0.9, -1.02, -1.2], np.float32), positive=-1.0)
    assert under_relative_margin(candidates, 0.05).tolist() == [False, False, True]
    assert under_absolute_margin(candidates, 0.1).tolist() == [False, False, True]
    assert under_score(candidates, -1.0).tolist() == [False, True, True]


def test_counts_do_not_depend_on_what_is_searched_together(monkeypatch):
    examples = [Example("one", ("pos",)), Example("two", ("top", "close", "far"))]
    together = mined(examples, negatives=2, window=(1, 3), **OPEN)
    monkeypatch.setattr(negatives, "_QUERIES", 1)
    alone = mined(examples, negatives=2, window=(1, 3), **OPEN)
    assert together.summary() == alone.summary()
    assert together.candidates == 6
    assert together.dropped["not drawn"] == 2


def test_positives_of_the_same_query_elsewhere_are_no_negatives():
    examples = [Example("q", ("pos",)), Example(" Q ", ("top",)), Example("other", ("far",))]
    result = mined(examples, negatives=6, **OPEN)
    assert "top" not in result.examples[0].negatives
    assert "pos" not in result.examples[1].negatives
    assert {"top", "pos"} <= set(result.examples[2].negatives)


def test_spellings_and_near_copies_of_a_positive_are_no_negatives():
    positive = "대한민국의 수도는 서울이며 한강이 도시를 가로질러 흐른다."
    scores = {
        positive: 0.9,
        positive.replace(" ", "  ") + "\n": 0.9,
        positive[:-1] + "!": 0.85,
        "부산은 바다에 닿아 있는 큰 항구 도시이다.": 0.5,
        "부산은 바다에 닿아  있는 큰 항구 도시이다.": 0.5,
        "q": 0.4,
    }
    result = mined([Example("q", (positive,))], scores, relative_margin=None)
    assert result.examples[0].negatives == ("부산은 바다에 닿아 있는 큰 항구 도시이다.",)
    assert result.candidates == 4
    # The second spelling of Busan, and the query itself.
    assert result.dropped["repeated"] == 2
    assert result.dropped["near copy"] == 1


def test_negatives_that_are_there_stay_in_front_and_count():
    example = Example("q", ("pos",), negatives=("mine", "close"), negative_scores=(0.1, 0.2), positive_scores=(0.9,))
    result = mined([example], negatives=4, **OPEN)
    assert result.examples[0].negatives == ("mine", "close", "top", "at")
    assert result.examples[0].negative_scores == ()
    assert result.examples[0].positive_scores == (0.9,)
    full = mined([example], negatives=2, **OPEN).examples[0]
    assert full == example


@pytest.mark.parametrize(("short", "count", "kept"), [("keep", 2, 1), ("fill", 4, 1), ("drop", None, 0)])
def test_too_few_candidates(short, count, kept):
    result = mined(negatives=4, absolute_margin=0.2, short=short, **OPEN)
    assert len(result.examples) == kept
    assert result.kept.tolist() == [bool(kept)]
    assert result.mined.tolist() == [2]
    if count:
        assert len(set(result.examples[0].negatives)) == count
        assert "pos" not in result.examples[0].negatives
    assert result.filled.tolist() == [2 if short == "fill" else 0]


@given(st.integers(0, 30), st.integers(1, 12), st.integers(0, 12))
def test_the_window_is_a_slice_of_the_ranking(size, first, more):
    candidates = Candidates(np.arange(size), np.linspace(1, 0, size, dtype=np.float32), positive=1.0)
    kept = candidates.only(within_window(candidates, (first, first + more)))
    assert kept.ids.tolist() == list(range(size))[first - 1 : first + more]


@given(st.integers(0, 20), st.integers(1, 25), st.integers(0, 5))
def test_drawing_gives_as_many_as_there_are(size, count, seed):
    candidates = Candidates(np.arange(size), np.zeros(size, np.float32), positive=1.0)
    masks = [draw(candidates, count, sampling="random", generator=np.random.default_rng(seed)) for _ in range(2)]
    assert masks[0].sum() == min(size, count)
    assert masks[0].tolist() == masks[1].tolist()
    assert draw(candidates, count, sampling="top", generator=np.random.default_rng(0)).tolist() == [
        place < count for place in range(size)
    ]


def test_random_sampling_covers_the_window_and_follows_the_seed():
    scores = {"pos": 1.0} | {f"p{number}": 0.9 - number / 1000 for number in range(40)}
    examples = [Example(f"q{number}", ("pos",)) for number in range(60)]
    runs = [
        mined(examples, scores, negatives=3, window=(11, 20), sampling="random", seed=seed, **OPEN).examples
        for seed in (1, 1, 2)
    ]
    assert runs[0] == runs[1] != runs[2]
    assert {text for example in runs[0] for text in example.negatives} == {f"p{number}" for number in range(10, 20)}


def test_random_negatives_are_no_positives_and_follow_the_seed():
    passages = ["pos", "POS ", "a", "b", "c", "A"]
    examples = [Example("q", ("pos",)), Example("q", ("a",), negatives=("b",))]
    found = random_negatives(examples, passages, count=2, seed=3)
    assert found == random_negatives(examples, passages, count=2, seed=3)
    assert sorted(found[0].negatives) == ["b", "c"]
    assert found[1].negatives == ("b", "c")
    with pytest.raises(UsageError, match="needs 3 random negatives, and 2 of 6"):
        random_negatives(examples, passages, count=3)


def test_random_numbers_are_uniform_enough():
    spellings = [str(number) for number in range(10)]
    counts = np.zeros(10)
    for seed in range(600):
        counts[draw_random(spellings, 3, banned={"4"}, generator=np.random.default_rng(seed))] += 1
    # 1,800 draws over nine numbers: 200 each, four standard errors are 46.
    assert counts[4] == 0
    assert np.abs(np.delete(counts, 4) - 200).max() < 46


def corpus():
    subjects = ["고래", "기차", "은하", "된장", "한글", "바둑"]
    return [f"{subject} 이야기 {number}번 {subject}{number}" for subject in subjects for number in range(8)]


@pytest.mark.parametrize("how", ["dense", "sparse", "multi_vector", "bm25", "fused"])
def test_mined_negatives_are_of_the_querys_subject(how):
    passages, encoder = corpus(), HashingEncoder(dense=128)
    if how == "bm25":
        retriever = Bm25Retriever(passages, analyzer="bigram")
    elif how == "fused":
        parts = [EncoderRetriever(encoder, passages, mode="dense"), Bm25Retriever(passages, analyzer="bigram")]
        retriever = FusedRetriever(parts, fusion="weighted", weights={"dense": 1.0, "bm25": 0.3})
    else:
        retriever = EncoderRetriever(encoder, passages, mode=how)
    examples = [Example(f"고래 고래{number}", (f"고래 이야기 {number}번 고래{number}",)) for number in range(8)]
    result = mine_negatives(examples, retriever, settings=Mining(negatives=5, near_copy=None))
    texts = [text for example in result.examples for text in example.negatives]
    assert len(texts) == 40
    assert sum(text.startswith("고래 ") for text in texts) >= 36
    assert not any(example.positives[0] in example.negatives for example in result.examples)
    again = mine_negatives(examples, retriever, settings=Mining(negatives=5, near_copy=None))
    assert again.examples == result.examples
    assert json.loads(json.dumps(result.summary()))["retriever"] == retriever.name


def test_mistakes_are_named():
    with pytest.raises(UsageError, match="no positive of example 0 .'q'"):
        mined([Example("q", ("absent",))])
    with pytest.raises(UsageError, match='no natural zero.*fusion="weighted"'):
        mine_negatives([Example("q", ("pos",))], Given(SCORES, ratio_scale=False))
    with pytest.raises(UsageError, match="negatives is 0"):
        Mining(negatives=0)
    with pytest.raises(UsageError, match="window is .3, 2."):
        Mining(window=(3, 2))
    with pytest.raises(UnknownName, match="did you mean 'random'"):
        Mining(sampling="randon")
    with pytest.raises(UnknownName, match="did you mean 'fill'"):
        Mining(short="fil")
    with pytest.raises(UsageError, match="relative_margin is -0.1"):
        Mining(relative_margin=-0.1)
    with pytest.raises(UsageError, match="near_copy is 0"):
        Mining(near_copy=0)
