import json
import os
import random
import shutil
import signal
import subprocess
import sys
import threading
import time

import numpy as np
import pytest

from trine.errors import CollectionError, CollectionLocked, UsageError
from trine.index import qdrant_edge
from trine.index.exact import ExactIndex
from trine.index.qdrant_edge import QdrantEdgeIndex
from trine.types import Embeddings, SparseRows

DIMENSIONS = {"dense": 4, "sparse": 100}


def marked(numbers):
    """Texts that name their own id in both representations."""
    return Embeddings(
        dense=np.array([[number, 1, 0, 0] for number in numbers], np.float32),
        sparse=SparseRows.from_rows(({0: 1.0 + number} for number in numbers), width=100),
    )


def marks(index):
    """Id -> the numbers that its dense and its sparse vector name."""
    query = Embeddings(np.array([[1, 0, 0, 0]], np.float32), SparseRows.from_rows([{0: 1.0}], width=100))
    dense, sparse = (index.search(query, mode=mode, k=10**6) for mode in ("dense", "sparse"))
    named = dict(zip(sparse.ids.tolist(), (sparse.scores - 1).tolist(), strict=True))
    return {
        number: (score, named[number]) for number, score in zip(dense.ids.tolist(), dense.scores.tolist(), strict=True)
    }


def open_index(folder, dimensions=DIMENSIONS):
    return QdrantEdgeIndex.open(str(folder), dimensions=dimensions)


@pytest.fixture
def index(tmp_path):
    made = open_index(tmp_path / "index")
    yield made
    made.close()


def test_multi_vectors_are_left_out(tmp_path):
    index = open_index(tmp_path, {"multi_vector": 8, "sparse": 100, "dense": 4})
    assert index.modes == ("dense", "sparse")
    index.close()
    with pytest.raises(UsageError, match="keeps dense, sparse"):
        open_index(tmp_path / "other", {"multi_vector": 8})


def test_a_path_is_needed():
    with pytest.raises(UsageError, match="needs a path"):
        QdrantEdgeIndex.open(None, dimensions=DIMENSIONS)


def test_sparse_ids_up_to_the_largest_int32(tmp_path):
    index = open_index(tmp_path, {"sparse": 2**31})
    index.add(np.array([1, 2]), Embeddings(sparse=SparseRows.from_rows([{2**31 - 1: 2.0}, {0: 1.0}], width=2**31)))
    query = Embeddings(sparse=SparseRows.from_rows([{0: 0.5, 2**31 - 1: 3.0}], width=2**31))
    ranking = index.search(query, mode="sparse", k=5)
    assert (ranking.ids.tolist(), ranking.scores.tolist()) == ([1, 2], [6.0, 0.5])
    index.close()


def test_agrees_with_the_exact_index_on_real_values(tmp_path):
    generator = np.random.default_rng(0)
    dimensions = {"dense": 32, "sparse": 300}

    def texts(count):
        return Embeddings(
            dense=generator.normal(size=(count, 32)).astype(np.float32),
            sparse=SparseRows.from_rows(
                ({int(term): float(generator.normal()) for term in generator.choice(300, 12)} for _ in range(count)),
                width=300,
            ),
        )

    index, oracle = open_index(tmp_path, dimensions), ExactIndex.open(dimensions=dimensions)
    for _ in range(3):
        ids, added, removed = generator.choice(1500, 500, replace=False), texts(500), generator.choice(1500, 60)
        for one in (index, oracle):
            one.add(ids, added)
            one.delete(removed)
    queries = texts(20)
    for mode in ("dense", "sparse"):
        for allowed in (None, generator.choice(1500, 1200, replace=False)):
            mine = index.search(queries, mode=mode, k=10, allowed=allowed)
            expected = oracle.search(queries, mode=mode, k=10, allowed=allowed)
            assert mine.offsets.tolist() == expected.offsets.tolist()
            assert np.mean(mine.ids == expected.ids) > 0.99  # nearly equal scores may change places
            np.testing.assert_allclose(mine.scores, expected.scores, rtol=1e-4, atol=1e-5)
    index.close()


