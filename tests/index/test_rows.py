import threading

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from trine.index.rows import RowLog
from trine.types import Embeddings, PackedRows, SparseRows

ids_lists = st.lists(st.integers(0, 9), max_size=5, unique=True)


def values(numbers, start):
    """Texts whose every part shows which write they came from."""
    marks = [float(start + position) for position in range(len(numbers))]
    return marks, Embeddings(
        dense=np.array(marks, np.float32).reshape(-1, 1),
        sparse=SparseRows.from_rows(({int(mark): mark} for mark in marks), width=1000),
        multi_vector=PackedRows.from_rows(
            [np.full((int(mark) % 3, 1), mark, np.float32) for mark in marks],
            width=1,
        ),
    )


def empty():
    return values([], 0)[1]


@settings(deadline=None, derandomize=True)
@given(st.lists(st.tuples(st.sampled_from(["add", "delete", "read"]), ids_lists), max_size=12))
def test_the_last_write_of_each_id_counts(steps):
    log, expected = RowLog(empty()), {}
    for number, (step, ids) in enumerate(steps):
        if step == "add":
            marks, texts = values(ids, 1 + number * 10)
            expected.update(zip(ids, marks, strict=True))
            log.add(np.array(ids, np.int64), texts)
        elif step == "delete":
            expected = {key: mark for key, mark in expected.items() if key not in ids}
            log.delete(np.array(ids, np.int64))
        else:
            log.read()
    rows = log.read()
    assert rows.ids.tolist() == sorted(expected)
    for position, key in enumerate(rows.ids.tolist()):
        mark = expected[key]
        assert rows.embeddings.dense[position].tolist() == [mark]
        terms, weights = rows.embeddings.sparse.row(position)
        assert (terms.tolist(), weights.tolist()) == ([int(mark)], [mark])
        assert rows.embeddings.multi_vector.row(position).tolist() == [[mark]] * (int(mark) % 3)


def test_nothing_is_copied_again_until_a_write():
    log = RowLog(empty())
    log.add(np.array([3, 1]), values([3, 1], 1)[1])
    rows = log.read()
    assert log.read() is rows
    log.delete(np.array([1]))
    assert log.read() is not rows
    assert rows.ids.tolist() == [1, 3]


def test_an_emptied_log_keeps_its_representations():
    log = RowLog(empty())
    log.add(np.array([1]), values([1], 1)[1])
    log.delete(np.array([1]))
    assert log.read().embeddings.modes == ("dense", "sparse", "multi_vector")
    assert len(log.read().embeddings) == 0


def test_half_precision_stays_half_precision():
    log = RowLog(Embeddings(multi_vector=PackedRows.from_rows([], width=1)))
    for number in range(2):
        half = PackedRows(np.ones((3, 1), np.float16), np.array([0, 3]))
        log.add(np.array([number]), Embeddings(multi_vector=half))
    assert log.read().embeddings.multi_vector.values.dtype == np.float16


def test_writers_and_readers_in_several_threads_lose_nothing():
    log, seen = RowLog(empty()), []

    def write(first):
        for number in range(first, first + 100):
            log.add(np.array([number]), values([number], number)[1])
            seen.append(len(log.read().ids))

    threads = [threading.Thread(target=write, args=(first,)) for first in (0, 100, 200)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert log.read().ids.tolist() == list(range(300))
    assert log.read().embeddings.dense[:, 0].tolist() == [float(number) for number in range(300)]
    assert max(seen) == 300
