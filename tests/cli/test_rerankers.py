import pytest

from models import cross_encoders
from trine.cli.rerankers import read_reranker, untrained_reranker_sentence
from trine.errors import CheckpointError, ModelNotFound


def test_a_folder_is_read(tmp_path):
    folder = cross_encoders.bare("bert", tmp_path / "bert")
    reranker = read_reranker(str(folder), device="cpu")
    assert reranker.name == str(folder)
    assert reranker.score([("a", "b")]).shape == (1,)
    with pytest.raises(ModelNotFound):
        read_reranker("nowhere")


def test_an_encoder_is_refused(plain):
    with pytest.raises(CheckpointError, match="no cross-encoder"):
        read_reranker(str(plain("bert")), device="cpu")


def test_what_is_said_of_an_untrained_head():
    assert untrained_reranker_sentence("x").startswith("the head of x was never trained")
