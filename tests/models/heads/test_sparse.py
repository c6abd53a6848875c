import math

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from trine.models.backbone import Prediction
from trine.models.config import SparseConfig
from trine.models.heads import sparse
from trine.models.heads.sparse import SparseHead, SparseTensors, largest_logits

IDS = torch.tensor([[0, 7, 5, 7, 2], [0, 5, 2, 1, 1]])
"""CLS 0, padding 1, EOS 2, words 5 and 7."""
MASK = torch.tensor([[True] * 5, [True, True, True, False, False]])


def token_head(*, dropped=(0, 1, 2), **options):
    """Weight of a token: ReLU(state + 1)."""
    head = SparseHead(SparseConfig("token_linear", 10, dropped_ids=dropped, **options), hidden_size=1)
    with torch.no_grad():
        head.linear.weight.fill_(1.0)
        head.linear.bias.fill_(1.0)
    return head


def run(head, states, *, ids=IDS, mask=MASK, kind="passage"):
    tensors = head(ids_BL=ids, mask_BL=mask, states_BLH=states, prediction=None, kind=kind)
    return tensors, head.rows(tensors)


STATES = torch.tensor([[9.0, 0.5, -3.0, 2.0, 9.0], [9.0, 0.25, 9.0, 9.0, 9.0]])[:, :, None]


def test_largest_weight_of_each_id_without_special_tokens():
    tensors, rows = run(token_head(), STATES)
    torch.testing.assert_close(tensors.weights, torch.tensor([[0, 1.5, 0, 3, 0], [0, 1.25, 0, 0, 0]]))
    assert rows.width == 10
    # Id 5 of the first text weighs ReLU(-2) = 0, which is absent; id 7 takes 3, not 1.5 nor 4.5.
    np.testing.assert_array_equal(rows.offsets, [0, 1, 2])
    np.testing.assert_array_equal(rows.ids, [7, 5])
    np.testing.assert_array_equal(rows.weights, np.float32([3, 1.25]))


def test_sum_where_the_configuration_says_so():
    _, rows = run(token_head(pooling="sum"), STATES)
    np.testing.assert_array_equal(rows.weights, np.float32([4.5, 1.25]))


def test_special_tokens_count_where_none_is_dropped():
    _, rows = run(token_head(dropped=()), STATES)
    np.testing.assert_array_equal(rows.row(0)[0], [0, 2, 7])
    np.testing.assert_array_equal(rows.row(1)[0], [0, 2, 5])  # id 1 is padding, masked whatever its list says


def test_a_text_of_special_tokens_has_an_empty_row():
    _, rows = run(token_head(), STATES[:, :2], ids=torch.tensor([[0, 2], [0, 5]]), mask=MASK[:, :2])
    np.testing.assert_array_equal(rows.offsets, [0, 0, 1])


def test_gradients_flow_to_every_weighted_token():
    states = STATES.clone().requires_grad_()
    tensors, _ = run(token_head(), states)
    tensors.weights.sum().backward()
    torch.testing.assert_close(states.grad[:, :, 0], torch.tensor([[0.0, 1, 0, 1, 0], [0, 1, 0, 0, 0]]))


@pytest.mark.parametrize("log1p", [1, 2])
@pytest.mark.parametrize("pooling", ["max", "sum"])
def test_masked_lm_logits(pooling, log1p):
    """SPLADE: w_j = max (or sum) over tokens of log(1 + ReLU(logit_ij)); padding counts for nothing."""
    config = SparseConfig("masked_lm", 3, pooling=pooling, log1p=log1p, dropped_ids=(2,))
    head = SparseHead(config, hidden_size=1)
    logits = torch.tensor([[[1.0, -1.0, 5.0], [3.0, -2.0, 5.0], [99.0, 99.0, 99.0]]])
    tensors = head(
        ids_BL=torch.zeros(1, 3, dtype=torch.long),
        mask_BL=torch.tensor([[True, True, False]]),
        states_BLH=None,
        prediction=Prediction(logits, None),
        kind="passage",
    )
    assert tensors.ids_BL is None
    one, three = math.log1p(1), math.log1p(3)
    if log1p == 2:
        one, three = math.log1p(one), math.log1p(three)
    expected = max(one, three) if pooling == "max" else one + three
    rows = head.rows(tensors)
    np.testing.assert_array_equal(rows.ids, [0])
    np.testing.assert_allclose(rows.weights, [expected], rtol=1e-6)


def test_static_weights_need_no_states():
    head = SparseHead(SparseConfig("static", 10, dropped_ids=(0, 1, 2)), hidden_size=1)
    with torch.no_grad():
        head.table.copy_(torch.arange(10.0))
    _, rows = run(head, None)
    np.testing.assert_array_equal(rows.row(0)[0], [5, 7])
    np.testing.assert_array_equal(rows.row(0)[1], np.float32([5, 7]))
    np.testing.assert_array_equal(rows.row(1)[0], [5])


