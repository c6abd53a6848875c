import subprocess
import sys

import numpy as np
import pytest
import torch

import trine
from models import tiny
from trine import Encoder
from trine.errors import CheckpointError, UnknownName, UsageError
from trine.models.backbone import Backbone
from trine.models.config import (
    DenseConfig,
    EncoderConfig,
    Expansion,
    MultiVectorConfig,
    Normalize,
    SparseConfig,
    TextConfig,
)
from trine.types import MODES


def build(config, name="bert"):
    parts = tiny.build(name)
    return Encoder(config, backbone=Backbone(parts.model, masked_lm=False), tokenizer=parts.tokenizer, name="m").eval()


# -- what it is ------------------------------------------------------------------------------------------------------


def test_facts(trio):
    encoder = trio("bert")
    assert encoder.modes == MODES
    assert dict(encoder.dimensions) == {"dense": 32, "sparse": encoder.backbone.vocabulary_size, "multi_vector": 16}
    assert encoder.device == torch.device("cpu")
    assert encoder.dtype == torch.float32
    assert encoder.max_length == tiny.MAX_LENGTH


def test_it_is_the_encoder_of_the_package():
    assert trine.Encoder is Encoder


def test_heads_are_there_as_the_configuration_says():
    encoder = build(EncoderConfig(text=TextConfig(max_length=9), dense=DenseConfig(pooling=("cls", "mean"))))
    assert encoder.modes == ("dense",)
    assert dict(encoder.dimensions) == {"dense": 64}
    found = encoder.encode(["검색"])
    assert found.modes == ("dense",)
    assert found.dense.shape == (1, 64)


def test_it_satisfies_the_protocol_of_search(trio):
    from trine.types import TextEncoder

    encoder: TextEncoder = trio("bert")
    for name in [name for name in dir(TextEncoder) if not name.startswith("_")]:
        assert hasattr(encoder, name)


# -- choices ---------------------------------------------------------------------------------------------------------


def test_one_pass_gives_what_separate_passes_give(trio):
    encoder = trio("xlm_roberta")
    together = encoder.encode(tiny.TEXTS)
    for mode in MODES:
        alone = encoder.encode(tiny.TEXTS, modes=[mode])
        assert alone.modes == (mode,)
        one, other = getattr(together, mode), getattr(alone, mode)
        if mode == "dense":
            np.testing.assert_array_equal(one, other)
        else:
            np.testing.assert_array_equal(one.offsets, other.offsets)
            np.testing.assert_array_equal(one.row(0), other.row(0))


def test_modes_are_checked(trio):
    encoder = trio("bert")
    with pytest.raises(UnknownName, match="no mode called 'dens'; did you mean 'dense'"):
        encoder.encode(["a"], modes=["dens"])
    with pytest.raises(UnknownName, match="did you mean 'multi_vector'"):
        encoder.encode(["a"], modes=["multivector"])
    with pytest.raises(UsageError, match="no representation chosen; this model gives dense, sparse, multi_vector"):
        encoder.encode(["a"], modes=[])
    with pytest.raises(UsageError, match="modes must be a list; for one mode write \\['dense'\\]"):
        encoder.encode(["a"], modes="dense")
    dense_only = build(EncoderConfig(text=TextConfig(max_length=9), dense=DenseConfig(pooling=("cls",))))
    with pytest.raises(UsageError, match="m gives no sparse embeddings; it gives dense"):
        dense_only.encode(["a"], modes=["dense", "sparse"])
    with pytest.raises(UsageError, match="gives no multi_vector embeddings"):
        dense_only.vector_spans("a", kind="query")


def test_repeated_modes_are_computed_once(trio):
    assert trio("bert").encode(["a"], modes=["dense", "dense"]).modes == ("dense",)


def test_engines_and_kinds_are_checked(trio):
    encoder = trio("bert")
    with pytest.raises(UnknownName, match="no engine called 'torsch'; did you mean 'torch'"):
        encoder.encode(["a"], engine="torsch")
    with pytest.raises(UnknownName, match="no kind of text called 'passages'; did you mean 'passage'"):
        encoder.encode(["a"], kind="passages")
    with pytest.raises(UsageError, match="batch_tokens must be at least 1, got 0"):
        encoder.encode(["a"], batch_tokens=0)


