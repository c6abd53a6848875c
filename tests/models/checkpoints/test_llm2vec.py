import json
import shutil

import numpy as np
import pytest

from models import layouts, tiny
from trine import Encoder
from trine.errors import CheckpointError, UsageError
from trine.models.checkpoints import llm2vec
from trine.models.checkpoints.base import LoadOptions

MISTRAL = "mistralai/Mistral-7B-Instruct-v0.2"


@pytest.fixture
def folders(plain, tmp_path):
    first, second = layouts.llm2vec(plain("mistral"), tmp_path)
    layouts.write(first / "llm2vec_config.json", {"max_length": 48, "doc_max_length": 20})
    return first, second


def load(folder, **options):
    return Encoder.load(folder, device="cpu", **options)


def test_an_adapter_alone_could_be_any_models(folders):
    first, second = folders
    assert llm2vec.matches(first)
    assert not llm2vec.matches(second)
    (first / "llm2vec_config.json").unlink()
    assert load(first, layout="llm2vec").config.text.max_length == 512


def test_what_the_files_say(folders):
    encoder = load(folders[0])
    assert encoder.config.origin == "llm2vec"
    assert encoder.config.attention == encoder.backbone.attention == "bidirectional"
    text = encoder.config.text
    assert text.prompts == {"query": "[INST] ", "passage": "[INST] "}
    assert text.suffixes == {"query": " [/INST]", "passage": " [/INST]"}
    assert encoder.text.instructed(" 뜻: ") == "[INST] 뜻: "
    assert (text.max_length, text.text_tokens, text.prompt_counted_by) == (48, 20, "text")
    assert not encoder.config.dense.include_prompt


def test_the_instruction_may_be_pooled_too(folders):
    skipped = load(folders[0]).encode(["검색"], instruction="뜻:").dense
    layouts.change(folders[0] / "llm2vec_config.json", skip_instruction=False)
    assert load(folders[0]).config.dense.include_prompt
    assert np.abs(load(folders[0]).encode(["검색"], instruction="뜻:").dense - skipped).max() > 1e-3


@pytest.mark.parametrize("pooling", ["weighted_mean", "eos_token", "bos_token"])
def test_other_poolings_are_refused(folders, pooling):
    layouts.change(folders[0] / "llm2vec_config.json", pooling_mode=pooling)
    with pytest.raises(CheckpointError, match=f"pooling_mode is '{pooling}'"):
        load(folders[0])
    with pytest.raises(UsageError, match="says its own pooling"):
        load(folders[0], pooling="mean")


def test_the_chat_turn_follows_the_name_of_the_base(folders):
    """By config.json, or by the adapter's own word for a base that is fetched from the hub."""
    first = folders[0]
    for name, (before, after) in llm2vec.WRAPPERS.items():
        layouts.change(first / "config.json", _name_or_path=name)
        text = load(first).config.text
        assert (text.prompts["query"], text.suffixes["passage"]) == (before, after)
    layouts.change(first / "config.json", _name_or_path="princeton-nlp/Sheared-LLaMA-1.3B")
    text = load(first).config.text
    assert (text.prompts, text.suffixes, text.instruction_prompt) == ({}, {}, "{instruction} ")


def test_adapters_follow_each_other_down_to_the_base(folders):
    first, second = folders
    layouts.change(second / "adapter_config.json", base_model_name_or_path="../mntp")
    shutil.copy(first / "llm2vec_config.json", second)
    checkpoint = llm2vec.read(second, LoadOptions())
    assert [folder.name for folder in checkpoint.adapters] == ["mntp", "supervised"]
    assert checkpoint.backbone.name == "base"
    assert checkpoint.tokenizer_folder.name == "mntp"
    np.testing.assert_array_equal(
        load(second).encode(tiny.CORPUS).dense, load(first, adapter=second).encode(tiny.CORPUS).dense
    )


