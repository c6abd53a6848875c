import json
import sys

import ir_measures
import numpy as np
import pytest

from trine.data.chunking import Chunking
from trine.errors import DataError, UnknownName, UsageError
from trine.evaluation.beir import Dataset, read_beir
from trine.evaluation.evaluate import evaluate, evaluate_collection
from trine.index.analysis import BigramAnalyzer
from trine.search.collection import Collection
from trine.search.fusion import DEFAULT_FUSION, fuse
from trine.testing import HashingEncoder
from trine.types import Document, Query

WORDS = ["검색", "벡터", "모델", "query", "index", "e\u0301tude", "😀", "score", "각주", "tokens", "희소", "dense"]


def dataset(*, documents=60, queries=25, seed=0, **changes) -> Dataset:
    """Random sentences; a query is a few words of a document, which is graded 2, another at random 1."""
    generator = np.random.default_rng(seed)
    words = [f"{word}{number}" for word in WORDS for number in range(12)]
    corpus = [
        Document(f"d{number}", " ".join(generator.choice(words, generator.integers(4, 15))), title=f"제목 {number % 7}")
        for number in range(documents)
    ]
    asked, qrels = [], {}
    for number in range(queries):
        wanted, other = generator.choice(documents, 2, replace=False)
        asked.append(Query(f"q{number}", " ".join(generator.choice(corpus[wanted].text.split(), 2))))
        qrels[f"q{number}"] = {f"d{wanted}": 2, f"d{other}": 1}
    return Dataset(**{"name": "무작위", "corpus": corpus, "queries": asked, "qrels": qrels, **changes})


@pytest.fixture(scope="module")
def data():
    return dataset()


@pytest.fixture(scope="module")
def report(data):
    return evaluate(data, HashingEncoder(), depth=100, analyzer="bigram")


def test_the_usual_systems_are_compared(report, data):
    assert [result.system.name for result in report.results] == [
        "dense",
        "sparse",
        "multi_vector",
        "bm25",
        "all (m3)",
        "all (rrf)",
        "all (zscore)",
        "all+bm25 (rrf)",
        "all+bm25 (zscore)",
    ]
    assert report.metrics == ("ndcg@10", "recall@100", "mrr@10")
    assert report.baseline == "bm25"
    assert (report.counts.documents, report.counts.judged) == (60, 25)
    assert report.settings["analyzer"] == BigramAnalyzer.fingerprint
    assert report.settings["fingerprint"] == HashingEncoder().fingerprint
    assert set(report.seconds) == {"encode queries", "encode passages", "analyze", "search"}


def test_exported_runs_give_the_same_numbers_to_the_last_digit(report, tmp_path):
    report.write_runs(tmp_path)
    qrels = list(ir_measures.read_trec_qrels(str(tmp_path / "qrels.trec")))
    measures = {"ndcg@10": ir_measures.nDCG @ 10, "recall@100": ir_measures.R @ 100, "mrr@10": ir_measures.RR @ 10}
    for result in report.results:
        run = ir_measures.read_trec_run(str(tmp_path / f"{result.system.slug}.trec"))
        found = ir_measures.calc_aggregate(measures.values(), qrels, run)
        for name, theirs in measures.items():
            assert result.metrics[name].mean == pytest.approx(found[theirs], abs=1e-9), (result.system.name, name)


def test_single_runs_are_the_order_of_the_scores_themselves(report, data):
    """The oracle scores every pair directly, without any index."""
    encoder = HashingEncoder()
    passages = encoder.encode([f"{doc.title}\n{doc.text}" for doc in data.corpus], kind="passage")
    queries = encoder.encode([query.text for query in data.queries], kind="query")
    for mode in ("dense", "multi_vector"):
        for number, query in enumerate(data.queries):
            if mode == "dense":
                scores = passages.dense @ queries.dense[number]
            else:
                rows = [passages.multi_vector.row(place) for place in range(len(passages))]
                best = [(queries.multi_vector.row(number) @ row.T).max(axis=1).mean() for row in rows]
                scores = np.array(best)
            found = report.runs[mode][query.id]
            assert list(found.values()) == pytest.approx(sorted(scores, reverse=True)[: len(found)], abs=1e-5)
            places = [int(document[1:]) for document in found]
            assert scores[places] == pytest.approx(list(found.values()), abs=1e-5)
            assert len(found) == 60


