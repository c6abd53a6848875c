import json

import pytest

from trine.cli.size import parsed_size
from trine.errors import UsageError


@pytest.fixture
def dataset(home):
    """Documents of a few words, judged queries, in the BEIR layout."""
    folder = home / "set"
    folder.mkdir()
    texts = {f"d{number}": f"문서 {number} about topic{number} and more" for number in range(30)}
    queries = {f"q{number}": f"what about topic{number}" for number in range(10)}
    for name, rows in (("corpus", texts), ("queries", queries)):
        lines = [json.dumps({"_id": key, "text": text}, ensure_ascii=False) for key, text in rows.items()]
        (folder / f"{name}.jsonl").write_text("\n".join(lines), "utf-8")
    lines = [f"q{number}\td{number}\t1" for number in range(10)]
    (folder / "qrels.tsv").write_text("\n".join(["query-id\tcorpus-id\tscore", *lines]))
    return folder


def test_a_judged_set_gives_a_table_and_a_recommendation(run, dataset, home):
    result = run("size", dataset, "--budget", "1GB", "--documents", "1000000", "--html", "size.html")
    assert result.exit_code == 0, result.output
    assert result.stdout.startswith("set: 30 documents, 10 queries; totals for 1,000,000; hashing\n")
    assert "Recommended within 1 GB" in result.stdout
    assert "<svg" in (home / "size.html").read_text("utf-8")


def test_json_holds_every_setting(run, dataset):
    found = json.loads(run("size", dataset, "--mode", "dense", "--budget", "1kB", "--json").stdout)
    assert found["judged"] is True
    assert found["budget"] == 1000
    assert found["documents"] == 30
    assert found["recommended"] == next(row["name"] for row in found["settings"] if row["recommended"])
    assert all(list(row["bytes_per_document"]) == ["dense", "all"] for row in found["settings"])


def test_a_budget_under_which_nothing_fits_is_said(run, dataset):
    result = run("size", dataset, "--mode", "dense", "--budget", "10")
    assert result.exit_code == 0
    assert "Nothing fits within 10 B" in result.stdout


def test_documents_alone_are_measured_by_agreement(run, docs):
    result = run("size", docs, "--queries", "3")
    assert result.exit_code == 0, result.output
    assert "agreement with full precision" in result.stdout
    assert "sentences of the documents stand in for queries" in result.stdout


def test_untrained_modes_are_said(run, dataset):
    result = run("size", dataset, "--model", "untrained", "--json")
    assert json.loads(result.stdout)["untrained"] == ["sparse", "multi_vector"]
    assert "without training" in result.stderr
    assert "without training" not in run("size", dataset, "--model", "untrained", "--mode", "dense").stderr


def test_what_is_wrong_is_found_before_a_model_is_loaded(run, dataset, loaded):
    assert run("size", "nowhere-at-all").exit_code == 4
    assert run("size", dataset, "--budget", "two").exit_code == 2
    assert "did you mean 'dense'" in run("size", dataset, "--mode", "dens").stderr
    assert loaded == []
    (dataset / "corpus.jsonl").write_text("broken\n")
    assert run("size", dataset).exit_code == 5


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("2GB", 2 * 10**9),
        ("1.5 GiB", 1610612736),
        ("500m", 5 * 10**8),
        ("12345", 12345),
        (".5kb", 500),
        ("1TiB", 2**40),
    ],
)
def test_sizes_are_read_as_people_write_them(text, size):
    assert parsed_size(text) == size


@pytest.mark.parametrize("text", ["", "GB", "-1GB", "2XB", "1iB", "0", "two"])
def test_what_is_no_size_is_refused(text):
    with pytest.raises(UsageError, match="--budget"):
        parsed_size(text)
