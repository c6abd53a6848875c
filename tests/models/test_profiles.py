import pytest

from trine.errors import UnknownName
from trine.models.checkpoints.base import LoadOptions
from trine.models.config import DenseConfig, EncoderConfig, TextConfig
from trine.models.profiles import KNOWN, PROFILES, finish, known_profile

PUBLISHED = {
    "intfloat/e5-small": "e5",
    "intfloat/e5-base-v2": "e5",
    "intfloat/e5-large-unsupervised": "e5",
    "intfloat/multilingual-e5-small": "e5",
    "intfloat/multilingual-e5-large": "e5",
    "BAAI/bge-small-en-v1.5": "bge-en",
    "BAAI/bge-large-zh-v1.5": "bge-zh",
    "BAAI/bge-m3": "bge-m3",
}


def config(**text):
    return EncoderConfig(text=TextConfig(max_length=9, **text), dense=DenseConfig(pooling=("cls",)))


def test_ids_of_the_hub():
    for name, profile in PUBLISHED.items():
        assert KNOWN[name] == profile
    assert set(KNOWN.values()) <= set(PROFILES)
    for name in KNOWN:
        assert name.count("/") == 1


@pytest.mark.parametrize("name", ["intfloat/multilingual-e5-large-instruct", "someone/bge-m3", "bge-m3", "e5", ""])
def test_a_name_that_merely_looks_alike_says_nothing(name):
    """e5 instruct, for one, wants other prompts."""
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
