import json
import math
import random

import numpy as np
import pytest

from trine.curation import consistency
from trine.curation.consistency import Consistency, consistency_filter, draw_pool, noise_found
from trine.errors import UnknownName, UsageError
from trine.scoring import score
from trine.testing import HashingEncoder
from trine.types import Embeddings, Example


class Table:
    """An encoder whose dense vectors are given."""

    dimensions = {"dense": 2}
    fingerprint = "table"

    def __init__(self, vectors):
        self.vectors = vectors
        self.encoded = []

    def encode(self, texts, *, kind, modes=None, progress=False):
        self.encoded += [(kind, text) for text in texts]
        return Embeddings(dense=np.array([self.vectors[text] for text in texts], np.float32))


ONE_PAIR = {"q": [1.0, 0.0], "p": [0.6, 0.0], "a": [0.9, 0.0], "b": [0.5, 0.0], "c": [0.6, 0.3], "P ": [0.6, 0.0]}


def filtered(vectors, examples, **options):
    passages = options.pop("passages", None)
    sources = options.pop("sources", None)
    return consistency_filter(
        examples, Table(vectors), settings=Consistency(**options), passages=passages, sources=sources
    )


def test_the_rank_is_worked_out_among_the_pool_and_the_pair():
    # Of .9, .5 and .6 (a tie) two are not below the pair's .6.
    result = filtered(ONE_PAIR, [Example("q", ("p",))], passages=["a", "b", "c"])
    assert result.ranks.tolist() == [3]
    assert result.kept.tolist() == [False]
    assert filtered(ONE_PAIR, [Example("q", ("p",))], passages=["a", "b", "c"], top=3).kept.tolist() == [True]


def test_the_same_text_under_another_spelling_does_not_compete():
    assert filtered(ONE_PAIR, [Example("q", ("p",))], passages=["p", "P ", "b"]).ranks.tolist() == [1]


def test_positives_of_one_example_do_not_compete_and_are_judged_one_by_one():
    vectors = ONE_PAIR | {"weak": [0.1, 0.0]}
    example = Example("q", ("a", "weak"), positive_scores=(2.0, 1.0), lang="ko")
    result = filtered(vectors, [example], passages=["a", "weak", "b", "p"], top=1)
    assert result.ranks.tolist() == [1, 3]
    assert result.kept_pairs.tolist() == [True, False]
    assert result.examples == (Example("q", ("a",), positive_scores=(2.0,), lang="ko"),)


def test_a_collapsed_model_keeps_nothing():
    vectors = {text: [1.0, 0.0] for text in ("q", "p1", "p2", "p3", "p4")}
    examples = [Example("q", (text,)) for text in ("p1", "p2", "p3", "p4")]
    result = filtered(vectors, examples)
    assert result.ranks.tolist() == [4, 4, 4, 4]
    assert result.examples == ()


def test_a_model_that_gives_no_numbers_is_refused():
    with pytest.raises(UsageError, match="not finite"):
        filtered({"q": [math.nan, 0], "p": [1, 0], "a": [1, 0]}, [Example("q", ("p",))], passages=["a"])


def test_each_text_is_encoded_once():
    encoder = Table(ONE_PAIR)
    examples = [Example("q", ("p",)), Example("q", ("a",)), Example("q", ("b",))]
    consistency_filter(examples, encoder)
    passages = [text for kind, text in encoder.encoded if kind == "passage"]
    assert sorted(passages) == ["a", "b", "p"]


def test_statistics_per_source_are_exact():
    vectors = ONE_PAIR | {"bad": [0.0, 0.1]}
    examples = [Example("q", (text,)) for text in ("a", "p", "bad", "b")]
    result = filtered(vectors, examples, top=2, sources=["x", "x", "y", "y"])
    assert result.ranks.tolist() == [1, 2, 4, 3]
    rows = result.summary()["sources"]
    assert rows["x"] == {"pairs": 2, "kept": 2, "median_rank": 1.5, "share": 1.0}
    assert rows["y"] == {"pairs": 2, "kept": 0, "median_rank": 3.5, "share": 0.0}
    assert result.chance == pytest.approx(2 / 5)
    assert json.loads(json.dumps(result.summary()))["encoder"] == "table"


SUBJECTS = ["고래", "기차", "은하", "된장", "한글", "바둑", "화산", "피아노", "지진", "커피", "로봇", "우표"]


def noisy_pairs(count=240, share=0.25, seed=3):
    """Queries that share three words with their passage; a quarter of the passages are shuffled among each other."""
    generator = random.Random(seed)
    passages, queries = [], []
    for number in range(count):
        theme = [f"{generator.choice(SUBJECTS)}{number}_{place}" for place in range(3)]
        filler = [f"말{generator.randrange(400)}" for _ in range(6)]
        queries.append(" ".join([*theme, "알려줘"]))
        passages.append(" ".join([*theme, *filler]))
    noisy = sorted(generator.sample(range(count), int(share * count)))
    rotated = noisy[1:] + noisy[:1]
    moved = dict(zip(noisy, [passages[number] for number in rotated], strict=True))
    examples = [Example(queries[number], (moved.get(number, passages[number]),)) for number in range(count)]
    return examples, [number in moved for number in range(count)]


