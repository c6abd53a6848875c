"""The whole objective: what its settings make of a batch, and that ranks agree with one process."""

import math
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from objectives import pairs
from trine.errors import UnknownName, UsageError
from trine.objectives import distillation
from trine.objectives.base import Embedded, PairBatch
from trine.objectives.candidates import similarities
from trine.objectives.contrastive import BLOCKS, info_nce
from trine.objectives.embedding import EmbeddingObjective
from trine.objectives.late_interaction import maxsim
from trine.objectives.lexical import lexical_scores
from trine.objectives.m3 import m3_loss
from trine.objectives.regularization import flops, spread_out
from trine.objectives.settings import EmbeddingSettings

ALL = ("dense", "sparse", "multi_vector")
TARGETS = torch.tensor([0, 2, 4, 6])


def random(*shape, seed=0):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def full_batch(**options):
    """Four queries with two passages each, and everything that a teacher could give."""
    return pairs.batch(
        teacher_scores_RG=random(4, 2, seed=11),
        teacher_queries_RE=random(4, 8, seed=12),
        teacher_passages_RGE=random(4, 2, 8, seed=13),
        query_keys_Q=torch.tensor([1, 2, 3, 1]),
        passage_keys_P=torch.tensor([5, 6, 7, 8, 9, 5, 10, 11]),
        **options,
    )


CONFIGURATIONS = {
    "info_nce": {},
    "gte": {"blocks": BLOCKS, "temperature": 0.1},
    "separate": {"blocks": ("query_passage", "passage_query"), "partition": "separate"},
    "qwen": {"blocks": BLOCKS[:2], "false_negative_margin": 0.1, "temperature": 0.1},
    "ratio": {"false_negative_ratio": 0.5, "temperature": 0.1},
    "gemma": {"hardness": 5.0, "spread_out": 1.0, "matryoshka_widths": (6, 3)},
    "kalm": {"focal": 0.5, "distillation": "kl", "temperature": 0.1},
    "e5": {"distillation": "kl", "contrastive_weight": 0.2, "temperature": 0.1},
    "margin": {"distillation": "margin_mse", "contrastive_weight": 0.0, "temperature": 1.0},
    "listnet": {"distillation": "listnet", "teacher_temperature": 2.0},
    "ranked": {"distillation": "ranked", "contrastive_weight": 0.0, "temperature": 0.1},
    "jina": {"embedding_distillation": "cosine", "contrastive_weight": 0.0, "projection": (6, 8)},
    "m3": {"modes": ALL, "self_distillation": True, "temperature": 0.1},
    "m3_hard": {"modes": ALL, "temperature": 0.1, "distillation": "kl"},
    "m3_all": {
        "modes": ALL,
        "self_distillation": True,
        "temperature": 0.1,
        "blocks": BLOCKS,
        "false_negative_margin": 0.05,
        "hardness": 2.0,
        "focal": 0.5,
        "distillation": "ranked",
        "matryoshka_widths": (6, 2),
        "query_flops": 0.1,
        "passage_flops": 0.1,
        "spread_out": 0.1,
        "learn_temperature": True,
    },
    "apart": {"modes": ALL, "ensemble": False, "temperature": 0.1},
    "splade": {"modes": ("sparse",), "temperature": 1.0, "query_flops": 0.3, "passage_flops": 0.1},
    "colbert": {"modes": ("multi_vector",), "temperature": 0.1, "distillation": "kl"},
    "learnt": {"learn_temperature": True, "temperature": 0.1},
}


def build(name):
    torch.manual_seed(0)
    return EmbeddingObjective(**CONFIGURATIONS[name]).double()


