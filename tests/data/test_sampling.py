import itertools
import json
from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from trine.data.memory import MemoryModel
from trine.data.sampling import Part, Sampler, Sampling
from trine.errors import UsageError


def part(name="가", count=40, *, low=5, high=400, seed=0, **more):
    lengths = np.random.default_rng([seed, count]).integers(low, high + 1, size=count)
    return Part(name, lengths, **more)


def shown(draws):
    return [(d.step, d.source, d.rows.tolist(), d.epochs.tolist(), d.length) for d in draws]


@st.composite
def cases(draw):
    ranks = draw(st.integers(1, 3))
    counts = draw(st.lists(st.integers(3, 60), min_size=1, max_size=3))
    keyed = draw(st.booleans())
    parts = []
    for number, count in enumerate(counts):
        keys = np.random.default_rng(number).integers(0, count, size=(count, 2)) if keyed else None
        parts.append(part(f"자료{number}", count, seed=number, keys=keys))
    budget = draw(st.booleans())
    sizes = (
        {"batch_size_at": MemoryModel(2000, 50, 1).batch_size}
        if budget
        else {"batch_size": ranks * draw(st.integers(1, 10))}
    )
    sampling = Sampling(
        **sizes,
        ranks=ranks,
        exponent=draw(st.sampled_from([0.0, 0.5, 1.0])),
        seed=draw(st.integers(0, 3)),
        max_epochs=draw(st.integers(1, 3)),
    )
    return parts, sampling


@given(cases())
def test_each_example_comes_once_an_epoch(case):
    parts, sampling = case
    sampler = Sampler(parts, sampling=sampling)
    draws = list(sampler)
    assert len(draws) == sampler.total_steps
    for number, own in enumerate(parts):
        pairs = Counter(
            (row, epoch) for d in draws if d.source == number for row, epoch in zip(d.rows, d.epochs, strict=True)
        )
        assert set(pairs.values()) == {1}
        missing = len(own.lengths) * sampling.max_epochs - len(pairs)
        assert missing == sampler.left_over.get(own.name, 0) < sampling.ranks
        assert {epoch for _, epoch in pairs} <= set(range(sampling.max_epochs))


@given(cases(), st.data())
def test_a_resumed_run_is_the_uninterrupted_one(case, data):
    parts, sampling = case
    whole = list(Sampler(parts, sampling=sampling))
    stop = data.draw(st.integers(0, len(whole)))
    first = Sampler(parts, sampling=sampling)
    begun = list(itertools.islice(first, stop))
    state = json.loads(json.dumps(first.state_dict()))
    second = Sampler(parts, sampling=sampling)
    list(itertools.islice(second, 1))
    second.load_state_dict(state)
    assert shown([*begun, *second]) == shown(whole)
    assert second.left_over == first.left_over or stop < len(whole)


@given(cases())
def test_ranks_take_disjoint_equal_shares_of_all(case):
    parts, sampling = case
    for draw in Sampler(parts, sampling=sampling):
        shares = [draw.rows[draw.share(rank, ranks=sampling.ranks)] for rank in range(sampling.ranks)]
        assert len({len(share) for share in shares}) == 1
        assert np.array_equal(np.concatenate(shares), draw.rows)
        assert len(shares[0]) > 0


@given(cases())
def test_batches_fit_the_longest_of_their_texts(case):
    parts, sampling = case
    for draw in Sampler(parts, sampling=sampling):
        lengths = parts[draw.source].lengths[draw.rows]
        assert lengths.max() <= draw.length
        assert len(draw.rows) <= sampling.size(int(lengths.max()))