def test_one_string_is_not_a_list_of_letters(trio):
    encoder = trio("bert")
    for call in (encoder.encode, encoder.encode_stream):
        with pytest.raises(UsageError, match="for one text write \\[text\\]"):
            call("검색 엔진")


def test_prompts_of_the_call(trio):
    encoder = trio("bert")
    np.testing.assert_array_equal(
        encoder.encode(["엔진"], prompt="검색 ").dense, encoder.encode(["검색 엔진"], prompt="").dense
    )


def test_tuples_and_arrays_of_texts_will_do(trio):
    expected = trio("bert").encode(["a", "나"]).dense
    np.testing.assert_array_equal(trio("bert").encode(("a", "나")).dense, expected)
    np.testing.assert_array_equal(trio("bert").encode(np.array(["a", "나"], object)).dense, expected)


# -- numbers ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", tiny.BACKBONES)
def test_bfloat16_stays_close(trio, tmp_path, name):
    exact = trio(name)
    rough = Encoder.load(exact.save(tmp_path / "model"), device="cpu", dtype="bfloat16")
    assert rough.dtype == torch.bfloat16
    one, other = exact.encode(tiny.TEXTS), rough.encode(tiny.TEXTS)
    assert other.dense.dtype == np.float32
    assert (one.dense * other.dense).sum(axis=1).min() > 0.99
    cosines = (one.multi_vector.values * other.multi_vector.values).sum(axis=1)
    assert cosines.min() > 0.98
    assert np.median(cosines) > 0.999
    np.testing.assert_allclose(np.linalg.norm(other.dense, axis=1), 1, atol=0.02)


def test_an_encoder_in_training_embeds_without_dropout(trio, tmp_path):
    encoder = Encoder.load(trio("bert").save(tmp_path / "model"), device="cpu")
    expected = encoder.encode(tiny.CORPUS).dense
    encoder.train()
    encoder.backbone.model.embeddings.eval()  # a part that somebody froze
    np.testing.assert_array_equal(encoder.encode(tiny.CORPUS).dense, expected)
    for part in encoder.encode_stream(tiny.CORPUS, window=100):
        np.testing.assert_array_equal(part.dense, expected)
    assert encoder.training
    assert encoder.backbone.model.encoder.training
    assert not encoder.backbone.model.embeddings.training


def test_embeddings_hold_no_graph(trio):
    encoder = trio("bert")
    encoder.encode(["a"])
    assert all(parameter.grad is None for parameter in encoder.parameters())


def test_gradients_reach_every_head(trio, tmp_path):
    """`forward` is what training calls: all three outputs from one pass, differentiable."""
    from trine.encoding.engine import pad

    encoder = Encoder.load(trio("bert").save(tmp_path / "model"), device="cpu")
    tokens = encoder.text(tiny.CORPUS[:4], kind="passage")
    batch = pad(tokens, np.arange(4), kind="passage", device=encoder.device)
    output = encoder(batch, encoder.modes)
    (output.dense_BD.sum() + output.sparse.weights.sum() + output.vectors_BLd[:, 1:].sum()).backward()
    for name, parameter in encoder.named_parameters():
        if "pooler" not in name:
            assert parameter.grad is not None, name
            assert parameter.grad.abs().sum() > 0, name


def test_static_queries_skip_the_backbone(monkeypatch):
    config = EncoderConfig(
        text=TextConfig(max_length=9),
        dense=DenseConfig(pooling=("mean",)),
        sparse=SparseConfig("static", 1085, dropped_ids=(0, 2, 3)),
    )
    encoder = build(config)
    with torch.no_grad():
        encoder.sparse.table.fill_(1.0)

    def refuse(*inputs):
        raise AssertionError("the backbone ran")

    monkeypatch.setattr(encoder.backbone, "forward", refuse)
    assert len(encoder.encode(["검색 엔진은"], modes=["sparse"]).sparse.ids) == 2
    with pytest.raises(AssertionError, match="the backbone ran"):
        encoder.encode(["검색"], modes=["dense"])