def test_the_settings_are_those_beside_the_last_adapter(folders):
    first, second = folders
    assert load(first, adapter=second).config.text.text_tokens == 400
    layouts.write(second / "llm2vec_config.json", {"max_length": 40, "doc_max_length": 10})
    text = load(first, adapter=second).config.text
    assert (text.max_length, text.text_tokens) == (40, 10)


def test_bases_that_lead_nowhere(folders):
    first, second = folders
    layouts.change(first / "adapter_config.json", base_model_name_or_path="no/such/folder")
    with pytest.raises(
        CheckpointError, match="base_model_name_or_path 'no/such/folder'. cannot be read: no model folder"
    ):
        load(first)
    layouts.change(first / "adapter_config.json", base_model_name_or_path="../supervised")
    layouts.change(second / "adapter_config.json", base_model_name_or_path="../mntp")
    with pytest.raises(CheckpointError, match="leads back to itself"):
        load(first)
    layouts.change(first / "adapter_config.json", base_model_name_or_path=None)
    with pytest.raises(CheckpointError, match="does not say what the adapter was trained on"):
        load(first)


def test_published_names(monkeypatch):
    first, second = "McGill-NLP/LLM2Vec-Sheared-LLaMA-mntp", "McGill-NLP/LLM2Vec-Sheared-LLaMA-mntp-supervised"
    assert llm2vec.known_layout(LoadOptions(), first).layout == "llm2vec"
    assert llm2vec.known_layout(LoadOptions(), f"{second}@main").layout == "llm2vec"
    assert llm2vec.known_layout(LoadOptions(layout="plain"), first).layout == "plain"
    assert llm2vec.known_layout(LoadOptions(), "someone/LLM2Vec-mntp").layout is None
    assert llm2vec.first_stage(first, LoadOptions()) == (first, LoadOptions())
    assert llm2vec.first_stage(None, LoadOptions()) == (None, LoadOptions())
    assert llm2vec.first_stage(second, LoadOptions()) == (first, LoadOptions(adapter=second))
    found = llm2vec.first_stage(second, LoadOptions(revision="abc"))
    assert found == (first, LoadOptions(adapter=f"{second}@abc"))
    with pytest.raises(UsageError, match="is an adapter itself; load 'McGill-NLP/LLM2Vec-Sheared-LLaMA-mntp'"):
        llm2vec.first_stage(second, LoadOptions(adapter="mine"))


def test_a_published_second_adapter_is_merged_behind_the_first(folders, monkeypatch):
    """Its own files name the bare model, so that the table must say what was merged before."""
    from trine.models import sources

    first, second = (
        "McGill-NLP/LLM2Vec-Mistral-7B-Instruct-v2-mntp",
        "McGill-NLP/LLM2Vec-Mistral-7B-Instruct-v2-mntp-supervised",
    )
    hub = {first: folders[0], second: folders[1]}
    monkeypatch.setattr(sources, "_downloaded", lambda name, revision: hub[name])
    encoder = load(second)
    assert encoder.name == second
    np.testing.assert_array_equal(
        encoder.encode(tiny.CORPUS).dense, load(folders[0], adapter=folders[1]).encode(tiny.CORPUS).dense
    )


def test_it_is_saved_whole_and_not_exported(folders, tmp_path):
    encoder = load(folders[0], adapter=folders[1])
    texts = [text for text in tiny.TEXTS if text.strip()]
    again = load(encoder.save(tmp_path / "saved"))
    shutil.rmtree(folders[0].parent / "base")
    np.testing.assert_array_equal(
        again.encode(texts, instruction="뜻:").dense, encoder.encode(texts, instruction="뜻:").dense
    )
    assert json.loads((tmp_path / "saved" / "config.json").read_text())["is_causal"] is False
    with pytest.raises(UsageError, match="the model has suffixes, text_tokens"):
        encoder.export(tmp_path / "exported", layout="sentence_transformers")


def test_an_empty_text_has_a_vector(folders):
    assert np.isfinite(load(folders[0]).encode(["", " ", "검색"], instruction="뜻:").dense).all()
