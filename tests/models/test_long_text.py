import msgspec
import numpy as np
import pytest
import torch

from models import tiny
from trine.errors import UnknownName, UsageError
from trine.models.backbone import Backbone
from trine.models.config import (
    DenseConfig,
    EncoderConfig,
    MultiVectorConfig,
    Normalize,
    Projection,
    SparseConfig,
    TextConfig,
)
from trine.models.encoder import Encoder
from trine.models.heads.dense import cls_places
from trine.models.long_text import extend_positions, with_mcls
from trine.training.embedding import chunks, embedder

LEARNED = ("bert", "xlm_roberta", "distilbert", "mpnet")
LONG = "임베딩은 글의 뜻을 벡터로 나타낸 것이다. "


def three_heads(name="bert", *, pooling="cls"):
    """CLS-pooled, with all heads, as BGE-M3 is."""
    encoder = tiny.encoder(name)
    config = msgspec.structs.replace(encoder.config, dense=DenseConfig(pooling=(pooling,), layers=(Normalize(),)))
    result = Encoder(config, backbone=encoder.backbone, tokenizer=encoder.tokenizer, name=name)
    for mode in ("sparse", "multi_vector"):
        getattr(result, mode).load_state_dict(getattr(encoder, mode).state_dict())
    return result.eval()


def same(one, other, *, tolerance=1e-6):
    np.testing.assert_allclose(one.dense, other.dense, atol=tolerance)
    np.testing.assert_array_equal(one.sparse.ids, other.sparse.ids)
    np.testing.assert_allclose(one.sparse.weights, other.sparse.weights, atol=tolerance)
    np.testing.assert_allclose(one.multi_vector.values, other.multi_vector.values, atol=tolerance)


# -- positions ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", LEARNED)
def test_tiled_positions_leave_short_texts_alone(name, tmp_path):
    encoder = three_heads(name)
    fingerprint = encoder.fingerprint
    longer = extend_positions(encoder, 200)
    short = [text for text in tiny.TEXTS if len(encoder.tokenizer(text)["input_ids"]) <= tiny.MAX_LENGTH]
    same(longer.encode(short), encoder.encode(short))
    assert longer.max_length == 200 == longer.tokenizer.model_max_length
    assert len(longer.encode([LONG * 50]).multi_vector.values) == 199
    loaded = Encoder.load(longer.save(tmp_path / "model"), device="cpu")
    same(loaded.encode([LONG * 50, "글"]), longer.encode([LONG * 50, "글"]))
    del encoder.__dict__["fingerprint"]
    assert encoder.fingerprint == fingerprint
    assert encoder.max_length == tiny.MAX_LENGTH


def test_tiled_rows_repeat_and_the_offset_rows_stay():
    encoder = three_heads("xlm_roberta")
    old = encoder.backbone.positions.embedding.weight
    new = extend_positions(encoder, 100).backbone.positions.embedding.weight
    assert len(new) == 102
    torch.testing.assert_close(new[:50], old)
    torch.testing.assert_close(new[50:98], old[2:])
    torch.testing.assert_close(new[98:], old[2:6])


@pytest.mark.parametrize("name", LEARNED)
def test_interpolated_rows_keep_both_ends(name):
    encoder = three_heads(name)
    learned = encoder.backbone.positions
    old = learned.embedding.weight[learned.first :]
    longer = extend_positions(encoder, 2 * tiny.MAX_LENGTH - 1, method="interpolate")
    new = longer.backbone.positions.embedding.weight[learned.first :]
    torch.testing.assert_close(new[::2], old)
    torch.testing.assert_close(new[1::2], (old[1:] + old[:-1]) / 2)
    assert np.isfinite(longer.encode([LONG * 50]).dense).all()


@pytest.mark.parametrize("name", ["bert", "xlm_roberta", "modernbert"])
def test_8192_tokens(name):
    longer = extend_positions(three_heads(name), 8192)
    found = longer.encode([LONG * 2000, "짧은 글"], modes=["dense", "multi_vector"])
    assert found.multi_vector.offsets[1] == 8191
    assert np.isfinite(found.multi_vector.values).all()
    np.testing.assert_allclose(np.linalg.norm(found.dense, axis=1), 1, atol=1e-5)


