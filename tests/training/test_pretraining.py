import dataclasses

import numpy as np
import pytest
import torch

from models import tiny
from trine.errors import UnknownName, UsageError
from trine.models.backbone import Backbone
from trine.models.config import DenseConfig, EncoderConfig, Normalize, SparseConfig, TextConfig
from trine.models.encoder import Encoder
from trine.objectives.masked_lm import IGNORED, Masking
from trine.training.pretraining import Pretraining, PretrainingModel, token_step
from trine.training.ranks import OneProcess

TEXTS = [*tiny.CORPUS[:6], "", "가", "🙂", "같은 글 같은 글", *tiny.CORPUS[8:10]]
KINDS = ("mlm", "retromae", "dupmae")


def dense_encoder(name, *, masked_lm=False):
    parts = tiny.build(name, masked_lm=masked_lm)
    sparse = SparseConfig("masked_lm", parts.model.config.vocab_size) if masked_lm else None
    config = EncoderConfig(
        text=TextConfig(max_length=tiny.MAX_LENGTH),
        dense=DenseConfig(pooling=("cls",), layers=(Normalize(),)),
        sparse=sparse,
    )
    return Encoder(config, backbone=Backbone(parts.model, masked_lm=masked_lm), tokenizer=parts.tokenizer, name=name)


def model_of(name, kind="retromae", *, masked_lm=True, **options):
    """In float64 and without dropout."""
    return PretrainingModel(dense_encoder(name, masked_lm=masked_lm), Pretraining(kind, **options)).double().eval()


def tokens_of(model, texts=TEXTS):
    (encoder,) = model._source
    return encoder.text(texts, kind="passage")


def gradients(model):
    found = {name: parameter.grad for name, parameter in model.named_parameters() if parameter.grad is not None}
    model.zero_grad()
    return found


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("masked_lm", [True, False])
@pytest.mark.parametrize("name", ["bert", "xlm_roberta", "modernbert"])
def test_gradients_do_not_depend_on_the_chunks(name, masked_lm, kind):
    model = model_of(name, kind, masked_lm=masked_lm)
    tokens = tokens_of(model)
    whole = token_step(model, model.chunks(tokens, seeds=3))
    expected = gradients(model)
    cut = model.chunks(tokens, seeds=3, budget=40)
    assert len(cut) > 2
    pieces = token_step(model, cut)
    found = gradients(model)
    torch.testing.assert_close(pieces.total, whole.total)
    assert (
        set(pieces.parts)
        == set(whole.parts)
        == {"mlm", "decoder", "bag_of_words"}
        - {
            "mlm": {"decoder", "bag_of_words"},
            "retromae": {"bag_of_words"},
            "dupmae": set(),
        }[kind]
    )
    assert set(found) == set(expected)
    for key, gradient in expected.items():
        torch.testing.assert_close(found[key], gradient, msg=key)
    unused = {key for key, _ in model.named_parameters()} - set(expected)
    assert not {key for key in unused if "pooler" not in key}


@pytest.mark.parametrize("name", tiny.BACKBONES)
def test_masked_lm_loss_is_that_of_transformers(name):
    """The model's own head and loss on the same masked texts."""
    model = model_of(name, "mlm")
    (chunk,) = model.chunks(tokens_of(model), seeds=1)
    expected = model.backbone.model(
        input_ids=chunk.masked.ids_BL, attention_mask=chunk.real_BL.long(), labels=chunk.masked.labels_BL
    ).loss
    assert float(token_step(model, [chunk]).total) == pytest.approx(float(expected.detach()), rel=1e-6)