@pytest.mark.parametrize("in_batch", [True, False])
@pytest.mark.parametrize("name", CONFIGURATIONS)
def test_the_mean_of_two_ranks_is_one_process(name, in_batch):
    """In value, in every embedding's gradient, and in the objective's own parameters."""
    whole, leaves = pairs.with_leaves(full_batch(in_batch=in_batch))
    alone = build(name)
    total = alone(whole).total
    total.backward()

    shared, other_leaves = pairs.with_leaves(full_batch(in_batch=in_batch))
    together = build(name)
    ranks = []
    for rows in (slice(0, 2), slice(2, 4)):
        mine = replace(
            shared,
            rows=rows,
            teacher_scores_RG=shared.teacher_scores_RG[rows],
            teacher_queries_RE=shared.teacher_queries_RE[rows],
            teacher_passages_RGE=shared.teacher_passages_RGE[rows],
        )
        ranks.append(together(mine).total)
    mean = torch.stack(ranks).mean()
    mean.backward()
    torch.testing.assert_close(mean, total)
    for ours, wanted in zip(other_leaves, leaves, strict=True):
        assert (ours.grad is None) == (wanted.grad is None)
        if wanted.grad is not None:
            torch.testing.assert_close(ours.grad, wanted.grad)
    for ours, wanted in zip(together.parameters(), alone.parameters(), strict=True):
        torch.testing.assert_close(ours.grad, wanted.grad)


@pytest.mark.parametrize("name", [name for name in CONFIGURATIONS if name not in ("m3", "m3_all", "gemma")])
def test_gradcheck(name):
    """Left out are those whose stopped teacher or weight has a numerical derivative."""
    batch, leaves = pairs.with_leaves(full_batch())
    objective = build(name)
    used = [leaf for leaf, moved in zip(leaves, _moved(objective, batch, leaves), strict=True) if moved]

    def run(*_):
        return objective(batch).total

    assert used
    assert torch.autograd.gradcheck(run, tuple([*used, *objective.parameters()]), atol=1e-4)


def _moved(objective, batch, leaves):
    found = torch.autograd.grad(objective(batch).total, leaves, allow_unused=True)
    return [gradient is not None for gradient in found]


@pytest.mark.parametrize("name", CONFIGURATIONS)
def test_parts_are_named_numbers_without_graph(name):
    losses = build(name)(full_batch())
    assert losses.total.dim() == 0
    assert losses.parts
    for part in losses.parts.values():
        assert part.dim() == 0
        assert not part.requires_grad
        assert torch.isfinite(part)


def dense_scores(batch):
    return batch.queries.dense_ND @ batch.passages.dense_ND.T


def test_the_default_is_info_nce():
    batch = pairs.batch()
    losses = EmbeddingObjective(temperature=0.05)(batch)
    expected = F.cross_entropy(dense_scores(batch) / 0.05, TARGETS)
    torch.testing.assert_close(losses.total, expected)
    torch.testing.assert_close(losses.parts, {"contrastive": expected})


def test_a_case_worked_by_hand():
    """Similarities ln 3 and 0, 0 and ln 3: shares of 3/4."""
    batch = PairBatch(
        Embedded(torch.eye(2, dtype=torch.float64)), Embedded(math.log(3) * torch.eye(2, dtype=torch.float64))
    )
    assert float(EmbeddingObjective(temperature=1.0)(batch).total) == pytest.approx(math.log(4 / 3))


def test_e5_is_kl_within_the_group_and_a_fifth_of_the_contrastive_loss():
    batch = pairs.batch(teacher_scores_RG=random(4, 2, seed=3))
    losses = EmbeddingObjective(temperature=0.1, distillation="kl", contrastive_weight=0.2)(batch)
    logits = dense_scores(batch) / 0.1
    own = torch.stack([logits[row, 2 * row : 2 * row + 2] for row in range(4)])
    kl = F.kl_div(own.log_softmax(1), batch.teacher_scores_RG.softmax(1), reduction="batchmean")
    contrastive = F.cross_entropy(logits, TARGETS)
    torch.testing.assert_close(losses.total, kl + 0.2 * contrastive)
    torch.testing.assert_close(losses.parts, {"contrastive": contrastive, "distillation": kl})


def test_hard_negatives_alone():
    batch = pairs.batch(in_batch=False)
    own = torch.stack([dense_scores(batch)[row, 2 * row : 2 * row + 2] for row in range(4)])
    expected = F.cross_entropy(own / 0.02, torch.zeros(4, dtype=torch.int64))
    torch.testing.assert_close(EmbeddingObjective()(batch).total, expected)


def test_simcse_is_the_same_text_under_another_mask():
    """Gao et al., equation 4: the other mask of the same text among those of all texts."""
    first, second = F.normalize(random(4, 6, seed=1), dim=1), F.normalize(random(4, 6, seed=2), dim=1)
    keys = torch.arange(4)
    batch = PairBatch(Embedded(first), Embedded(second), query_keys_Q=keys, passage_keys_P=keys)
    expected = F.cross_entropy(first @ second.T / 0.05, torch.arange(4))
    torch.testing.assert_close(EmbeddingObjective(temperature=0.05)(batch).total, expected)


