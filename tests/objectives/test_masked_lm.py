import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from trine.errors import UsageError
from trine.objectives.masked_lm import (
    IGNORED,
    NOT_A_WORD,
    Masking,
    hashed,
    linear_cross_entropy,
    mask_tokens,
    next_token_labels,
    uniform,
    word_numbers,
)

MASK, ORDINARY = 4, torch.arange(5, 105)


def problem(dtype=torch.float64, tokens=11, hidden=4, vocabulary=9):
    generator = torch.Generator().manual_seed(0)
    states, weight, bias = (
        torch.randn(shape, generator=generator, dtype=dtype).requires_grad_()
        for shape in ((tokens, hidden), (vocabulary, hidden), (vocabulary,))
    )
    labels = torch.randint(0, vocabulary, (tokens,), generator=generator)
    labels[[0, 4]] = IGNORED
    return states, labels, weight, bias


@pytest.mark.parametrize("chunk", [1, 3, 100, None])
@pytest.mark.parametrize("with_bias", [True, False])
def test_cross_entropy_equals_torch_in_value_and_gradients(chunk, with_bias):
    states, labels, weight, bias = problem()
    bias = bias if with_bias else None
    leaves = [leaf for leaf in (states, weight, bias) if leaf is not None]
    expected = torch.nn.functional.cross_entropy(
        torch.nn.functional.linear(states, weight, bias), labels, reduction="sum"
    )
    found = linear_cross_entropy(states, labels, weight_VH=weight, bias_V=bias, chunk=chunk)
    torch.testing.assert_close(found.total, expected)
    assert found.count == 9
    for one, other in zip(
        torch.autograd.grad(found.total * 0.3, leaves), torch.autograd.grad(expected * 0.3, leaves), strict=True
    ):
        torch.testing.assert_close(one, other)


def test_cross_entropy_by_hand():
    # Two classes with logits 0 and ln 3: the second has probability 3/4.
    weight = torch.tensor([[0.0], [1.0]], dtype=torch.float64)
    states = torch.tensor([[3.0]], dtype=torch.float64).log()
    first, second = (linear_cross_entropy(states, torch.tensor([n]), weight_VH=weight).total.exp() for n in (0, 1))
    torch.testing.assert_close(first, torch.tensor(4.0, dtype=torch.float64))
    torch.testing.assert_close(second, torch.tensor(4 / 3, dtype=torch.float64))


def test_a_token_is_predicted_one_place_before_its_own():
    none = IGNORED
    labels = torch.tensor([[7, none, 8, none], [none, none, none, 9], [none] * 4])
    expected = torch.tensor([[none, 8, none, none], [none, none, 9, none], [none] * 4])
    assert torch.equal(next_token_labels(labels), expected)


def test_masked_next_token_prediction_by_hand():
    """Two classes with logits 0 and ln 3; of three tokens the last is hidden, so that only place 1 counts."""
    weight = torch.tensor([[0.0], [1.0]], dtype=torch.float64)
    states = torch.tensor([[[9.0], [3.0], [7.0]]], dtype=torch.float64).log()
    labels = next_token_labels(torch.tensor([[IGNORED, IGNORED, 1]]))
    found = linear_cross_entropy(states.flatten(0, 1), labels.flatten(), weight_VH=weight)
    torch.testing.assert_close(found.total.exp(), torch.tensor(4 / 3, dtype=torch.float64))
    assert found.count == 1


def test_cross_entropy_passes_gradcheck():
    states, labels, weight, bias = problem(tokens=5, hidden=3, vocabulary=4)
    assert torch.autograd.gradcheck(
        lambda s, w, b: linear_cross_entropy(s, labels, weight_VH=w, bias_V=b, chunk=2).total, (states, weight, bias)
    )


