"""Both steps give the gradients of the whole batch through one graph, whatever the objective, heads and chunks."""

import itertools

import numpy as np
import pytest
import torch

from training import toys
from trine.errors import UsageError
from trine.objectives.base import Embedded, Losses, PairBatch
from trine.objectives.embedding import EmbeddingObjective
from trine.training.embedding import recompute_activations
from trine.training.steps import OneRank, Work, cached_step, full_step

ALL = ("dense", "sparse", "multi_vector")
BUDGETS = {"whole": None, "ragged": 60, "one text": 1}


def in_one_graph(embed, work, objective):
    """The oracle: chunks seeded alike, everything differentiated by one backward pass."""
    sides = []
    for side in (work.queries, work.passages):
        parts = {}
        for chunk in side:
            torch.manual_seed(chunk.seed)
            part = embed(chunk)
            for place, row in enumerate(chunk.rows):
                parts[int(row)] = part.take(torch.tensor([place]))
        sides.append(Embedded.concatenate([parts[row] for row in sorted(parts)]))
    losses = objective(work.pair(*sides, slice(None)))
    losses.total.backward()
    return losses


def compare(step, model, work, objective, *, modes, relative=1e-6, precision=None):
    embed = toys.embed(model, modes=modes, precision=precision)
    learning = [part for part in (model, objective) if isinstance(part, torch.nn.Module)]
    found = []
    for run in (in_one_graph, lambda embed, work, objective: step(embed, work, objective=objective)):
        for part in learning:
            part.zero_grad()
        losses = run(embed, work, objective)
        found.append((toys.gradients(*learning), float(losses.total.detach()), losses.parts))
    wanted, given = found
    toys.assert_close(given[0], wanted[0], relative=relative)
    assert given[1] == pytest.approx(wanted[1], rel=max(relative, 1e-6))
    assert given[2].keys() == wanted[2].keys()


@pytest.mark.parametrize("step", [full_step, cached_step])
@pytest.mark.parametrize("budget", BUDGETS)
@pytest.mark.parametrize("modes", [("dense",), ("sparse",), ("multi_vector",), ALL], ids=" ".join)
def test_gradients_are_those_of_one_graph(step, budget, modes):
    model = toys.encoder()
    compare(step, model, toys.work(model, modes=modes, budget=BUDGETS[budget]), toys.InBatch(), modes=modes)


def test_chunks_are_ragged_as_the_tests_suppose():
    model = toys.encoder()
    sizes = {
        name: [len(chunk.rows) for chunk in toys.work(model, modes=ALL, budget=budget).passages]
        for name, budget in BUDGETS.items()
    }
    assert sizes["whole"] == [8]
    assert sizes["one text"] == [1] * 8
    assert len(set(sizes["ragged"])) > 1


def test_dropout_is_on_and_the_same_in_both_passes():
    """Two seeds differ, one seed does not: equal gradients above are no accident of a model without dropout."""
    model = toys.encoder()
    losses = [
        float(
            cached_step(
                toys.embed(model, modes=ALL),
                toys.work(model, modes=ALL, budget=60, seed=seed),
                objective=toys.InBatch(),
            ).total
        )
        for seed in (0, 0, 7)
    ]
    assert losses[0] == losses[1] != losses[2]


SETTINGS = {
    "info_nce": dict(modes=("dense",), temperature=0.1),
    "four blocks": dict(
        modes=("dense",),
        blocks=("query_passage", "query_query", "passage_query", "passage_passage"),
        temperature=0.1,
    ),
    "learnt temperature": dict(modes=("dense",), temperature=0.1, learn_temperature=True),
    "m3": dict(modes=ALL, temperature=0.1, self_distillation=True),
    "matryoshka": dict(modes=("dense",), temperature=0.1, matryoshka_widths=(8, 16, 32)),
    "kl": dict(modes=("dense",), temperature=0.1, distillation="kl"),
    "margin_mse": dict(modes=("sparse",), temperature=1.0, distillation="margin_mse"),
    "spread": dict(modes=("dense",), temperature=0.1, spread_out=1.0),
    "flops": dict(modes=("sparse",), temperature=1.0, query_flops=0.1, passage_flops=0.1),
    "cosine": dict(modes=("dense",), contrastive_weight=0.0, embedding_distillation="cosine"),
    "geometry": dict(modes=("dense",), contrastive_weight=0.0, embedding_distillation="geometry"),
}


