"""What the reader refuses and what the writer writes; the vectors are compared in tests/parity."""

import json

import msgspec
import numpy as np
import pytest

from models import layouts, tiny
from trine import Encoder
from trine.errors import CheckpointError, UsageError
from trine.models.config import Expansion, LayerNorm, Normalize, Projection, TextConfig, Truncate

NORMALIZE = {"kind": "Normalize"}


def load(folder, **options):
    return Encoder.load(folder, device="cpu", **options)


@pytest.fixture
def folder(plain, tmp_path):
    return layouts.old_sentence_transformers(plain("bert"), tmp_path / "model", layers=(NORMALIZE,))


def modules(folder, change):
    rows = json.loads((folder / "modules.json").read_text())
    change(rows)
    layouts.write(folder / "modules.json", rows)


# -- reading ---------------------------------------------------------------------------------------------------------


def test_code_of_the_checkpoints_own_is_refused(folder):
    modules(folder, lambda rows: rows[2].update(type="custom_st.Normalize"))
    with pytest.raises(CheckpointError, match="custom_st.Normalize is code of the checkpoint's own"):
        load(folder)


def test_a_name_that_only_begins_alike_is_refused(folder):
    modules(folder, lambda rows: rows[2].update(type="sentence_transformers_evil.Normalize"))
    with pytest.raises(CheckpointError, match="code of the checkpoint's own"):
        load(folder)


@pytest.mark.parametrize("path", ["../elsewhere", "/etc"])
def test_paths_out_of_the_folder_are_refused(folder, path):
    modules(folder, lambda rows: rows[1].update(path=path))
    with pytest.raises(CheckpointError, match="leads out of the checkpoint"):
        load(folder)


@pytest.mark.parametrize("kind", ["LSTM", "CNN", "WordWeights", "WeightedLayerPooling", "Normalise"])
def test_modules_that_are_not_supported(folder, kind):
    modules(folder, lambda rows: rows[2].update(type=f"sentence_transformers.models.{kind}"))
    with pytest.raises(CheckpointError, match=f"the kind {kind} are not supported; known: Dense, Normalize, LayerNorm"):
        load(folder)


def test_modules_in_an_order_that_is_not_understood(folder):
    modules(folder, lambda rows: rows.pop(1))
    with pytest.raises(CheckpointError, match="expected Transformer, Pooling"):
        load(folder)
    modules(folder, lambda rows: rows.pop(0))
    with pytest.raises(CheckpointError, match="the first module is Normalize, not a Transformer"):
        load(folder)
    layouts.write(folder / "modules.json", [])
    with pytest.raises(CheckpointError, match="the first module is missing"):
        load(folder)


def test_modules_are_taken_by_their_index(folder):
    expected = load(folder).encode(tiny.CORPUS).dense
    modules(folder, lambda rows: rows.reverse())
    np.testing.assert_array_equal(load(folder).encode(tiny.CORPUS).dense, expected)


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ({"pooling_mode": "median"}, "unknown pooling \\['median'\\]; known: cls, max, mean"),
        ({"pooling_mode": ["mean", "attention"]}, "unknown pooling \\['attention'\\]"),
        ({"pooling_mode_attention": True}, "unknown pooling \\['pooling_mode_attention'\\]"),
    ],
)
def test_unknown_poolings(folder, config, words):
    layouts.write(folder / "1_Pooling" / "config.json", {"word_embedding_dimension": tiny.HIDDEN} | config)
    with pytest.raises(CheckpointError, match=words):
        load(folder)


def test_no_pooling_at_all_is_the_mean(folder):
    layouts.write(folder / "1_Pooling" / "config.json", {"word_embedding_dimension": tiny.HIDDEN})
    assert load(folder).config.dense.pooling == ("mean",)


def test_a_missing_pooling_file_is_an_error(folder):
    (folder / "1_Pooling" / "config.json").unlink()
    with pytest.raises(CheckpointError, match="1_Pooling/config.json is missing; the model folder is incomplete"):
        load(folder)


