"""Contrastive losses by hand, by gradcheck, and against sentence-transformers' own on the same embeddings."""

import math

import pytest
import torch
from sentence_transformers.sentence_transformer.losses import MultipleNegativesRankingLoss

from trine.errors import UsageError
from trine.objectives.base import Embedded, PairBatch
from trine.objectives.candidates import counted, similarities, targets
from trine.objectives.contrastive import (
    BLOCKS,
    Candidates,
    bidirectional,
    chosen,
    equal_texts,
    false_negatives,
    hardness,
    info_nce,
    own_group,
    soft_cross_entropy,
)


def random(*shape, seed=0):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def f64(rows):
    return torch.tensor(rows, dtype=torch.float64)


def unit(*shape, seed=0):
    return torch.nn.functional.normalize(random(*shape, seed=seed), dim=-1)


def test_info_nce_by_hand():
    scores = f64([[math.log(3), 0.0], [math.log(2), math.log(6)]])
    targets_R = torch.tensor([0, 1])
    # shares 3/4 and 6/8
    assert float(info_nce(scores, targets_R)) == pytest.approx(-math.log(3 / 4))
    assert float(info_nce(scores * 0.5, targets_R, temperature=0.5)) == pytest.approx(-math.log(3 / 4))
    counted_RN = torch.tensor([[True, False], [True, True]])
    assert float(info_nce(scores, targets_R, counted_RN=counted_RN)) == pytest.approx(-math.log(3 / 4) / 2)


def test_the_positive_counts_whatever_the_mask_says():
    scores = f64([[math.log(3), 0.0]])
    found = info_nce(scores, torch.tensor([0]), counted_RN=torch.tensor([[False, True]]))
    assert float(found) == pytest.approx(-math.log(3 / 4))


def test_focal_weight_by_hand():
    scores = f64([[math.log(3), 0.0]])
    found = info_nce(scores, torch.tensor([0]), focal=0.5)
    assert float(found) == pytest.approx(-math.log(3 / 4) * 0.25**0.5)


def test_focal_weight_has_a_gradient_where_nothing_is_left_to_learn():
    scores = torch.tensor([[500.0, 0.0]], requires_grad=True)
    info_nce(scores, torch.tensor([0]), focal=0.5).backward()
    assert torch.isfinite(scores.grad).all()


def test_one_sum_over_all_blocks_by_hand():
    """Z of the first query: its passages 3 + 1, the other query 2, its positive with the queries 3 + 5, and with the
    other passage 4."""
    log = lambda *rows: f64(rows).log()  # noqa: E731
    blocks = [
        Candidates(log([3.0, 1.0])),
        Candidates(log([9.0, 2.0]), torch.tensor([[False, True]])),
        Candidates(log([3.0, 5.0])),
        Candidates(log([9.0, 4.0]), torch.tensor([[False, True]])),
    ]
    found = bidirectional(blocks, positives_R=f64([3.0]).log())
    assert float(found) == pytest.approx(-math.log(3 / (4 + 2 + 8 + 4)))
    apart = bidirectional([blocks[0], blocks[2]], positives_R=f64([3.0]).log(), partition="separate")
    assert float(apart) == pytest.approx(-(math.log(3 / 4) + math.log(3 / 8)) / 2)


def test_false_negatives_by_hand():
    scores = f64([[0.8, 0.85, 0.91, 0.2]])
    positives = f64([0.8])
    assert false_negatives(scores, positives, margin=0.1).tolist() == [[False, False, True, False]]
    assert false_negatives(scores, positives, ratio=0.95).tolist() == [[True, True, True, False]]
    with pytest.raises(UsageError, match="give one of margin and ratio"):
        false_negatives(scores, positives)


def test_hardness_by_hand():
    scores = f64([[0.5, 0.4, 0.3, 0.2], [0.1, 0.2, 0.6, -0.5]])
    targets_R = torch.tensor([0, 2])
    found = {
        name: hardness(scores, targets_R, group_size=2, strength=5, negatives=name)
        for name in ("hard", "in_batch", "all")
    }
    assert found["hard"].tolist() == [[0, 5 * 0.4, 0, 0], [0, 0, 0, -2.5]]
    assert found["in_batch"].tolist() == [[0, 0, 1.5, 1], [0.5, 1, 0, 0]]
    assert torch.equal(found["all"], found["hard"] + found["in_batch"])
    # The weight e^2 of the only hard negative, by itself.
    logits = Candidates(scores[:1], None, found["hard"][:1])
    loss = bidirectional([logits], positives_R=scores[:1, 0])
    z = math.exp(0.5) + math.exp(2) * math.exp(0.4) + math.exp(0.3) + math.exp(0.2)
    assert float(loss) == pytest.approx(math.log(z) - 0.5)