def test_a_second_opening_is_refused_and_does_no_harm(index, tmp_path):
    index.add(np.arange(5), marked(range(5)))
    with pytest.raises(CollectionLocked, match=f"open in process {os.getpid()}"):
        open_index(tmp_path / "index")
    index.add(np.arange(5, 10), marked(range(5, 10)))
    index.flush()
    index.close()
    again = open_index(tmp_path / "index")
    assert marks(again) == {number: (number, number) for number in range(10)}
    again.close()


def test_closing_unlocks_even_if_a_forked_process_has_the_descriptor(tmp_path):
    index = open_index(tmp_path)
    inherited = os.dup(index._lock.fileno())
    index.close()
    open_index(tmp_path).close()
    os.close(inherited)


HOLD = """
import sys
import numpy as np
from trine.index.qdrant_edge import QdrantEdgeIndex
from trine.types import Embeddings

index = QdrantEdgeIndex.open(sys.argv[1], dimensions={"dense": 2})
for line in sys.stdin:
    index.add(np.array([int(line)]), Embeddings(dense=np.ones((1, 2), np.float32)))
    index.flush()
    print(len(index), flush=True)
index.close()
"""


def test_another_process_is_refused_and_the_first_goes_on(tmp_path):
    folder = tmp_path / "index"
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, str(folder)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as holder:
        print(1, file=holder.stdin, flush=True)
        assert holder.stdout.readline() == "1\n"
        for _ in range(3):
            with pytest.raises(CollectionLocked, match=f"open in process {holder.pid}"):
                open_index(folder, {"dense": 2})
        print(2, file=holder.stdin, flush=True)
        assert holder.stdout.readline() == "2\n"
        holder.stdin.close()
    assert holder.returncode == 0
    index = open_index(folder, {"dense": 2})
    assert index.ids().tolist() == [1, 2]
    index.close()


WRITE = """
import sys
import numpy as np
from trine.index.qdrant_edge import QdrantEdgeIndex
from trine.types import Embeddings, SparseRows

index = QdrantEdgeIndex.open(sys.argv[1], dimensions={"dense": 4, "sparse": 100})
first = int(sys.argv[2])
while True:
    numbers = np.arange(first, first + 20)
    index.add(numbers, Embeddings(
        dense=np.array([[number, 1, 0, 0] for number in numbers], np.float32),
        sparse=SparseRows.from_rows(({0: 1.0 + number} for number in numbers), width=100),
    ))
    index.delete(numbers[:5])
    index.flush()
    print(first, flush=True)
    first += 20
"""


def test_killed_while_writing_loses_nothing_that_was_flushed(tmp_path):
    chance, expected, first = random.Random(0), set(), 0
    for _ in range(5):
        with subprocess.Popen(
            [sys.executable, "-c", WRITE, str(tmp_path), str(first)], stdout=subprocess.PIPE, text=True
        ) as writer:
            acknowledged = [writer.stdout.readline()]
            time.sleep(chance.random() * 0.2)
            writer.send_signal(signal.SIGKILL)
            acknowledged += writer.stdout.readlines()
        for line in acknowledged:
            if line.endswith("\n"):
                expected |= set(range(int(line) + 5, int(line) + 20))
                first = int(line) + 20
        index = open_index(tmp_path)
        found = marks(index)
        assert expected <= set(found)
        assert set(found) <= expected | set(range(first, first + 20))
        assert all(named == (number, number) for number, named in found.items())
        assert index.ids().tolist() == sorted(found)
        index.delete(np.setdiff1d(index.ids(), sorted(expected)))
        index.flush()
        index.close()


