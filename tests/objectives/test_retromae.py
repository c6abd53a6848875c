import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from trine.errors import UsageError
from trine.objectives.masked_lm import IGNORED, NOT_A_WORD, linear_cross_entropy
from trine.objectives.retromae import Decoder, Decoding, bag_of_words_loss, reconstruction_labels, visibility

B, L, H, HEADS, V = 2, 6, 8, 2, 11


def inputs(seed=0):
    generator = torch.Generator().manual_seed(seed)
    shapes = ((B, H), (B, L, H), (B, L, H))
    return Decoding(
        *(torch.randn(shape, generator=generator, dtype=torch.float64).requires_grad_() for shape in shapes)
    )


def decoder(**options):
    torch.manual_seed(1)
    made = Decoder(hidden=H, heads=HEADS, feed_forward=12, dropout=0.0, deviation=0.5, **options).double()
    for part in made.modules():
        if isinstance(part, torch.nn.Linear | torch.nn.LayerNorm):
            torch.nn.init.normal_(part.bias)
    return made


WORDS = torch.tensor([[-1, 0, 0, 1, 2, -1], [-1, 0, 1, -1, -1, -1]])
"""CLS, words of 2, 1 and 1 tokens, SEP; CLS, two words, SEP, padding."""
IDS = torch.tensor([[1, 5, 6, 7, 8, 2], [1, 9, 9, 2, 0, 0]])
SEEDS = torch.tensor([3, 4])


def naive_norm(vector, layer):
    centred = vector - vector.mean()
    return centred / torch.sqrt((centred**2).mean() + layer.eps) * layer.weight + layer.bias


def naive_row(made, given, visible, row, i):
    """One token's reconstruction, by the formulas of section 3.3, one scalar product at a time."""
    layer = made.layers[0]
    context = [given.sentence_BH[row]] + [given.embedded_BLH[row, j] for j in range(1, L)]
    asking = given.positions_BLH[row, i] + given.sentence_BH[row]
    size = H // HEADS
    mixed = []
    for head in range(HEADS):
        part = slice(head * size, (head + 1) * size)
        query = layer.query(asking)[part]
        seen = [j for j in range(L) if visible[row, i, j]]
        scores = torch.stack([query @ layer.key(context[j])[part] / math.sqrt(size) for j in seen])
        chances = scores.exp() / scores.exp().sum()
        mixed.append(sum(chance * layer.value(context[j])[part] for chance, j in zip(chances, seen, strict=True)))
    states = naive_norm(asking + layer.output(torch.cat(mixed)), layer.attention_norm)
    wide = layer.expand(states)
    wide = wide * 0.5 * (1 + torch.erf(wide / math.sqrt(2)))
    return naive_norm(states + layer.contract(wide), layer.output_norm)


