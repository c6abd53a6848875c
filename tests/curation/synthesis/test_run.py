import json
import os
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest

from curation.synthesis.hostile import PAID, UNPAID, Hostile
from curation.synthesis.jobs import passage
from curation.synthesis.server import Scripted, error, fields, good, is_brainstorm, reply, sentence
from trine.curation.consistency import Consistency
from trine.curation.synthesis.budget import Budget, Prices
from trine.curation.synthesis.modes import MODES
from trine.curation.synthesis.plan import mix_of
from trine.curation.synthesis.run import Settings, synthesize, write_rows
from trine.curation.synthesis.writing import Sampling
from trine.data.examples import open_examples
from trine.errors import UsageError
from trine.testing import HashingEncoder

TESTS = Path(__file__).parent.parent.parent


def rows(path):
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]


def settings(count, *groups, languages=("ko",), passages=False, **options):
    return Settings(mix_of(groups, languages if not passages else (), grounded=passages), count, **options)


@pytest.mark.parametrize("mode", MODES)
def test_all_groups_in_two_languages(serve, endpoint, tmp_path, mode):
    server = serve()
    done = synthesize(tmp_path, endpoint(server), settings(60, languages=("ko", "en"), mode=mode, instruct=True))
    assert (done.stopped, done.examples, done.report["rejected"]) == ("", 60, 0)
    written = rows(tmp_path / "examples.jsonl")
    assert Counter(row["group"] for row in written).keys() == {
        *("short-long", "long-short", "short-short", "long-long", "sts", "bitext")
    }
    assert {row["lang"] for row in written} == {"ko", "en", "ko-en", "en-ko"}
    for row in written:
        assert row["query_prompt"] == f"Instruct: {row['task']}\nQuery: "
        assert ("passage_prompt" in row) == (row["group"] in ("sts", "bitext"))
        assert (row["source"], row["mode"]) == ("synthesis:scripted", mode)
        assert bool(row["neg"]) == (row["group"] not in ("short-short", "long-long"))
    report = json.loads((tmp_path / "report.json").read_text("utf-8"))
    assert report["examples"] == 60
    assert report["calls"]["paid_now"] == server.paid
    assert report["tokens"] == {"input": 100 * server.paid, "output": 50 * server.paid}
    calls = 2 if mode == "free_then_json" else 1
    assert report["usage"]["sts"]["calls"] == calls * report["groups"]["sts"]["examples"]
    assert open_examples(tmp_path / "examples.jsonl").format == "flag_embedding"
    assert len(open_examples(tmp_path / "examples.jsonl")) == 60


def test_the_second_step_is_a_fresh_call_for_one_brainstormed_task(serve, endpoint, tmp_path):
    server = serve()
    synthesize(tmp_path, endpoint(server), settings(6, "short-long", per_task=2))
    assert is_brainstorm(server.bodies[0])
    examples = [body for body in server.bodies if not is_brainstorm(body)]
    assert all(len(body["messages"]) == 1 for body in examples)
    tasks = [row["task"] for row in rows(tmp_path / "examples.jsonl")]
    assert [tasks[0], tasks[2], tasks[4]] == [tasks[1], tasks[3], tasks[5]]
    assert len(set(tasks)) == 3
    for task in set(tasks):
        assert sum(task in body["messages"][0]["content"] for body in examples) == 2


def test_everything_that_can_go_wrong_is_an_example_or_a_counted_reject(serve, endpoint, tmp_path, waits):
    script = Hostile()
    server = serve(script)
    done = synthesize(
        tmp_path,
        endpoint(server, timeout=0.4, retries=8),
        settings(110, "short-long", "sts", mode="json_schema", concurrency=4),
        wait=waits.append,
    )
    assert done.stopped == ""
    assert set(script.used) == {*PAID, *UNPAID}
    written, rejects = rows(tmp_path / "examples.jsonl"), rows(tmp_path / "rejects.jsonl")
    brainstorms = done.report["usage"]["brainstorm"]["calls"]
    assert len(written) == done.examples == 110
    assert len(written) + len(rejects) + brainstorms == server.paid == done.report["calls"]["in_journal"]
    reasons = Counter(row["reason"] for row in rejects)
    assert dict(reasons) == done.report["reasons"]
    assert set(reasons) >= {
        *("malformed JSON", "truncated", "refused", "filtered", "wrong language", "missing key", "wrong type"),
        *("empty", "malformed response", "broken characters"),
    }
    assert reasons["refused"] >= 3
    used = Counter(script.used)
    assert reasons["duplicate"] == used["duplicate"] - 1 >= 1
    assert 3.0 in waits
    assert done.report["calls"]["retried"].keys() >= {
        "HTTP 429",
        "HTTP 500",
        "HTTP 503",
        "connection failed",
        "time-out",
    }
    assert len({row["query"] for row in written}) == len(written)
    assert done.report["calls"]["requests_sent"] == len(server.bodies)