@pytest.mark.parametrize("limit", [None, 24], ids=["at once", "three queries at a time"])
@pytest.mark.parametrize("step", [full_step, cached_step])
@pytest.mark.parametrize("name", SETTINGS)
def test_every_setting_of_the_embedding_objective(step, name, limit, monkeypatch):
    if limit is not None:
        monkeypatch.setattr("trine.training.steps.LIMIT", limit)
    settings = SETTINGS[name]
    model = toys.encoder()
    draw = torch.Generator().manual_seed(0)
    scores = torch.randn(4, 2, generator=draw)
    taught = torch.randn(4, 32, generator=draw), torch.randn(4, 2, 32, generator=draw)
    if settings.get("embedding_distillation") is None:
        taught = None, None

    def pair(queries, passages, rows):
        return PairBatch(
            queries,
            passages,
            rows=rows,
            group_size=2,
            teacher_scores_RG=scores,
            teacher_queries_RE=taught[0],
            teacher_passages_RGE=taught[1],
        )

    queries, _ = toys.sides(model, range(4), modes=settings["modes"], budget=40)
    _, passages = toys.sides(model, range(8), modes=settings["modes"], budget=40)
    # A temperature's gradient is a small difference of large numbers, which blocks add up in another order.
    relative = 1e-6 if limit is None or name != "learnt temperature" else 2e-5
    batch, objective = Work(queries, passages, pair), EmbeddingObjective(**settings)
    compare(step, model, batch, objective, modes=settings["modes"], relative=relative)


@pytest.mark.parametrize("step", [full_step, cached_step])
@pytest.mark.parametrize("name", ["bert", "modernbert"])
def test_gradient_checkpointing_changes_nothing(step, name):
    model = toys.encoder(name)
    batch = toys.work(model, modes=ALL, budget=60)
    embed, objective = toys.embed(model, modes=ALL), toys.InBatch()
    in_one_graph(embed, batch, objective)
    wanted = toys.gradients(model, objective)
    recompute_activations(model)
    layers = next(part for part in model.backbone.modules() if isinstance(part, torch.nn.ModuleList))
    passes = []
    linear = next(part for part in layers[0].modules() if isinstance(part, torch.nn.Linear))
    # Before and not after it: the second computation ends as soon as it has what it needs.
    linear.register_forward_pre_hook(lambda *_: passes.append(1))
    model.zero_grad()
    objective.zero_grad()
    step(embed, batch, objective=objective)
    toys.assert_close(toys.gradients(model, objective), wanted)
    chunks = len(batch.queries) + len(batch.passages)
    assert len(passes) == chunks * (2 if step is full_step else 3)


def test_gradient_checkpointing_is_refused_where_a_backbone_cannot(monkeypatch):
    model = toys.encoder()
    monkeypatch.setattr(model.backbone.model, "supports_gradient_checkpointing", False)
    with pytest.raises(UsageError, match="smaller chunks"):
        recompute_activations(model)


@pytest.mark.parametrize("step", [full_step, cached_step])
def test_bfloat16(step):
    """Autocast rounds each pass alike, but sums of chunks in another order: two digits of bfloat16's eight bits."""
    model = toys.encoder()
    batch = toys.work(model, modes=ALL, budget=60)
    compare(step, model, batch, toys.InBatch(), modes=ALL, relative=1e-2, precision=torch.bfloat16)


