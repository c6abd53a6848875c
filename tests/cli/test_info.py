import json

import pytest

import trine
from trine.cli import encoders, info


def test_the_installation(run):
    found = json.loads(run("info", "--json").stdout)
    assert found["trine"] == trine.__version__
    assert found["packages"]["numpy"]
    assert (found["device"], found["dtype"]) != (None, None)
    assert found["extras"]["korean"]["command"] == "pip install 'trine[korean]'"
    assert "all" not in found["extras"]
    assert trine.__version__ in run("info").stdout


def test_a_missing_extra_says_how_to_get_it(run, monkeypatch):
    original = info._version
    monkeypatch.setattr(info, "_version", lambda name: None if name == "kiwipiepy" else original(name))
    assert "missing; pip install 'trine[korean]'" in run("info").stdout
    assert json.loads(run("info", "--json").stdout)["extras"]["korean"]["installed"] is False


@pytest.fixture
def real(monkeypatch, loaded, trio):
    """A tiny encoder with all heads in place of whatever is asked for."""
    monkeypatch.setattr(encoders, "read_encoder", lambda name, **how: trio("bert"))


def test_a_model(run, real):
    found = json.loads(run("info", "some/model", "--json").stdout)
    assert (found["model"], found["backbone"], found["untrained"]) == ("bert", "bert", [])
    assert found["modes"]["dense"] == {
        "dimensions": 32,
        "trained": True,
        "head": "mean of the token states -> normalize",
    }
    assert found["modes"]["sparse"]["head"] == "token_linear"
    assert found["modes"]["multi_vector"]["head"] == "token states -> projection -> normalize"
    assert found["max_tokens"] == {"query": 48, "passage": 48}
    assert "32 dimensions, mean of the token states -> normalize" in run("info", "some/model").stdout


def test_a_collection(run, collection, loaded):
    loaded.clear()
    found = json.loads(run("info", collection, "--json").stdout)
    assert (found["documents"], found["passages"], found["model"], found["analyzer"]) == (3, 4, "hashing", "bigram")
    assert found["metadata_keys"] == ["lang", "path", "type"]
    assert loaded == []
    assert "MiB" in run("info", collection).stdout


def test_what_is_neither_is_not_found(run):
    assert run("info", "nowhere").exit_code == 4


def test_a_damaged_collection_is_corrupt(run, collection):
    file = collection / "collection.sqlite"
    file.write_bytes(b"not a database at all" * 500)
    assert run("info", collection).exit_code == 5