def test_retromae_loss_is_the_formula():
    """Encoder, decoder and head as plain calls of transformers' BERT on the same masks."""
    model = model_of("bert")
    (chunk,) = model.chunks(tokens_of(model), seeds=1)
    losses = token_step(model, [chunk])
    bert, ids = model.backbone.model, chunk.ids_BL
    hidden = bert.bert(input_ids=chunk.masked.ids_BL, attention_mask=chunk.real_BL.long()).last_hidden_state
    context = bert.bert.embeddings(input_ids=ids)
    context = torch.cat([hidden[:, :1], context[:, 1:]], dim=1)
    asking = bert.bert.embeddings.position_embeddings.weight[: ids.shape[1]] + hidden[:, :1]
    from trine.objectives.retromae import visibility

    seen = visibility(chunk.words_BL, rate=0.5, seeds_B=chunk.seeds_B)
    logits = bert.cls(model.decoder.layers[0](asking, context, seen[:, None]))
    ordinary = chunk.real_BL & ~torch.isin(ids, torch.tensor(model._source[0].tokenizer.all_special_ids))
    expected = torch.nn.functional.cross_entropy(logits[ordinary], ids[ordinary])
    torch.testing.assert_close(losses.parts["decoder"], expected.detach())
    torch.testing.assert_close(losses.total, losses.parts["mlm"] + losses.parts["decoder"])


def test_dupmae_adds_its_bag_of_words():
    model = model_of("bert", "dupmae", bag_of_words_weight=0.5)
    (chunk,) = model.chunks(tokens_of(model), seeds=1)
    losses = token_step(model, [chunk])
    logits = model.backbone.model(input_ids=chunk.masked.ids_BL, attention_mask=chunk.real_BL.long()).logits
    special, total = set(model._source[0].tokenizer.all_special_ids), 0
    for row, ids in enumerate(chunk.ids_BL.tolist()):
        places = [i for i, number in enumerate(ids) if number not in special]
        if places:
            chance = logits[row, places].amax(dim=0).log_softmax(dim=0)
            total = total - sum(chance[number] for number in {ids[i] for i in places}) / len(places)
    torch.testing.assert_close(losses.parts["bag_of_words"], (total / len(TEXTS)).detach())
    torch.testing.assert_close(
        losses.total, losses.parts["mlm"] + losses.parts["decoder"] + 0.5 * losses.parts["bag_of_words"]
    )


@pytest.mark.parametrize("name", tiny.BACKBONES)
def test_special_tokens_and_padding_are_neither_hidden_nor_rebuilt(name):
    model = model_of(name)
    (chunk,) = model.chunks(tokens_of(model), seeds=5)
    special = torch.tensor(model._source[0].tokenizer.all_special_ids)
    for labels in (chunk.masked.labels_BL, chunk.decoder.labels_BL):
        assert not torch.isin(labels, special).any()
        assert not ((labels != IGNORED) & ~chunk.real_BL).any()
    rebuilt = chunk.decoder.labels_BL != IGNORED
    assert torch.equal(rebuilt, chunk.real_BL & ~torch.isin(chunk.ids_BL, special))


@pytest.mark.parametrize("name", ["bert", "xlm_roberta", "modernbert"])
def test_whole_words_of_korean_are_hidden_together(name):
    model = model_of(name, masking=Masking(0.5, random_share=0, kept_share=0))
    tokenizer = model._source[0].tokenizer
    (chunk,) = model.chunks(tokens_of(model, tiny.CORPUS), seeds=5)
    several = 0
    for row, text in enumerate(tiny.CORPUS):
        words = tokenizer(text).word_ids()
        hidden = (chunk.masked.labels_BL[row] != IGNORED).tolist()
        for word in {word for word in words if word is not None}:
            of_word = [i for i, found in enumerate(words) if found == word]
            of_word = [i for i in of_word if int(chunk.ids_BL[row, i]) != tokenizer.unk_token_id]
            assert len({hidden[i] for i in of_word}) <= 1
            several += len(of_word) > 1
    assert several > 10


def test_one_seed_a_text_hides_the_same_in_any_batch():
    model = model_of("bert")
    seeds = np.arange(len(TEXTS)) * 7
    (together,) = model.chunks(tokens_of(model), seeds=seeds)
    for row, text in enumerate(TEXTS):
        (alone,) = model.chunks(tokens_of(model, [text]), seeds=seeds[row : row + 1])
        length = alone.ids_BL.shape[1]
        assert torch.equal(alone.masked.ids_BL[0], together.masked.ids_BL[row, :length])
    other = model.chunks(tokens_of(model), seeds=seeds + 1)[0]
    assert not torch.equal(other.masked.ids_BL, together.masked.ids_BL)
    with pytest.raises(UsageError, match="as many seeds"):
        model.chunks(tokens_of(model), seeds=seeds[1:])


