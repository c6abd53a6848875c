import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trine import types
from trine.errors import UsageError
from trine.types import KINDS, MODES, Embeddings, Hit, PackedRows, Passage, SparseRows

rows_of_terms = st.lists(st.dictionaries(st.integers(0, 30), st.floats(0.125, 8, width=32), max_size=5), max_size=6)
heights = st.lists(st.integers(0, 4), max_size=6)


def sparse(rows, width=31):
    return SparseRows.from_rows(rows, width=width)


def packed(lengths, width=2):
    counter = iter(range(10**6))
    return PackedRows.from_rows(
        [
            np.array([[next(counter)] * width for _ in range(length)], np.float32).reshape(length, width)
            for length in lengths
        ],
        width=width,
    )


def terms(rows):
    return [dict(zip(*(part.tolist() for part in rows.row(number)), strict=True)) for number in range(len(rows))]


def matrices(rows):
    return [rows.row(number).tolist() for number in range(len(rows))]


def choose(items, rows):
    """What numpy's own indexing makes of a list."""
    return [items[number] for number in np.arange(len(items))[rows]]


def selections(count):
    """Index arrays with repetitions, negative numbers, and slices, also backwards and empty ones."""
    numbers = st.integers(-count, count - 1) if count else st.just(0)
    return st.one_of(
        st.lists(numbers, max_size=8 if count else 0).map(lambda chosen: np.array(chosen, np.int64)),
        st.slices(count),
        st.lists(st.booleans(), min_size=count, max_size=count).map(lambda mask: np.array(mask, np.bool_)),
    )


# -- sparse rows -----------------------------------------------------------------------------------------------------


def test_sparse_rows_worked_by_hand():
    rows = sparse([{7: 0.5, 2: 1.5}, {}, {0: 2.0}])
    np.testing.assert_array_equal(rows.offsets, [0, 2, 2, 3])
    np.testing.assert_array_equal(rows.ids, [2, 7, 0])
    np.testing.assert_array_equal(rows.weights, np.float32([1.5, 0.5, 2]))
    assert (rows.offsets.dtype, rows.ids.dtype, rows.weights.dtype) == (np.int64, np.int32, np.float32)
    assert len(rows) == 3
    assert len(rows.row(1)[0]) == 0


@given(rows=rows_of_terms)
def test_sparse_rows_hold_what_they_are_made_from(rows):
    assert terms(sparse(rows)) == rows
    for number in range(len(rows)):
        assert (np.diff(sparse(rows).row(number)[0]) > 0).all()


@given(data=st.data(), rows=rows_of_terms)
def test_sparse_selection(data, rows):
    chosen = data.draw(selections(len(rows)))
    taken = sparse(rows).take(chosen)
    assert terms(taken) == choose(rows, chosen)
    assert taken.width == 31


@given(parts=st.lists(rows_of_terms, max_size=4))
def test_sparse_concatenation(parts):
    joined = SparseRows.concatenate([sparse(part) for part in parts])
    assert terms(joined) == [row for part in parts for row in part]
    assert (joined.ids.dtype, joined.weights.dtype, joined.offsets.dtype) == (np.int32, np.float32, np.int64)


def test_sparse_concatenation_takes_the_widest():
    assert SparseRows.concatenate([sparse([{1: 1.0}], 5), sparse([], 9)]).width == 9
    assert len(SparseRows.concatenate([])) == 0


# -- packed rows -----------------------------------------------------------------------------------------------------


def test_packed_rows_worked_by_hand():
    rows = PackedRows.from_rows([np.ones((2, 3)), np.zeros((0, 3)), np.full((1, 3), 5.0)], width=3)
    np.testing.assert_array_equal(rows.offsets, [0, 2, 2, 3])
    assert rows.values.shape == (3, 3)
    assert rows.row(1).shape == (0, 3)
    assert np.shares_memory(rows.row(0), rows.values)  # a view


@given(data=st.data(), lengths=heights)
def test_packed_selection(data, lengths):
    rows, chosen = packed(lengths), data.draw(selections(len(lengths)))
    taken = rows.take(chosen)
    assert matrices(taken) == choose(matrices(rows), chosen)
    assert taken.values.shape[1] == 2
    assert not np.shares_memory(taken.values, rows.values)


