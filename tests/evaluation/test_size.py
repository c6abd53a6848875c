import json
from dataclasses import replace

import numpy as np
import pytest

from trine.encoding.precision import Precision
from trine.errors import UsageError
from trine.evaluation.beir import Dataset
from trine.evaluation.evaluate import evaluate
from trine.evaluation.significance import Difference, Interval
from trine.evaluation.size import Setting, front, measure_sizes, recommend, usual_precisions
from trine.evaluation.size_corpus import Corpus
from trine.testing import HashingEncoder
from trine.types import Document, Query

WORDS = [f"낱말{number}" for number in range(80)]


def dataset(*, documents=140, queries=20, qrels=True):
    generator = np.random.default_rng(0)
    corpus = [
        Document(f"문서{number}", " ".join(generator.choice(WORDS, generator.integers(3, 14))))
        for number in range(documents)
    ]
    asked = [Query(f"q{number}", " ".join(corpus[number].text.split()[:2])) for number in range(queries)]
    return Dataset(
        "표본", corpus, asked, {f"q{n}": {f"문서{n}": 1, f"문서{n + 30}": 1} for n in range(queries)} if qrels else {}
    )


@pytest.fixture(scope="module")
def corpus():
    return Corpus(dataset(), 140, "judged")


@pytest.fixture(scope="module")
def report(corpus):
    return measure_sizes(corpus, HashingEncoder(), documents=1_000_000, budget=300_000_000)


def setting(size, values, precision=None, shared=0):
    values = np.array(values, np.float64)
    mean = float(values.mean())
    return Setting(
        precision or Precision(dense="int8"),
        {"dense": float(size)},
        shared,
        Interval(mean, mean, mean),
        Difference(0.0, 0.0, 0.0, 0.5),
        1.0,
        values,
    )


def test_full_precision_is_what_evaluate_measures(report, corpus):
    theirs = evaluate(corpus.data, HashingEncoder(), systems=["all:zscore", "dense", "sparse"], metrics=["ndcg@10"])
    assert report.full.precision == Precision()
    assert report.full.per_query == pytest.approx([*theirs.results[0].per_query["ndcg@10"].values()])
    assert report.full.overlap == 1
    assert report.full.gap.mean == 0
    for mode, result in zip(("dense", "sparse"), theirs.results[1:], strict=True):
        alone = measure_sizes(corpus, HashingEncoder(), modes=[mode]).full
        assert alone.per_query == pytest.approx([*result.per_query["ndcg@10"].values()])


def test_bytes_are_those_of_the_arrays(report, corpus):
    tokens = [len(document.text.split()) for document in corpus.data.corpus]
    terms = [len(set(document.text.split())) for document in corpus.data.corpus]
    full = report.full
    assert full.nbytes["dense"] == 4 * 32
    assert full.nbytes["sparse"] == pytest.approx(8 + np.mean(terms) * (2 + 4), abs=0.1)
    assert full.nbytes["multi_vector"] == pytest.approx(8 + np.mean(tokens) * 4 * 16)
    assert full.total(1000) == round(1000 * sum(full.nbytes.values()))
    learned = next(each for each in report.settings if each.precision.multi_vector == "residual4")
    assert learned.total(10) == round(10 * learned.per_document) + learned.shared_bytes
    assert learned.shared_bytes > 4 * 16


def test_every_usual_precision_is_there_once(report, corpus):
    names = [each.precision.name for each in report.settings]
    assert len(names) == len(set(names))
    tried = usual_precisions(HashingEncoder().encode(["하나 둘 셋 넷 다섯"], kind="passage"))
    full = Precision()
    for rows in tried.values():
        for part in rows:
            (mode,) = part.modes
            assert any(each.precision.part(mode) == part.part(mode) for each in report.settings)
    assert names[0] == full.name
    sizes = [each.per_document for each in report.settings[1:]]
    assert sizes == sorted(sizes, reverse=True)


def test_the_front_rises(report):
    sizes = [each.per_document for each in report.front]
    values = [each.value.mean for each in report.front]
    assert sizes == sorted(sizes)
    assert values == sorted(set(values))
    assert values[-1] == max(each.value.mean for each in report.settings)
    for each in report.settings:
        assert any(
            other.per_document <= each.per_document and other.value.mean >= each.value.mean for other in report.front
        )


