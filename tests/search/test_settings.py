import threading

import pytest

from trine.data.chunking import Chunking
from trine.errors import ModelMismatch, UnknownName, UsageError
from trine.search import settings as settings_module
from trine.search.settings import Models, Settings, load_analyzer, named
from trine.testing import HashingEncoder


def settings(**changes):
    values = {
        "encoder": None,
        "fingerprint": HashingEncoder().fingerprint,
        "dimensions": {"dense": 32, "sparse": 4096},
        "analyzer": "bigram",
        "chunking": Chunking(64, 8),
        "index": "exact",
    }
    return Settings(**{**values, **changes})


class Named(HashingEncoder):
    name = "somewhere/model"


def test_settings_come_back_from_their_config():
    made = settings(encoder="intfloat/multilingual-e5-small")
    assert Settings.from_config(made.to_config()) == made


def test_an_encoder_is_known_by_its_own_name_or_none(encoder):
    assert named(encoder) == (encoder, None)
    other = Named()
    assert named(other) == (other, "somewhere/model")


def test_a_name_is_kept_and_a_path_made_absolute(encoder, monkeypatch, tmp_path):
    loaded = []
    monkeypatch.setattr(settings_module, "load", lambda name: loaded.append(name) or encoder)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "model").mkdir()
    assert named("model") == (encoder, str(tmp_path / "model"))
    assert named(tmp_path / "model") == (encoder, str(tmp_path / "model"))
    assert named("hub/model") == (encoder, "hub/model")
    assert named(None) == (encoder, "")
    assert loaded == [str(tmp_path / "model")] * 2 + ["hub/model", ""]


def test_another_encoder_is_refused_with_both_and_the_remedy():
    with pytest.raises(ModelMismatch) as error:
        Models(HashingEncoder(dense=8), settings(encoder="hub/first"))
    message = str(error.value)
    assert "'hub/first', fingerprint hashing-32-4096-16" in message
    assert "an encoder object, fingerprint hashing-8-4096-16" in message
    assert "index the documents anew" in message


def test_a_recorded_name_is_loaded_once_and_late(monkeypatch, encoder):
    loaded = []
    monkeypatch.setattr(settings_module, "load", lambda name: loaded.append(name) or encoder)
    models = Models(None, settings(encoder="hub/model"))
    assert loaded == []
    threads = [threading.Thread(target=models.encoder) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert models.encoder() is encoder
    assert loaded == ["hub/model"]
    given = Models("other/path", settings(encoder="hub/model"))
    assert given.encoder() is encoder
    assert loaded == ["hub/model", "other/path"]


def test_a_loaded_model_of_another_kind_is_refused(monkeypatch):
    monkeypatch.setattr(settings_module, "load", lambda name: HashingEncoder(sparse=64))
    with pytest.raises(ModelMismatch, match="made with the default model"):
        Models("elsewhere", settings(encoder="")).encoder()


def test_an_encoder_object_has_to_be_given_again():
    with pytest.raises(UsageError, match="open it with encoder="):
        Models(None, settings()).encoder()


def test_the_analyser_must_be_the_one_that_made_the_terms():
    models = Models(None, settings())
    fingerprint = load_analyzer("bigram").fingerprint
    assert models.analyzer(fingerprint).terms("고양이") == models.analyzer().terms("고양이")
    with pytest.raises(ModelMismatch, match=r"analyzer bigram-0, installed is .*reanalyze\(\)"):
        models.analyzer("bigram-0")
    with pytest.raises(UnknownName, match="did you mean 'bigram'"):
        load_analyzer("bigrams")