# -- spans -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", tiny.BACKBONES)
@pytest.mark.parametrize("kind", ["query", "passage"])
def test_spans_belong_to_the_vectors_and_weights(name, kind):
    """One span a vector; and every sparse id of a text comes from one of its spans."""
    text = TextConfig(max_length=20, prompts={"query": "query: "})
    encoder = tiny.encoder(name, text=text)
    found = encoder.encode(tiny.TEXTS, kind=kind)
    prompt = encoder.tokenizer("query: ", add_special_tokens=False)["input_ids"] if kind == "query" else []
    for number, source in enumerate(tiny.TEXTS):
        spans = encoder.vector_spans(source, kind=kind)
        assert len(spans) == len(found.multi_vector.row(number))
        assert tuple(spans[-1]) == (-1, -1)  # EOS or SEP keeps a vector
        assert (spans <= len(source)).all()
        terms = encoder.sparse_spans(source, kind=kind)
        assert set(found.sparse.row(number)[0]) <= {key for key, _, _ in terms} | set(prompt)
        for key, start, end in terms:
            assert 0 <= start < end <= len(source)
            assert key not in encoder.config.sparse.dropped_ids


def test_spans_of_dropped_tokens_are_dropped():
    parts = tiny.build("bert")
    dropped = parts.tokenizer.convert_tokens_to_ids("of")
    config = EncoderConfig(
        text=TextConfig(max_length=30, markers={"query": 7}, expansion=Expansion(length=12, token_id=4)),
        multi_vector=MultiVectorConfig(layers=(Normalize(),), dropped_passage_ids=(dropped,)),
    )
    encoder = build(config)
    source = "index of a book"
    words = [source[start:end] for start, end in encoder.vector_spans(source, kind="passage") if start >= 0]
    assert words == ["index", "a", "book"]
    assert len(encoder.encode([source]).multi_vector.values) == 5
    query = encoder.vector_spans(source, kind="query")
    assert len(query) == len(encoder.encode([source], kind="query").multi_vector.values) == 12
    assert [source[start:end] for start, end in query if start >= 0] == ["index", "of", "a", "book"]


def test_words_behind_the_weights():
    encoder = tiny.encoder("bert", text=TextConfig(max_length=30, prompts={"query": "find "}))
    source = "검색 엔진은 index 🙂"
    terms = encoder.sparse_spans(source, kind="query")
    assert [source[start:end] for _, start, end in terms] == ["검색", "엔진은", "index"]  # the emoji is unknown
    assert encoder.token_labels([key for key, _, _ in terms]) == [
        encoder.tokenizer.convert_ids_to_tokens(int(key)) for key, _, _ in terms
    ]


def test_token_labels_take_numpy_numbers(trio):
    assert trio("bert").token_labels(np.array([0, 2, 3], np.int32)) == ["[PAD]", "[CLS]", "[SEP]"]


def test_token_spans_know_no_prompt_and_no_limit():
    encoder = tiny.encoder("bert", text=TextConfig(max_length=5, prompts={"query": "query: ", "passage": "p: "}))
    source = "the index of a database"
    words = [source[start:end] for start, end in encoder.token_spans(source)]
    assert words[:4] == ["the", "index", "of", "a"]
    assert "".join(words[4:]) == "database"


# -- loading ---------------------------------------------------------------------------------------------------------


def test_an_unknown_device_comes_before_anything_is_read(plain):
    with pytest.raises(UnknownName, match="did you mean 'cpu'"):
        Encoder.load(plain("bert"), pooling="mean", device="cpuu")


def test_loading_leaves_the_encoder_ready(plain):
    encoder = Encoder.load(plain("bert"), pooling="mean", device="cpu")
    assert not encoder.training
    assert encoder.name == str(plain("bert"))


def test_a_folder_that_is_not_there():
    with pytest.raises(CheckpointError, match="no model folder '/no/such/model'"):
        Encoder.load("/no/such/model")


def test_the_fingerprint_is_the_same_in_another_process(trio, tmp_path):
    folder = trio("modernbert").save(tmp_path / "model")
    code = f"from trine import Encoder; print(Encoder.load({str(folder)!r}, device='cpu').fingerprint)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == trio("modernbert").fingerprint


def test_models_of_other_seeds_have_other_fingerprints(plain):
    one = Encoder.load(plain("bert"), pooling="mean", device="cpu").fingerprint
    other = Encoder.load(plain("bert"), pooling="cls", device="cpu").fingerprint
    parts = tiny.build("bert", seed=8)
    config = Encoder.load(plain("bert"), pooling="mean", device="cpu").config
    third = Encoder(config, backbone=Backbone(parts.model, masked_lm=False), tokenizer=parts.tokenizer).fingerprint
    assert len({one, other, third}) == 3