def test_the_recommendation_fits_and_loses_no_more_than_allowed(report):
    chosen = report.recommended
    assert chosen.total(1_000_000) <= 300_000_000 < report.full.total(1_000_000)
    fitting = [each for each in report.settings if each.total(1_000_000) <= 300_000_000]
    assert max(each.value.mean for each in fitting) - chosen.value.mean <= report.loss


def test_a_small_setting_has_to_show_that_it_is_good_enough():
    noise = np.random.default_rng(0).choice([0.0, 1.0], 400)
    large = setting(1000, noise)
    same = setting(100, noise - 0.002)
    unsure = setting(50, np.roll(noise, 1) - 0.001)
    worse = setting(10, noise - 0.1)
    settings = [large, same, unsure, worse]
    assert recommend(settings, documents=1) is same
    assert recommend(settings, documents=1, loss=0.0) is large
    assert recommend(settings, documents=1, loss=0.2) is worse
    assert recommend(settings, documents=10, budget=100) is worse
    assert recommend(settings, documents=10, budget=99) is None
    assert recommend([setting(1, noise, shared=100)], documents=1, budget=100) is None


def test_what_is_kept_once_counts_in_the_choice():
    learned, plain = setting(194, [0.5, 0.6], shared=1000), setting(196, [0.5, 0.6])
    assert recommend([learned, plain], documents=499) is plain
    assert recommend([learned, plain], documents=501) is learned


def test_the_front_leaves_out_what_a_smaller_one_equals():
    rows = [setting(10, [0.5]), setting(20, [0.5]), setting(20, [0.6]), setting(30, [0.55]), setting(40, [0.7])]
    assert [each.per_document for each in front(rows)] == [10, 20, 40]
    assert front(rows)[1] is rows[2]


def test_without_judgements_agreement_with_full_precision_counts():
    report = measure_sizes(Corpus(dataset(qrels=False), 140, "given"), HashingEncoder())
    assert not report.judged
    assert report.full.value.mean == 1
    assert all(each.value.mean <= 1 and each.gap.mean <= 0 for each in report.settings)
    by_name = {each.precision.name: each for each in report.settings}
    halves = by_name["dense float32, sparse float32, multi float16"]
    bits = by_name["dense float32, sparse float32, multi binary"]
    assert halves.value.mean > bits.value.mean
    assert halves.overlap > bits.overlap


@pytest.mark.parametrize("modes", [["dense"], ["multi_vector"], ["sparse", "multi_vector"]])
def test_fewer_representations_can_be_measured(corpus, modes):
    report = measure_sizes(corpus, HashingEncoder(), modes=modes)
    assert report.full.precision == Precision.full(modes)
    assert all(set(each.precision.modes) <= set(modes) for each in report.settings)
    assert len(report.settings) > 5


def test_everything_is_strict_json(report):
    found = json.loads(json.dumps(report.to_dict(), allow_nan=False))
    assert found["recommended"] == report.recommended.precision.name
    rows = found["settings"]
    assert sum(row["recommended"] for row in rows) == 1
    assert {row["fits"] for row in rows} == {True, False}
    assert sum(row["on_front"] for row in rows) == len(report.front)
    assert rows[0]["bytes_per_document"]["all"] == pytest.approx(sum(report.full.nbytes.values()))
    assert Precision(**rows[-1]["precision"]) == report.settings[-1].precision


def test_embeddings_are_kept_where_a_cache_is_given(corpus, tmp_path):
    encoder = HashingEncoder()
    first = measure_sizes(corpus, encoder, modes=["sparse"], cache=tmp_path)
    encoder.encode = None
    assert (
        replace(measure_sizes(corpus, encoder, modes=["sparse"], cache=tmp_path), seconds={}).to_dict()
        == replace(first, seconds={}).to_dict()
    )


def test_what_cannot_be_asked_for_is_refused(corpus):
    with pytest.raises(UsageError, match="the model gives dense"):
        measure_sizes(corpus, OneMode(), modes=["sparse"])
    with pytest.raises(UsageError, match="documents is 0"):
        measure_sizes(corpus, HashingEncoder(), documents=0)
    with pytest.raises(UsageError, match="loss is -0.1"):
        recommend([setting(1, [0.5])], documents=1, loss=-0.1)


class OneMode(HashingEncoder):
    def __init__(self):
        super().__init__()
        self.dimensions = {"dense": 32}