def test_dropout_is_replayed_and_the_random_state_left_alone():
    model = PretrainingModel(dense_encoder("bert", masked_lm=True)).train()
    tokens = tokens_of(model)
    torch.manual_seed(1)
    state = torch.get_rng_state()
    one, same, other = (token_step(model, model.chunks(tokens, seeds=2, dropout_seed=seed)).total for seed in (5, 5, 6))
    assert torch.equal(torch.get_rng_state(), state)
    assert one == same != other


@pytest.mark.parametrize(
    "options", [{"enhanced": False}, {"enhanced": False, "decoder_layers": 2}, {"pooling": "mean"}]
)
def test_variants_of_the_decoder_run(options):
    model = model_of("bert", **options)
    chunks = model.chunks(tokens_of(model), seeds=0)
    losses = token_step(model, chunks)
    assert torch.isfinite(losses.total)
    assert all(torch.isfinite(gradient).all() for gradient in gradients(model).values())
    if options.get("decoder_layers"):
        assert len(model.decoder.layers) == 2
    if "enhanced" in options:
        hidden = chunks[0].decoder.labels_BL != IGNORED
        assert 0.3 < hidden.sum() / (chunks[0].words_BL >= 0).sum() < 0.7
        assert (chunks[0].decoder.ids_BL != chunks[0].ids_BL).any()


def test_a_plain_decoder_reads_a_text_masked_on_its_own():
    model = model_of("bert", enhanced=False)
    (chunk,) = model.chunks(tokens_of(model, tiny.CORPUS), seeds=0)
    encoder, decoder = (masked.labels_BL != IGNORED for masked in (chunk.masked, chunk.decoder))
    assert 0.3 < (encoder & decoder).sum() / encoder.sum() < 0.7


@pytest.mark.parametrize("name", ["bert", "xlm_roberta"])
def test_random_tokens_are_never_special(name):
    model = model_of(name, masking=Masking(1.0, random_share=1.0, kept_share=0.0))
    (chunk,) = model.chunks(tokens_of(model, tiny.CORPUS * 20), seeds=0)
    special = torch.tensor(model._source[0].tokenizer.all_special_ids)
    replaced = chunk.masked.ids_BL[chunk.masked.labels_BL != IGNORED]
    assert not torch.isin(replaced, special).any()
    assert len(replaced.unique()) > 300


class Fake(OneProcess):
    """One of several ranks that knows what the others count."""

    def __init__(self, means):
        self.means = dict(means)

    def mean(self, number):
        return self.means[number]


@pytest.mark.parametrize("kind", KINDS)
def test_the_mean_over_ranks_is_the_gradient_of_one_process(kind):
    """Two ranks with unequal numbers of texts and tokens."""
    model, seeds = model_of("bert", kind), np.arange(len(TEXTS))
    whole = token_step(model, model.chunks(tokens_of(model), seeds=seeds))
    expected = gradients(model)
    parts = [slice(0, 3), slice(3, None)]
    work = [model.chunks(tokens_of(model, TEXTS[part]), seeds=seeds[part], budget=50) for part in parts]
    counts = [{name: sum(c.counts()[name] for c in chunks) for name in chunks[0].counts()} for chunks in work]
    totals, found = [], []
    for chunks, own in zip(work, counts, strict=True):
        assert len(set(own.values())) == len(own)
        means = {own[name]: (counts[0][name] + counts[1][name]) / 2 for name in own}
        totals.append(token_step(model, chunks, ranks=Fake(means)).total)
        found.append(gradients(model))
    torch.testing.assert_close(sum(totals) / 2, whole.total)
    for key, gradient in expected.items():
        torch.testing.assert_close((found[0][key] + found[1][key]) / 2, gradient, msg=key)


