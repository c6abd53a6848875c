import json
import shutil
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch

from models import layouts, tiny
from trine import Encoder
from trine.errors import CheckpointError, UnknownName, UsageError
from trine.models import checkpoints
from trine.models.checkpoints.base import (
    Checkpoint,
    LoadOptions,
    declared_ends,
    refuse_pooling,
    sentence_settings,
    sequence_limit,
    special_ids,
)
from trine.models.config import DenseConfig, EncoderConfig, Projection, TextConfig


def load(folder, **options):
    return Encoder.load(folder, device="cpu", **({"pooling": "mean"} | options))


@pytest.fixture
def copy(plain, tmp_path):
    return shutil.copytree(plain("bert"), tmp_path / "copy")


# -- which layout ----------------------------------------------------------------------------------------------------


def test_every_layout_has_the_two_functions():
    import importlib

    for name, module in checkpoints.CHECKPOINTS.items():
        reader = importlib.import_module(module)
        assert callable(reader.matches), name
        assert callable(reader.read), name


def test_every_export_resolves():
    from trine.tables import resolve

    for name in checkpoints.EXPORTS:
        assert callable(resolve(checkpoints.EXPORTS, name, kind="export layout"))


def test_unknown_layouts_suggest_the_nearest(trio, tmp_path):
    with pytest.raises(UnknownName, match="did you mean 'sentence_transformers'"):
        trio("bert").export(tmp_path / "x", layout="sentence-transformers")
    with pytest.raises(UnknownName, match="did you mean 'bge_m3'"):
        load(tmp_path, layout="bgem3")


def test_a_folder_without_a_model(tmp_path):
    with pytest.raises(CheckpointError, match="no model recognised; known layouts: native"):
        load(tmp_path)


def test_settings_of_a_wrong_shape_are_an_error_of_the_checkpoint(plain, tmp_path):
    folder = layouts.old_sentence_transformers(plain("bert"), tmp_path / "model")
    for content in ({"modules": []}, [{"path": ""}], "text", [3]):
        layouts.write(folder / "modules.json", content)
        with pytest.raises(CheckpointError):
            Encoder.load(folder, device="cpu")


# -- the tokenizer ---------------------------------------------------------------------------------------------------


def test_a_missing_tokenizer_is_an_error(copy):
    """transformers would make one that knows its five special tokens, and every text the same."""
    (copy / "tokenizer.json").unlink()
    with pytest.raises(CheckpointError, match="the tokenizer is missing; one of tokenizer.json"):
        load(copy)
    (copy / "tokenizer_config.json").unlink()
    with pytest.raises(CheckpointError, match="the tokenizer is missing"):
        load(copy)


def test_a_vocabulary_file_alone_will_do(copy):
    words = json.loads((copy / "tokenizer.json").read_text())["model"]["vocab"]
    expected = load(copy).encode(tiny.CORPUS).dense
    (copy / "tokenizer.json").unlink()
    (copy / "vocab.txt").write_text("\n".join(sorted(words, key=words.get)) + "\n", encoding="utf-8")
    assert (load(copy).encode(tiny.CORPUS).dense == expected).all()


@pytest.mark.parametrize("content", ["{}", "no json", "[]", ""])
def test_a_broken_tokenizer_is_an_error(copy, content):
    (copy / "tokenizer.json").write_text(content)
    with pytest.raises(CheckpointError, match="tokenizer"):
        load(copy)


def test_a_tokenizer_in_another_folder(copy, tmp_path):
    (tmp_path / "tokenizer").mkdir()
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.move(copy / name, tmp_path / "tokenizer" / name)
    config = EncoderConfig(text=TextConfig(max_length=9), dense=DenseConfig(pooling=("mean",)))
    checkpoint = Checkpoint(config, backbone=copy, tokenizer_folder=tmp_path / "tokenizer")
    assert len(checkpoint.tokenizer()) > 100
    with pytest.raises(CheckpointError, match="the tokenizer is missing"):
        replace(checkpoint, tokenizer_folder=None).tokenizer()


def test_code_in_a_checkpoint_is_not_asked_about_nor_run(copy, tmp_path):
    (copy / "own.py").write_text(f"open({str(tmp_path / 'executed')!r}, 'w')\n")
    automatic = {"AutoConfig": "own.Config", "AutoModel": "own.Model", "AutoTokenizer": ["own.Tokenizer", None]}
    layouts.change(copy / "config.json", model_type="own", auto_map=automatic)
    layouts.change(copy / "tokenizer_config.json", auto_map=automatic)
    with pytest.raises(CheckpointError):
        load(copy)
    assert not (tmp_path / "executed").exists()


# -- head weights ----------------------------------------------------------------------------------------------------


