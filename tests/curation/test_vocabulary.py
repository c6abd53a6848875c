import json

import numpy as np
import pytest
import torch

from models import tiny
from trine.curation.tokenizers import train_tokenizer
from trine.curation.vocabulary import trim_vocabulary
from trine.errors import UsageError
from trine.models.backbone import Backbone
from trine.models.config import EncoderConfig, MultiVectorConfig, SparseConfig, TextConfig
from trine.models.encoder import Encoder
from trine.models.fresh import fresh_encoder

KOREAN = tiny.CORPUS[:8]
KEPT = [*KOREAN, "", " ".join([KOREAN[0]] * 3), KOREAN[2] + " " + KOREAN[1]]
"""Texts whose tokens all occur in `KOREAN`."""


def same(before, after, *, old_ids):
    """Embeddings are equal; `old_ids` says which old id each new one was."""
    if before.dense is not None:
        np.testing.assert_allclose(after.dense, before.dense, atol=1e-6)
    if before.multi_vector is not None:
        np.testing.assert_array_equal(after.multi_vector.offsets, before.multi_vector.offsets)
        np.testing.assert_allclose(after.multi_vector.values, before.multi_vector.values, atol=1e-6)
    np.testing.assert_array_equal(after.sparse.offsets, before.sparse.offsets)
    np.testing.assert_array_equal(old_ids[after.sparse.ids], before.sparse.ids)
    np.testing.assert_allclose(after.sparse.weights, before.sparse.weights, atol=1e-6)


def old_numbers(before, after):
    """New id -> old id, by the pieces themselves."""
    old = before.tokenizer.get_vocab()
    return np.array([old[piece] for piece in after.tokenizer.convert_ids_to_tokens(range(len(after.tokenizer)))])


@pytest.mark.parametrize("name", tiny.BACKBONES)
def test_texts_of_kept_tokens_keep_their_embeddings(name, tmp_path):
    encoder = tiny.encoder(name)
    fingerprint = encoder.fingerprint
    trimmed = trim_vocabulary(encoder, KOREAN)
    assert len(trimmed.tokenizer) < len(encoder.tokenizer)
    assert trimmed.backbone.vocabulary_size == len(trimmed.tokenizer) == trimmed.dimensions["sparse"]
    same(encoder.encode(KEPT), trimmed.encode(KEPT), old_ids=old_numbers(encoder, trimmed))
    del encoder.__dict__["fingerprint"]
    assert encoder.fingerprint == fingerprint != trimmed.fingerprint
    loaded = Encoder.load(trimmed.save(tmp_path / "model"), device="cpu")
    same(encoder.encode(KEPT), loaded.encode(KEPT), old_ids=old_numbers(encoder, loaded))


@pytest.mark.parametrize("name", tiny.BACKBONES)
def test_pieces_are_those_of_before(name):
    encoder = tiny.encoder(name)
    trimmed = trim_vocabulary(encoder, tiny.TEXTS)
    for text in tiny.TEXTS:
        assert trimmed.tokenizer.tokenize(text) == encoder.tokenizer.tokenize(text)
    odd = ["처음 보는 글자들 뷁", "שלום", "🦑"]
    assert np.isfinite(trimmed.encode(odd).dense).all()


@pytest.mark.parametrize("name", ["bert", "xlm_roberta", "modernbert"])
@pytest.mark.parametrize("query_source", [None, "static"])
def test_masked_lm_heads_and_static_tables_are_cut_along(name, query_source, tmp_path):
    parts = tiny.build(name, masked_lm=True)
    width = parts.model.config.vocab_size
    config = EncoderConfig(
        text=TextConfig(max_length=tiny.MAX_LENGTH),
        sparse=SparseConfig("masked_lm", width, query_source=query_source, dropped_ids=(0, 1)),
    )
    encoder = Encoder(config, backbone=Backbone(parts.model, masked_lm=True), tokenizer=parts.tokenizer).eval()
    if query_source:
        with torch.no_grad():
            encoder.sparse.table.copy_(torch.rand(width))
    trimmed = trim_vocabulary(encoder, KOREAN)
    trimmed = Encoder.load(trimmed.save(tmp_path / "model"), device="cpu")
    old = old_numbers(encoder, trimmed)
    before, after = encoder.encode(KEPT), trimmed.encode(KEPT)
    for number in range(len(KEPT)):
        ids, weights = before.sparse.row(number)
        there = np.isin(ids, old)
        np.testing.assert_array_equal(old[after.sparse.row(number)[0]], ids[there])
        np.testing.assert_allclose(after.sparse.row(number)[1], weights[there], atol=1e-6)
    if query_source:
        same(encoder.encode(KEPT, kind="query"), trimmed.encode(KEPT, kind="query"), old_ids=old)