def test_searching_while_another_thread_writes(index):
    failures, stop = [], threading.Event()

    def search():
        try:
            while not stop.is_set():
                for number, named in marks(index).items():
                    assert named == (number, number)
        except Exception as error:
            failures.append(error)

    thread = threading.Thread(target=search)
    thread.start()
    for first in range(0, 200, 10):
        index.add(np.arange(first, first + 10), marked(range(first, first + 10)))
    stop.set()
    thread.join()
    assert failures == []
    assert len(index) == 200


def damage_manifest(folder):
    (folder / "index.json").write_text("{", "utf-8")


def damage_manifest_format(folder):
    (folder / "index.json").write_text(json.dumps({"format": 99, "dimensions": DIMENSIONS}), "utf-8")


def lose_manifest(folder):
    (folder / "index.json").unlink()


def damage_segment(folder):
    next(folder.glob("shard/segments/*/segment.json")).write_bytes(b"\x00")


def damage_storage(folder):
    """The engine answers this one with a Rust panic, which is no `Exception` in Python."""
    next(folder.glob("shard/segments/*/vector_storage-dense/deleted/status.dat")).write_bytes(b"")


@pytest.mark.parametrize(
    "damage", [damage_manifest, damage_manifest_format, lose_manifest, damage_segment, damage_storage]
)
def test_damage_is_named_and_the_folder_can_be_built_again(tmp_path, damage):
    folder = tmp_path / "index"
    index = open_index(folder)
    index.add(np.arange(3), marked(range(3)))
    index.flush()
    index.close()
    damage(folder)
    for _ in range(2):
        with pytest.raises(CollectionError, match="delete that folder and build it again"):
            open_index(folder)
    shutil.rmtree(folder)
    again = open_index(folder)
    assert len(again) == 0
    again.add(np.arange(3), marked(range(3)))
    assert len(again) == 3
    again.close()


@pytest.mark.parametrize("other", [{"dense": 5, "sparse": 100}, {"dense": 4}, {"dense": 4, "sparse": 101}])
def test_other_dimensions_are_refused_with_both_values(tmp_path, other):
    open_index(tmp_path).close()
    with pytest.raises(CollectionError) as caught:
        open_index(tmp_path, other)
    assert str(DIMENSIONS) in str(caught.value)
    assert str(other) in str(caught.value)
    open_index(tmp_path).close()


def test_an_interrupted_creation_is_finished_by_the_next_opening(tmp_path):
    open_index(tmp_path).close()
    shutil.rmtree(tmp_path / "shard")
    index = open_index(tmp_path)
    assert len(index) == 0
    index.close()


def test_optimize_changes_no_result_below_the_size_of_a_graph(index):
    index.add(np.arange(300), marked(range(300)))
    index.delete(np.arange(0, 300, 2))
    before = marks(index)
    index.optimize()
    assert marks(index) == before
    assert len(index) == 150


def test_optimize_builds_a_graph_over_many_passages(tmp_path, monkeypatch):
    monkeypatch.setattr(qdrant_edge, "_GRAPH_FROM", 200)
    generator = np.random.default_rng(0)
    vectors = generator.normal(size=(3000, 16)).astype(np.float32)
    index = open_index(tmp_path, {"dense": 16})
    index.add(np.arange(3000), Embeddings(dense=vectors))
    queries = Embeddings(dense=generator.normal(size=(30, 16)).astype(np.float32))
    exact = index.search(queries, mode="dense", k=10)
    assert not list(tmp_path.rglob("*graph*"))
    index.optimize()
    assert list(tmp_path.rglob("*graph*"))
    approximate = index.search(queries, mode="dense", k=10)
    shared = [np.intersect1d(exact.row(number)[0], approximate.row(number)[0]) for number in range(30)]
    assert sum(map(len, shared)) / 300 > 0.95
    index.add(np.array([5000]), Embeddings(dense=queries.dense[:1] * 100))
    assert index.search(queries, mode="dense", k=1).row(0)[0].tolist() == [5000]
    index.close()
