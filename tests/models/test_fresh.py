import numpy as np
import pytest
import torch

from models import tiny
from trine.encoding.engine import pad
from trine.errors import UnknownName, UsageError
from trine.models.encoder import Encoder
from trine.models.fresh import FIRST_WEIGHT, fresh_encoder, with_heads

SHAPE = {"layers": 2, "hidden": 32, "heads": 4, "feed_forward": 48, "max_length": 40}


def tokenizer(name="bert"):
    return tiny.TOKENIZERS[name](40)


@pytest.mark.parametrize("architecture", ["bert", "modernbert"])
def test_has_the_shape_asked_for_and_survives_saving(architecture, tmp_path):
    name = "bert" if architecture == "bert" else "modernbert"
    encoder = fresh_encoder(
        tokenizer(name), **SHAPE, architecture=architecture, pooling="cls", dense_width=24, vector_width=8
    )
    assert encoder.backbone.model.config.num_hidden_layers == 2
    assert encoder.dimensions == {"dense": 24, "sparse": len(encoder.tokenizer), "multi_vector": 8}
    assert encoder.config.untrained == ("dense", "sparse", "multi_vector")
    before = encoder.encode(tiny.TEXTS)
    after = Encoder.load(encoder.save(tmp_path / "model"), device="cpu").encode(tiny.TEXTS)
    np.testing.assert_array_equal(before.dense, after.dense)
    np.testing.assert_array_equal(before.sparse.weights, after.sparse.weights)
    np.testing.assert_array_equal(before.multi_vector.values, after.multi_vector.values)
    assert len(before.sparse.weights) > 0


def test_texts_of_the_greatest_length_pass():
    encoder = fresh_encoder(tokenizer(), **SHAPE, modes=["dense"])
    assert encoder.modes == ("dense",)
    assert np.isfinite(encoder.encode(["긴 글 " * 500]).dense).all()


def test_seed_decides_every_weight_and_leaves_the_random_state_alone():
    torch.manual_seed(3)
    expected = torch.rand(1)
    torch.manual_seed(3)
    one, same, other = (fresh_encoder(tokenizer(), **SHAPE, seed=seed) for seed in (1, 1, 2))
    assert torch.rand(1) == expected
    assert one.fingerprint == same.fingerprint != other.fingerprint


def test_special_tokens_get_neither_weight_nor_first_vector():
    encoder = fresh_encoder(tokenizer(), **SHAPE)
    result = encoder.encode(["검색 엔진"])
    assert not set(result.sparse.ids) & set(encoder.tokenizer.all_special_ids)
    assert len(result.multi_vector.values) == len(encoder.tokenizer("검색 엔진")["input_ids"]) - 1


def test_with_heads_keeps_the_old_and_names_the_new():
    bare = fresh_encoder(tokenizer(), **SHAPE, modes=["dense"], seed=5)
    more = with_heads(bare, vector_width=12, seed=1)
    assert more.modes == ("dense", "sparse", "multi_vector")
    assert more.config.untrained == ("dense", "sparse", "multi_vector")
    np.testing.assert_array_equal(bare.encode(tiny.TEXTS).dense, more.encode(tiny.TEXTS).dense)
    assert more.dimensions["multi_vector"] == 12
    with torch.no_grad():
        next(more.backbone.parameters()).zero_()
    assert next(bare.backbone.parameters()).abs().sum() > 0