@pytest.mark.parametrize("algorithm", ["unigram", "bpe"])
def test_byte_fallback_survives(algorithm):
    tokenizer = train_tokenizer(tiny.CORPUS, size=500, algorithm=algorithm)
    encoder = fresh_encoder(tokenizer, layers=1, hidden=16, heads=2, feed_forward=16, max_length=64)
    trimmed = trim_vocabulary(encoder, KOREAN)
    assert 261 < len(trimmed.tokenizer) < len(tokenizer)
    same(encoder.encode(KEPT), trimmed.encode(KEPT), old_ids=old_numbers(encoder, trimmed))
    ids = trimmed.tokenizer("🦑 שלום")["input_ids"]
    assert trimmed.tokenizer.unk_token_id not in ids
    assert trimmed.tokenizer.decode(ids, skip_special_tokens=True) == "🦑 שלום"


def test_the_price_of_an_unknown_character_stays():
    """A unigram model takes the least likely piece as its measure, whether or not a text has it."""
    encoder = tiny.encoder("xlm_roberta")
    scores = dict(json.loads(encoder.tokenizer.backend_tokenizer.to_str())["model"]["vocab"])
    assert min(scores, key=scores.get) in trim_vocabulary(encoder, [KOREAN[0]]).tokenizer.get_vocab()


def test_prompts_markers_and_dropped_tokens_move_along():
    parts = tiny.build("bert")
    vocabulary = parts.tokenizer.get_vocab()
    english = vocabulary["a"]
    config = EncoderConfig(
        text=TextConfig(
            max_length=tiny.MAX_LENGTH, prompts={"query": "Search: "}, markers={"query": english, "passage": english}
        ),
        sparse=SparseConfig("token_linear", len(parts.tokenizer), dropped_ids=(0, vocabulary["."])),
        multi_vector=MultiVectorConfig(dropped_passage_ids=(vocabulary["."], vocabulary["fox"])),
    )
    encoder = Encoder(config, backbone=Backbone(parts.model, masked_lm=False), tokenizer=parts.tokenizer).eval()
    trimmed = trim_vocabulary(encoder, KOREAN)
    found = trimmed.tokenizer.get_vocab()
    assert trimmed.config.text.markers == {"query": found["a"], "passage": found["a"]}
    assert trimmed.config.sparse.dropped_ids == (0, found["."])
    assert trimmed.config.multi_vector.dropped_passage_ids == (found["."],)
    for kind in ("query", "passage"):
        same(encoder.encode(KEPT, kind=kind), trimmed.encode(KEPT, kind=kind), old_ids=old_numbers(encoder, trimmed))


def test_rare_tokens_go_where_asked():
    encoder = tiny.encoder("bert")
    once, twice = (len(trim_vocabulary(encoder, KOREAN, least=least).tokenizer) for least in (1, 2))
    assert twice < once


@pytest.mark.parametrize("texts", [[], ["", " "]])
def test_no_texts_are_refused(texts):
    with pytest.raises(UsageError, match="no token occurs"):
        trim_vocabulary(tiny.encoder("bert"), texts)


def test_arguments_are_checked():
    with pytest.raises(UsageError, match=r"\[text\]"):
        trim_vocabulary(tiny.encoder("bert"), "글")
    with pytest.raises(UsageError, match="at least 1"):
        trim_vocabulary(tiny.encoder("bert"), ["글"], least=0)