def test_the_sentence_vector_is_what_the_decoder_leans_on():
    """Trained for some steps, the decoder rebuilds worse from another text's sentence vector."""
    torch.manual_seed(0)
    model = PretrainingModel(dense_encoder("bert")).train()
    tokens = tokens_of(model, tiny.CORPUS)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    first = None
    for step in range(120):
        losses = token_step(model, model.chunks(tokens, seeds=step, dropout_seed=step))
        first = losses.total if first is None else first
        optimizer.step()
        optimizer.zero_grad()
    assert losses.total < first / 2
    (chunk,) = model.eval().chunks(tokens, seeds=1)
    with torch.no_grad():
        right = model(chunk)["decoder"]
        own = model._sentence
        model._sentence = lambda *parts: own(*parts).roll(1, dims=0)
        wrong = model(chunk)["decoder"]
    assert wrong > 1.2 * right


@pytest.mark.parametrize("masked_lm", [True, False])
def test_the_encoder_comes_out_trained_and_without_decoder(masked_lm, tmp_path):
    model = PretrainingModel(dense_encoder("bert", masked_lm=masked_lm), Pretraining("dupmae"))
    before = model.to_encoder().encode(TEXTS)
    token_step(model, model.chunks(tokens_of(model), seeds=1))
    torch.optim.SGD(model.parameters(), lr=0.1).step()
    after = model.to_encoder()
    assert np.abs(before.dense - after.encode(TEXTS).dense).max() > 1e-4
    assert not [key for key in after.state_dict() if "decoder.layers" in key or key.startswith("head")]
    loaded = Encoder.load(after.save(tmp_path / "model"), device="cpu")
    np.testing.assert_allclose(loaded.encode(TEXTS).dense, after.encode(TEXTS).dense, atol=1e-6)


def test_a_pretrained_head_is_kept():
    encoder, parts = dense_encoder("xlm_roberta"), tiny.build("xlm_roberta", masked_lm=True, seed=9)
    model = PretrainingModel(encoder, language_model=Backbone(parts.model, masked_lm=True))
    assert model.head is None
    out = model.to_encoder()
    assert not out.backbone.masked_lm
    ids = torch.tensor([[0, 50, 60, 2]])
    with torch.no_grad():
        expected = parts.model.base_model(input_ids=ids).last_hidden_state
        torch.testing.assert_close(out.backbone(ids, ids >= 0).hidden_BLH, expected)


def test_bfloat16_autocast_stays_near():
    model = PretrainingModel(dense_encoder("bert", masked_lm=True)).eval()
    chunks = model.chunks(tokens_of(model), seeds=1)
    exact = token_step(model, chunks).total
    model.zero_grad()
    near = token_step(model, chunks, precision=torch.bfloat16).total
    assert near.dtype == torch.float32
    assert float(near) == pytest.approx(float(exact), rel=0.02)
    assert near != exact


def test_a_batch_without_words_costs_nothing():
    model = model_of("bert", "dupmae")
    losses = token_step(model, model.chunks(tokens_of(model, ["", "   "]), seeds=1))
    assert losses.total == 0
    assert all(torch.isfinite(gradient).all() for gradient in gradients(model).values())


def test_what_does_not_fit_is_refused():
    encoder = dense_encoder("bert", masked_lm=True)
    other = Backbone(tiny.build("xlm_roberta", masked_lm=True).model, masked_lm=True)
    with pytest.raises(UsageError, match="already"):
        PretrainingModel(encoder, language_model=other)
    with pytest.raises(UsageError, match="but the encoder has"):
        PretrainingModel(dense_encoder("bert"), language_model=other)
    with pytest.raises(UsageError, match="masked_lm=True"):
        PretrainingModel(dense_encoder("bert"), language_model=dense_encoder("bert").backbone)
    bare = dense_encoder("bert")
    bare.tokenizer.mask_token = None
    with pytest.raises(UsageError, match="no mask token"):
        PretrainingModel(bare)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"objective": "retromea"}, UnknownName, "did you mean 'retromae'"),
        ({"pooling": "mena"}, UnknownName, "did you mean 'mean'"),
        ({"objective": "mlm", "decoder_layers": 2}, UsageError, "has none"),
        ({"decoder_rate": 0.0}, UsageError, "decoder_rate"),
    ],
)
def test_settings_without_effect_are_refused(change, error, message):
    with pytest.raises(error, match=message):
        dataclasses.replace(Pretraining(), **change)