@pytest.mark.parametrize("in_batch", [True, False])
@pytest.mark.parametrize("modes", [ALL, ("dense", "sparse"), ("sparse", "multi_vector")], ids=str)
def test_several_heads_are_the_unified_loss(modes, in_batch):
    batch = pairs.batch(in_batch=in_batch)
    scores = {
        "dense": dense_scores(batch),
        "sparse": lexical_scores(batch.queries.sparse, batch.passages.sparse),
        "multi_vector": maxsim(batch.queries.vectors, batch.passages.vectors),
    }
    targets = TARGETS
    if not in_batch:
        own = torch.arange(8).view(4, 2)
        scores, targets = (
            {mode: part.gather(1, own) for mode, part in scores.items()},
            torch.zeros(4, dtype=torch.int64),
        )
    expected = m3_loss(
        {mode: scores[mode] for mode in modes}, lambda logits: info_nce(logits, targets), temperature=0.05
    )
    losses = EmbeddingObjective(modes=modes, temperature=0.05, self_distillation=True)(batch)
    torch.testing.assert_close(losses.total, expected.total)
    for name, value in expected.parts.items():
        torch.testing.assert_close(losses.parts[name], value)


def test_without_an_ensemble_the_heads_are_averaged():
    batch = pairs.batch()
    losses = EmbeddingObjective(modes=("dense", "sparse"), ensemble=False, mode_weights={"dense": 1, "sparse": 0.5})(
        batch
    )
    dense = F.cross_entropy(dense_scores(batch) / 0.02, TARGETS)
    sparse = F.cross_entropy(lexical_scores(batch.queries.sparse, batch.passages.sparse) / 0.02, TARGETS)
    torch.testing.assert_close(losses.total, (dense + 0.5 * sparse) / 2)
    torch.testing.assert_close(losses.parts, {"dense_contrastive": dense, "sparse_contrastive": sparse})


def test_weights_of_heads_and_ensemble_are_used():
    batch = pairs.batch()
    common = {"modes": ("dense", "sparse"), "temperature": 0.1}
    usual = EmbeddingObjective(**common)(batch).total
    for name in ("mode_weights", "ensemble_weights"):
        assert EmbeddingObjective(**common, **{name: {"dense": 0.3, "sparse": 2.0}})(batch).total != usual


def test_matryoshka_adds_the_widths():
    batch = pairs.batch()
    losses = EmbeddingObjective(matryoshka_widths=(6, 2), matryoshka_weights=(1.0, 0.25), temperature=0.1)(batch)

    def at(width):
        queries, passages = (F.normalize(side.dense_ND[:, :width], dim=1) for side in (batch.queries, batch.passages))
        return F.cross_entropy(queries @ passages.T / 0.1, TARGETS)

    torch.testing.assert_close(losses.total, at(6) + 0.25 * at(2))
    assert set(losses.parts) == {"contrastive", "width_6", "width_2"}


def test_regularisers_are_added_with_their_weights():
    batch = pairs.batch()
    plain = EmbeddingObjective(modes=ALL, temperature=0.1)(batch)
    losses = EmbeddingObjective(modes=ALL, temperature=0.1, query_flops=0.5, passage_flops=0.25, spread_out=2.0)(batch)
    wanted = {
        "query_flops": flops(batch.queries.sparse),
        "passage_flops": flops(batch.passages.sparse),
        "spread_out": spread_out(batch.queries.dense_ND) + spread_out(batch.passages.dense_ND[::2]),
    }
    for name, value in wanted.items():
        torch.testing.assert_close(losses.parts[name], value)
    added = 0.5 * wanted["query_flops"] + 0.25 * wanted["passage_flops"] + 2 * wanted["spread_out"]
    torch.testing.assert_close(losses.total, plain.total + added)