def test_lexical_runs_hold_only_documents_that_share_a_term(report, data):
    words = {doc.id: set(f"{doc.title} {doc.text}".split()) for doc in data.corpus}
    for query in data.queries:
        sharing = {document for document, held in words.items() if held & set(query.text.split())}
        assert sharing <= report.runs["sparse"][query.id].keys()
        assert sharing <= report.runs["bm25"][query.id].keys()
    assert any(len(found) < 60 for found in report.runs["sparse"].values())


def test_a_weighted_sum_is_the_weighted_sum(report, data):
    """With a depth above the corpus every document is a candidate, so the fused score is that of the three scores."""
    runs = report.runs
    for query in data.queries:
        parts = [runs[mode][query.id] for mode in ("dense", "sparse", "multi_vector")]
        rows = list(parts[0])
        matrix = np.array([[part.get(document, np.nan) for part in parts] for document in rows])
        expected = dict(zip(rows, fuse(matrix, ("dense", "sparse", "multi_vector"), fusion="weighted"), strict=True))
        found = runs["all (m3)"][query.id]
        assert found == pytest.approx(expected, abs=1e-5)
        assert list(found.values()) == sorted(found.values(), reverse=True)


def test_depth_bounds_every_run(data):
    report = evaluate(data, HashingEncoder(), depth=10, metrics=["ndcg@10"], analyzer="bigram")
    assert all(len(found) <= 10 for run in report.runs.values() for found in run.values())
    assert all(len(found) == 10 for found in report.runs["multi_vector"].values())
    with pytest.raises(UsageError, match="recall@100 needs a depth of at least 100; it is 10"):
        evaluate(data, HashingEncoder(), depth=10)
    with pytest.raises(UsageError, match="depth is 0"):
        evaluate(data, HashingEncoder(), depth=0, metrics=["map"])


def test_bm25_alone_loads_no_model(data, monkeypatch):
    monkeypatch.setitem(sys.modules, "trine.models.encoder", None)
    report = evaluate(data, systems=["bm25"], analyzer=BigramAnalyzer())
    assert [result.system.name for result in report.results] == ["bm25"]
    assert report.model == ""
    assert report.comparisons == ()
    assert report.result("bm25").metrics["ndcg@10"].mean > 0.3
    assert "encode passages" not in report.seconds


def test_systems_are_chosen_by_name(data):
    report = evaluate(
        data, HashingEncoder(), systems=["dense", "dense+bm25:rrf", "sparse+multi_vector:minmax"], analyzer="bigram"
    )
    names = ["dense", "dense+bm25 (rrf)", "sparse+multi_vector (minmax)"]
    assert [result.system.name for result in report.results] == names
    assert list(report.runs) == ["dense", "dense+bm25 (rrf)", "sparse+multi_vector (minmax)"]
    assert report.baseline == "dense"
    with pytest.raises(UnknownName, match="did you mean 'dense'"):
        evaluate(data, HashingEncoder(), systems=["dens"])
    with pytest.raises(UnknownName, match="did you mean 'ndcg@10'"):
        evaluate(data, HashingEncoder(), metrics=["ncdg@10"])
    with pytest.raises(UsageError, match="metrics is a list"):
        evaluate(data, HashingEncoder(), metrics="ndcg@10", systems=["dense"])


class OneMode(HashingEncoder):
    """An encoder that gives a single representation."""

    def __init__(self, mode):
        super().__init__()
        self.dimensions = {mode: self.dimensions[mode]}

    def encode(self, texts, *, kind, modes=None, progress=False):
        assert set(modes) <= set(self.dimensions)
        return HashingEncoder().encode(texts, kind=kind, modes=modes)


@pytest.mark.parametrize("mode", ["dense", "sparse", "multi_vector"])
def test_an_encoder_of_one_mode_is_enough(data, report, mode):
    found = evaluate(data, OneMode(mode), analyzer="bigram")
    assert [result.system.name for result in found.results] == [
        mode,
        "bm25",
        f"{mode}+bm25 (rrf)",
        f"{mode}+bm25 (zscore)",
    ]
    assert found.runs[mode] == report.runs[mode]
    assert found.runs["bm25"] == report.runs["bm25"]