def test_queries_may_have_a_source_of_their_own():
    head = SparseHead(SparseConfig("masked_lm", 10, query_source="static", dropped_ids=(0, 1, 2)), hidden_size=1)
    assert head.source("query") == "static"
    assert head.source("passage") == "masked_lm"
    with torch.no_grad():
        head.table.fill_(2.0)
    _, rows = run(head, None, kind="query")
    np.testing.assert_array_equal(rows.weights, np.float32([2, 2, 2]))


def test_rows_equal_a_naive_loop():
    """Random ids with many repetitions against dictionaries."""
    generator = np.random.default_rng(5)
    ids = generator.integers(0, 50, (40, 30))
    weights = np.maximum(generator.normal(size=(40, 30)), 0).astype(np.float32)
    head = SparseHead(SparseConfig("token_linear", 50), hidden_size=1)
    rows = head.rows(SparseTensors(torch.from_numpy(weights), torch.from_numpy(ids)))
    for number in range(40):
        best = {}
        for key, weight in zip(ids[number], weights[number], strict=True):
            if weight > 0:
                best[int(key)] = max(best.get(int(key), 0), weight)
        found_ids, found_weights = rows.row(number)
        assert list(found_ids) == sorted(best)
        np.testing.assert_array_equal(found_weights, [best[key] for key in sorted(best)])


def test_no_texts_give_no_rows():
    empty = SparseTensors(torch.zeros(0, 4), torch.zeros(0, 4, dtype=torch.long))
    rows = token_head().rows(empty)
    assert len(rows) == 0
    assert len(rows.ids) == 0


# -- vocabulary weights without all logits ----------------------------------------------------------------------------


def masked_lm(*, dtype=torch.float64, bias=True):
    """States of 3 texts of 5 tokens, a projection to 13 entries, and a mask that leaves the last text nothing."""
    generator = torch.Generator().manual_seed(0)
    shapes = [(3, 5, 4), (13, 4), (13,)]
    parts = [torch.randn(s, generator=generator, dtype=dtype).requires_grad_() for s in shapes]
    mask = torch.tensor([[True] * 5, [True, True, False, True, False], [False] * 5])
    return [*parts[:2], parts[2] if bias else None], mask


@pytest.mark.parametrize("chunk", [1, 4, 13, None])
@pytest.mark.parametrize("bias", [True, False])
def test_largest_logits_equal_those_of_the_whole(chunk, bias):
    parts, mask = masked_lm(bias=bias)
    leaves = [part for part in parts if part is not None]
    whole = torch.nn.functional.linear(*parts).masked_fill(~mask[:, :, None], float("-inf")).amax(dim=1)
    found = largest_logits(Prediction(*parts), mask, chunk=chunk)
    torch.testing.assert_close(found, whole)
    pull = torch.randn(3, 13, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    pull[2] = 0  # a text without tokens has no gradient
    pull[0, 3:6] = 0
    expected = torch.autograd.grad((whole[:2] * pull[:2]).sum(), leaves)
    for one, other in zip(torch.autograd.grad(found, leaves, pull), expected, strict=True):
        torch.testing.assert_close(one, other)


def test_largest_logits_pass_gradcheck():
    parts, mask = masked_lm()
    assert torch.autograd.gradcheck(
        lambda *p: largest_logits(Prediction(*p), mask[:2], chunk=3), (parts[0][:2], *parts[1:])
    )


@pytest.mark.parametrize("log1p", [1, 2])
@pytest.mark.parametrize("pooling", ["max", "sum"])
def test_weights_and_gradients_do_not_depend_on_the_chunk(pooling, log1p, monkeypatch):
    parts, mask = masked_lm()
    head = SparseHead(SparseConfig("masked_lm", 13, pooling=pooling, log1p=log1p, dropped_ids=(1,)), hidden_size=1)
    ids = torch.zeros(3, 5, dtype=torch.long)

    def run(prediction):
        weights = head(ids_BL=ids, mask_BL=mask, states_BLH=None, prediction=prediction, kind="passage").weights
        return weights, torch.autograd.grad((weights * torch.arange(13)).sum(), parts)

    whole, expected = run(Prediction(torch.nn.functional.linear(*parts), None))
    monkeypatch.setattr(sparse, "LOGITS_LIMIT", 60)
    chunked, found = run(Prediction(*parts))
    torch.testing.assert_close(chunked, whole)
    assert chunked[2].abs().sum() == 0
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other)


def test_no_tensor_of_all_logits_is_made():
    """Neither pass may allocate texts x tokens x vocabulary."""
    states = torch.randn(4, 64, 8, requires_grad=True)
    weight = torch.randn(5000, 8, requires_grad=True)
    largest = 0

    class Watch(TorchDispatchMode):
        def __torch_dispatch__(self, function, types, arguments=(), options=None):
            nonlocal largest
            result = function(*arguments, **(options or {}))
            for tensor in result if isinstance(result, tuple | list) else [result]:
                if isinstance(tensor, torch.Tensor):
                    largest = max(largest, tensor.numel())
            return result

    with Watch():
        largest_logits(Prediction(states, weight), torch.ones(4, 64, dtype=torch.bool), chunk=100).sum().backward()
    assert largest == max(4 * 64 * 100, 5000 * 8)