def test_rotary_base_rises_in_the_layers_that_see_everything(tmp_path):
    encoder = three_heads("modernbert")
    before = encoder.backbone.model.config.rope_parameters
    longer = extend_positions(encoder, 4 * tiny.MAX_LENGTH)
    after = longer.backbone.model.config.rope_parameters
    assert after["sliding_attention"] == before["sliding_attention"]
    # 8 dimensions a head: the slowest pair turns by theta^(-6/8) a token, which becomes a quarter.
    old, new = (found["full_attention"]["rope_theta"] for found in (before, after))
    assert new ** (-6 / 8) == pytest.approx(old ** (-6 / 8) / 4)
    assert extend_positions(encoder, 99, theta=5e5).backbone.model.config.rope_parameters["full_attention"][
        "rope_theta"
    ] == pytest.approx(5e5)
    assert encoder.backbone.model.config.rope_parameters == before
    loaded = Encoder.load(longer.save(tmp_path / "model"), device="cpu")
    same(loaded.encode([LONG * 20]), longer.encode([LONG * 20]))
    assert np.abs(longer.encode([LONG]).dense - encoder.encode([LONG]).dense).max() > 1e-6


def test_masked_lm_heads_come_along():
    parts = tiny.build("xlm_roberta", masked_lm=True)
    config = EncoderConfig(
        text=TextConfig(max_length=tiny.MAX_LENGTH), sparse=SparseConfig("masked_lm", parts.model.config.vocab_size)
    )
    encoder = Encoder(config, backbone=Backbone(parts.model, masked_lm=True), tokenizer=parts.tokenizer).eval()
    longer = extend_positions(encoder, 100)
    one, other = encoder.encode(tiny.CORPUS), longer.encode(tiny.CORPUS)
    np.testing.assert_array_equal(one.sparse.ids, other.sparse.ids)
    np.testing.assert_allclose(one.sparse.weights, other.sparse.weights, atol=1e-6)


@pytest.mark.parametrize(
    ("name", "arguments", "error", "message"),
    [
        ("bert", {"length": 48}, UsageError, "has 48 positions already"),
        ("bert", {"length": 99, "method": "rotary"}, UsageError, "does not fit the learned"),
        ("modernbert", {"length": 99, "method": "tile"}, UsageError, "does not fit the rotary"),
        ("bert", {"length": 99, "theta": 1e6}, UsageError, "positions are learned"),
        ("bert", {"length": 99, "method": "interpolat"}, UnknownName, "did you mean 'interpolate'"),
    ],
)
def test_what_cannot_be_extended(name, arguments, error, message):
    with pytest.raises(error, match=message):
        extend_positions(three_heads(name), **arguments)


# -- several CLS -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("every", [1, 3, 7, 20])
@pytest.mark.parametrize("name", ["bert", "xlm_roberta", "modernbert"])
def test_a_cls_after_every_few_tokens(name, every):
    encoder = three_heads(name)
    several = with_mcls(encoder, every=every)
    cls = encoder.tokenizer.cls_token_id
    tokens = several.text(tiny.TEXTS, kind="passage")
    assert tokens.lengths.max() <= tiny.MAX_LENGTH
    for number, text in enumerate(tiny.TEXTS):
        row = tokens.ids[tokens.offsets[number] : tokens.offsets[number + 1]].tolist()
        whole = encoder.tokenizer(text)["input_ids"]
        body = whole[1:-1]
        expected = [cls]
        for place, token in enumerate(body):
            expected += [cls] * (place > 0 and place % every == 0) + [token]
        expected.append(whole[-1])
        if len(expected) <= tiny.MAX_LENGTH:
            assert row == expected
        else:
            # Cut where no further token fits, with its separator.
            assert row[:-1] == expected[: len(row) - 1]
            assert row[-1] == whole[-1]
            assert tiny.MAX_LENGTH - len(row) <= 1
        places = cls_places(torch.ones(1, len(row), dtype=torch.bool), every=every)[0]
        assert [place for place, token in enumerate(row) if token == cls] == places.nonzero().flatten().tolist()


def test_the_embedding_is_the_mean_of_all_cls_states():
    encoder = three_heads("bert")
    several = with_mcls(encoder, every=5)
    texts = [tiny.CORPUS[0], tiny.CORPUS[1], "글", ""]
    cls = encoder.tokenizer.cls_token_id
    for text, dense in zip(texts, several.encode(texts).dense, strict=True):
        ids = torch.from_numpy(several.text([text], kind="passage").ids.astype(np.int64))[None]
        with torch.no_grad():
            states = encoder.backbone(ids, torch.ones_like(ids, dtype=torch.bool)).hidden_BLH[0]
        mean = states[ids[0] == cls].mean(dim=0)
        np.testing.assert_allclose(dense, torch.nn.functional.normalize(mean, dim=0).numpy(), atol=1e-6)
    assert (several.text(texts, kind="passage").ids == cls).sum() > len(texts)


def test_short_texts_keep_their_embeddings():
    encoder = three_heads("xlm_roberta")
    same(with_mcls(encoder, every=tiny.MAX_LENGTH).encode(tiny.TEXTS), encoder.encode(tiny.TEXTS))


