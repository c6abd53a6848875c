import json
import re
from types import SimpleNamespace

import numpy as np
import pytest

from models import cross_encoders
from trine.cli import rerankers
from trine.cli.search import collection_and_query
from trine.errors import CollectionNotFound, UsageError
from trine.search.fusion import DEFAULT_FUSION

KEYS = {"query", "collection", "model", "untrained", "covered", "modes", "fusion", "reranker", "seconds", "hits"}
HIT_KEYS = {
    "rank", "score", "scores", "document", "line", "title", "text", "start", "end", "passage", "passage_id",
    "metadata", "terms", "highlights",
}  # fmt: skip


def test_json_holds_the_hits_with_all_their_scores(run, collection):
    result = run("search", "what holds containers", "-k", "2", "--json")
    found = json.loads(result.stdout)
    assert result.exit_code == 0
    assert set(found) == KEYS
    assert [hit["rank"] for hit in found["hits"]] == [1, 2]
    best = found["hits"][0]
    assert set(best) == HIT_KEYS
    assert (best["document"], best["line"]) == ("pod.md", 3)
    assert set(best["scores"]) == {"dense", "sparse", "multi_vector", "bm25"}
    marked = [best["text"][start:end] for start, end, _ in best["highlights"]["text"]]
    assert marked == ["holds", "containers"]
    assert (found["modes"], found["fusion"]) == (["dense", "sparse", "multi_vector", "bm25"], DEFAULT_FUSION)


def test_people_get_rank_source_title_text_and_scores_without_colour_codes(run, collection):
    shown = run("search", "what holds containers", "-k", "1").stdout
    assert "\x1b" not in shown
    lines = shown.splitlines()
    assert re.fullmatch(r" 1  pod\.md:3  \d\.\d{4}", lines[0])
    assert lines[1:3] == ["    Pod", "    A pod holds one or more containers."]
    assert re.fullmatch(r"    dense \S+  sparse \S+  multi_vector \S+  bm25 \S+", lines[3])


def test_korean_is_found_and_marked(run, collection):
    best = json.loads(run("search", "컨테이너를 담는", "--mode", "bm25", "--json").stdout)["hits"][0]
    assert best["document"] == "파드.md"
    assert [best["text"][start:end] for start, end, _ in best["highlights"]["text"]] == ["컨테이너를", "담는다"]


def test_bm25_alone_loads_no_model(run, collection, loaded):
    loaded.clear()
    found = json.loads(run("search", "fish", "--mode", "bm25", "--json").stdout)
    assert loaded == []
    assert (found["model"], found["modes"], found["fusion"]) == (None, ["bm25"], None)
    assert [hit["document"] for hit in found["hits"]] == ["cats.txt"]


def test_the_collection_comes_from_the_argument_or_the_environment(run, collection, home, monkeypatch):
    collection.rename(home / "elsewhere")
    assert run("search", "fish").exit_code == 4
    assert "cats.txt" in run("search", "elsewhere", "fish").stdout
    monkeypatch.setenv("TRINE_COLLECTION", "elsewhere")
    assert "cats.txt" in run("search", "fish").stdout


def test_words_that_are_no_collection_hint_at_quotes(run, collection):
    result = run("search", "pod", "containers")
    assert result.exit_code == 4
    assert "quote it: trine search 'pod containers'" in result.stderr
    with pytest.raises(UsageError, match="quote the query"):
        collection_and_query(["a", "b", "c"])
    with pytest.raises(UsageError, match="say what to look for"):
        collection_and_query([".trine"])
    with pytest.raises(CollectionNotFound, match="trine index FOLDER --to none"):
        collection_and_query_in_nothing()


def collection_and_query_in_nothing():
    from pathlib import Path

    from trine.cli.opening import require_collection

    require_collection(Path("none"))


def test_a_blank_query_is_refused_before_a_model_is_loaded(run, collection, loaded):
    loaded.clear()
    assert run("search", "  ").exit_code == 2
    assert loaded == []


def test_standard_input_gives_a_line_of_json_per_query(run, collection):
    result = run("search", "-", "-k", "1", stdin="fish\n\n컨테이너를\n")
    lines = [json.loads(line) for line in result.stdout.splitlines()]
    assert [line["query"] for line in lines] == ["fish", "컨테이너를"]
    assert [line["hits"][0]["document"] for line in lines] == ["cats.txt", "파드.md"]
    assert run("search", "-", "--html", "a.html", stdin="fish\n").exit_code == 2


def test_filters_and_their_typos(run, collection):
    found = json.loads(run("search", "fish", "--filter", "lang=ko", "--json").stdout)
    assert [hit["document"] for hit in found["hits"]] == ["파드.md"]
    result = run("search", "fish", "--filter", "lan=ko")
    assert result.exit_code == 2
    assert "did you mean 'lang'?" in result.stderr
    assert run("search", "fish", "--filter", "lang").exit_code == 2


def test_weights_mean_a_weighted_sum(run, collection):
    found = json.loads(run("search", "fish", "--weights", "m3", "--json").stdout)
    assert (found["fusion"], found["modes"]) == ("weighted", ["dense", "sparse", "multi_vector"])
    best = found["hits"][0]
    expected = best["scores"]["dense"] + 0.3 * best["scores"]["sparse"] + best["scores"]["multi_vector"]
    assert best["score"] == pytest.approx(expected, abs=1e-5)
    options = ("--mode", "dense", "--mode", "bm25", "--weights", "dense=1,bm25=0.5", "--fusion", "minmax")
    assert json.loads(run("search", "fish", *options, "--json").stdout)["fusion"] == "minmax"


def test_nothing_found_is_no_failure(run, collection):
    result = run("search", "xylophone", "--mode", "bm25")
    assert result.exit_code == 0
    assert result.stdout == ""
    assert "nothing found by bm25" in result.stderr


