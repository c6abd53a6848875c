"""Packed, differentiable embeddings against the encoder's own `encode`, which other tests hold to references."""

import numpy as np
import pytest
import torch

from models import tiny
from training import toys
from trine.training.embedding import chunks, pack
from trine.types import MODES

TEXTS = [*tiny.TEXTS, "같은 글 같은 글"]


def packed(model, texts, *, kind, budget, modes=MODES):
    parts = {}
    tokens = model.text(texts, kind=kind)
    embed = toys.embed(model, modes=modes)
    for chunk in chunks(model, tokens, kind=kind, modes=modes, budget=budget):
        with torch.no_grad():
            part = embed(chunk)
        for place, row in enumerate(chunk.rows):
            parts[int(row)] = part.take(torch.tensor([place]))
    assert sorted(parts) == list(range(len(texts)))
    return [parts[row] for row in range(len(texts))]


@pytest.mark.parametrize("name", ["bert", "xlm_roberta", "modernbert"])
@pytest.mark.parametrize("kind", ["query", "passage"])
@pytest.mark.parametrize("budget", [None, 200, 1])
def test_they_are_what_encode_gives(name, kind, budget):
    model = toys.encoder(name).eval()
    wanted = model.encode(TEXTS, kind=kind)
    for row, found in enumerate(packed(model, TEXTS, kind=kind, budget=budget)):
        np.testing.assert_allclose(found.dense_ND[0].numpy(), wanted.dense[row], atol=2e-6)
        np.testing.assert_allclose(found.vectors.values_Td.numpy(), wanted.multi_vector.row(row), atol=2e-6)
        weights = {}
        for number, weight in zip(found.sparse.ids_T.tolist(), found.sparse.weights_T.tolist(), strict=True):
            weights[number] = max(weight, weights.get(number, 0.0))
        ids, values = wanted.sparse.row(row)
        assert {number for number, weight in weights.items() if weight > 0} == set(ids.tolist())
        np.testing.assert_allclose([weights[number] for number in ids.tolist()], values, atol=2e-6)


def test_padding_and_special_tokens_carry_nothing():
    model = toys.encoder().eval()
    tokens = model.text(["a", TEXTS[0]], kind="passage")
    (chunk,) = chunks(model, tokens, kind="passage", modes=MODES, budget=None)
    special = set(model.tokenizer.all_special_ids)
    weighted = chunk.batch.ids_BL[chunk.weighted_BL].tolist()
    assert not special & set(weighted)
    assert not (chunk.kept_BL & ~chunk.batch.mask_BL).any()
    # The first token of each text, [CLS], keeps no vector; all others do.
    assert chunk.kept_BL.sum(dim=1).tolist() == (tokens.lengths - 1).tolist()


@pytest.mark.parametrize("budget", [1, 7, 60, 1000, None])
def test_chunks_stay_within_their_budget_and_lose_no_text(budget):
    model = toys.encoder()
    tokens = model.text(TEXTS, kind="passage")
    found = chunks(model, tokens, kind="passage", modes=("dense",), budget=budget, seed=10)
    assert sorted(np.concatenate([chunk.rows for chunk in found]).tolist()) == list(range(len(TEXTS)))
    assert [chunk.seed for chunk in found] == [10 + number for number in range(len(found))]
    for chunk in found:
        assert budget is None or len(chunk.rows) == 1 or chunk.batch.ids_BL.numel() <= budget
    assert all(chunk.weighted_BL is None and chunk.kept_BL is None for chunk in found)


def test_sums_and_scores_run_in_float32_whatever_the_model_computes_in():
    model = toys.encoder()
    (chunk,) = chunks(model, model.text(TEXTS[:3], kind="query"), kind="query", modes=MODES, budget=None)
    found = toys.embed(model, modes=MODES, precision=torch.bfloat16)(chunk)
    assert {leaf.dtype for leaf in found.leaves()} == {torch.float32}
    # It did compute in bfloat16: the numbers have no more than its eight bits.
    vectors = found.sparse.weights_T.detach()
    assert torch.equal(vectors, vectors.bfloat16().float())


def test_gradients_reach_all_heads_and_the_backbone():
    model = toys.encoder()
    (chunk,) = chunks(model, model.text(TEXTS[:3], kind="query"), kind="query", modes=MODES, budget=None)
    sum(leaf.square().sum() for leaf in pack(model(chunk.batch, MODES), chunk, width=9).leaves()).backward()
    touched = {name.split(".")[0] for name in toys.gradients(model) for name in [name.partition(".")[2]]}
    assert touched == {"backbone", "sparse", "multi_vector"}
