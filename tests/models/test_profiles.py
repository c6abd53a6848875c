import msgspec
import pytest

from models import tiny
from trine.errors import CheckpointError, UnknownName
from trine.models.checkpoints.base import LoadOptions
from trine.models.config import DenseConfig, EncoderConfig, TextConfig
from trine.models.profiles import KNOWN, PROFILES, ends, finish, known_profile

PUBLISHED = {
    "intfloat/e5-small": "e5",
    "intfloat/e5-base-v2": "e5",
    "intfloat/e5-large-unsupervised": "e5",
    "intfloat/multilingual-e5-small": "e5",
    "intfloat/multilingual-e5-large": "e5",
    "BAAI/bge-small-en-v1.5": "bge-en",
    "BAAI/bge-large-zh-v1.5": "bge-zh",
    "BAAI/bge-m3": "bge-m3",
    "intfloat/e5-mistral-7b-instruct": "e5-mistral",
    "Qwen/Qwen3-Embedding-0.6B": "qwen3-embedding",
    "google/embeddinggemma-300m": "embeddinggemma",
    "BAAI/bge-multilingual-gemma2": "bge-multilingual-gemma2",
    "BAAI/bge-en-icl": "bge-en-icl",
    "GritLM/GritLM-7B": "gritlm",
}


def config(**text):
    return EncoderConfig(text=TextConfig(max_length=9, **text), dense=DenseConfig(pooling=("cls",)))


def test_ids_of_the_hub():
    for name, profile in PUBLISHED.items():
        assert KNOWN[name] == profile
    assert set(KNOWN.values()) <= set(PROFILES)
    for name in KNOWN:
        assert name.count("/") == 1


@pytest.mark.parametrize("name", ["intfloat/multilingual-e5-large-instructed", "someone/bge-m3", "bge-m3", "e5", ""])
def test_a_name_that_merely_looks_alike_says_nothing(name):
    """The name of an instructed E5, for one, is a letter away from e5, and wants other prompts."""
    assert known_profile(LoadOptions(), name).profile is None


def test_what_the_caller_says_wins():
    assert known_profile(LoadOptions(), "BAAI/bge-m3").profile == "bge-m3"
    assert known_profile(LoadOptions(profile="e5"), "BAAI/bge-m3").profile == "e5"
    assert known_profile(LoadOptions(pooling="mean"), "BAAI/bge-m3").profile is None
    with pytest.raises(UnknownName, match="no profile called 'bge_en'; did you mean 'bge-en'"):
        known_profile(LoadOptions(profile="bge_en"), "")


def test_prompts_of_the_published_cards():
    assert PROFILES["e5"].prompts == {"query": "query: ", "passage": "passage: "}
    assert PROFILES["e5"].pooling == "mean"
    assert PROFILES["bge-en"].prompts == {"query": "Represent this sentence for searching relevant passages: "}
    assert PROFILES["bge-zh"].prompts == {"query": "为这个句子生成表示以用于检索相关文章："}
    assert {PROFILES[name].pooling for name in ("bge-en", "bge-zh", "bge-m3")} == {"cls"}
    assert PROFILES["bge-m3"].prompts == {}
    assert all(profile.normalize for profile in PROFILES.values())


def test_prompts_of_the_profile_where_the_checkpoint_has_none():
    options = LoadOptions(profile="e5")
    assert finish(config(), options).text.prompts == PROFILES["e5"].prompts
    assert finish(config(prompts={"query": "", "passage": ""}), options).text.prompts == PROFILES["e5"].prompts
    assert finish(config(prompts={"query": "own "}), options).text.prompts == {"query": "own "}
    assert finish(config(), LoadOptions()) == config()


def test_prompts_that_are_given_win_over_all():
    own = config(prompts={"query": "own ", "s": "s "}, default_prompt="s")
    finished = finish(own, LoadOptions(profile="e5", prompts={"passage": "p "}))
    assert finished.text.prompts == {"passage": "p "}
    assert finished.text.default_prompt is None
    assert finish(own, LoadOptions(prompts={})).text.prompts == {}


def test_prompts_are_given_by_kind():
    with pytest.raises(UnknownName, match="no prompt called 'passages'; did you mean 'passage'"):
        finish(config(), LoadOptions(prompts={"passages": "x"}))
    with pytest.raises(UnknownName, match="no prompt called 'document'. Known: passage, query"):
        finish(config(), LoadOptions(prompts={"document": "x"}))


def test_prompts_for_tasks_are_no_prompts_for_queries():
    """e5-mistral's own files name a web_search_query, and would leave queries without instruction."""
    own = config(prompts={"web_search_query": "Instruct: x"})
    prompts = finish(own, LoadOptions(profile="e5-mistral")).text.prompts
    assert prompts["web_search_query"] == "Instruct: x"
    assert prompts["query"] == (
        "Instruct: Given a web search query, retrieve relevant passages that answer the query\nQuery: "
    )
    assert "passage" not in prompts


def test_templates_of_the_published_cards():
    """Whose spaces and line ends make other vectors."""
    assert PROFILES["e5-mistral"].instruction_prompt == "Instruct: {instruction}\nQuery: "
    assert PROFILES["qwen3-embedding"].instruction_prompt == "Instruct: {instruction}\nQuery:"
    assert PROFILES["bge-en-icl"].suffixes == {"query": "\n<response>"}
    assert PROFILES["bge-en-icl"].example_prompt == "<instruct>{instruction}\n<query>{query}\n<response>{response}\n\n"
    assert PROFILES["gritlm"].prompts == {"query": "<|embed|>\n", "passage": "<|embed|>\n"}
    assert PROFILES["embeddinggemma"].prompts["passage"] == "title: none | text: "


def test_a_profile_says_attention_and_pooled_tokens():
    finished = finish(config(), LoadOptions(profile="gritlm"))
    assert finished.attention == "bidirectional"
    assert finished.dense is not None
    assert not finished.dense.include_prompt
    causal = msgspec.structs.replace(config(), attention="causal")
    assert finish(causal, LoadOptions(profile="gritlm")).attention == "causal"


def test_ends_by_the_tokenizers_own_numbers():
    tokenizer = tiny.TOKENIZERS["mistral"](48)
    text = TextConfig(max_length=9)
    found = ends(LoadOptions(profile="e5-mistral"), text, tokenizer=tokenizer)
    assert (found.first_id, found.last_id) == (1, 2)
    assert ends(LoadOptions(profile="gritlm"), text, tokenizer=tokenizer).last_id is None
    own = TextConfig(max_length=9, last_id=7)
    assert ends(LoadOptions(profile="e5-mistral"), own, tokenizer=tokenizer).last_id == 7
    with pytest.raises(CheckpointError, match="wants the token '<.endoftext.>' around texts"):
        ends(LoadOptions(profile="qwen3-embedding"), text, tokenizer=tokenizer)
