"""Additions for tests/training/test_embedding.py: the cheapest partition, and gradients of the table by rows."""

import itertools

import numpy as np
import pytest
import torch

from models import tiny
from training import toys
from trine.training.embedding import CHUNK_COST, _partition, chunks, embedder
from trine.training.steps import cached_step, full_step
from trine.types import MODES


def cost(parts, lengths, each):
    return sum(max(int(lengths[part].max()), 1) * len(part) + each for part in parts)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("budget", [1, 9, 20, 1000])
def test_no_way_to_cut_the_sorted_texts_is_cheaper(seed, budget):
    lengths = np.random.default_rng(seed).integers(1, 12, 8)
    ordered = np.argsort(-lengths, kind="stable")
    costs = []
    for cuts in itertools.product([False, True], repeat=7):
        parts = np.split(ordered, [place + 1 for place, cut in enumerate(cuts) if cut])
        if all(len(part) == 1 or lengths[part[0]] * len(part) <= budget for part in parts):
            costs.append(cost(parts, lengths, 6))
    found = _partition(lengths, budget, cost=6)
    assert sorted(np.concatenate(found).tolist()) == list(range(8))
    assert cost(found, lengths, 6) == min(costs)


def test_a_budget_that_holds_everything_is_not_filled_with_padding():
    lengths = np.array([256] + [8] * 31)
    assert [len(part) for part in _partition(lengths, 1 << 20, cost=CHUNK_COST["cpu"])] == [1, 31]


@pytest.mark.parametrize("name", ["bert", "xlm_roberta", "modernbert"])
def test_the_table_gathers_the_same_gradient_by_rows(name):
    """A model behind a plain function is not known to have a table, and goes torch's own way."""
    model = toys.encoder(name)
    tokens = model.text(tiny.TEXTS[:8], kind="passage")
    parts = chunks(model, tokens, kind="passage", modes=MODES, budget=60)
    assert len(parts) > 1
    width = model.dimensions["sparse"]
    found = []
    for way in (model, lambda batch, modes: model(batch, modes)):
        model.zero_grad()
        embed = embedder(way, modes=MODES, width=width)
        for chunk in parts:
            torch.manual_seed(chunk.seed)
            sum(leaf.square().sum() for leaf in embed(chunk).leaves()).backward()
        found.append(toys.gradients(model))
    toys.assert_close(found[0], found[1])
    table = model.backbone.model.get_input_embeddings()
    assert not table.sparse
    assert not table.weight.grad.is_sparse
    assert not table._forward_pre_hooks


@pytest.mark.parametrize("step", [full_step, cached_step])
def test_a_frozen_table_stays_without_gradient(step):
    model = toys.encoder()
    table = model.backbone.model.get_input_embeddings()
    table.weight.requires_grad_(False)
    step(toys.embed(model, modes=("dense",)), toys.work(model, modes=("dense",), budget=60), objective=toys.InBatch())
    assert table.weight.grad is None


def test_embedding_without_gradients_leaves_the_table_alone():
    model = toys.encoder()
    (chunk,) = chunks(model, model.text(["a"], kind="query"), kind="query", modes=MODES, budget=None)
    with torch.no_grad():
        toys.embed(model, modes=MODES)(chunk)
    assert all(parameter.grad is None for parameter in model.parameters())