@given(parts=st.lists(heights, min_size=1, max_size=4))
def test_packed_concatenation(parts):
    rows = [packed(part) for part in parts]
    joined = PackedRows.concatenate(rows)
    assert matrices(joined) == [matrix for part in rows for matrix in matrices(part)]


def test_packed_empties():
    assert packed([]).values.shape == (0, 2)
    assert len(PackedRows.concatenate([])) == 0
    assert packed([0, 0]).values.shape == (0, 2)


# -- embeddings ------------------------------------------------------------------------------------------------------


def embeddings(count, modes=MODES):
    full = Embeddings(
        np.arange(2.0 * count, dtype=np.float32).reshape(count, 2),
        sparse([{number: 1.0, 30: 2.0} for number in range(count)]),
        packed([number % 3 for number in range(count)]),
    )
    return full.only(modes)


def same(one, other):
    assert one.modes == other.modes
    if one.dense is not None:
        np.testing.assert_array_equal(one.dense, other.dense)
    if one.sparse is not None:
        assert terms(one.sparse) == terms(other.sparse)
    if one.multi_vector is not None:
        assert matrices(one.multi_vector) == matrices(other.multi_vector)


def test_parts_of_unequal_length_are_refused():
    with pytest.raises(UsageError, match="unequal lengths: {'dense': 2, 'sparse': 1}"):
        Embeddings(dense=np.zeros((2, 3)), sparse=sparse([{}]))


def test_modes_and_length():
    assert embeddings(3).modes == MODES
    assert embeddings(3, ["sparse"]).modes == ("sparse",)
    assert len(embeddings(3, ["multi_vector"])) == 3
    assert Embeddings().modes == ()
    assert len(Embeddings()) == 0


@settings(max_examples=50)
@given(data=st.data(), count=st.integers(0, 6))
def test_selection_takes_all_parts_alike(data, count):
    chosen = data.draw(selections(count))
    taken = embeddings(count).take(chosen)
    numbers = np.arange(count)[chosen]
    assert len(taken) == len(numbers)
    np.testing.assert_array_equal(taken.dense, embeddings(count).dense[numbers])
    same(taken, embeddings(count).take(numbers))


@pytest.mark.parametrize("rows", [slice(1, 3), slice(None), np.array([1, 2])])
def test_what_is_taken_is_a_copy(rows):
    """A piece must not keep the whole alive, nor change with it."""
    whole = embeddings(4)
    taken = whole.take(rows)
    assert not np.shares_memory(taken.dense, whole.dense)
    whole.dense[:] = -1
    assert (taken.dense >= 0).all()


@given(count=st.integers(0, 9), size=st.integers(1, 10))
def test_split_and_concatenate_undo_each_other(count, size):
    parts = list(embeddings(count).split(size))
    assert [len(part) for part in parts] == [min(size, count - start) for start in range(0, count, size)]
    if parts:
        same(Embeddings.concatenate(parts), embeddings(count))


def test_concatenation_of_different_representations_is_refused():
    with pytest.raises(UsageError, match="cannot join Embeddings that hold different representations"):
        Embeddings.concatenate([embeddings(1), embeddings(1, ["dense"])])
    assert len(Embeddings.concatenate([])) == 0


def test_only():
    assert embeddings(2).only(["dense", "multi_vector"]).modes == ("dense", "multi_vector")
    assert embeddings(2).only([]).modes == ()


# -- nouns -----------------------------------------------------------------------------------------------------------


def test_what_of_a_passage_is_embedded():
    passage = Passage("d", 0, 0, 2, 1, "본문")
    assert passage.content == "본문"
    assert dataclasses.replace(passage, title="제목 > 절").content == "제목 > 절\n본문"


def test_nouns_cannot_be_changed():
    for name in ("Document", "Heading", "Passage", "Query", "Hit", "SparseRows", "PackedRows", "Embeddings"):
        noun = getattr(types, name)
        assert dataclasses.is_dataclass(noun)
        assert noun.__dataclass_params__.frozen
        assert "__slots__" in vars(noun)


def test_a_hit_has_no_terms_unless_they_are_given():
    hit = Hit(1, 5, Passage("d", 0, 0, 1, 1, "x"), 0.5, {"dense": 0.5}, {})
    assert dict(hit.terms) == {}


def test_modes_and_kinds_are_those_of_their_types():
    assert types.Mode.__args__ == MODES
    assert types.Kind.__args__ == KINDS
