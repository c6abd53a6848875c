import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from curation.synthesis.conftest import no_key, serve  # noqa: F401 -- fixtures
from curation.synthesis.jobs import LONG, OTHER
from curation.synthesis.server import Scripted, error, fields, reply

PROGRAM = [sys.executable, str(Path(__file__).with_name("fake_trine.py"))]


@pytest.fixture
def synthesize(run, serve):  # noqa: F811
    """Runs the command against a server."""

    def call(*options, server=None, out="out"):
        server = server or serve()
        return run("synthesize", out, "--endpoint", server.url, "--model", "scripted", *options)

    return call


def test_examples_for_training(synthesize, home, serve):  # noqa: F811
    server = serve()
    result = synthesize("--language", "ko", "--count", 12, server=server)
    assert result.exit_code == 0, result.output
    assert "12 examples, 0 rejects" in result.stdout
    assert f"{server.paid} calls paid now, 0 from the journal" in result.stdout
    assert len((home / "out" / "examples.jsonl").read_text("utf-8").splitlines()) == 12
    again = synthesize("--language", "ko", "--count", 12, server=server)
    assert "0 calls paid now" in again.stdout


def test_json(synthesize):
    result = synthesize("--group", "sts", "--count", 3, "--price-in", 1, "--price-out", 2, "--json")
    report = json.loads(result.stdout)
    assert (report["folder"], report["examples"], report["stopped"]) == ("out", 3, "")
    assert report["cost"] == pytest.approx(3 * (100 + 2 * 50) / 1e6)


def test_queries_for_documents_through_the_filter(synthesize, home):
    (home / "글").mkdir()
    (home / "글" / "파드.md").write_text(f"# 파드\n\n{LONG}\n\n# 노드\n\n{OTHER}\n", "utf-8")
    (home / "글" / "empty.md").touch()
    options = ["--documents", "글", "--count", 100, "--filter-model", "default", "--filter-top", 3]
    result = synthesize(*options, "--json")
    assert result.exit_code == 3, result.output
    assert "2 passages to write queries for" in result.stderr
    assert "empty.md" in result.stderr
    assert "passages are used up" in result.stderr
    report = json.loads(result.stdout)
    assert report["consistency"]["settings"]["top"] == 3
    assert report["consistency"]["examples"] == 8


def test_a_dry_run_shows_the_prompts_and_calls_nobody(run, serve):  # noqa: F811
    server = serve()
    options = ["--count", "90", "--language", "ko", "--price-in", "1", "--price-out", "1", "--dry-run"]
    result = run("synthesize", "out", "--endpoint", server.url, "--model", "m", *options)
    assert result.exit_code == 0, result.output
    assert "--- example short-long/ko ---" in result.stdout
    assert "<앞에서 떠올린 과제>" in result.stdout
    assert "90 examples in" in result.stdout
    assert "in money. Nothing was sent." in result.stdout
    assert server.bodies == []
    assert not Path("out").exists()
    shown = json.loads(run("synthesize", "out", *options, "--json").stdout)
    assert shown["jobs"] == 90
    everything = json.loads(run("synthesize", "out", *options, "--compare-modes", "--json").stdout)
    assert everything["jobs"] == 360


def test_modes_side_by_side(synthesize, home):
    result = synthesize("--group", "sts", "--language", "ko", "--count", 4, "--compare-modes")
    assert result.exit_code == 0, result.output
    for mode in ("json_schema", "free_then_json", "json_with_reasoning_field", "json_with_reasoning_field_last"):
        assert any(line.startswith(f"{mode} ") and "4/4" in line for line in result.stdout.splitlines())
    assert (home / "out" / "comparison.json").is_file()
    report = json.loads(synthesize("--group", "sts", "--count", 4, "--compare-modes", "--json", out="two").stdout)
    assert [row["valid"] for row in report["modes"]] == [4] * 4


def test_a_budget_that_is_reached_is_part_of_the_way(synthesize):
    result = synthesize("--group", "sts", "--count", 100, "--max-tokens", 5000)
    assert result.exit_code == 3
    assert "the budget is reached" in result.stderr


def test_an_endpoint_that_cannot_is_an_error_with_the_remedy(synthesize, serve):  # noqa: F811
    server = serve(lambda number, body: error(400, "json_schema is not supported") if fields(body) else None)
    result = synthesize("--group", "sts", "--count", 2, server=server)
    assert result.exit_code == 1
    assert "error: " in result.stderr
    assert "--format prompt" in result.stderr


def test_nonsense_is_given_up(synthesize, serve):  # noqa: F811
    result = synthesize("--group", "sts", "--count", 2, server=serve(lambda number, body: reply("no")))
    assert result.exit_code == 1
    assert "rejects.jsonl says why" in result.stderr


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--group", "short_long"], "did you mean 'short-long'"),
        (["--language", "kr"], "no language called 'kr'"),
        (["--mode", "json"], "did you mean 'json_schema'"),
        (["--format", "xml"], "json_object"),
        (["--max-cost", "1"], "--price-in"),
        (["--compare-modes", "--mode", "json_schema"], "no effect"),
        (["--filter-top", "3"], "without --filter-model"),
        (["--group", "grounded"], "--documents"),
        (["--api-key-env", "NOWHERE"], "NOWHERE is not set"),
        (["--temperature", "9"], "temperature is 9"),
        (["--timeout", "0"], "timeout 0"),
    ],
)
def test_what_cannot_be_used_says_what_can(synthesize, home, options, says):
    result = synthesize(*options)
    assert result.exit_code == 2
    assert says in result.stderr
    assert not (home / "out").exists()


def test_without_an_endpoint_and_without_the_documents(run):
    result = run("synthesize", "out")
    assert result.exit_code == 2
    assert "--endpoint and --model" in result.stderr
    assert run("synthesize", "out", "--documents", "nowhere", "--dry-run").exit_code == 4
    assert run("synthesize", "out", "--endpoint", "localhost", "--model", "m").exit_code == 2


@pytest.mark.skipif(os.name == "nt", reason="signals")
def test_ctrl_c_keeps_what_is_paid(home):
    server = Scripted(delay=0.3)
    options = ["--endpoint", server.url, "--model", "m", "--group", "sts", "--count", "40", "--concurrency", "2"]
    process = subprocess.Popen(
        [*PROGRAM, "synthesize", "out", *options], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    while server.paid < 3 and process.poll() is None:
        pass
    process.send_signal(signal.SIGINT)
    output, errors = process.communicate(timeout=30)
    assert process.returncode == 130, errors.decode()
    assert "the same command goes on" in errors.decode()
    written = len((home / "out" / "examples.jsonl").read_text("utf-8").splitlines())
    assert written == server.paid >= 3
    assert f"{written} examples" in output.decode()
    server.close()
