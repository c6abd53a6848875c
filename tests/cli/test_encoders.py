import pytest

from trine.cli import encoders
from trine.cli.encoders import load_encoder, model_name, untrained_modes, untrained_sentence
from trine.errors import CheckpointError, ModelNotFound
from trine.testing import HashingEncoder


@pytest.mark.parametrize(
    ("given", "name"), [(None, None), ("default", None), ("BAAI/bge-m3@5617a9f", "BAAI/bge-m3@5617a9f")]
)
def test_default_is_a_name_for_the_default_model(monkeypatch, given, name):
    asked = []
    monkeypatch.setattr(encoders, "read_encoder", lambda name, **how: asked.append(name))
    load_encoder(given)
    assert asked == [name]


def test_a_model_that_is_not_there_is_not_found(home):
    with pytest.raises(ModelNotFound, match="no model folder 'some/where/else'"):
        load_encoder("some/where/else")


def test_a_model_that_is_there_and_broken_is_a_checkpoint_error(home):
    (home / "broken").mkdir()
    with pytest.raises(CheckpointError):
        load_encoder("broken")


def test_an_encoder_without_a_name_goes_by_its_fingerprint():
    encoder = HashingEncoder()
    assert model_name(encoder) == encoder.fingerprint
    assert untrained_modes(encoder) == ()


def test_untrained_modes_are_said_in_a_sentence():
    assert untrained_sentence("mini", ("sparse",)).startswith("sparse of mini was put together without training; it ")
    assert "sparse and multi_vector of mini were" in untrained_sentence("mini", ("sparse", "multi_vector"))
