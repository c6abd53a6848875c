import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

from models import cross_encoders, layouts
from trine import Reranker
from trine.errors import CheckpointError, UnknownName
from trine.models.rerankers.checkpoint import read_config, read_model
from trine.models.rerankers.pairs import RerankerConfig

SIGMOID, IDENTITY = "torch.nn.modules.activation.Sigmoid", "torch.nn.modules.linear.Identity"


@pytest.fixture(scope="module")
def bare(tmp_path_factory):
    return cross_encoders.bare("bert", tmp_path_factory.mktemp("bare") / "bert")


def test_a_bare_folder_is_read_as_flagembedding_reads_it(bare, tmp_path):
    expected = RerankerConfig(max_length=48, truncation="only_second", query_max_length=36, origin="bge")
    assert read_config(bare) == expected
    longer = shutil.copytree(bare, tmp_path / "longer")
    layouts.change(longer / "config.json", max_position_embeddings=8192)
    layouts.change(longer / "tokenizer_config.json", model_max_length=8192)
    assert (read_config(longer).max_length, read_config(longer).query_max_length) == (512, 384)


@pytest.mark.parametrize(
    ("key", "path", "activation"),
    [
        ("sentence_transformers", SIGMOID, "sigmoid"),
        ("sentence_transformers", IDENTITY, "identity"),
        ("sentence_transformers", None, "sigmoid"),
        ("sbert_ce_default_activation_function", "torch.nn.Sigmoid", "sigmoid"),
        ("sbert_ce_default_activation_function", "torch.nn.Identity", "identity"),
        ("sbert_ce_default_activation_function", IDENTITY, "identity"),
    ],
)
def test_old_forms_of_sentence_transformers(bare, tmp_path, key, path, activation):
    folder = cross_encoders.old(bare, tmp_path / "old", activation=path, key=key)
    assert read_config(folder) == RerankerConfig(max_length=48, activation=activation, origin="sentence_transformers")


def test_the_new_form_of_sentence_transformers(bare, tmp_path):
    folder = cross_encoders.new(
        bare, tmp_path / "new", activation=IDENTITY, max_length=40, prompts={"q": "묻다: "}, default_prompt_name="q"
    )
    assert read_config(folder) == RerankerConfig(
        max_length=40, activation="identity", query_prompt="묻다: ", origin="sentence_transformers"
    )
    assert read_config(folder, layout="bge").origin == "bge"
    assert read_config(bare, layout="sentence_transformers").activation == "sigmoid"


def test_unknown_layouts_and_missing_files(bare, tmp_path):
    with pytest.raises(UnknownName, match="did you mean 'native'"):
        read_config(bare, layout="nativ")
    with pytest.raises(CheckpointError, match=r"trine_reranker\.json is missing"):
        read_config(bare, layout="native")
    with pytest.raises(CheckpointError, match=r"config\.json is missing"):
        read_config(tmp_path)


def test_other_models_are_refused(plain, bare, tmp_path):
    with pytest.raises(CheckpointError, match=r"no cross-encoder.*BertModel.*from_backbone"):
        read_config(plain("bert"))
    for labels in (2, 3):
        several = cross_encoders.bare("bert", tmp_path / str(labels), labels=labels)
        with pytest.raises(CheckpointError, match=f"has {labels} labels; a reranker has one"):
            Reranker.load(several, device="cpu")
    unsaid = shutil.copytree(bare, tmp_path / "unsaid")
    layouts.change(unsaid / "config.json", id2label=None, label2id=None)
    with pytest.raises(CheckpointError, match="has 2 labels"):
        read_config(unsaid)


def test_settings_that_would_change_scores_are_refused(bare, tmp_path):
    def made(name, **model):
        return cross_encoders.new(bare, tmp_path / name, **({"activation": SIGMOID} | model))

    with pytest.raises(CheckpointError, match="unknown activation 'my_code.Softplus'"):
        read_config(made("activation", activation="my_code.Softplus"))
    with pytest.raises(UnknownName, match="did you mean 'query'"):
        read_config(made("prompt", prompts={"query": "q: "}, default_prompt_name="qery"))
    folder = made("more")
    kind = "sentence_transformers.base.modules."
    rows = [
        {"idx": 0, "name": "0", "path": "", "type": kind + "transformer.Transformer"},
        {"idx": 1, "name": "1", "path": "1_Dense", "type": kind + "dense.Dense"},
    ]
    layouts.write(folder / "modules.json", rows)
    with pytest.raises(CheckpointError, match=r"a single Transformer.*'Dense'"):
        read_config(folder)
    layouts.write(folder / "modules.json", [rows[0] | {"path": "0_Transformer"}])
    with pytest.raises(CheckpointError, match="a single Transformer at the top"):
        read_config(folder)
    for number, change in enumerate(
        [{"transformer_task": "text-generation"}, {"do_lower_case": True}, {"processing_kwargs": {"text": {"a": 1}}}]
    ):
        folder = made(f"settings-{number}")
        layouts.change(folder / "sentence_bert_config.json", **change)
        with pytest.raises(CheckpointError, match=next(iter(change))):
            read_config(folder)


@pytest.mark.parametrize("name", cross_encoders.BACKBONES)
def test_a_head_that_is_missing_or_of_another_shape_is_never_random(tmp_path, name):
    source = cross_encoders.bare(name, tmp_path / "source")
    weights = load_file(source / "model.safetensors")
    heads = [key for key in weights if key.startswith(("classifier", "head", "bert.pooler"))]
    assert len(heads) >= 2
    for number, key in enumerate(heads):
        for state, said in (
            ({k: v for k, v in weights.items() if k != key}, "is missing"),
            (weights | {key: torch.zeros(3, 3)}, r"is \(3, 3\), should be"),
            (weights | {key: torch.full_like(weights[key], torch.nan)}, "NaN"),
        ):
            folder = shutil.copytree(source, tmp_path / f"{number}-{said[:6].strip()}")
            save_file(state, folder / "model.safetensors", metadata={"format": "pt"})
            with pytest.raises(CheckpointError, match=said) as error:
                read_model(folder, dtype=torch.float32)
            assert key in str(error.value)


def test_a_broken_file_is_an_error_of_the_checkpoint(bare, tmp_path):
    folder = shutil.copytree(bare, tmp_path / "broken")
    (folder / "model.safetensors").write_bytes(b"nothing")
    with pytest.raises(CheckpointError, match="cannot be loaded"):
        read_model(folder, dtype=torch.float32)
    (folder / "trine_reranker.json").write_text('{"max_length": 48, "colour": "red"}')
    with pytest.raises(CheckpointError, match="colour"):
        read_config(folder)


def test_what_is_written_says_everything_thrice(bare, tmp_path):
    reranker = Reranker.load(bare, device="cpu", max_length=40)
    folder = reranker.save(tmp_path / "saved")
    assert read_config(folder) == reranker.config
    assert read_config(folder, layout="sentence_transformers") == RerankerConfig(
        max_length=40, activation="identity", origin="sentence_transformers"
    )
    assert json.loads((folder / "config.json").read_text())["sentence_transformers"]["activation_fn"] == IDENTITY
    assert sorted(path.name for path in folder.glob("*.bin")) == []
    with pytest.raises(ValueError, match="not empty"):
        reranker.save(folder)
