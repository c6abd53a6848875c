import itertools
import unicodedata
from collections import Counter

import numpy as np
import pytest

from trine.data.examples import ExampleList, text_key
from trine.errors import DataError, UsageError
from trine.training.drawing import Drawer, Grouping, shuffled
from trine.types import Example

EXAMPLES = [
    Example(f"질문 {n}", (f"답 {n}", f"다른 답 {n}"), tuple(f"틀린 답 {n}.{k}" for k in range(n)), lang="ko")
    for n in range(6)
]


def drawer(examples=EXAMPLES, *, lengths=None, seed=0, **grouping):
    lengths = np.full(len(examples), 10) if lengths is None else np.array(lengths)
    source = ExampleList(examples, name="자료")
    return Drawer(source, grouping=Grouping(**grouping), lengths=lengths, seed=seed)


def test_a_group_is_one_positive_and_negatives_without_repeats():
    group = drawer(group_size=4)(5, epoch=0, length=10)
    assert group.query == "질문 5"
    assert group.passages[0] in EXAMPLES[5].positives
    assert len(set(group.passages[1:])) == 3
    assert set(group.passages[1:]) <= set(EXAMPLES[5].negatives)
    assert group.passage_keys == tuple(map(text_key, group.passages))
    assert group.query_key == text_key("질문 5")


def test_it_depends_on_seed_example_and_epoch_alone():
    first, again = drawer(group_size=3), drawer(group_size=3)
    again(2, epoch=7, length=10)
    assert first(5, epoch=1, length=10) == again(5, epoch=1, length=10)
    drawn = {drawer(group_size=3, seed=seed)(5, epoch=epoch, length=10) for seed in range(3) for epoch in range(3)}
    assert len(drawn) > 5


def test_positives_come_in_turn():
    draw = drawer()
    for row in range(6):
        found = [draw(row, epoch=epoch, length=10).passages[0] for epoch in range(4)]
        assert set(found[:2]) == set(found[2:]) == set(EXAMPLES[row].positives)
    assert len({draw(row, epoch=0, length=10).passages[0].startswith("다른") for row in range(6)}) == 2


def test_missing_negatives_are_other_positives_or_repeats():
    filled = drawer(group_size=4)(1, epoch=0, length=10).passages
    assert filled[1] == "틀린 답 1.0"
    others = {example.positives[0] for number, example in enumerate(EXAMPLES) if number != 1}
    assert set(filled[2:]) <= others
    assert len(set(filled)) == 4
    repeated = drawer(group_size=6, fill="repeat")(2, epoch=0, length=10).passages
    assert sorted(Counter(repeated[1:]).values()) == [2, 3]
    assert set(repeated[1:]) == set(EXAMPLES[2].negatives)
    assert set(drawer(group_size=3, fill="repeat")(0, epoch=0, length=10).passages[1:]) <= {
        example.positives[0] for example in EXAMPLES[1:]
    }


def test_fillers_are_no_longer_than_the_group():
    draw = drawer(group_size=3, lengths=[10, 10, 10, 500, 500, 500])
    found = {text for epoch in range(20) for text in draw(0, epoch=epoch, length=20).passages[1:]}
    assert found == {"답 1", "답 2"}


def test_where_all_texts_are_equal_a_filler_has_the_key_of_the_positive():
    same = [Example("같은 질문", ("같은 답",))] * 3
    group = drawer(same, group_size=2)(0, epoch=0, length=10)
    assert group.passages == ("같은 답", "같은 답")
    assert group.passage_keys[0] == group.passage_keys[1]


def test_teacher_scores_follow_their_passages():
    scored = Example("q", ("p1", "p2"), ("n1", "n2", "n3"), (11.0, 12.0), (1.0, 2.0, 3.0))
    points = {"p1": 11.0, "p2": 12.0, "n1": 1.0, "n2": 2.0, "n3": 3.0}
    draw = drawer([scored], group_size=6, teacher_scores=True)
    for epoch in range(5):
        group = draw(0, epoch=epoch, length=10)
        assert group.scores == tuple(points[text] for text in group.passages)
        assert len(group.passages) == 6
    assert drawer([scored], group_size=3)(0, epoch=0, length=10).scores == ()


@pytest.mark.parametrize(
    "bad", [Example("q", ("p",), ("n",)), Example("q", ("p",), (), (1.0,)), Example("q", ("p",), ("n",), (1.0,))]
)
def test_unscored_examples_are_named(bad):
    good = Example("q", ("p",), ("n",), (1.0,), (0.0,))
    with pytest.raises(DataError, match=r"자료\[1\]: teacher scores are asked for.*\(1 such"):
        drawer([good, bad], group_size=2, teacher_scores=True)


def test_long_positives_are_shuffled_as_often_as_asked():
    text = " ".join(f"낱말{number}" for number in range(60))
    examples = [Example("q", (text,)), Example("r", ("짧은 글",))]
    draw = drawer(examples, shuffle_probability=0.25)
    found = [draw(0, epoch=epoch, length=10) for epoch in range(400)]
    changed = [group for group in found if group.passages[0] != text]
    assert len(changed) / 400 == pytest.approx(0.25, abs=0.07)
    assert {group.passage_keys for group in found} == {(text_key(text),)}
    assert draw(1, epoch=0, length=10).passages == ("짧은 글",)


@pytest.mark.parametrize("form", ["NFC", "NFD"])
def test_shuffling_keeps_every_letter_whole(form):
    text = unicodedata.normalize(form, "한국어는교착어라서조사가명사에붙는다👩‍👩‍👧‍👦" * 7)
    for seed in range(10):
        result = shuffled(text, np.random.default_rng(seed))
        pieces = result.split(" ")
        assert len(pieces) == 3
        assert "".join(pieces) != text
        assert Counter("".join(pieces)) == Counter(text)
        assert text in {"".join(order) for order in itertools.permutations(pieces)}
        assert not any("\u1160" <= piece[0] <= "\u11ff" or piece[0] == "\u200d" for piece in pieces)


@pytest.mark.parametrize(
    "wrong",
    [{"group_size": 0}, {"fill": "rndom"}, {"shuffle_probability": 2}, {"teacher_scores": True, "group_size": 1}],
)
def test_settings_that_mean_nothing_are_refused(wrong):
    with pytest.raises(UsageError):
        Grouping(**wrong)