def test_only_the_modes_that_are_searched_are_embedded(data):
    asked = []

    class Watching(HashingEncoder):
        def encode(self, texts, *, kind, modes=None, progress=False):
            asked.append((kind, tuple(modes), len(texts)))
            return super().encode(texts, kind=kind, modes=modes)

    evaluate(data, Watching(), systems=["sparse"])
    assert asked == [("query", ("sparse",), 25), ("passage", ("sparse",), 60)]


def test_titles_are_embedded_with_the_text():
    texts = []

    class Watching(HashingEncoder):
        def encode(self, items, **options):
            texts.extend(items)
            return super().encode(items, **options)

    corpus = [Document("a", "본문", title="제목"), Document("b", "only text"), Document("c", "")]
    data = dataset(corpus=corpus, queries=1, qrels={"q0": {"a": 1}})
    evaluate(data, Watching(), systems=["dense"])
    assert texts[1:] == ["제목\n본문", "only text", ""]


def test_the_cache_changes_no_number(data, report, tmp_path):
    calls = []

    class Watching(HashingEncoder):
        def encode(self, texts, **options):
            calls.append(len(texts))
            return super().encode(texts, **options)

    for _ in range(2):
        found = evaluate(data, Watching(), cache=tmp_path / "cache", analyzer="bigram")
        assert found.runs == report.runs
        assert found.results == report.results
    assert calls == [25, 60]


def test_ties_go_to_the_earlier_document_and_stay_there():
    """Equal documents have equal scores; the run's own scores keep the corpus order, whatever the ids are."""
    corpus = [Document(name, "같은 글 alike") for name in ("b", "z", "a", "가")]
    data = dataset(corpus=corpus, queries=1, qrels={"q0": {"a": 1}})
    data = Dataset("ties", corpus, [Query("q0", "alike")], {"q0": {"a": 1}})
    report = evaluate(data, HashingEncoder(), metrics=["mrr@10"], analyzer="bigram")
    for name, run in report.runs.items():
        assert list(run["q0"]) == ["b", "z", "a", "가"], name
        assert report.result(name).metrics["mrr@10"].mean == pytest.approx(1 / 3)


def test_what_is_missing_counts_as_not_found(data):
    qrels = {**data.qrels, "lost": {"d1": 1}, "q0": {**data.qrels["q0"], "gone": 1}}
    queries = [*data.queries, Query("unjudged", "검색")]
    partial = Dataset("gaps", data.corpus, queries, qrels)
    report = evaluate(partial, HashingEncoder(), systems=["dense"])
    assert report.counts.missing_queries == 1
    assert report.counts.missing_documents == 1
    assert (report.counts.queries, report.counts.judged) == (26, 25)
    assert report.result("dense").per_query["ndcg@10"]["lost"] == 0.0
    assert "unjudged" not in report.result("dense").per_query["ndcg@10"]
    assert "unjudged" not in report.runs["dense"]


@pytest.mark.parametrize("text", ["", "   ", "\n\u200b", "😶", "한글 없는 말", "x" * 5000])
def test_odd_queries_are_searched(data, text):
    odd = Dataset("odd", data.corpus, [Query("q", text), Query("r", "dense1")], {"q": {"d1": 1}, "r": {"d2": 1}})
    report = evaluate(odd, HashingEncoder(), analyzer="bigram")
    assert all(0 <= result.metrics["ndcg@10"].mean <= 1 for result in report.results)
    json.loads(report.to_json())


def test_nothing_to_measure_is_refused(data):
    with pytest.raises(UsageError, match=r"no judged query: of 25 queries none is among the 1 of the judgements"):
        evaluate(Dataset("x", data.corpus, data.queries, {"other": {"d1": 1}}), HashingEncoder())
    with pytest.raises(UsageError, match="'x' has no documents"):
        evaluate(Dataset("x", [], data.queries, data.qrels), HashingEncoder())


