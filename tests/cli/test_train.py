import json

import pytest

from models import tiny
from trine.recipes import RECIPES

SETTINGS = ["--set", "query_length=16", "--set", "passage_length=32", "--set", "steps=2", "--set", "batch_size=4"]


@pytest.fixture(scope="module")
def start(tmp_path_factory):
    return tiny.encoder("bert").save(tmp_path_factory.mktemp("start") / "model")


@pytest.fixture
def pairs(home):
    path = home / "pairs.jsonl"
    rows = [{"query": text[:8], "pos": [text]} for text in tiny.CORPUS]
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return path


@pytest.fixture
def judged(home):
    folder = home / "judged"
    (folder / "qrels").mkdir(parents=True)
    for name, cut in (("corpus", None), ("queries", 8)):
        rows = [{"_id": f"{name[0]}{n}", "text": text[:cut]} for n, text in enumerate(tiny.CORPUS)]
        lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
        (folder / f"{name}.jsonl").write_text(lines, encoding="utf-8")
    lines = ["query-id\tcorpus-id\tscore", *(f"q{n}\tc{n}\t1" for n in range(len(tiny.CORPUS)))]
    (folder / "qrels" / "test.tsv").write_text("\n".join(lines) + "\n")
    return folder


def test_recipes_are_listed(run):
    result = run("train", "list")
    assert result.exit_code == 0
    assert [line.split()[0] for line in result.stdout.splitlines()] == list(RECIPES)
    rows = json.loads(run("train", "list", "--json").stdout)
    assert {row["name"] for row in rows} == set(RECIPES)
    assert "2402.03216" in next(row["source"] for row in rows if row["name"] == "bge_m3")


def test_a_recipe_is_shown_with_what_was_changed(run, home):
    result = run("train", "bge_m3", "--show", "--set", "steps=7", "--set", "modes=dense,sparse")
    shown = json.loads(result.stdout)
    assert (shown["steps"], shown["epochs"], shown["modes"]) == (7, None, ["dense", "sparse"])
    assert not list(home.iterdir())


def test_a_model_is_trained_measured_and_kept(run, home, start, pairs, judged):
    options = ["--model", start, "--out", "better", "--validation", judged, "--licence", "pairs=CC0"]
    result = run("train", "bge_m3_small", pairs, *options, *SETTINGS, "--json")
    assert result.exit_code == 0, result.output
    report = json.loads(result.stdout)
    assert (report["steps"], report["stopped_early"]) == (2, False)
    assert set(report["after"]) == {"dense", "sparse", "multi_vector", "all (m3)", "ndcg@10"}
    assert report["gain"]["low"] <= report["gain"]["mean"] <= report["gain"]["high"]
    record = json.loads((home / "better" / "training.json").read_text(encoding="utf-8"))
    assert record["stages"][0]["data"][0]["licence"] == "CC0"
    assert run("encode", "--model", "better", "-", stdin="글\n").exit_code == 0


def test_people_are_told_what_came_of_it(run, start, pairs, judged):
    frozen = ["--set", "learning_rate=1e-12"]
    options = ["-m", start, "-o", "out", "--validation", judged, *SETTINGS, *frozen]
    result = run("train", "e5_pretrain_small", pairs, *options)
    assert result.exit_code == 0, result.output
    assert "out: 2 steps" in result.stdout
    assert "nDCG@10" in result.stdout
    assert "not better than its start" in result.stderr


def test_bad_lines_are_named_or_left_out(run, start, pairs):
    pairs.write_text(pairs.read_text(encoding="utf-8") + '{"query": "x"}\n', encoding="utf-8")
    options = ["-m", start, *SETTINGS]
    result = run("train", "e5_pretrain_small", pairs, "-o", "one", *options)
    assert result.exit_code == 5
    assert f"pairs.jsonl:{len(tiny.CORPUS) + 1}" in result.stderr
    result = run("train", "e5_pretrain_small", pairs, "-o", "two", *options, "--skip-errors")
    assert result.exit_code == 0, result.output
    assert "1 of pairs" in result.stderr


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["bge_m4", "--show"], "bge_m3"),
        (["bge_m3", "--show", "--set", "learnin_rate=1"], "learning_rate"),
        (["bge_m3", "--show", "--set", "steps"], "KEY=VALUE"),
        (["bge_m3", "--show", "--set", "steps=many"], "steps='many'"),
        (["bge_m3", "--out", "x"], "DATA is missing"),
        (["bge_m3", "pairs.jsonl"], "--out is missing"),
        (["bge_m3", "pairs.jsonl", "--out", "x", "--licence", "CC0"], "--licence"),
        (["distill_small", "pairs.jsonl", "--out", "x"], "--teacher"),
    ],
)
def test_what_cannot_be_used_says_what_can(run, pairs, arguments, named):
    result = run("train", *arguments)
    assert result.exit_code == 2
    assert named in result.stderr


def test_missing_data(run, start):
    assert run("train", "e5_pretrain_small", "nothing.jsonl", "-m", start, "-o", "out", *SETTINGS).exit_code == 5


def test_columns_of_any_name(run, home, start):
    table = home / "table.tsv"
    table.write_text(
        "".join(f"{a}\t{b}\t{n}\n" for n, (a, b) in enumerate([("질문", "답"), *[("q", "a")] * 4])), "utf-8"
    )
    options = ["--model", start, "--out", "better", "--columns", "질문,답", *SETTINGS]
    assert run("train", "e5_pretrain_small", table, *options).exit_code == 0
    refused = run("train", "e5_pretrain_small", table, "--format", "colums", "--model", start, "--out", "x")
    assert refused.exit_code == 2
    assert "did you mean 'columns'" in refused.stderr