def test_own_group_and_equal_texts():
    assert own_group(torch.zeros(2, 4), torch.tensor([0, 2]), group_size=2).int().tolist() == [
        [1, 1, 0, 0],
        [0, 0, 1, 1],
    ]
    assert equal_texts(torch.tensor([5, 6]), torch.tensor([6, 5, 5])).int().tolist() == [[0, 1, 1], [1, 0, 0]]
    assert equal_texts(None, torch.tensor([6])) is None


def test_chosen():
    assert chosen(torch.tensor([[1.0, 2.0], [3.0, 4.0]]), torch.tensor([1, 0])).tolist() == [2.0, 3.0]


def test_soft_cross_entropy_leaves_out_what_does_not_count():
    logits = f64([[math.log(3), 0.0, -torch.inf]]).requires_grad_()
    loss = soft_cross_entropy(logits, f64([[0.5, 0.5, 0.0]]))
    assert float(loss.detach()) == pytest.approx(-(math.log(3 / 4) + math.log(1 / 4)) / 2)
    loss.backward()
    # softmax minus shares: 3/4 - 1/2, 1/4 - 1/2.
    assert logits.grad.tolist()[0] == pytest.approx([0.25, -0.25, 0.0])


@pytest.mark.parametrize("focal", [0.0, 0.5])
def test_gradcheck(focal):
    targets_R = torch.tensor([0, 2, 4])
    counted_RN = torch.rand(3, 6, generator=torch.Generator().manual_seed(1)) > 0.3
    temperature = f64(0.5).requires_grad_()

    def run(scores, other, warmth):
        blocks = [Candidates(scores, counted_RN.scatter(1, targets_R[:, None], True)), Candidates(other)]
        return bidirectional(blocks, positives_R=chosen(scores, targets_R), temperature=warmth, focal=focal)

    inputs = (random(3, 6, seed=2).requires_grad_(), random(3, 3, seed=3).requires_grad_(), temperature)
    assert torch.autograd.gradcheck(run, inputs)


NAMES = dict(zip(BLOCKS, ("query_to_doc", "query_to_query", "doc_to_query", "doc_to_doc"), strict=True))


@pytest.mark.parametrize(
    ("blocks", "partition"),
    [
        (("query_passage",), "joint"),
        (("query_passage", "query_query"), "joint"),
        (("query_passage", "passage_query"), "joint"),
        (("query_passage", "passage_passage"), "joint"),
        (BLOCKS, "joint"),
        (("query_passage", "passage_query"), "separate"),
    ],
)
@pytest.mark.parametrize("hard", [None, "hard", "in_batch", "all"])
@pytest.mark.parametrize("size", [1, 3])
def test_sentence_transformers_has_the_same_loss(blocks, partition, hard, size):
    queries, passages = unit(5, 7, seed=1), unit(5, size, 7, seed=2)
    modes = {"hard": "hard_negatives", "in_batch": "in_batch_negatives", "all": "all_negatives", None: None}
    reference = MultipleNegativesRankingLoss(
        None,
        scale=20.0,
        directions=tuple(NAMES[block] for block in blocks),
        partition_mode={"joint": "joint", "separate": "per_direction"}[partition],
        hardness_mode=modes[hard],
        hardness_strength=5.0 if hard else 0.0,
    )
    expected = reference.compute_loss_from_embeddings([queries, *passages.unbind(1)], None)

    batch = PairBatch(Embedded(queries), Embedded(passages.flatten(0, 1)), group_size=size)
    found = similarities(batch, mode="dense", blocks=blocks)
    masks = counted(batch, blocks=blocks)
    scores, targets_R = found["query_passage"], targets(batch)
    bonus = {}
    if hard:
        bonus["query_passage"] = hardness(scores, targets_R, group_size=size, strength=5.0, negatives=hard)
    ours = bidirectional(
        [Candidates(found[block], masks[block], bonus.get(block)) for block in blocks],
        positives_R=chosen(scores, targets_R),
        temperature=1 / 20,
        partition=partition,
    )
    torch.testing.assert_close(ours, expected, rtol=1e-12, atol=1e-12)
    if blocks == ("query_passage",) and not hard:
        torch.testing.assert_close(info_nce(scores, targets_R, temperature=1 / 20), expected, rtol=1e-12, atol=1e-12)