@pytest.mark.parametrize(
    "modes", [("dense",), ("sparse",), ("multi_vector",), ("dense", "sparse", "multi_vector")], ids="+".join
)
def test_injected_noise_is_found(modes):
    examples, noisy = noisy_pairs()
    result = consistency_filter(examples, HashingEncoder(dense=256), settings=Consistency(modes=modes))
    found = noise_found(result.kept, noisy)
    assert found.noise == 60
    assert found.precision >= 0.95
    assert found.recall >= 0.95
    assert found.clean_kept >= 0.95
    assert result.chance < 0.01


def test_a_fusion_ranks_by_the_weighted_sum(monkeypatch):
    # Naive oracle over the whole matrix, with blocks so small that every seam is crossed.
    for name, size in {"_PAIRS_ENCODED": 7, "_PAIRS_SCORED": 5, "_PASSAGES_SCORED": 6, "_OWN_BLOCK": 2}.items():
        monkeypatch.setattr(consistency, name, size)
    examples, _ = noisy_pairs(count=40)
    encoder, weights = HashingEncoder(), {"dense": 1.0, "sparse": 0.1}
    result = consistency_filter(examples, encoder, settings=Consistency(modes=("dense", "sparse"), weights=weights))
    queries = encoder.encode([example.query for example in examples], kind="query", modes=list(weights))
    passages = encoder.encode([example.positives[0] for example in examples], kind="passage", modes=list(weights))
    scores = score(queries, passages, weights=weights).fused
    own = np.diagonal(scores)[:, None]
    assert result.ranks.tolist() == (scores >= own - 1e-6).sum(axis=1).tolist()
    assert result.pool == 40


def test_the_pool_is_drawn_once_and_by_its_seed():
    texts = [f"text {number}" for number in range(200)] + ["TEXT  0", "text 1"]
    assert len(draw_pool(texts, size=1000, seed=0)) == 200
    drawn = [draw_pool(texts, size=20, seed=seed) for seed in (5, 5, 6)]
    assert drawn[0] == drawn[1] != drawn[2]
    assert len(set(drawn[0])) == 20
    examples, _ = noisy_pairs(count=60)
    runs = [consistency_filter(examples, HashingEncoder(), settings=Consistency(pool=20, seed=1)) for _ in range(2)]
    assert runs[0].ranks.tolist() == runs[1].ranks.tolist()
    assert runs[0].pool == 20
    assert runs[0].summary() == runs[1].summary()


def test_noise_found_by_hand():
    found = noise_found([True, False, False, True, False], [False, True, False, True, True])
    assert (found.noise, found.clean, found.dropped_noise, found.dropped_clean) == (3, 2, 2, 1)
    assert found.precision == pytest.approx(2 / 3)
    assert found.recall == pytest.approx(2 / 3)
    assert found.clean_kept == pytest.approx(1 / 2)
    assert noise_found([True], [False]).summary()["precision"] is None
    with pytest.raises(UsageError, match="one value per pair"):
        noise_found([True], [True, False])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"top": 0}, "top 0"),
        ({"pool": 0}, "pool 0"),
        ({"modes": ()}, "name one or more"),
        ({"modes": ("dense", "dense")}, "each once"),
        ({"weights": "m3"}, "no effect on the single mode"),
        ({"modes": ("dense", "sparse"), "weights": {"dense": 1.0}}, "give one for each mode"),
    ],
)
def test_settings_that_cannot_work_are_refused(options, message):
    with pytest.raises(UsageError, match=message):
        Consistency(**options)


def test_mistakes_in_the_call_are_named():
    with pytest.raises(UnknownName, match="did you mean 'dense'"):
        Consistency(modes=("dens",))
    with pytest.raises(UsageError, match="no examples"):
        filtered(ONE_PAIR, [])
    with pytest.raises(UsageError, match="2 sources are given for 1 examples"):
        filtered(ONE_PAIR, [Example("q", ("p",))], sources=["a", "b"])
    with pytest.raises(UsageError, match="example 0 .'q'. has no positive"):
        filtered(ONE_PAIR, [Example("q", ())])
    with pytest.raises(UsageError, match="not 'sparse'"):
        filtered(ONE_PAIR, [Example("q", ("p",))], modes=("sparse",))
    with pytest.raises(UsageError, match="pool is empty"):
        filtered(ONE_PAIR, [Example("q", ("p",))], passages=[])