def test_cached_holds_the_graph_of_one_chunk():
    """At no time do two chunks' activations live: weak references to each chunk's output are dead by the next."""
    import weakref

    model = toys.encoder()
    batch = toys.work(model, modes=("dense",), budget=1)
    plain, alive, most = toys.embed(model, modes=("dense",)), [], []

    def embed(chunk):
        most.append(sum(reference() is not None for reference in alive))
        found = plain(chunk)
        if found.dense_ND.requires_grad:
            alive.append(weakref.ref(found.dense_ND))
        return found

    cached_step(embed, batch, objective=toys.InBatch())
    assert max(most) <= 1
    alive.clear()
    most.clear()
    full_step(embed, batch, objective=toys.InBatch())
    assert max(most) == 15


def test_the_surrounding_random_numbers_go_on():
    model = toys.encoder()
    torch.manual_seed(5)
    wanted = torch.rand(3)
    for step in (full_step, cached_step):
        torch.manual_seed(5)
        step(toys.embed(model, modes=ALL), toys.work(model, modes=ALL, budget=30), objective=toys.InBatch())
        assert torch.equal(torch.rand(3), wanted)


def test_gradients_are_added_to_what_is_there():
    model, objective = toys.encoder(), toys.InBatch()
    embed, batch = toys.embed(model, modes=ALL), toys.work(model, modes=ALL, budget=60)
    cached_step(embed, batch, objective=objective)
    once = toys.gradients(model, objective)
    cached_step(embed, batch, objective=objective)
    toys.assert_close(toys.gradients(model, objective), {name: 2 * tensor for name, tensor in once.items()})


def test_an_objective_that_looks_at_one_side_of_one_head():
    """What has no gradient is left alone, and the rest is right."""
    model = toys.encoder()

    def objective(batch):
        return Losses(batch.queries.dense_ND.square().mul(torch.arange(1.0, 33.0)).sum(), {})

    compare(cached_step, model, toys.work(model, modes=ALL, budget=60), objective, modes=ALL)


def test_frozen_backbone():
    model = toys.encoder()
    model.backbone.requires_grad_(False)
    compare(cached_step, model, toys.work(model, modes=ALL, budget=60), toys.InBatch(), modes=ALL)


class Watched(OneRank):
    def __init__(self):
        self.held = []

    def holding_gradients(self, hold):
        self.held.append(hold)
        return super().holding_gradients(hold)


@pytest.mark.parametrize("step", [full_step, cached_step])
def test_gradients_are_shared_in_the_last_pass_alone(step):
    model, ranks = toys.encoder(), Watched()
    batch = toys.work(model, modes=ALL, budget=60)
    step(toys.embed(model, modes=ALL), batch, objective=toys.InBatch(), ranks=ranks)
    count = len(batch.queries) + len(batch.passages)
    assert ranks.held == [True] * (count - 1) + [False]


def test_large_batches_are_answered_for_some_queries_at_a_time(monkeypatch):
    monkeypatch.setattr("trine.training.steps.LIMIT", 24)
    model, seen = toys.encoder(), []

    def objective(batch):
        seen.append(batch.row_numbers.tolist())
        return toys.InBatch()(batch)

    cached_step(toys.embed(model, modes=ALL), toys.work(model, modes=ALL, budget=60), objective=objective)
    assert seen == [[0, 1, 2], [3, 4, 5], [6, 7]]


def test_rows_come_in_their_order():
    """The sorted chunks are put back: a batch's positives stand where they belong."""
    model = toys.encoder(dropout=0.0)
    wanted = model.eval()(toys.work(model, modes=("dense",), budget=None).queries[0].batch, ["dense"]).dense_BD
    seen = []

    def objective(batch):
        seen.append(batch.queries.dense_ND)
        return Losses(batch.queries.dense_ND.sum(), {})

    for step, budget in itertools.product((full_step, cached_step), (30, 1)):
        step(
            toys.embed(model, modes=("dense",)), toys.work(model, modes=("dense",), budget=budget), objective=objective
        )
        np.testing.assert_allclose(seen[-1].detach().numpy(), wanted.detach().numpy(), atol=1e-6)