def test_a_run_that_is_done_repeats_no_call_and_a_longer_one_only_what_is_new(serve, endpoint, tmp_path):
    server = serve(Hostile())
    how = {"mode": "free_then_json", "concurrency": 4}
    wait = lambda seconds: None  # noqa: E731
    place = endpoint(server, timeout=0.4, retries=8)
    first = synthesize(tmp_path, place, settings(20, "short-long", "bitext", **how), wait=wait)
    before = (tmp_path / "examples.jsonl").read_bytes(), (tmp_path / "rejects.jsonl").read_bytes()
    paid, sent = server.paid, len(server.bodies)
    again = synthesize(tmp_path, place, settings(20, "short-long", "bitext", **how), wait=wait)
    assert ((tmp_path / "examples.jsonl").read_bytes(), (tmp_path / "rejects.jsonl").read_bytes()) == before
    assert (server.paid, len(server.bodies)) == (paid, sent)
    assert again.report["calls"]["paid_now"] == 0
    assert again.report["tokens"] == first.report["tokens"]
    synthesize(tmp_path, place, settings(30, "short-long", "bitext", **how), wait=wait)
    written = rows(tmp_path / "examples.jsonl")
    assert [row["query"] for row in written][:15] == [json.loads(line)["query"] for line in before[0].splitlines()][:15]
    assert server.paid < 2 * paid


@pytest.mark.skipif(os.name == "nt", reason="signals")
@pytest.mark.parametrize("mode", ["json_schema", "free_then_json"])
def test_a_killed_run_goes_on_and_repeats_no_paid_call(endpoint, tmp_path, mode):
    server = Scripted(delay=0.05)
    environment = {**os.environ, "PYTHONPATH": str(TESTS)}
    command = [sys.executable, "-m", "curation.synthesis.kill_worker", str(tmp_path), server.url, mode]
    for least in (8, 25):
        process = subprocess.Popen(command, env=environment, cwd=TESTS, stderr=subprocess.PIPE)
        until = time.monotonic() + 60
        while server.paid < least and process.poll() is None and time.monotonic() < until:
            time.sleep(0.01)
        process.kill()
        _, errors = process.communicate()
        assert process.returncode == -9, errors.decode()
        time.sleep(0.2)  # what is in flight comes to its end
    assert not (tmp_path / "examples.jsonl").exists()
    lost = server.paid - len([row for row in rows_whole(tmp_path / "journal.jsonl") if "key" in row])
    assert 0 <= lost <= 2 * 4  # in flight at either kill
    done = synthesize(tmp_path, endpoint(server), settings(40, "short-long", "sts", mode=mode, concurrency=4))
    assert (done.stopped, done.examples) == ("", 40)
    assert server.paid == done.report["calls"]["in_journal"] + lost
    keys = [row["key"] for row in rows(tmp_path / "journal.jsonl") if "key" in row]
    assert len(keys) == len(set(keys))
    server.close()


def rows_whole(path):
    """The lines that a kill did not cut short."""
    return [json.loads(line) for line in path.read_bytes().split(b"\n")[:-1]]


def test_a_budget_is_never_passed_and_a_larger_one_goes_on(serve, endpoint, tmp_path):
    server = serve(lambda number, body: reply(good(body), usage=(200, 100)))
    sampling = {"concurrency": 4, "mode": "json_schema", "sampling": Sampling(max_tokens=500)}
    small = Budget(max_cost=0.02, prices=Prices(2.0, 4.0))
    done = synthesize(tmp_path, endpoint(server), settings(100, "sts", budget=small, **sampling))
    assert done.stopped == "budget"
    assert 0.016 < done.report["cost"] <= 0.02  # one longest answer may be left
    assert done.report["cost"] == pytest.approx(server.paid * (200 * 2 + 100 * 4) / 1e6)
    assert done.examples == server.paid == len(rows(tmp_path / "examples.jsonl"))
    paid = server.paid
    more = Budget(max_cost=0.03, prices=Prices(2.0, 4.0))
    again = synthesize(tmp_path, endpoint(server), settings(100, "sts", budget=more, **sampling))
    assert paid < server.paid
    assert 0.02 < again.report["cost"] <= 0.03


def test_an_endpoint_without_schemas_ends_with_the_remedy_and_writes_what_it_has(serve, endpoint, tmp_path):
    def script(number, body):
        return error(400, "response_format is not supported") if fields(body) and "response_format" in body else None

    server = serve(script)
    done = synthesize(tmp_path, endpoint(server), settings(10, "short-long"))
    assert (done.stopped, done.examples) == ("endpoint", 0)
    assert "--format prompt" in str(done.error)
    assert len(server.bodies) <= 1 + 8
    assert json.loads((tmp_path / "report.json").read_text())["error"] == str(done.error)
    again = synthesize(tmp_path, endpoint(server), settings(10, "short-long", format="prompt"))
    assert (again.stopped, again.examples) == ("", 10)
    assert again.report["usage"]["brainstorm"]["calls"] == 1
    assert sum(map(is_brainstorm, server.bodies)) == 1