def test_a_folder_is_read(tmp_path):
    (tmp_path / "corpus.jsonl").write_text(
        '{"_id": "d1", "text": "검색 모델"}\n{"_id": "d2", "text": "other"}\n', "utf-8"
    )
    (tmp_path / "queries.jsonl").write_text('{"_id": "q1", "text": "검색"}\n', "utf-8")
    (tmp_path / "qrels.tsv").write_text("q1\td1\t1\n", "utf-8")
    report = evaluate(tmp_path, HashingEncoder(), analyzer="bigram")
    assert report.dataset == tmp_path.name
    assert report.result("bm25").metrics["ndcg@10"].mean == 1.0
    with pytest.raises(DataError, match="does not exist"):
        evaluate(tmp_path / "nowhere", HashingEncoder())


@pytest.fixture(scope="module")
def collection(data, tmp_path_factory):
    with Collection.create(
        tmp_path_factory.mktemp("c") / "index", encoder=HashingEncoder(), analyzer="bigram", index="exact"
    ) as made:
        made.add(data.corpus)
        yield made


def test_a_collection_of_whole_documents_gives_the_same_numbers(collection, data, report):
    """Each document is short enough to be one passage, so only multi-vector alone, which re-ranks, may differ."""
    found = evaluate_collection(collection, data)
    assert found.counts.passages == found.counts.documents == 60
    for result in report.results:
        other = found.result(result.system.name)
        for metric, value in result.metrics.items():
            assert other.metrics[metric].mean == pytest.approx(value.mean, abs=1e-9), (result.system.name, metric)


def test_what_search_does_by_default_is_measured_too(collection, data):
    found = evaluate_collection(collection, data)
    default = found.result("search (default)").metrics
    assert default == found.result(f"all+bm25 ({DEFAULT_FUSION})").metrics
    assert "search (default)" not in [
        r.system.name for r in evaluate_collection(collection, data, systems=["bm25"]).results
    ]


def test_a_collection_ranks_documents_by_their_best_passage(tmp_path):
    parts = [" ".join(f"말{number}" for number in range(start, start + 40)) for start in range(0, 200, 40)]
    long = Document("긴 문서.md", "\n\n".join(parts))
    others = [Document("short.md", "말7 검색"), Document("none.md", "다른 내용")]
    options = {"encoder": HashingEncoder(), "analyzer": "bigram", "index": "exact", "chunking": Chunking(max_tokens=40)}
    with Collection.create(tmp_path / "index", **options) as made:
        made.add([long, *others])
        data = Dataset(
            "long", [], [Query("q", "말7 말8"), Query("blank", " ")], {"q": {"긴 문서.md": 1}, "blank": {"x": 1}}
        )
        report = evaluate_collection(made, data, metrics=["mrr@10"], systems=["dense", "bm25"], depth=10)
        hits = made.search("말7 말8", k=10, retrievers=["dense"])
    assert report.counts.documents == 3
    assert report.counts.passages == len(hits) == 7
    assert report.counts.missing_documents == 1
    run = report.runs["dense"]["q"]
    firsts = {}
    for hit in hits:
        firsts.setdefault(hit.passage.document_id, hit.score)
    assert list(run) == list(firsts)
    assert run == pytest.approx(firsts, abs=1e-6)
    assert report.result("bm25").per_query["mrr@10"] == {"q": 1.0, "blank": 0.0}


def test_a_collection_needs_only_queries_and_judgements(collection, data, tmp_path):
    lines = [json.dumps({"_id": query.id, "text": query.text}) for query in data.queries]
    (tmp_path / "queries.jsonl").write_text("\n".join(lines))
    rows = [
        f"{query}\t{document}\t{grade}" for query, judged in data.qrels.items() for document, grade in judged.items()
    ]
    (tmp_path / "qrels.tsv").write_text("\n".join(rows))
    assert read_beir(tmp_path, corpus=False).queries == data.queries
    found = evaluate_collection(collection, tmp_path, systems=["bm25", "all:rrf"])
    assert found.runs == {
        name: run for name, run in evaluate_collection(collection, data).runs.items() if name in ("bm25", "all (rrf)")
    }
    assert found.settings["index"] == "exact"


def test_importing_and_asking_for_bm25_load_no_torch():
    import subprocess

    code = (
        "import sys; from trine.evaluation.evaluate import evaluate; from trine.evaluation import report; "
        "sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
