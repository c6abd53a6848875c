"""Decoders on running text: masked next tokens (LLM2Vec, arXiv 2404.05961, section 2.1), and plain next tokens."""

import numpy as np
import pytest
import torch

from models import tiny
from trine.errors import UsageError
from trine.models.backbone import Backbone
from trine.models.config import DenseConfig, EncoderConfig, Normalize, TextConfig
from trine.models.encoder import Encoder
from trine.objectives.masked_lm import IGNORED, Masking
from trine.training.pretraining import Pretraining, PretrainingModel, token_step

TEXTS = [*tiny.CORPUS[:6], "", "가", "🙂", "같은 글 같은 글", *tiny.CORPUS[8:10]]

DECODERS = ("llama", "qwen3")


def encoder_of(name, *, masked_lm=False, attention="native", tied=False):
    parts = tiny.build(name, masked_lm=masked_lm)
    parts.model.config.tie_word_embeddings = tied
    config = EncoderConfig(
        text=TextConfig(max_length=tiny.MAX_LENGTH),
        dense=DenseConfig(pooling=("mean",), layers=(Normalize(),)),
        attention=attention,
    )
    backbone = Backbone(parts.model, masked_lm=masked_lm, attention=attention)
    return Encoder(config, backbone=backbone, tokenizer=parts.tokenizer, name=name)


def tokens_of(model, texts=TEXTS):
    (encoder,) = model._source
    return encoder.text(texts, kind="passage")


def gradients(model):
    found = {name: parameter.grad for name, parameter in model.named_parameters() if parameter.grad is not None}
    model.zero_grad()
    return found


def decoder(name, kind="mntp", *, attention="bidirectional", masked_lm=True, **options):
    """In float64 and without dropout."""
    encoder = encoder_of(name, masked_lm=masked_lm, attention=attention, tied=not masked_lm)
    return PretrainingModel(encoder, Pretraining(kind, **options)).double().eval()


@pytest.mark.parametrize("masked_lm", [True, False], ids=["own head", "tied head"])
@pytest.mark.parametrize("name", DECODERS)
def test_masked_next_tokens_are_predicted_from_the_place_before(name, masked_lm):
    """The oracle: all logits, and each hidden token against those before it."""
    model = decoder(name, masked_lm=masked_lm, masking=Masking(0.3, whole_word=False))
    (chunk,) = model.chunks(tokens_of(model), seeds=1)
    losses = token_step(model, [chunk])
    hidden_BL = model._masked(chunk.ids_BL, chunk.words_BL, model.settings.masking, chunk.seeds_B).labels_BL != IGNORED
    with torch.no_grad():
        output = model.backbone.model(
            input_ids=chunk.masked.ids_BL, attention_mask=chunk.real_BL.long(), output_hidden_states=True
        )
        table = model.backbone.model.get_input_embeddings().weight
        logits_BLV = output.logits if masked_lm else output.last_hidden_state @ table.T
        total = sum(
            -logits_BLV[row, place - 1].log_softmax(0)[chunk.ids_BL[row, place]]
            for row, place in hidden_BL.nonzero().tolist()
            if place > 0  # Qwen's texts have no BOS; before their first token is nothing
        )
    assert hidden_BL[:, 1:].sum() > 20
    torch.testing.assert_close(losses.total, total / hidden_BL[:, 1:].sum())


@pytest.mark.parametrize("name", DECODERS)
def test_next_token_prediction_is_the_decoder_s_own_loss(name):
    model = decoder(name, "next_token", attention="causal")
    (chunk,) = model.chunks(tokens_of(model), seeds=1)
    assert torch.equal(chunk.masked.ids_BL, chunk.ids_BL)
    labels_BL = torch.where(chunk.real_BL, chunk.ids_BL, IGNORED)
    with torch.no_grad():
        own = model.backbone.model(input_ids=chunk.ids_BL, attention_mask=chunk.real_BL.long(), labels=labels_BL).loss
    # Its own loss is computed in float32.
    torch.testing.assert_close(token_step(model, [chunk]).total.float(), own.float())