def dense(**config):
    weights = {f"linear.{key}": value for key, value in tiny.random_linear(4, tiny.HIDDEN, seed=1).items()}
    return {"kind": "Dense", "config": {"in_features": tiny.HIDDEN, "out_features": 4} | config, "weights": weights}


@pytest.mark.parametrize(
    ("layer", "words"),
    [
        (dense(activation_function="torch.nn.modules.activation.Softmax"), "unknown activation 'torch.nn"),
        (dense(activation_function="evil.activation"), "unknown activation 'evil.activation'"),
        (dense(bias=False), "unknown: \\['dense.layers.0.linear.bias'\\]"),
        (dense(use_residual=True), "missing: \\['dense.layers.0.shortcut.weight'\\]"),
        (dense(out_features=5), "has shape \\(4,\\)|has shape \\(4, 32\\)"),
        (dense(in_features=31), "wants 31 dimensions, but the layers before it give 32"),
        (dense(module_input_name="token_embeddings"), "module_input_name is 'token_embeddings', not the pooled vector"),
        (dense(module_output_name="other"), "module_output_name is 'other', not the pooled vector"),
        ({"kind": "LayerNorm", "config": {"dimension": 3}}, "head weights are missing"),
    ],
)
def test_layers_that_contradict_themselves(plain, tmp_path, layer, words):
    folder = layouts.old_sentence_transformers(plain("bert"), tmp_path / "model", layers=(layer,))
    with pytest.raises(CheckpointError, match=words):
        load(folder)


def test_a_dense_layer_without_sizes(plain, tmp_path):
    folder = layouts.old_sentence_transformers(plain("bert"), tmp_path / "model", layers=(dense(),))
    layouts.change(folder / "2_Dense" / "config.json", in_features=None)
    with pytest.raises(CheckpointError, match="in_features"):
        load(folder)


@pytest.mark.parametrize("task", ["text-generation", "sequence-classification", "fill-mask"])
def test_transformers_of_another_task(plain, tmp_path, task):
    folder = layouts.old_sentence_transformers(
        plain("bert"), tmp_path / "model", transformer={"transformer_task": task}
    )
    with pytest.raises(CheckpointError, match=task):
        load(folder)


def test_processing_that_would_change_the_vectors(plain, tmp_path):
    folder = layouts.old_sentence_transformers(
        plain("bert"), tmp_path / "model", transformer={"processing_kwargs": {"text": {"max_length": 7}}}
    )
    with pytest.raises(CheckpointError, match="processing_kwargs"):
        load(folder)


def test_prompts_that_are_given_replace_those_of_the_folder(plain, tmp_path):
    folder = layouts.old_sentence_transformers(
        plain("bert"), tmp_path / "model", model={"prompts": {"query": "q: ", "s": "s: "}, "default_prompt_name": "s"}
    )
    assert load(folder).text.prompt("passage") == "s: "
    encoder = load(folder, prompts={"passage": "문서: "})
    assert encoder.config.text.prompts == {"passage": "문서: "}
    assert encoder.text.prompt("query") == ""  # the default prompt is gone with its text


def test_profiles_add_prompts_only_where_there_are_none(plain, tmp_path):
    silent = layouts.old_sentence_transformers(plain("bert"), tmp_path / "silent", model={"prompts": {"query": ""}})
    assert load(silent, profile="e5").text.prompt("query") == "query: "
    spoken = layouts.old_sentence_transformers(plain("bert"), tmp_path / "spoken", model={"prompts": {"query": "q: "}})
    assert load(spoken, profile="e5").config.text.prompts == {"query": "q: "}


def test_pooling_cannot_be_told(folder):
    with pytest.raises(UsageError, match="says its own pooling"):
        load(folder, pooling="cls")


# -- writing ---------------------------------------------------------------------------------------------------------