def test_an_embedding_teacher():
    batch = replace(
        pairs.batch(), teacher_queries_RE=random(4, 6, seed=1), teacher_passages_RGE=random(4, 2, 6, seed=2)
    )
    student = torch.cat([batch.queries.dense_ND, batch.passages.dense_ND])
    teacher = torch.cat([batch.teacher_queries_RE, batch.teacher_passages_RGE.flatten(0, 1)])
    for kind, loss in (("cosine", distillation.cosine_distance), ("geometry", distillation.geometry)):
        found = EmbeddingObjective(embedding_distillation=kind, contrastive_weight=0.0)(batch)
        torch.testing.assert_close(found.total, loss(student, teacher))
    queries_alone = replace(batch, teacher_passages_RGE=None)
    found = EmbeddingObjective(embedding_distillation="cosine", contrastive_weight=0.0)(queries_alone)
    torch.testing.assert_close(
        found.total, distillation.cosine_distance(batch.queries.dense_ND, batch.teacher_queries_RE)
    )


def test_a_suspect_candidate_goes():
    """The second passage is nearer to the first query than its own positive."""
    queries = torch.eye(3, dtype=torch.float64)
    passages = torch.tensor([[0.5, 0, 0], [0.7, 1, 0], [0.55, 0, 1]], dtype=torch.float64)
    batch = PairBatch(Embedded(queries[:1]), Embedded(passages), group_size=3)
    z = math.exp(0.5) + math.exp(0.55)
    found = EmbeddingObjective(temperature=1.0, false_negative_margin=0.1)(batch)
    assert float(found.total) == pytest.approx(math.log(z) - 0.5)


def test_the_positive_is_never_suspect():
    """With a ratio below 1 it lies above its own bound."""
    batch = PairBatch(
        Embedded(torch.eye(1, dtype=torch.float64)), Embedded(torch.tensor([[1.0], [0.9], [0.1]]).double()), 3
    )
    found = EmbeddingObjective(temperature=1.0, false_negative_ratio=0.5)(batch)
    assert float(found.total) == pytest.approx(math.log(math.exp(1.0) + math.exp(0.1)) - 1.0)


def test_a_ranked_negative_keeps_its_place_though_it_equals_the_positive():
    """It has a share of the teacher's, and so a logit."""
    batch = pairs.batch(teacher_scores_RG=random(4, 2, seed=3))
    keys = torch.tensor([5, 5, 6, 7, 8, 9, 10, 11])
    objective = EmbeddingObjective(distillation="ranked", contrastive_weight=0.0, temperature=0.1)
    found = objective(replace(batch, passage_keys_P=keys)).total
    torch.testing.assert_close(found, objective(batch).total)
    # The positive of the third query is the first query's too: out of its denominator.
    keys = torch.tensor([5, 6, 7, 8, 5, 9, 10, 11])
    logits = dense_scores(batch) / 0.1
    logits[0, 4] = logits[2, 0] = -torch.inf
    expected = distillation.ranked_kd(logits, batch.teacher_scores_RG, targets_R=TARGETS)
    torch.testing.assert_close(objective(replace(batch, passage_keys_P=keys)).total, expected)


def test_equal_texts_teach_and_learn_nothing_in_self_distillation():
    batch = pairs.batch()
    keys = torch.tensor([5, 6, 7, 8, 5, 9, 10, 11])
    scores = {"dense": dense_scores(batch), "sparse": lexical_scores(batch.queries.sparse, batch.passages.sparse)}
    counted = torch.ones(4, 8, dtype=torch.bool)
    counted[0, 4] = counted[2, 0] = False
    expected = m3_loss(scores, lambda logits: info_nce(logits, TARGETS), temperature=0.1, counted_RN=counted)
    objective = EmbeddingObjective(modes=("dense", "sparse"), temperature=0.1, self_distillation=True)
    torch.testing.assert_close(objective(replace(batch, passage_keys_P=keys)).total, expected.total)


def test_equal_texts_are_no_negatives():
    batch = pairs.batch(size=1)
    keys = torch.tensor([1, 2, 3, 1])
    found = EmbeddingObjective()(replace(batch, passage_keys_P=keys)).total
    logits = dense_scores(batch) / 0.02
    logits[0, 3] = logits[3, 0] = -torch.inf
    torch.testing.assert_close(found, F.cross_entropy(logits, torch.arange(4)))