def test_lengths_within_a_batch_are_alike_and_batches_of_long_texts_small():
    own = part(count=4000, high=2000)
    sampling = Sampling(batch_size_at=lambda length: 8192 // length, max_epochs=1)
    padded = real = 0
    sizes = {}
    for draw in Sampler([own], sampling=sampling):
        lengths = own.lengths[draw.rows]
        padded += lengths.max() * len(lengths)
        real += lengths.sum()
        sizes[draw.length] = len(draw.rows)
    assert padded / real < 1.25
    # At random, half of such batches would be padding.
    assert min(sizes.values()) < 6 < 100 < max(sizes.values())


def test_one_very_long_text_does_not_shrink_all_batches():
    lengths = np.array([20] * 500 + [8000])
    sampling = Sampling(batch_size_at=lambda length: max(16000 // length, 2), max_epochs=1)
    draws = list(Sampler([Part("a", lengths)], sampling=sampling))
    assert max(len(draw.rows) for draw in draws) > 300
    assert [len(draw.rows) for draw in draws if 500 in draw.rows] == [2]


def test_nothing_is_left_behind_between_epochs():
    # 10 examples in batches of 4: the two left of the first epoch come first in the second.
    sampler = Sampler([Part("a", np.full(10, 7))], sampling=Sampling(batch_size=4))
    draws = list(itertools.islice(sampler, 5))
    assert Counter(row for draw in draws for row in draw.rows) == Counter({row: 2 for row in range(10)})
    assert sum((draw.epochs == 0).sum() for draw in draws[2:4]) == 2


def test_epochs_differ_and_seeds_too():
    def order(seed, epochs):
        sampler = Sampler([part()], sampling=Sampling(batch_size=40, boundaries=[1000], max_epochs=epochs, seed=seed))
        return [draw.rows.tolist() for draw in sampler]

    first, second = order(0, 2)
    assert first != second
    assert sorted(first) == sorted(second) == list(range(40))
    assert order(0, 2)[0] == first != order(1, 1)[0]


@pytest.mark.parametrize(("exponent", "expected"), [(1.0, 0.9), (0.5, 0.75), (0.0, 0.5)])
def test_sources_are_mixed_by_temperature(exponent, expected):
    parts = [part("큰", 900, high=30), part("작은", 100, high=30)]
    sampler = Sampler(parts, sampling=Sampling(batch_size=10, exponent=exponent, steps=2000))
    assert sampler.shares["큰"] == pytest.approx(expected)
    counts = Counter(draw.source for draw in sampler)
    assert counts[0] / 2000 == pytest.approx(expected, abs=0.03)


def test_shares_are_of_examples_where_batches_differ_in_size():
    short, long = Part("short", np.full(1000, 10)), Part("long", np.full(1000, 100))
    sampling = Sampling(batch_size_at=lambda length: 1000 // length, steps=2000)
    seen = Counter()
    for draw in Sampler([short, long], sampling=sampling):
        seen[draw.source] += len(draw.rows)
    assert seen[0] / seen.total() == pytest.approx(0.5, abs=0.05)


def test_weights_and_caps_change_the_share():
    parts = [part("a", 900, cap=100), part("b", 100), part("c", 100, weight=2.0)]
    shares = Sampler(parts, sampling=Sampling(batch_size=10)).shares
    assert shares == pytest.approx({"a": 0.25, "b": 0.25, "c": 0.5})


def test_a_source_smaller_than_a_batch_gives_what_it_has():
    draws = list(Sampler([part(count=5)], sampling=Sampling(batch_size=32, ranks=2, max_epochs=2)))
    assert [len(draw.rows) for draw in draws] == [4, 4, 2]


def test_equal_texts_are_kept_apart():
    keys = np.repeat(np.arange(20), 2)[:, None]
    sampler = Sampler([part(count=40, keys=keys, high=30)], sampling=Sampling(batch_size=8, steps=50))
    for draw in sampler:
        assert len(set(keys[draw.rows, 0].tolist())) == 8


def test_an_example_does_not_meet_itself_from_the_epoch_before():
    sampler = Sampler([Part("a", np.full(10, 7))], sampling=Sampling(batch_size=4, steps=200))
    for draw in sampler:
        assert len(set(draw.rows.tolist())) == 4


def test_a_position_of_something_else_is_refused():
    sampling = Sampling(batch_size=4)
    state = Sampler([part(fingerprint="x")], sampling=sampling).state_dict()
    for parts, others, message in (
        ([part(fingerprint="y")], {}, "fingerprint x when the position was taken, y now"),
        ([part("b", fingerprint="x")], {}, "is of the sources"),
        ([part(fingerprint="x", count=41)], {}, "examples 40"),
        ([part(fingerprint="x", weight=2.0)], {}, "weight 1.0"),
        ([part(fingerprint="x")], {"seed": 1}, "seed 0, now it is 1"),
        ([part(fingerprint="x")], {"batch_size": 8}, "groups"),
        ([part(fingerprint="x")], {"ranks": 2}, "ranks 1"),
    ):
        other = Sampler(parts, sampling=Sampling(**({"batch_size": 4} | others)))
        with pytest.raises(UsageError, match=message):
            other.load_state_dict(state)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({}, "exactly|one of"),
        ({"batch_size": 4, "batch_size_at": len}, "one of"),
        ({"batch_size": 5, "ranks": 2}, "multiple of the 2 ranks"),
        ({"batch_size": 4, "exponent": -1}, "exponent"),
        ({"batch_size": 4, "steps": 0}, "steps"),
        ({"batch_size": 4, "ranks": 0}, "ranks"),
    ],
)
def test_settings_that_contradict_each_other_are_refused(settings, message):
    with pytest.raises(UsageError, match=message):
        Sampling(**settings)


def test_sources_that_cannot_be_drawn_are_refused():
    with pytest.raises(UsageError, match="no sources"):
        Sampler([], sampling=Sampling(batch_size=1))
    with pytest.raises(UsageError, match="two sources are called 가"):
        Sampler([part(), part()], sampling=Sampling(batch_size=1))
    with pytest.raises(UsageError, match="2 examples for 3 ranks"):
        Sampler([part(count=2)], sampling=Sampling(batch_size=3, ranks=3))
    with pytest.raises(UsageError, match="must ascend"):
        Sampler([part()], sampling=Sampling(batch_size=1, boundaries=[5, 5]))
    for wrong in ({"weight": 0.0}, {"cap": 0}, {"count": 0}):
        with pytest.raises(UsageError):
            part(**wrong)


def test_lengths_can_be_left_out_of_account():
    sampling = Sampling(batch_size_at=lambda length: 400 // length, boundaries=(0,), max_epochs=1)
    draws = list(Sampler([Part("a", np.array([10] * 30 + [100] * 2))], sampling=sampling))
    assert {draw.length for draw in draws} == {100}
    assert {len(draw.rows) for draw in draws} == {4}