def test_tied_weights_gather_both_gradients():
    _, labels, weight, _ = problem()
    ids = torch.arange(11) % 9

    def gradient(loss):
        return torch.autograd.grad(loss(weight[ids].tanh()), weight)[0]

    torch.testing.assert_close(
        gradient(lambda states: linear_cross_entropy(states, labels, weight_VH=weight, chunk=4).total),
        gradient(lambda states: torch.nn.functional.cross_entropy(states @ weight.T, labels, reduction="sum")),
    )


def test_frozen_parts_get_no_gradient_and_no_labels_cost_nothing():
    states, labels, weight, bias = problem()
    linear_cross_entropy(states, labels, weight_VH=weight.detach(), bias_V=bias).total.backward()
    assert weight.grad is None
    assert states.grad is not None
    with torch.no_grad():
        assert not linear_cross_entropy(states, labels, weight_VH=weight).total.requires_grad
    nothing = linear_cross_entropy(states, torch.full_like(labels, IGNORED), weight_VH=weight, bias_V=bias)
    nothing.total.backward()
    assert nothing.total == 0
    assert nothing.count == 0


def test_bfloat16_is_summed_in_float32():
    states, labels, weight, bias = problem(torch.bfloat16, tokens=300, hidden=16, vocabulary=40)
    found = linear_cross_entropy(states, labels % 40, weight_VH=weight, bias_V=bias)
    assert found.total.dtype == torch.float32
    wide = torch.nn.functional.cross_entropy(
        states.float() @ weight.float().T + bias.float(), labels % 40, reduction="sum"
    )
    torch.testing.assert_close(found.total, wide, rtol=5e-3, atol=0)
    found.total.backward()
    assert states.grad.dtype == weight.grad.dtype == torch.bfloat16


@pytest.mark.parametrize("chunk", [0, -1])
def test_a_chunk_without_tokens_is_refused(chunk):
    states, labels, weight, _ = problem()
    with pytest.raises(UsageError, match="at least 1"):
        linear_cross_entropy(states, labels, weight_VH=weight, chunk=chunk)


# -- masking -----------------------------------------------------------------------------------------------------------


def texts(lengths, *, seed=0, longest_word=4):
    """Random texts [CLS] words [SEP] padding, with their word numbers."""
    generator = torch.Generator().manual_seed(seed)
    width = max(lengths) + 2
    ids = torch.zeros((len(lengths), width), dtype=torch.long)
    words = torch.full_like(ids, NOT_A_WORD)
    for row, length in enumerate(lengths):
        ids[row, 0], ids[row, length + 1] = 2, 3
        ids[row, 1 : length + 1] = torch.randint(5, 105, (length,), generator=generator)
        begins = torch.rand(length, generator=generator) < 1 / longest_word
        begins[:1] = True
        words[row, 1 : length + 1] = begins.cumsum(0) - 1
    return ids, words


def mask(ids, words, masking, seeds=None):
    seeds = torch.arange(len(ids)) if seeds is None else seeds
    return mask_tokens(ids, words, masking=masking, mask_id=MASK, ordinary_R=ORDINARY, seeds_B=seeds)


def test_word_numbers_begin_anew_after_special_tokens_and_in_each_text():
    starts = torch.tensor([False, False, True, False])  # ids 0, 1: special; 2 begins a word; 3 goes on
    ids = torch.tensor([[0, 2, 3, 3, 2, 1], [0, 3, 3, 0, 3, 1]])
    ordinary = ids >= 2
    assert word_numbers(ids, starts_V=starts, ordinary_BL=ordinary).tolist() == [
        [-1, 0, 0, 0, 1, -1],
        [-1, 0, 0, -1, 1, -1],
    ]