def test_enhanced_decoding_equals_the_formula():
    made, given = decoder(), inputs()
    visible = visibility(WORDS, rate=0.5, seeds_B=SEEDS)
    labels = reconstruction_labels(IDS, WORDS)
    weight = torch.randn(V, H, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    found = linear_cross_entropy(
        made(given, visible=visible).flatten(0, 1), labels.flatten(), weight_VH=weight, chunk=2
    )
    expected = 0
    for row in range(B):
        for i in range(L):
            if labels[row, i] != IGNORED:
                logits = weight @ naive_row(made, given, visible, row, i)
                expected = expected + logits.exp().sum().log() - logits[labels[row, i]]
    torch.testing.assert_close(found.total, expected)
    assert found.count == 6
    leaves = [*given, *made.parameters()]
    for one, other in zip(torch.autograd.grad(found.total, leaves), torch.autograd.grad(expected, leaves), strict=True):
        torch.testing.assert_close(one, other)


def test_enhanced_decoding_passes_gradcheck():
    made = decoder()
    visible = visibility(WORDS, rate=0.5, seeds_B=SEEDS)
    ordinary = WORDS != NOT_A_WORD

    def run(*parts):
        return made(Decoding(*parts), visible=visible)[ordinary]

    assert torch.autograd.gradcheck(run, tuple(inputs()), fast_mode=True)


def test_a_token_never_reaches_its_own_reconstruction():
    made, given = decoder(), inputs()
    visible = visibility(WORDS, rate=0.0, seeds_B=SEEDS)
    for i in range(1, 5):
        rebuilt = made(given, visible=visible)[0, i] @ torch.arange(H).double()
        (gradient,) = torch.autograd.grad(rebuilt, given.embedded_BLH)
        assert gradient[0].abs().sum(dim=1).nonzero().flatten().tolist() == [j for j in range(1, 5) if j != i]
        (for_sentence,) = torch.autograd.grad(
            made(given, visible=visible)[0, i] @ torch.arange(H).double(), given.sentence_BH
        )
        assert for_sentence[0].abs().min() > 0
        assert for_sentence[1].abs().max() == 0


@settings(max_examples=60, deadline=None)
@given(
    lengths=st.lists(st.integers(0, 20), min_size=1, max_size=4),
    rate=st.sampled_from([0.0, 0.3, 0.5, 0.9, 1.0]),
    masks=st.sampled_from([1, 4, 256]),
    seed=st.integers(0, 2**60),
)
def test_visibility_obeys_its_rules(lengths, rate, masks, seed):
    width = max(lengths) + 2
    words = torch.full((len(lengths), width), NOT_A_WORD)
    for row, length in enumerate(lengths):
        words[row, 1 : length + 1] = torch.arange(length) // 2
    visible = visibility(words, rate=rate, seeds_B=torch.arange(len(lengths)) + seed, masks=masks)
    ordinary = words != NOT_A_WORD
    assert visible[:, :, 0].all()
    assert not visible[:, :, 1:].diagonal(offset=-1, dim1=1, dim2=2).any()
    rest = visible[:, :, 1:]
    assert not (rest & ~ordinary[:, None, 1:]).any()
    assert not (rest & ~ordinary[:, :, None]).any()
    for row, length in enumerate(lengths):
        for i in range(1, length + 1):
            for word in range((length + 1) // 2):
                places = [j for j in range(1, length + 1) if words[row, j] == word and j != i]
                assert len({bool(visible[row, i, j]) for j in places}) <= 1
        if masks == 1:
            for j in range(1, length + 1):
                assert len({bool(visible[row, i, j]) for i in range(1, length + 1) if i != j}) <= 1
    if rate == 1.0:
        assert not rest.any()


def test_masks_differ_between_rows_and_hide_their_share():
    words = torch.full((30, 102), NOT_A_WORD)
    words[:, 1:101] = torch.arange(100)
    visible = visibility(words, rate=0.7, seeds_B=torch.arange(30))
    assert visible[:, 1:101, 1:101].float().mean() == pytest.approx(0.3 * 99 / 100, abs=0.01)
    assert len({tuple(row) for row in visible[0, 1:101, 1:101].tolist()}) > 50
    assert not torch.equal(visible[0], visible[1])


def test_a_text_gets_the_same_masks_in_any_batch():
    together = visibility(WORDS, rate=0.5, seeds_B=SEEDS)
    alone = visibility(WORDS[1:, :4], rate=0.5, seeds_B=SEEDS[1:])
    assert torch.equal(alone[0], together[1, :4, :4])


def test_labels_leave_out_special_tokens_padding_and_place_0():
    assert reconstruction_labels(IDS, WORDS).tolist() == [
        [IGNORED, 5, 6, 7, 8, IGNORED],
        [IGNORED, 9, 9, IGNORED, IGNORED, IGNORED],
    ]
    without_cls = torch.tensor([[0, 0, 1]])
    assert reconstruction_labels(torch.tensor([[7, 8, 9]]), without_cls).tolist() == [[IGNORED, 8, 9]]


def test_plain_decoding_looks_everywhere_but_at_padding():
    made, given = decoder(enhanced=False, layers=2), inputs()
    real = torch.tensor([[True] * 6, [True] * 4 + [False] * 2])
    states = made(given, visible=real)
    assert states.shape == (B, L, H)
    (gradient,) = torch.autograd.grad(states[1, 2] @ torch.arange(H).double(), given.embedded_BLH)
    assert gradient[1].abs().sum(dim=1).nonzero().flatten().tolist() == [1, 2, 3]


def test_bag_of_words_by_hand():
    # Text 1 has tokens 5, 6, 7, 8; text 2 has 9 twice, so that w_9 = 1/2 and the weights sum to 1/2.
    largest = torch.randn(B, V, dtype=torch.float64, generator=torch.Generator().manual_seed(0)).requires_grad_()
    chances = largest.softmax(dim=1)
    expected = -(chances[0, 5:9].log().sum() / 4 + chances[1, 9].log() / 2)
    torch.testing.assert_close(bag_of_words_loss(largest, IDS, WORDS), expected)
    assert torch.autograd.gradcheck(lambda x: bag_of_words_loss(x, IDS, WORDS), (largest,))


def test_an_empty_text_has_no_bag():
    assert bag_of_words_loss(torch.zeros(1, V), torch.tensor([[1, 2]]), torch.full((1, 2), NOT_A_WORD)) == 0


@pytest.mark.parametrize("options", [{"layers": 2}, {"layers": 0, "enhanced": False}, {"hidden": 9}])
def test_shapes_that_do_not_exist_are_refused(options):
    with pytest.raises(UsageError):
        Decoder(**({"hidden": H, "heads": HEADS, "feed_forward": 12} | options))


def test_a_rate_beyond_one_is_refused():
    with pytest.raises(UsageError, match="from 0 to 1"):
        visibility(WORDS, rate=1.5, seeds_B=SEEDS)