def test_the_old_form_is_written(trio, tmp_path):
    """Versions before 5.4 know neither the new class paths nor the new pooling names."""
    folder = trio("bert").export(tmp_path / "model", layout="sentence_transformers")
    rows = json.loads((folder / "modules.json").read_text())
    assert [row["type"] for row in rows] == [
        f"sentence_transformers.models.{kind}" for kind in ("Transformer", "Pooling", "Normalize")
    ]
    assert [row["path"] for row in rows] == ["", "1_Pooling", "2_Normalize"]
    pooling = json.loads((folder / "1_Pooling" / "config.json").read_text())
    assert pooling == {
        "word_embedding_dimension": tiny.HIDDEN,
        **{switch: name == "mean" for name, switch in layouts.SWITCHES.items()},
        "include_prompt": True,
    }
    transformer = json.loads((folder / "sentence_bert_config.json").read_text())
    assert transformer == {"max_seq_length": tiny.MAX_LENGTH, "do_lower_case": False}


def changed(encoder, **fields):
    """The encoder with another configuration; only what the writer looks at."""
    import copy

    other = copy.copy(encoder)
    object.__setattr__(other, "config", msgspec.structs.replace(encoder.config, **fields))
    return other


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"pooling": ("mean", "cls")}, "concatenates poolings only in the order"),
        ({"pooling": ("mean", "mean")}, "concatenates poolings only in the order"),
        ({"layers": (Truncate(4), Normalize())}, "truncates only after all other layers"),
    ],
)
def test_dense_heads_that_the_form_cannot_say(trio, tmp_path, fields, words):
    encoder = trio("bert")
    other = changed(encoder, dense=msgspec.structs.replace(encoder.config.dense, **fields))
    with pytest.raises(UsageError, match=words):
        other.export(tmp_path / "model", layout="sentence_transformers")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "fields",
    [
        {"query_max_length": 8},
        {"markers": {"query": 5}},
        {"expansion": Expansion(length=8, token_id=4)},
        {"strip": True},
        {"query_special_tokens": False},
    ],
)
def test_texts_that_the_form_cannot_say(trio, tmp_path, fields):
    other = changed(trio("bert"), text=TextConfig(max_length=48, **fields))
    with pytest.raises(UsageError, match="one length and the same tokens for queries and passages"):
        other.export(tmp_path / "model", layout="sentence_transformers")


@pytest.mark.parametrize(
    ("layer", "words"),
    [
        (Projection(tiny.HIDDEN, tiny.HIDDEN, residual=True), "no residual projections"),
        (LayerNorm(tiny.HIDDEN, epsilon=1e-12), "no layer-norm epsilon but 1e-5"),
    ],
)
def test_layers_that_the_form_cannot_say(trio, tmp_path, layer, words):
    from trine.models.backbone import Backbone
    from trine.models.config import DenseConfig, EncoderConfig

    parts = tiny.build("bert")
    config = EncoderConfig(text=TextConfig(max_length=48), dense=DenseConfig(pooling=("mean",), layers=(layer,)))
    encoder = Encoder(config, backbone=Backbone(parts.model, masked_lm=False), tokenizer=parts.tokenizer)
    with pytest.raises(UsageError, match=words):
        encoder.export(tmp_path / "model", layout="sentence_transformers")
    assert list(tmp_path.iterdir()) == []


def test_models_without_a_dense_head_cannot_be_written(trio, tmp_path):
    other = changed(trio("bert"), dense=None)
    with pytest.raises(UsageError, match="has no dense head"):
        other.export(tmp_path / "model", layout="sentence_transformers")


def test_a_model_of_several_cls_tokens_cannot_be_said(trio, tmp_path):
    import msgspec

    from trine.models.long_text import with_mcls

    encoder = trio("bert")
    dense = msgspec.structs.replace(encoder.config.dense, pooling=("cls",))
    pooled = Encoder(
        msgspec.structs.replace(encoder.config, dense=dense, sparse=None, multi_vector=None),
        backbone=encoder.backbone,
        tokenizer=encoder.tokenizer,
    ).eval()
    with pytest.raises(UsageError, match="MCLS"):
        with_mcls(pooled, every=8).export(tmp_path / "out", layout="sentence_transformers")