def test_a_learnt_temperature_learns_and_stays_in_its_bounds():
    batch = pairs.batch()
    objective = EmbeddingObjective(temperature=0.05, learn_temperature=True).double()
    losses = objective(batch)
    fixed = EmbeddingObjective(temperature=0.05)(batch)
    torch.testing.assert_close(losses.total, fixed.total, rtol=1e-6, atol=1e-6)
    assert float(losses.parts["temperature"]) == pytest.approx(0.05)
    losses.total.backward()
    assert objective.log_scale.grad.abs() > 0
    with torch.no_grad():
        objective.log_scale.fill_(99.0)
    objective.zero_grad()
    again = objective(batch)
    assert float(again.parts["temperature"]) == pytest.approx(0.01)
    again.total.backward()
    assert objective.log_scale.grad.abs() > 0
    assert list(EmbeddingObjective().parameters()) == []


def test_the_objective_travels_in_a_state_dict():
    objective = EmbeddingObjective(learn_temperature=True, embedding_distillation="cosine", projection=(6, 8))
    assert set(objective.state_dict()) == {"log_scale", "projection.weight", "projection.bias"}
    other = EmbeddingObjective(objective.settings)
    other.load_state_dict(objective.state_dict())
    assert torch.equal(other.projection.weight, objective.projection.weight)


def test_settings_or_options():
    assert (
        EmbeddingObjective(EmbeddingSettings(temperature=0.1)).settings == EmbeddingObjective(temperature=0.1).settings
    )
    with pytest.raises(UnknownName, match="did you mean 'temperature'"):
        EmbeddingObjective(temperatur=0.1)
    with pytest.raises(UsageError, match="settings or single options, not both"):
        EmbeddingObjective(EmbeddingSettings(), temperature=0.1)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"distillation": "kl"}, "each of the 2 passages of a query, and the batch has None"),
        ({"embedding_distillation": "cosine"}, "the batch has neither"),
        ({"spread_out": 1.0}, "needs dense embeddings"),
        ({"matryoshka_widths": (4,)}, "need dense embeddings"),
        ({}, r"needs dense embeddings and the queries have only \['sparse', 'multi_vector'\]"),
    ],
    ids=str,
)
def test_what_a_batch_lacks_is_said(options, message):
    batch = pairs.batch()
    if "distillation" not in " ".join(options):
        batch = replace(
            batch,
            queries=replace(batch.queries, dense_ND=None),
            passages=replace(batch.passages, dense_ND=None),
        )
    with pytest.raises(UsageError, match=message):
        EmbeddingObjective(**options)(batch)


def test_flops_need_sparse_embeddings():
    batch = pairs.batch()
    dense = replace(batch, queries=replace(batch.queries, sparse=None))
    with pytest.raises(UsageError, match="query_flops needs sparse embeddings"):
        EmbeddingObjective(modes=("sparse", "dense"), query_flops=1.0)._added(dense)


def test_a_teacher_of_another_width_or_group_is_said():
    batch = replace(pairs.batch(), teacher_queries_RE=random(4, 8), teacher_scores_RG=random(4, 3))
    with pytest.raises(UsageError, match=r"set projection=\(6, 8\)"):
        EmbeddingObjective(embedding_distillation="cosine")(batch)
    with pytest.raises(UsageError, match=r"2 passages of a query, and the batch has \(4, 3\)"):
        EmbeddingObjective(distillation="kl")(batch)


def test_nothing_kept_for_backward_is_wider_than_the_scores_and_the_inputs():
    """XLM-R's vocabulary and long texts: neither (N, V) nor all token pairs."""
    batch = PairBatch(pairs.embedded([20] * 8, seed=1), pairs.embedded([150] * 16, seed=2), group_size=2)
    batch = replace(
        batch,
        queries=replace(batch.queries, sparse=replace(batch.queries.sparse, width=250_002)),
        passages=replace(batch.passages, sparse=replace(batch.passages.sparse, width=250_002)),
    )
    batch, _ = pairs.with_leaves(batch)
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t.numel()) or t, lambda t: t):
        EmbeddingObjective(modes=ALL, self_distillation=True, query_flops=0.1, passage_flops=0.1)(batch)
    vectors = batch.passages.vectors.values_Td.numel()
    assert max(kept) == vectors
    assert similarities(batch, mode="multi_vector", blocks=("query_passage",))["query_passage"].shape == (8, 16)
