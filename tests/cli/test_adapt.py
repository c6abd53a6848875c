import json

import pytest

from models import tiny
from recipes import village

SETTINGS = ["--set", "stage1.steps=30", "--set", "stage2.steps=10", "--set", "batch_size=32"]
LEARNING = ["--set", "learning_rate=3e-3", "--set", "dropout=0.0"]


@pytest.fixture(scope="module")
def start(tmp_path_factory):
    return tiny.encoder("bert").save(tmp_path_factory.mktemp("start") / "model")


@pytest.fixture(autouse=True)
def quick_analyzer(monkeypatch):
    """Morphemes take most of the time here, and decide nothing."""
    for module in ("trine.evaluation.evaluate", "trine.curation.retrievers"):
        monkeypatch.setattr(f"{module}.default_analyzer", lambda: "bigram")


@pytest.fixture
def many(home):
    """Enough documents for the usual division."""
    return village.write(home / "many", documents=40)


def test_a_better_model_is_written_and_can_be_used(run, home, many, start):
    (many / "empty.md").touch()
    result = run("adapt", many, "--out", "mine", "--model", start, *SETTINGS, *LEARNING, "--json")
    assert result.exit_code == 3, result.output  # a file was skipped
    report = json.loads(result.stdout)
    assert report["better"] is True
    assert report["folder"] == "mine"
    assert report["after"][report["system"]] > report["before"][report["start_system"]]
    assert "empty.md" in result.stderr
    assert "stage2: training 10 steps" in result.stderr
    assert (home / "mine.training" / "domain" / "held_out" / "corpus.jsonl").is_file()
    found = run("index", many, "--model", "mine", "--analyzer", "bigram")
    assert found.exit_code == 3, found.output


def test_a_model_that_is_not_better_has_an_exit_code_of_its_own(run, home, many, start):
    idle = ["--out", "mine", "--model", start, "--set", "steps=2", "--set", "learning_rate=1e-9"]
    result = run("adapt", many, *idle, "--quiet")
    assert result.exit_code == 6, result.output
    assert "NOT better" in result.stdout
    assert "--keep-worse" in result.stderr
    assert "training 2 steps" not in result.stderr
    assert not (home / "mine").exists()
    again = run("adapt", many, *idle, "--keep-worse")
    assert again.exit_code == 6
    assert "training 2 steps" not in again.stderr
    assert "because --keep-worse asked for it" in again.stderr
    assert (home / "mine" / "README.md").is_file()


def test_a_judged_set_of_one_s_own_decides(run, home, many, start):
    judged = home / "judged"
    (judged / "qrels").mkdir(parents=True)
    rows = [{"_id": f"d{n}", "text": korean} for n, (_, korean) in enumerate(village.CONCEPTS)]
    (judged / "corpus.jsonl").write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), "utf-8")
    rows = [{"_id": f"q{n}", "text": english} for n, (english, _) in enumerate(village.CONCEPTS)]
    (judged / "queries.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    lines = ["query-id\tcorpus-id\tscore", *(f"q{n}\td{n}\t1" for n in range(len(rows)))]
    (judged / "qrels" / "test.tsv").write_text("\n".join(lines) + "\n")
    options = ["--out", "mine", "--model", start, "--held-out", judged, *SETTINGS, *LEARNING, "--json"]
    report = json.loads(run("adapt", many, *options).stdout)
    assert report["stages"]["domain"]["held_out"] == {"documents": 0, "queries": 12, "corpus": 12}


def test_ctrl_c_says_how_it_goes_on(run, many, start, monkeypatch):
    def interrupted(*args, **options):
        raise KeyboardInterrupt

    monkeypatch.setattr("trine.recipes.adapt.train_encoder", interrupted)
    result = run("adapt", many, "--out", "mine", "--model", start, *SETTINGS)
    assert result.exit_code == 130
    assert "the same command goes on" in result.stderr


@pytest.mark.parametrize(
    ("options", "named"),
    [
        (["--set", "stage3.steps=1"], "stage1"),
        (["--set", "stage1.stepps=1"], "steps"),
        (["--set", "steps"], "KEY=VALUE"),
        (["--share", "1.5"], "between 0 and 1"),
        (["--share", "0.2", "--held-out", "judged"], "no effect"),
        (["--time-budget", "0"], "above 0"),
    ],
)
def test_what_cannot_be_used_says_what_can(run, many, start, options, named):
    result = run("adapt", many, "--out", "mine", "--model", start, *options)
    assert result.exit_code == 2
    assert named in result.stderr


def test_what_is_not_there_is_not_found_and_too_little_says_what_is_needed(run, docs, start):
    assert run("adapt", "nothing", "--out", "mine", "--model", start).exit_code == 4
    assert run("adapt", docs, "--out", "mine", "--model", "nowhere").exit_code == 4
    assert run("adapt", docs, "--out", "mine", "--model", start, "--held-out", "nothing").exit_code == 4
    result = run("adapt", docs, "--out", "mine", "--model", start, "--held-out", docs)
    assert result.exit_code == 5
    assert "corpus.jsonl" in result.stderr
    result = run("adapt", docs, "--out", "mine", "--model", start)
    assert result.exit_code == 2
    assert "40 queries to measure on" in result.stderr
