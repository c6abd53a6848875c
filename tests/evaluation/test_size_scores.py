import numpy as np
import pytest

from trine.encoding.precision import Precision, fit
from trine.evaluation.size_scores import Pool, rankings, scan_vectors, score_vectors, search_part
from trine.scoring import score_mode
from trine.testing import HashingEncoder
from trine.types import Embeddings

WORDS = [f"낱말{number}" for number in range(60)]


@pytest.fixture(scope="module")
def texts():
    generator = np.random.default_rng(0)
    return [" ".join(generator.choice(WORDS, generator.integers(1, 12))) for _ in range(150)]


@pytest.fixture(scope="module")
def passages(texts):
    return HashingEncoder().encode(texts, kind="passage")


@pytest.fixture(scope="module")
def queries(texts):
    return HashingEncoder().encode([text.split()[0] for text in texts[:7]] + ["없는말"], kind="query")


@pytest.mark.parametrize(
    "precision",
    [
        Precision(dense="int8", sparse=None, multi_vector=None),
        Precision(dense="residual4", dimensions=16, sparse=None, multi_vector=None),
        Precision(dense=None, sparse="uint8", sparse_top=3, multi_vector=None),
    ],
    ids=lambda each: each.name,
)
def test_scores_are_those_of_the_decoded_passages(precision, queries, passages):
    (mode,) = precision.modes
    part = search_part(precision, queries, passages)
    compressor = fit(precision, passages)
    oracle = score_mode(compressor.queries(queries), compressor.encode(passages).decode(), mode)
    assert part.scores == pytest.approx(oracle, abs=1e-6)
    assert part.nbytes == compressor.encode(passages).nbytes[mode]
    for row, top in zip(part.scores, part.tops, strict=True):
        best = sorted(range(150), key=lambda at: (-row[at], at))[:100]
        assert top.tolist() == sorted(at for at in best if mode == "dense" or row[at])


def test_a_term_that_no_passage_has_finds_nothing(queries, passages):
    part = search_part(Precision.full(["sparse"]), queries, passages)
    assert part.tops[-1].tolist() == []
    assert [len(ids) for ids, _ in rankings({"sparse": part}, Pool.of([part], 8), [part], k=10)][-1] == 0


def test_binary_candidates_come_from_the_bits_and_scores_from_the_second_copy(queries, passages, monkeypatch):
    monkeypatch.setattr("trine.evaluation.size_scores.BINARY_CANDIDATES", 20)
    part = search_part(Precision(dense="binary", rescore="float32", sparse=None, multi_vector=None), queries, passages)
    assert part.scores == pytest.approx(queries.dense @ passages.dense.T, abs=1e-6)
    distance = ((queries.dense > 0)[:, None] != (passages.dense > 0)[None]).sum(axis=2)
    for row, top in zip(distance, part.tops, strict=True):
        assert top.tolist() == sorted(sorted(range(150), key=lambda at: (row[at], at))[:20])


def test_multi_vectors_score_the_pool_and_count_all_bytes(queries, passages):
    first = search_part(Precision.full(["dense"]), queries, passages)
    pool = Pool.of([first, search_part(Precision.full(["sparse"]), queries, passages)], 8)
    precisions = [
        Precision(dense=None, sparse=None, multi_vector=name, pool=factor)
        for name, factor in (("float32", 1), ("int4", 2), ("int8", 2))
    ]
    seen = []
    parts = score_vectors(precisions, queries, passages, pool, advance=seen.append)
    assert sum(seen) == 150
    for precision, part in zip(precisions, parts, strict=True):
        compressed = fit(precision, passages).encode(passages)
        oracle = score_mode(queries, compressed.decode(), "multi_vector")
        query_of = np.repeat(np.arange(8), np.diff(pool.offsets))
        assert part.scores == pytest.approx(oracle[query_of, pool.ids], abs=1e-6)
        assert part.nbytes == compressed.nbytes["multi_vector"]


def test_a_ranking_is_the_fused_order_of_what_was_found(queries, passages):
    dense = search_part(Precision.full(["dense"]), queries, passages)
    pool = Pool.of([dense], 8)
    (vectors,) = score_vectors([Precision.full(["multi_vector"])], queries, passages, pool)
    found = list(rankings({"dense": dense, "multi_vector": vectors}, pool, [dense], k=5))
    sims = score_mode(queries, passages, "multi_vector")
    for number, (ids, scores) in enumerate(found):
        top = dense.tops[number]
        columns = [np.float64(dense.scores[number, top]), np.float64(sims[number, top])]
        naive = sum((column - column.mean()) / column.std() for column in columns)
        assert scores == pytest.approx(np.sort(naive)[::-1][:5], abs=1e-4)
        assert naive[np.searchsorted(top, ids)] == pytest.approx(scores, abs=1e-4)


def test_without_another_search_multi_vectors_find_by_a_scan(queries, passages):
    only = Embeddings(multi_vector=passages.multi_vector)
    part = scan_vectors(queries, only)
    assert part.scores == pytest.approx(score_mode(queries, only, "multi_vector"), abs=1e-6)
    assert all(len(top) == 100 for top in part.tops)
