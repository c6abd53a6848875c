import json

import pytest


@pytest.fixture
def dataset(home):
    """Three documents and three judged queries, in the BEIR layout."""
    folder = home / "set"
    (folder / "qrels").mkdir(parents=True)
    texts = {"d1": "a pod holds containers", "d2": "cats eat fish", "d3": "파드는 컨테이너를 담는다"}
    queries = {"q1": "what holds containers", "q2": "what do cats eat", "q3": "컨테이너를 담는 것"}
    for name, rows in (("corpus", texts), ("queries", queries)):
        lines = [json.dumps({"_id": key, "text": text}, ensure_ascii=False) for key, text in rows.items()]
        (folder / f"{name}.jsonl").write_text("\n".join(lines), "utf-8")
    (folder / "qrels" / "test.tsv").write_text("query-id\tcorpus-id\tscore\nq1\td1\t1\nq2\td2\t1\nq3\td3\t1\n")
    return folder


def test_a_model_is_measured(run, dataset):
    result = run("evaluate", dataset, "--json")
    report = json.loads(result.stdout)
    assert result.exit_code == 0
    assert report["model"] == "hashing"
    by_name = {system["name"]: system["metrics"]["ndcg@10"]["mean"] for system in report["systems"]}
    assert by_name["sparse"] == pytest.approx(1.0)
    assert {"dense", "multi_vector", "bm25"} < set(by_name)


def test_systems_and_metrics_can_be_chosen(run, dataset):
    options = ("--system", "bm25", "--system", "all:m3", "--metric", "mrr@10", "--depth", "10")
    report = json.loads(run("evaluate", dataset, *options, "--json").stdout)
    assert [system["name"] for system in report["systems"]] == ["bm25", "all (m3)"]
    assert report["metrics"] == ["mrr@10"]
    assert run("evaluate", dataset, "--system", "bm26").exit_code == 2


def test_bm25_alone_loads_no_model(run, dataset, loaded):
    assert run("evaluate", dataset, "--system", "bm25").exit_code == 0
    assert loaded == []


def test_people_get_a_table_and_files(run, dataset, home):
    result = run("evaluate", dataset, "--html", "report.html", "--runs", "runs")
    assert "ndcg@10" in result.stdout
    assert "<svg" in (home / "report.html").read_text("utf-8")
    assert (home / "runs" / "bm25.trec").is_file()


def test_a_collection_is_measured_by_its_document_ids(run, dataset, collection):
    (dataset / "qrels" / "test.tsv").write_text("query-id\tcorpus-id\tscore\nq1\tpod.md\t1\nq2\tcats.txt\t1\n")
    report = json.loads(run("evaluate", dataset, "--collection", collection, "--json").stdout)
    assert report["counts"]["passages"] == 4
    assert max(system["metrics"]["ndcg@10"]["mean"] for system in report["systems"]) == pytest.approx(1.0)
    assert run("evaluate", dataset, "--collection", collection, "--cache", "kept").exit_code == 2
    assert run("evaluate", dataset, "--collection", collection, "--analyzer", "bigram").exit_code == 2
    assert run("evaluate", dataset, "--collection", "none").exit_code == 4


def test_untrained_modes_are_said_in_every_output(run, dataset):
    result = run("evaluate", dataset, "--model", "untrained", "--json", "--html", "report.html")
    assert json.loads(result.stdout)["settings"]["untrained"] == "sparse, multi_vector"
    assert "without training" in result.stderr


def test_missing_and_broken_sets(run, dataset, home):
    assert run("evaluate", "none").exit_code == 4
    (dataset / "corpus.jsonl").write_text("broken\n")
    assert run("evaluate", dataset).exit_code == 5
