import numpy as np
import pytest
import torch

from models import cross_encoders, tiny
from trine import Reranker
from trine.encoding import pairs as pairs_module
from trine.encoding.pairs import PairEngine
from trine.errors import UsageError


@pytest.fixture(scope="module")
def reranker(tmp_path_factory):
    return Reranker.load(cross_encoders.bare("bert", tmp_path_factory.mktemp("bert") / "bert"), device="cpu")


@pytest.fixture
def shapes(reranker, monkeypatch):
    """The shape of every batch that goes through the model."""
    found, forward = [], reranker.forward

    def watched(batch):
        found.append(tuple(batch.ids_BL.shape))
        return forward(batch)

    monkeypatch.setattr(reranker, "forward", watched)
    return found


def test_batches_keep_to_the_token_budget(reranker, shapes):
    PairEngine(reranker, batch_tokens=100).logits(cross_encoders.PAIRS)
    assert all(size == 1 or size * width <= 100 for size, width in shapes)
    assert sum(size for size, _ in shapes) == len(cross_encoders.PAIRS)
    assert max(size for size, _ in shapes) > 5


def test_windows_do_not_show(reranker, monkeypatch):
    whole = PairEngine(reranker).logits(cross_encoders.PAIRS)
    monkeypatch.setattr(pairs_module, "WINDOW", 5)
    np.testing.assert_allclose(PairEngine(reranker).logits(cross_encoders.PAIRS), whole, atol=1e-6)


def test_queries_are_tokenised_once_and_passages_once_a_window(reranker, monkeypatch):
    given, ids = [], reranker.pairs.ids

    def watched(texts):
        distinct = list(dict.fromkeys(texts))
        given.extend(distinct)
        return ids(distinct)

    monkeypatch.setattr(reranker.pairs, "ids", watched)
    monkeypatch.setattr(pairs_module, "WINDOW", 10)
    PairEngine(reranker).logits([("질문", passage) for passage in tiny.CORPUS] + [("질문", tiny.CORPUS[15])])
    assert sorted(given) == sorted(["질문", *tiny.CORPUS])


def test_memory_that_runs_out_changes_no_score(reranker, monkeypatch):
    wanted, forward, sizes = PairEngine(reranker).logits(cross_encoders.PAIRS), reranker.forward, []

    def small(batch):
        sizes.append(len(batch.ids_BL))
        if len(batch.ids_BL) > 2:
            raise torch.OutOfMemoryError("full")
        return forward(batch)

    monkeypatch.setattr(reranker, "forward", small)
    np.testing.assert_allclose(PairEngine(reranker).logits(cross_encoders.PAIRS), wanted, atol=1e-6)
    assert max(sizes) > 2


def test_nothing_runs_no_model(reranker, shapes):
    assert PairEngine(reranker).logits([]).shape == (0,)
    assert shapes == []
    with pytest.raises(UsageError, match="at least 1"):
        PairEngine(reranker, batch_tokens=0)