def test_extra_cls_get_no_weight_and_no_vector():
    encoder = three_heads("bert")
    several = with_mcls(encoder, every=4)
    text = tiny.CORPUS[1]
    found, plain = several.encode([text]), encoder.encode([text])
    assert len(found.multi_vector.values) == len(plain.multi_vector.values)
    assert set(found.sparse.ids) <= set(encoder.tokenizer(text)["input_ids"]) - {encoder.tokenizer.cls_token_id}
    spans, expected = (one.vector_spans(text, kind="passage") for one in (several, encoder))
    np.testing.assert_array_equal(spans, expected)
    assert several.sparse_spans(text, kind="passage") == encoder.sparse_spans(text, kind="passage")


@pytest.mark.parametrize("text", tiny.TEXTS)
def test_spans_stay_beside_their_tokens(text):
    several = with_mcls(three_heads("bert"), every=3)
    ids, spans = several.text.spans(text, kind="passage")
    assert ids.tolist() == several.text([text], kind="passage").ids.tolist()
    assert len(ids) == len(spans)
    plain_ids, plain = three_heads("bert").text.spans(text, kind="passage")
    wanted = [tuple(span) for span in plain if span[0] >= 0]
    found = [tuple(span) for span in spans if span[0] >= 0]
    assert found == wanted[: len(found)]
    cls = several.tokenizer.cls_token_id
    assert all(span[0] < 0 for number, span in zip(ids, spans, strict=True) if number == cls)


def test_training_sees_the_same_embeddings():
    several = with_mcls(three_heads("bert"), every=4)
    texts = [*tiny.CORPUS[:5], ""]
    tokens = several.text(texts, kind="passage")
    (chunk,) = chunks(several, tokens, kind="passage", modes=several.modes, budget=None)
    embedded = embedder(several, modes=several.modes, width=several.dimensions["sparse"])(chunk)
    expected = several.encode(texts)
    np.testing.assert_allclose(embedded.dense_ND.detach().numpy(), expected.dense, atol=1e-6)
    np.testing.assert_allclose(embedded.vectors.values_Td.detach().numpy(), expected.multi_vector.values, atol=1e-6)
    embedded.dense_ND.sum().backward()


def test_a_text_that_says_cls_does_not_add_one():
    several = with_mcls(three_heads("bert"), every=4)
    tokens = several.text(["검색 [CLS] 엔진"], kind="passage")
    counted = cls_places(torch.ones(1, len(tokens.ids), dtype=torch.bool), every=4).sum()
    assert counted == (tokens.ids == several.tokenizer.cls_token_id).sum() - 1


def test_it_is_saved_and_loaded(tmp_path):
    several = with_mcls(three_heads("bert"), every=6)
    loaded = Encoder.load(several.save(tmp_path / "model"), device="cpu")
    assert loaded.config.text.cls_every == 6
    same(loaded.encode(tiny.TEXTS), several.encode(tiny.TEXTS))


def test_both_together_read_8192_tokens():
    encoder = with_mcls(extend_positions(three_heads("bert"), 8192), every=256)
    tokens = encoder.text([LONG * 2000], kind="passage")
    assert len(tokens.ids) == 8192
    assert (tokens.ids == encoder.tokenizer.cls_token_id).sum() == 32
    assert np.isfinite(encoder.encode([LONG * 2000], modes=["dense"]).dense).all()


def config_of(**changes):
    base = {
        "text": TextConfig(max_length=40),
        "dense": DenseConfig(pooling=("cls",)),
        "sparse": None,
        "multi_vector": None,
    }
    return EncoderConfig(**(base | changes))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"dense": DenseConfig(pooling=("mean",))}, "pools 'cls'"),
        ({"dense": DenseConfig(pooling=("cls",), include_prompt=False)}, "pools 'cls'"),
        ({"text": TextConfig(max_length=40, markers={"query": 5})}, "markers"),
        ({"multi_vector": MultiVectorConfig(layers=(Projection(tiny.HIDDEN, 4),))}, "keeps the vector of CLS"),
    ],
)
def test_heads_without_room_for_more_cls(changes, message):
    parts = tiny.build("bert")
    encoder = Encoder(config_of(**changes), backbone=Backbone(parts.model, masked_lm=False), tokenizer=parts.tokenizer)
    with pytest.raises(UsageError, match=message):
        with_mcls(encoder)


def test_masked_lm_heads_are_refused_and_so_is_nothing():
    parts = tiny.build("bert", masked_lm=True)
    config = config_of(sparse=SparseConfig("masked_lm", parts.model.config.vocab_size))
    encoder = Encoder(config, backbone=Backbone(parts.model, masked_lm=True), tokenizer=parts.tokenizer)
    with pytest.raises(UsageError, match="weighs all words"):
        with_mcls(encoder)
    with pytest.raises(UsageError, match="at least 1"):
        with_mcls(three_heads("bert"), every=0)