# -- decoders --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("attention", ["causal", "bidirectional"])
@pytest.mark.parametrize("name", tiny.DECODERS)
def test_a_decoder_gives_all_three_alone_as_in_a_batch(name, attention):
    encoder = tiny.encoder(name, attention=attention)
    together = encoder.encode(tiny.TEXTS)
    for number, text in enumerate(tiny.TEXTS):
        alone = encoder.encode([text])
        np.testing.assert_allclose(alone.dense[0], together.dense[number], rtol=1e-4, atol=1e-5)
        for one, other in zip(alone.sparse.row(0), together.sparse.row(number), strict=True):
            np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(alone.multi_vector.row(0), together.multi_vector.row(number), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("pooling", ["last_token", "mean", "weighted_mean"])
@pytest.mark.parametrize("name", ["llama", "qwen3", "gemma3"])
def test_poolings_of_a_decoder(name, pooling):
    """The last real token, the mean, and the mean with weights 1, 2, 3, ... (SGPT, arXiv 2202.08904, section 3)."""
    parts = tiny.build(name)
    config = EncoderConfig(text=TextConfig(max_length=48), dense=DenseConfig(pooling=(pooling,)))
    encoder = Encoder(config, backbone=Backbone(parts.model, masked_lm=False), tokenizer=parts.tokenizer)
    found = encoder.encode(tiny.CORPUS).dense
    for text, vector in zip(tiny.CORPUS, found, strict=True):
        ids = torch.tensor([parts.tokenizer(text, truncation=True, max_length=48)["input_ids"]])
        with torch.no_grad():
            states = parts.model(input_ids=ids).last_hidden_state[0]
        place = torch.arange(1.0, len(states) + 1)[:, None]
        expected = {
            "last_token": states[-1],
            "mean": states.mean(0),
            "weighted_mean": (states * place).sum(0) / place.sum(),
        }[pooling]
        np.testing.assert_allclose(vector, expected.numpy(), rtol=1e-4, atol=1e-5)


def test_sparse_weights_over_the_vocabulary_of_a_decoder(plain, tmp_path):
    """SPLADE's formula on the next-token head."""
    parts = tiny.build("qwen3", masked_lm=True)
    config = EncoderConfig(
        text=TextConfig(max_length=48),
        sparse=SparseConfig(source="masked_lm", width=len(parts.tokenizer)),
        attention="bidirectional",
    )
    backbone = Backbone(parts.model, masked_lm=True, attention="bidirectional")
    encoder = Encoder(config, backbone=backbone, tokenizer=parts.tokenizer).eval()
    with torch.no_grad():
        ids = torch.tensor([parts.tokenizer("검색 엔진")["input_ids"]])
        expected = torch.log1p(torch.relu(parts.model(input_ids=ids).logits)).amax(1)[0].numpy()
    for one in (encoder, Encoder.load(encoder.save(tmp_path / "model"), device="cpu")):
        ids, weights = one.encode(["검색 엔진"]).sparse.row(0)
        np.testing.assert_array_equal(ids, np.flatnonzero(expected))
        np.testing.assert_allclose(weights, expected[ids], rtol=1e-4, atol=1e-5)


def test_backbone_and_configuration_agree_on_attention():
    parts = tiny.build("llama")
    config = EncoderConfig(
        text=TextConfig(max_length=48), dense=DenseConfig(pooling=("mean",)), attention="bidirectional"
    )
    with pytest.raises(UsageError, match="backbone's attention is 'native', the configuration says 'bidirectional'"):
        Encoder(config, backbone=Backbone(parts.model, masked_lm=False), tokenizer=parts.tokenizer)


def test_an_instruction_of_the_call():
    text = TextConfig(max_length=48, prompts={"query": "q: "}, instruction_prompt="Instruct: {instruction}\nQuery: ")
    encoder = tiny.encoder("llama", text=text)
    found = encoder.encode(tiny.CORPUS, kind="query", instruction="뜻").dense
    expected = encoder.encode(tiny.CORPUS, kind="query", prompt="Instruct: 뜻\nQuery: ").dense
    np.testing.assert_array_equal(found, expected)
    (streamed,) = encoder.encode_stream(tiny.CORPUS, kind="query", instruction="뜻")
    np.testing.assert_array_equal(streamed.dense, expected)
    with pytest.raises(UsageError, match="not both"):
        encoder.encode(tiny.CORPUS, prompt="a", instruction="b")