@pytest.mark.parametrize("kind", ["mntp", "next_token"])
@pytest.mark.parametrize("masked_lm", [True, False])
def test_a_decoder_s_gradients_do_not_depend_on_the_chunks(masked_lm, kind):
    model = decoder("llama", kind, masked_lm=masked_lm)
    tokens = tokens_of(model)
    token_step(model, model.chunks(tokens, seeds=3))
    expected = gradients(model)
    token_step(model, model.chunks(tokens, seeds=3, budget=40))
    for key, gradient in gradients(model).items():
        torch.testing.assert_close(gradient, expected.pop(key), msg=key)
    assert not expected


def test_a_blank_stands_in_for_the_mask_token():
    model = decoder("llama", masking=Masking(0.8, whole_word=False, random_share=0, kept_share=0))
    (chunk,) = model.chunks(tokens_of(model, [*tiny.CORPUS, "_ _ _ _"]), seeds=0)
    tokenizer = model._source[0].tokenizer
    assert tokenizer.mask_token is None
    assert (chunk.ids_BL == model.mask_id).sum() == 4
    assert not (chunk.masked.labels_BL == model.mask_id).any()
    changed = chunk.masked.ids_BL[chunk.masked.ids_BL != chunk.ids_BL]
    assert tokenizer.decode(changed[:1]).strip() == "_"
    assert len(changed.unique()) == 1
    ordinary = (chunk.words_BL >= 0).sum()
    assert 0.75 < len(changed) / ordinary < 0.85
    assert tokenizer("a _ b")["input_ids"] == tiny.build("llama").tokenizer("a _ b")["input_ids"]


def test_a_decoder_learns_to_fill_in(tmp_path):
    torch.manual_seed(0)
    encoder = encoder_of("llama", attention="bidirectional", tied=True)
    model = PretrainingModel(encoder, Pretraining("mntp", masking=Masking(0.2, whole_word=False))).train()
    tokens = tokens_of(model, tiny.CORPUS)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    values = []
    for step in range(60):
        values.append(float(token_step(model, model.chunks(tokens, seeds=step)).total.detach()))
        optimizer.step()
        optimizer.zero_grad()
    assert sum(values[-5:]) < sum(values[:5]) / 2
    out = model.eval().to_encoder()
    loaded = Encoder.load(out.save(tmp_path / "model"), device="cpu")
    assert loaded.config.attention == "bidirectional"
    assert loaded.backbone.model.config.tie_word_embeddings
    np.testing.assert_allclose(loaded.encode(TEXTS).dense, out.encode(TEXTS).dense, atol=1e-6)


def test_a_decoder_from_scratch_is_tied_to_its_embeddings():
    """Otherwise what it learned to say could not be taken up by the next stage."""
    model = PretrainingModel(encoder_of("llama"), Pretraining("next_token"))
    assert model.to_encoder().backbone.model.config.tie_word_embeddings
    PretrainingModel(model.to_encoder(), Pretraining("mntp"))


def test_decoders_without_what_the_objective_needs_are_refused():
    with pytest.raises(UsageError, match="own language-model head"):
        PretrainingModel(encoder_of("llama"), Pretraining("mntp"))
    with pytest.raises(UsageError, match="after the output layer"):
        PretrainingModel(encoder_of("gemma2", tied=True), Pretraining("next_token"))
    with pytest.raises(UsageError, match="'mntp' has none"):
        Pretraining("mntp", enhanced=False)
    wordpiece = encoder_of("bert", tied=True)  # a vocabulary without "_", and without bytes to write it in
    wordpiece.tokenizer.mask_token = None
    with pytest.raises(UsageError, match="no '_' in its place"):
        PretrainingModel(wordpiece, Pretraining("mntp"))