def test_a_page_can_be_written(run, collection, home):
    result = run("search", "what holds containers", "--html", "out/page.html")
    page = (home / "out" / "page.html").read_text("utf-8")
    assert '<mark style="--w:1.00">containers</mark>' in page
    assert "pod.md:3" in page
    assert "wrote out/page.html" in result.stderr


def test_control_characters_of_a_document_do_not_reach_the_terminal(run, home):
    (home / "evil.txt").write_text("fish \x1b[2J\x1b]0;title\x07 and chips")
    run("index", "evil.txt", "--analyzer", "bigram")
    shown = run("search", "fish").stdout
    assert "\x1b" not in shown
    assert "\x07" not in shown


def test_untrained_modes_are_said_only_where_they_take_part(run, docs):
    run("index", docs, "--model", "untrained", "--analyzer", "bigram")
    assert "sparse and multi_vector of untrained" in run("search", "fish").stderr
    assert json.loads(run("search", "fish", "--json").stdout)["untrained"] == ["sparse", "multi_vector"]
    assert "training" not in run("search", "fish", "--mode", "dense").stderr
    assert "multi_vector of untrained was" in run("search", "fish", "--mode", "dense", "--mode", "multi-vector").stderr


def test_a_query_that_the_model_does_not_cover_is_answered_by_bm25(run, docs):
    run("index", docs, "--model", "english", "--analyzer", "bigram")
    result = run("search", "컨테이너를 담는", "--json")
    found = json.loads(result.stdout)
    assert (found["covered"], found["modes"], found["fusion"]) == (False, ["bm25"], None)
    assert set(found["hits"][0]["scores"]) == {"bm25"}
    assert [found["hits"][0]["text"][start:end] for start, end, _ in found["hits"][0]["highlights"]["text"]] == [
        "컨테이너를",
        "담는다",
    ]
    assert "english was not trained on texts in this script; bm25 alone was asked" in result.stderr
    found = json.loads(run("search", "containers", "--json").stdout)
    assert (found["covered"], len(found["modes"])) == (True, 4)
    result = run("search", "컨테이너를 담는", "--mode", "sparse", "--json")
    found = json.loads(result.stdout)
    assert (found["covered"], found["modes"]) == (False, ["sparse"])
    assert "in this script\n" in result.stderr


def test_quiet_leaves_only_the_data(run, collection):
    assert run("search", "fish", "--quiet").stderr == ""


@pytest.fixture
def asked(monkeypatch):
    """The rerankers that commands asked for: each likes short passages, whatever the query; one is not trained."""
    names = []

    def read_reranker(name, **how):
        names.append((name, how))
        return SimpleNamespace(
            name=name,
            config=SimpleNamespace(untrained=name == "raw"),
            score=lambda pairs: np.array([-len(passage) for _, passage in pairs], np.float32),
        )

    monkeypatch.setattr(rerankers, "read_reranker", read_reranker)
    return names


def test_a_reranker_decides_the_order_and_its_score_is_shown(run, collection, asked):
    plain = json.loads(run("search", "what holds containers", "--json").stdout)
    found = json.loads(run("search", "what holds containers", "--rerank", "short", "--json").stdout)
    assert asked == [("short", {"device": "auto", "dtype": "auto"})]
    assert (plain["reranker"], found["reranker"]) == (None, "short")
    assert set(found) == KEYS
    lengths = [len(hit["title"] + hit["text"]) + bool(hit["title"]) for hit in found["hits"]]
    assert lengths == sorted(lengths)
    assert [hit["score"] for hit in found["hits"]] == [-length for length in lengths]
    assert all(hit["scores"]["reranker"] == hit["score"] for hit in found["hits"])
    assert len(found["hits"]) == len(plain["hits"]) > 2
    result = run("search", "what holds containers", "--rerank", "short")
    assert re.search(r"  bm25 \S+  reranker -\d", result.stdout)
    assert "(zscore), re-ordered by short, in" in result.stderr


def test_bm25_and_a_reranker_need_no_encoder(run, collection, asked, loaded):
    loaded.clear()
    found = json.loads(run("search", "fish", "--mode", "bm25", "--rerank", "short", "--json").stdout)
    assert loaded == []
    assert set(found["hits"][0]["scores"]) == {"bm25", "reranker"}


def test_how_deep_a_reranker_looks(run, collection, asked):
    options = ("--rerank", "short", "--rerank-depth", "1", "--json")
    plain = json.loads(run("search", "what holds containers", "--json").stdout)
    found = json.loads(run("search", "what holds containers", *options).stdout)
    assert [hit["document"] for hit in found["hits"]] == [hit["document"] for hit in plain["hits"]]
    assert ["reranker" in hit["scores"] for hit in found["hits"]] == [True] + [False] * (len(found["hits"]) - 1)
    result = run("search", "fish", "--rerank-depth", "3")
    assert result.exit_code == 2
    assert "has no effect without --rerank" in result.stderr


def test_an_untrained_reranker_is_said(run, collection, asked):
    result = run("search", "fish", "--rerank", "raw", "--json")
    assert json.loads(result.stdout)["untrained"] == ["reranker"]
    assert "the head of raw was never trained" in result.stderr


def test_a_reranker_from_a_folder(run, collection, tmp_path):
    folder = cross_encoders.bare("xlm_roberta", tmp_path / "reranker")
    found = json.loads(run("search", "what holds containers", "--rerank", folder, "--json").stdout)
    scores = [hit["scores"]["reranker"] for hit in found["hits"]]
    assert scores == sorted(scores, reverse=True)
    assert len(set(scores)) > 1
    assert run("search", "fish", "--rerank", "nowhere").exit_code == 4