@settings(max_examples=60, deadline=None)
@given(
    lengths=st.lists(st.integers(0, 30), min_size=1, max_size=5),
    rate=st.floats(0.05, 1.0),
    whole_word=st.booleans(),
    seed=st.integers(0, 2**62),
)
def test_masking_obeys_its_rules(lengths, rate, whole_word, seed):
    ids, words = texts(lengths, seed=seed)
    masked = mask(ids, words, Masking(rate, whole_word=whole_word), torch.arange(len(ids)) + seed)
    hidden = masked.labels_BL != IGNORED
    assert not (hidden & (words == NOT_A_WORD)).any()
    assert torch.equal(masked.labels_BL[hidden], ids[hidden])
    assert torch.equal(masked.ids_BL[~hidden], ids[~hidden])
    assert (masked.ids_BL[hidden] >= 4).all()
    for row, length in enumerate(lengths):
        if whole_word:
            for word in words[row].unique():
                assert hidden[row][words[row] == word].unique().numel() == 1
        else:
            assert abs(int(hidden[row].sum()) - max(rate * length, min(length, 1))) < 1
    if rate == 1.0:
        assert torch.equal(hidden, words != NOT_A_WORD)


def test_rate_and_shares_are_exact_on_average():
    ids, words = texts([100] * 4000, longest_word=3)
    masked = mask(ids, words, Masking(0.3))
    hidden = masked.labels_BL != IGNORED
    assert hidden.sum() / (words >= 0).sum() == pytest.approx(0.3, abs=0.001)
    became, was = masked.ids_BL[hidden], ids[hidden]
    assert (became == MASK).float().mean() == pytest.approx(0.8, abs=0.004)
    # One in a hundred random tokens is the true one.
    assert (became == was).float().mean() == pytest.approx(0.1 + 0.1 / 100, abs=0.004)
    replaced = became[(became != MASK) & (became != was)]
    assert replaced.bincount(minlength=105)[5:].min() > 60
    assert replaced.min() == 5
    assert replaced.max() == 104


def test_a_long_word_in_a_short_text_is_hidden_one_time_in_its_length():
    ids = torch.tensor([[2, 5, 6, 7, 8, 3]]).repeat(8000, 1)
    words = torch.tensor([[-1, 0, 0, 0, 0, -1]]).repeat(8000, 1)
    hidden = mask(ids, words, Masking(0.1)).labels_BL != IGNORED
    assert hidden.any(dim=1).float().mean() == pytest.approx(0.25, abs=0.015)


def test_all_mask():
    ids, words = texts([20, 7])
    masked = mask(ids, words, Masking(0.5, random_share=0, kept_share=0))
    assert (masked.ids_BL[masked.labels_BL != IGNORED] == MASK).all()


def test_a_text_loses_the_same_tokens_in_any_batch():
    ids, words = texts([20, 7, 13])
    seeds = torch.tensor([5, 9, -3])
    together = mask(ids, words, Masking(0.4), seeds)
    for row, length in enumerate([20, 7, 13]):
        alone = mask(ids[row : row + 1, : length + 2], words[row : row + 1, : length + 2], Masking(0.4), seeds[[row]])
        assert torch.equal(alone.ids_BL[0], together.ids_BL[row, : length + 2])
    other = mask(ids, words, Masking(0.4), seeds + 1)
    assert not torch.equal(other.labels_BL, together.labels_BL)


def test_hash_is_splitmix64():
    # The first numbers of the generator with state 0, as its authors publish them.
    golden = -0x61C8864680B583EB
    states = torch.tensor([0, golden, 2 * golden + 2**64])
    assert [number % 2**64 for number in hashed(states).tolist()] == [
        0xE220A8397B1DCDAF,
        0x6E789E6AA1B965F4,
        0x06C45D188009454F,
    ]


def test_uniform_numbers_are_uniform():
    drawn = uniform(torch.arange(300)[:, None], 1, torch.arange(400))
    assert drawn.min() >= 0
    assert drawn.max() < 1
    counts = torch.histc(drawn, bins=20, min=0, max=1)
    assert (counts / counts.mean() - 1).abs().max() < 0.05


@pytest.mark.parametrize(
    "change", [{"rate": 0}, {"rate": 1.2}, {"rate": 0.3, "random_share": 0.7, "kept_share": 0.5}, {"rate": -0.1}]
)
def test_shares_that_are_none_are_refused(change):
    with pytest.raises(UsageError, match="must be"):
        Masking(**change)