def test_with_heads_refuses_what_is_there():
    encoder = tiny.encoder("bert")
    with pytest.raises(UsageError, match="has a sparse head already"):
        with_heads(encoder)
    with pytest.raises(UsageError, match="pooling"):
        with_heads(encoder, modes=["dense"])


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"heads": 5}, UsageError, "multiple of heads"),
        ({"layers": 0}, UsageError, "layers must be"),
        ({"architecture": "modernbret"}, UnknownName, "did you mean 'modernbert'"),
        ({"architecture": "modernbert", "hidden": 12, "heads": 4}, UsageError, "must be even"),
        ({"modes": ["dens"]}, UnknownName, "did you mean 'dense'"),
        ({"modes": "dense"}, UsageError, "must be a list"),
        ({"pooling": "men"}, UnknownName, "did you mean 'mean'"),
        ({"vector_width": 0}, UsageError, "vector_width"),
    ],
)
def test_numbers_that_do_not_fit_are_refused(change, error, message):
    with pytest.raises(error, match=message):
        fresh_encoder(tokenizer(), **(SHAPE | change))


def test_a_tokenizer_without_padding_is_refused():
    bare = tokenizer()
    bare.pad_token = None
    with pytest.raises(UsageError, match="no padding token"):
        fresh_encoder(bare, **SHAPE)


# -- decoders --------------------------------------------------------------------------------------------------------

DECODERS = {"llama": "llama", "mistral": "mistral", "qwen2": "qwen2", "qwen3": "qwen3", "gemma2": "gemma2"}


@pytest.mark.parametrize("architecture", [*DECODERS, "gemma3_text"])
@pytest.mark.parametrize("attention", ["native", "bidirectional"])
def test_a_fresh_decoder_has_all_three_heads_and_survives_saving(architecture, attention, tmp_path):
    given = tokenizer(DECODERS.get(architecture, "gemma3"))
    encoder = fresh_encoder(given, **SHAPE, architecture=architecture, attention=attention, vector_width=8)
    assert encoder.backbone.model.config.model_type == architecture
    assert encoder.backbone.model.config.intermediate_size == 48
    assert encoder.config.attention == attention
    before = encoder.encode(tiny.TEXTS)
    after = Encoder.load(encoder.save(tmp_path / "model"), device="cpu").encode(tiny.TEXTS)
    np.testing.assert_array_equal(before.dense, after.dense)
    np.testing.assert_array_equal(before.sparse.weights, after.sparse.weights)
    np.testing.assert_array_equal(before.multi_vector.values, after.multi_vector.values)
    special = {given.bos_token_id, given.eos_token_id, given.pad_token_id} - {None}
    assert not special & set(before.sparse.ids.tolist())


def test_a_decoder_that_pools_its_last_token_ends_every_text():
    encoder = fresh_encoder(tokenizer("mistral"), **SHAPE, architecture="mistral", pooling="last_token")
    assert encoder.config.text.last_id == 2
    assert [encoder.text([text], kind="query").ids[-1] for text in ("검색", "긴 글 " * 99)] == [2, 2]
    with pytest.raises(UsageError, match="no EOS token"):
        fresh_encoder(tokenizer("bert"), **SHAPE, architecture="mistral", pooling="last_token")


def test_decoders_turn_pairs_of_dimensions():
    with pytest.raises(UsageError, match="must be even"):
        fresh_encoder(tokenizer("qwen3"), **(SHAPE | {"hidden": 36}), architecture="qwen3")
    with pytest.raises(UnknownName, match="no architecture called 'qwen'; did you mean 'qwen"):
        fresh_encoder(tokenizer("qwen3"), **SHAPE, architecture="qwen")


def test_a_fresh_sparse_head_begins_at_the_overlap_of_tokens_and_can_learn():
    """Under states that all lean to one side, half of all random heads would give zeros and no gradient."""
    plain = fresh_encoder(tokenizer(), **SHAPE, modes=["dense"])
    encoder = with_heads(plain, modes=["sparse"])
    found = encoder.encode(["검색 색인", "검색 문서"], modes=["sparse"]).sparse
    np.testing.assert_allclose(found.weights, FIRST_WEIGHT, rtol=1e-6)
    batch = pad(encoder.text(["검색 색인"], kind="query"), np.array([0]), kind="query", device=encoder.device)
    encoder(batch, ["sparse"]).sparse.weights.sum().backward()
    assert encoder.sparse.linear.weight.grad.abs().max() > 0
