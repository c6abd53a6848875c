import shutil

import numpy as np
import pytest
import torch
import transformers

from models import layouts, tiny
from trine import Encoder
from trine.errors import CheckpointError, UnknownName
from trine.models.config import Normalize
from trine.models.profiles import PROFILES


def load(folder, **options):
    return Encoder.load(folder, device="cpu", **options)


def test_a_bare_transformer_is_refused_with_the_candidates(plain):
    with pytest.raises(CheckpointError) as caught:
        load(plain("bert"))
    for candidate in ("mean", "cls", "last_token", "weighted_mean", *PROFILES):
        assert candidate in str(caught.value)


@pytest.mark.parametrize("name", tiny.BACKBONES)
def test_mean_and_cls_against_transformers_alone(plain, name):
    """One text at a time, with nothing of trine's but the expected value."""
    model = transformers.AutoModel.from_pretrained(plain(name)).eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(plain(name))
    mean, cls = (load(plain(name), pooling=pooling).encode(tiny.TEXTS).dense for pooling in ("mean", "cls"))
    for number, text in enumerate(tiny.TEXTS):
        inputs = tokenizer(text, return_tensors="pt", truncation=True, max_length=tiny.MAX_LENGTH)
        with torch.no_grad():
            states = model(**inputs).last_hidden_state[0]
        for found, expected in ((mean, states.mean(dim=0)), (cls, states[0])):
            np.testing.assert_allclose(found[number], expected / expected.norm(), atol=1e-5)


def test_profiles_bring_pooling_and_prompts(plain):
    encoder = load(plain("bert"), profile="e5")
    assert encoder.config.dense.pooling == ("mean",)
    assert encoder.config.dense.layers == (Normalize(),)
    assert encoder.text.prompt("query") == "query: "
    assert encoder.text.prompt("passage") == "passage: "
    bge = load(plain("bert"), profile="bge-en")
    assert bge.config.dense.pooling == ("cls",)
    assert bge.text.prompt("query") == "Represent this sentence for searching relevant passages: "
    assert bge.text.prompt("passage") == ""
    raw = load(plain("bert"), pooling="mean")
    np.testing.assert_allclose(
        encoder.encode(tiny.CORPUS, kind="query").dense,
        raw.encode([f"query: {text}" for text in tiny.CORPUS]).dense,
        atol=1e-6,
    )


def test_an_explicit_pooling_wins_over_the_profile(plain):
    encoder = load(plain("bert"), profile="e5", pooling="last_token")
    assert encoder.config.dense.pooling == ("last_token",)
    assert encoder.text.prompt("query") == "query: "


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"pooling": "meen"}, "no pooling called 'meen'; did you mean 'mean'"),
        ({"pooling": "last"}, "did you mean 'last_token'"),
        ({"profile": "e6"}, "no profile called 'e6'; did you mean 'e5'"),
        ({"layout": "plane"}, "no checkpoint layout called 'plane'; did you mean 'plain'"),
        ({"pooling": "mean", "prompts": {"qurey": "x"}}, "no prompt called 'qurey'; did you mean 'query'"),
        ({"pooling": "mean", "dtype": "flot16"}, "no dtype called 'flot16'; did you mean 'float16'"),
    ],
)
def test_typos_suggest_the_nearest(plain, options, words):
    with pytest.raises(UnknownName, match=words):
        load(plain("bert"), **options)


def test_the_layout_can_be_told(plain, tmp_path):
    """A sentence-transformers folder read as a bare transformer, to give it another pooling."""
    folder = layouts.old_sentence_transformers(plain("bert"), tmp_path / "model", poolings=("max",))
    assert load(folder).config.dense.pooling == ("max",)
    encoder = load(folder, layout="plain", pooling="mean")
    assert encoder.config.dense.pooling == ("mean",)
    assert encoder.config.origin == "plain"


# -- length limits ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", tiny.BACKBONES)
def test_the_longest_input_fits_the_positions(plain, tmp_path, name):
    """RoBERTa and MPNet count positions from the padding id + 1, so two fewer tokens fit than there are positions."""
    folder = shutil.copytree(plain(name), tmp_path / "model")
    layouts.change(folder / "tokenizer_config.json", model_max_length=None)
    encoder = load(folder, pooling="mean")
    assert encoder.max_length == tiny.MAX_LENGTH
    long = encoder.encode(["가 나 다 " * 100])
    assert np.isfinite(long.dense).all()


def test_the_tokenizers_limit_counts_where_it_is_lower(plain, tmp_path):
    folder = shutil.copytree(plain("bert"), tmp_path / "model")
    layouts.change(folder / "tokenizer_config.json", model_max_length=12)
    assert load(folder, pooling="mean").max_length == 12
    layouts.change(folder / "tokenizer_config.json", model_max_length=1000000000000000019884624838656)
    assert load(folder, pooling="mean").max_length == tiny.MAX_LENGTH


def test_no_limit_at_all_is_an_error(plain, tmp_path):
    folder = shutil.copytree(plain("bert"), tmp_path / "model")
    layouts.change(folder / "tokenizer_config.json", model_max_length=None)
    layouts.change(folder / "config.json", max_position_embeddings=0)
    with pytest.raises(CheckpointError, match="the longest input"):
        load(folder, pooling="mean")


def test_positions_of_roberta_start_behind_the_padding_id(plain):
    """The first token stands at position 2."""
    folder = plain("xlm_roberta")
    encoder = load(folder, pooling="mean")
    table = encoder.backbone.model.embeddings.position_embeddings.weight
    before = encoder.encode(["검색"]).dense
    with torch.no_grad():
        table[:2] = table[:2].flip(1)  # positions 0 and 1 belong to no token
    np.testing.assert_array_equal(encoder.encode(["검색"]).dense, before)
    with torch.no_grad():
        table[2] = table[2].flip(0)
    assert np.abs(encoder.encode(["검색"]).dense - before).max() > 1e-3