def test_an_endpoint_that_is_down_ends_the_run(serve, endpoint, tmp_path, waits):
    server = serve(lambda number, body: error(500, "down") if number > 20 else None)
    place = endpoint(server, retries=1)
    done = synthesize(tmp_path, place, settings(50, "sts", concurrency=2), wait=waits.append)
    assert done.stopped == "endpoint"
    assert "in 2 tries" in str(done.error)
    assert done.examples == 20
    assert done.report["failed_calls"] >= 5
    assert len(server.bodies) < 40


def test_an_endpoint_that_only_writes_nonsense_is_given_up(serve, endpoint, tmp_path):
    server = serve(lambda number, body: reply("no"))
    done = synthesize(tmp_path, endpoint(server), settings(10, "sts"))
    assert (done.stopped, done.examples) == ("attempts", 0)
    assert done.report["reasons"] == {"no JSON object": server.paid}
    assert server.paid <= 50
    none = synthesize(tmp_path / "tasks", endpoint(server), settings(10, "short-long"))
    assert none.stopped == "tasks"
    assert none.report["tasks_rejected"] == {"no tasks": 3}
    assert [row["stage"] for row in rows(tmp_path / "tasks" / "rejects.jsonl")] == ["tasks"] * 3


def test_queries_for_one_s_own_passages(serve, endpoint, tmp_path):
    passages = [passage(sentence(True, 30, number), document=f"{number}.md") for number in range(5)]
    server = serve()
    done = synthesize(tmp_path, endpoint(server), settings(100, passages=True), passages=passages)
    assert (done.stopped, done.examples, server.paid) == ("documents", 20, 5)
    written = rows(tmp_path / "examples.jsonl")
    assert Counter(row["kind"] for row in written) == dict.fromkeys(("question", "keywords", "claim", "situation"), 5)
    assert {(row["document"], row["pos"][0]) for row in written} == {(one.document, one.text) for one in passages}
    assert all(row["neg"] == [] for row in written)


def test_the_consistency_filter_stands_behind(serve, endpoint, tmp_path):
    """A model that counts words believes those whose query repeats the passage's words."""
    passages = [passage(sentence(True, 30, number), document=f"{number}.md") for number in range(12)]
    texts = {one.text: " ".join(one.text.split()[-3:-1]) for one in passages}  # the passage's own number

    def script(number, body):
        text = next(text for text in texts if text in body["messages"][0]["content"])
        values = json.loads(good(body)) | {"keywords": texts[text], "claim": sentence(True, 5, 10_000 + number)}
        return reply(json.dumps(values, ensure_ascii=False))

    server = serve(script)
    encoder = HashingEncoder(dense=256)
    done = synthesize(
        tmp_path,
        endpoint(server),
        settings(40, passages=True, mode="json_schema"),
        passages=passages,
        encoder=encoder,
        consistency=Consistency(top=1),
    )
    summary = done.report["consistency"]
    inconsistent = [row for row in rows(tmp_path / "rejects.jsonl") if row["reason"] == "inconsistent"]
    assert summary["examples"] == done.examples + len(inconsistent)
    assert summary["kept"] == done.examples == len(rows(tmp_path / "examples.jsonl"))
    assert done.report["reasons"]["inconsistent"] == len(inconsistent) > 0
    assert all(row["query"] and row["pos"] for row in inconsistent)


def test_calls_run_at_the_same_time_and_no_more_than_asked_for(serve, endpoint, tmp_path):
    server = serve(delay=0.05)
    synthesize(tmp_path, endpoint(server), settings(12, "sts", concurrency=3))
    assert server.most_at_once == 3


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"mode": "json_shema"}, "did you mean 'json_schema'"),
        ({"per_task": 0}, "per_task 0"),
        ({"concurrency": 0}, "concurrency is 0"),
    ],
)
def test_settings_that_cannot_be(options, says):
    with pytest.raises(UsageError, match=says):
        settings(5, "sts", **options)
    with pytest.raises(UsageError, match="count is 0"):
        settings(0, "sts")


def test_rows_are_whole_or_not_there(tmp_path):
    target = tmp_path / "a.jsonl"
    write_rows(target, [{"a": "가"}, {"a": "\ud800"}])
    assert rows(target) == [{"a": "가"}, {"a": "\ud800"}]

    def broken():
        yield {"a": 1}
        raise ValueError("out of rows")

    with pytest.raises(ValueError, match="out of rows"):
        write_rows(target, broken())
    assert len(rows(target)) == 2
    assert [path.name for path in tmp_path.iterdir()] == ["a.jsonl"]
