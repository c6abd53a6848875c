"""A loaded model gets the heads, prompts and lengths that a recipe asks for, and keeps its own when it is saved."""

import msgspec
import pytest
import torch

from models import tiny
from trine.errors import UsageError
from trine.models.encoder import Encoder
from trine.recipes.config import recipe
from trine.recipes.prepare import finished, fresh_prefixes, prepared, set_dropout

SHORT = {"query_length": 16, "passage_length": 32}


def dense_only():
    whole = tiny.encoder("bert")
    config = msgspec.structs.replace(whole.config, sparse=None, multi_vector=None)
    bare = Encoder(config, backbone=whole.backbone, tokenizer=whole.tokenizer, name="bare")
    bare.dense.load_state_dict(whole.dense.state_dict())
    return bare


def test_missing_heads_are_added_and_marked_until_trained():
    bare = dense_only()
    settings = recipe("bge_m3_small", {**SHORT, "vector_width": 8})
    ready = prepared(bare, settings)
    assert ready.modes == ("dense", "sparse", "multi_vector")
    assert ready.dimensions["multi_vector"] == 8
    assert ready.config.untrained == ("sparse", "multi_vector")
    assert fresh_prefixes(bare, ready) == ("sparse.", "multi_vector.")
    assert finished(ready, settings, text=bare.config.text).config.untrained == ()


def test_the_same_vectors_come_out_before_training():
    bare = dense_only()
    ready = prepared(bare, recipe("bge_m3_small", SHORT))
    expected = bare.encode(tiny.CORPUS, modes=["dense"]).dense
    assert ready.encode(tiny.CORPUS, modes=["dense"]).dense == pytest.approx(expected, abs=1e-6)


def test_heads_that_were_never_trained_begin_anew():
    whole = tiny.encoder("bert")
    config = msgspec.structs.replace(whole.config, untrained=("sparse",), scripts=("LATIN",))
    stale = Encoder(config, backbone=whole.backbone, tokenizer=whole.tokenizer)
    ready = prepared(stale, recipe("bge_m3_small", SHORT))
    assert ready.config.scripts == ()
    assert fresh_prefixes(stale, ready) == ("sparse.",)
    assert not torch.equal(ready.sparse.linear.weight, stale.sparse.linear.weight)
    assert torch.equal(ready.multi_vector.layers[0].linear.weight, stale.multi_vector.layers[0].linear.weight)


def test_prompts_and_pooling_are_the_recipe_s():
    ready = prepared(dense_only(), recipe("e5_pretrain_small", SHORT))
    assert ready.config.text.prompts["query"] == "query: "
    assert ready.config.dense.pooling == ("mean",)


def test_training_lengths_do_not_stay():
    settings = recipe("bge_m3_small", SHORT)
    bare = dense_only()
    ready = prepared(bare, settings)
    assert ready.text.max_length("query") == 16
    done = finished(ready, settings, text=bare.config.text)
    assert done.text.max_length("query") == tiny.MAX_LENGTH
    assert not done.training


def test_texts_longer_than_the_model_are_refused():
    with pytest.raises(UsageError, match=r"extend its positions"):
        prepared(dense_only(), recipe("bge_m3_small", {"passage_length": 4096}))


def test_dropout_is_set_everywhere():
    model = tiny.encoder("bert")
    set_dropout(model, 0.25)
    assert {part.p for part in model.modules() if isinstance(part, torch.nn.Dropout)} == {0.25}
    with pytest.raises(UsageError, match="dropout"):
        set_dropout(model, 1.0)