def test_head_weights_are_checked_and_copied(plain):
    config = EncoderConfig(
        text=TextConfig(max_length=9), dense=DenseConfig(pooling=("mean",), layers=(Projection(tiny.HIDDEN, 3),))
    )
    weights = {
        f"dense.layers.0.linear.{key}": value for key, value in tiny.random_linear(3, tiny.HIDDEN, seed=1).items()
    }
    checkpoint = Checkpoint(config, backbone=plain("bert"), head_weights=weights)

    def build(checkpoint):
        cpu = torch.device("cpu")
        return Encoder.from_checkpoint(checkpoint, name="x", device=cpu, dtype=torch.float32)

    encoder = build(checkpoint)
    for key, value in weights.items():
        torch.testing.assert_close(encoder.state_dict()[key], value)
    assert not encoder.training

    broken = {
        "missing: \\['dense.layers.0.linear.bias'\\]": {"dense.layers.0.linear.bias": None},
        "unknown: \\['dense.layers.1.linear.bias'\\]": {"dense.layers.1.linear.bias": torch.ones(3)},
        "has shape \\(4,\\), the configuration says \\(3,\\)": {"dense.layers.0.linear.bias": torch.ones(4)},
        "holds NaN": {"dense.layers.0.linear.bias": torch.full((3,), torch.nan)},
    }
    for words, change in broken.items():
        changed = {key: value for key, value in {**weights, **change}.items() if value is not None}
        with pytest.raises(CheckpointError, match=words):
            build(replace(checkpoint, head_weights=changed))


# -- small readers ---------------------------------------------------------------------------------------------------


def test_pooling_is_refused_where_it_has_no_effect(tmp_path):
    refuse_pooling(LoadOptions(), tmp_path)
    with pytest.raises(UsageError, match="layout='plain'"):
        refuse_pooling(LoadOptions(pooling="cls"), tmp_path)


def test_special_ids_are_each_there_once():
    tokenizer = SimpleNamespace(
        bos_token_id=5,
        cls_token_id=0,
        sep_token_id=2,
        eos_token_id=2,
        pad_token_id=1,
        unk_token_id=None,
        mask_token_id=9,
    )
    assert special_ids(tokenizer) == (0, 1, 2, 5)


@pytest.mark.parametrize(
    ("config", "limit", "declared", "expected"),
    [
        ({"model_type": "bert", "max_position_embeddings": 512}, None, None, 512),
        ({"model_type": "bert", "max_position_embeddings": 512}, 128, None, 128),
        ({"model_type": "bert", "max_position_embeddings": 512}, 10**30, None, 512),
        ({"model_type": "bert", "max_position_embeddings": 512}, 128, 256, 256),
        ({"model_type": "xlm-roberta", "max_position_embeddings": 514, "pad_token_id": 1}, None, None, 512),
        ({"model_type": "xlm-roberta", "max_position_embeddings": 8194, "pad_token_id": 1}, 8192, None, 8192),
        ({"model_type": "mpnet", "max_position_embeddings": 514, "pad_token_id": 1}, None, None, 512),
        ({"model_type": "t5"}, 77, None, 77),
    ],
)
def test_sequence_limit(tmp_path, config, limit, declared, expected):
    layouts.write(tmp_path / "config.json", config)
    layouts.write(tmp_path / "tokenizer_config.json", {} if limit is None else {"model_max_length": limit})
    if declared is not None:
        layouts.write(tmp_path / "sentence_bert_config.json", {"max_seq_length": declared})
    assert sequence_limit(tmp_path, tmp_path) == expected


def test_settings_take_the_first_file_there_is(tmp_path):
    assert sentence_settings(tmp_path) == {}
    layouts.write(tmp_path / "sentence_roberta_config.json", {"max_seq_length": 1})
    assert sentence_settings(tmp_path) == {"max_seq_length": 1}
    layouts.write(tmp_path / "sentence_bert_config.json", {"max_seq_length": 2})
    assert sentence_settings(tmp_path) == {"max_seq_length": 2}


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        ({"add_eos_token": True, "add_bos_token": True}, (1, 2)),
        ({"add_eos_token": True}, (None, 2)),
        ({"add_eos_token": False, "add_bos_token": True}, (None, None)),
        ({"add_eos_token": None}, (None, None)),
    ],
)
def test_ends_that_the_tokenizers_settings_ask_for(plain, tmp_path, said, expected):
    folder = shutil.copytree(plain("mistral"), tmp_path / "model")
    settings = json.loads((folder / "tokenizer_config.json").read_text())
    layouts.write(folder / "tokenizer_config.json", settings | said)
    text = load(folder).config.text
    assert (text.first_id, text.last_id) == expected
    own = EncoderConfig(text=TextConfig(max_length=9, last_id=7), dense=DenseConfig(pooling=("mean",)))
    assert declared_ends(Checkpoint(own, backbone=folder)).last_id == 7


def test_another_librarys_adapter_alone_is_no_model(plain, tmp_path):
    folder = layouts.adapter(plain("mistral"), tmp_path / "adapter", base="x", seed=1)
    with pytest.raises(CheckpointError, match="no model recognised"):
        load(folder)
