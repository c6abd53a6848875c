import json
from collections import Counter

import pytest

from curation.synthesis.jobs import passage
from curation.synthesis.server import fields, good, is_brainstorm, reply, sentence
from trine.curation.consistency import Consistency, consistency_filter
from trine.curation.sections import word_spans
from trine.curation.synthesis.budget import Budget, Prices
from trine.curation.synthesis.comparison import columns, compare_modes, distinct, mean_similarity, wilson
from trine.curation.synthesis.modes import MODES
from trine.curation.synthesis.plan import Plan, mix_of
from trine.curation.synthesis.run import Settings
from trine.curation.synthesis.writing import Sampling
from trine.curation.texts import canonical
from trine.testing import HashingEncoder


def settings(count, *groups, **options):
    return Settings(mix_of(groups, ["ko"], grounded=False), count, **options)


def arms(comparison):
    return {arm.mode: arm for arm in comparison.arms}


def units_of(path):
    """The units of the queries and positives of a file, a "" behind each text."""
    found = []
    for line in path.read_text("utf-8").splitlines():
        row = json.loads(line)
        for text in (row["query"], row["pos"][0]):
            spelling = canonical(text)
            found += [spelling[start:end] for start, end in word_spans(spelling)] + [""]
    return found


def test_all_modes_have_the_same_jobs_and_the_same_core(serve, endpoint, tmp_path):
    server = serve()
    found = compare_modes(tmp_path, endpoint(server), settings(12, "short-long", "sts"))
    assert found.stopped == ""
    assert [arm.mode for arm in found.arms] == list(MODES)
    assert {(arm.jobs, arm.valid, arm.validity) for arm in found.arms} == {(12, 12, 1.0)}
    brainstorms = sum(map(is_brainstorm, server.bodies))
    assert brainstorms == 1  # shared by all
    assert {arm.mode: arm.calls for arm in found.arms} == {
        mode: 24 if mode == "free_then_json" else 12 for mode in MODES
    }
    assert sum(arm.calls for arm in found.arms) + brainstorms == server.paid
    firsts = [body["messages"][0]["content"] for body in server.bodies if len(body["messages"]) == 1]
    jobs = Plan(settings(12, "short-long", "sts").mix).take(12)
    for job in jobs:
        if job.group.name == "sts":
            same = [other for other in jobs if other.drawn == job.drawn and other.group == job.group]
            assert sum(first.startswith(job.core("")) for first in firsts) == 4 * len(same)


def test_what_is_measured_is_what_the_server_did(serve, endpoint, tmp_path):
    """Modes that ask for JSON at once get a broken answer each third time, and always the same words."""
    asked = Counter()

    def script(number, body):
        if is_brainstorm(body) or not fields(body):
            return None
        thought = len(body["messages"]) == 3
        asked[thought] += 1
        if not thought and "observation" not in fields(body) and asked[False] % 3 == 0:
            return reply(good(body)[:-9], usage=(100, 10))
        return reply(good(body), usage=(100, 10))

    server = serve(script)
    how = {"concurrency": 1, "budget": Budget(prices=Prices(1.0, 10.0))}
    modes = ("json_schema", "free_then_json")
    found = arms(compare_modes(tmp_path, endpoint(server), settings(30, "sts", **how), modes=modes))
    plain, free = found["json_schema"], found["free_then_json"]
    assert (plain.valid, plain.form_errors, dict(plain.reasons)) == (20, 10, {"malformed JSON": 10})
    assert plain.validity == pytest.approx(2 / 3)
    assert (free.valid, free.form_errors, free.calls) == (30, 0, 60)
    assert (plain.input_tokens, plain.output_tokens) == (3000, 300)
    assert plain.cost == pytest.approx((3000 + 3000) / 1e6)
    assert plain.cost_per_example == pytest.approx(plain.cost / 20)
    report = json.loads((tmp_path / "comparison.json").read_text("utf-8"))
    assert [row["valid"] for row in report["modes"]] == [20, 30]
    for mode, count in (("json_schema", 20), ("free_then_json", 30)):
        assert len((tmp_path / f"examples.{mode}.jsonl").read_text("utf-8").splitlines()) == count
    assert len((tmp_path / "rejects.json_schema.jsonl").read_text("utf-8").splitlines()) == 10
    units = {mode: units_of(tmp_path / f"examples.{mode}.jsonl") for mode in modes}
    assert len(units["json_schema"]) < len(units["free_then_json"])
    most = len(units["json_schema"])  # as many of both, for more text has fewer new words
    assert free.distinct_1 == pytest.approx(distinct(units["free_then_json"][:most], 1))
    assert free.distinct_2 == pytest.approx(distinct(units["free_then_json"][:most], 2))
    assert plain.distinct_2 == pytest.approx(distinct(units["json_schema"], 2))
    assert columns(plain)["valid"] == "20/30"
    assert columns(plain)["cost"] == "0.0060"


def test_consistency_is_measured_among_the_passages_of_all_modes(serve, endpoint, tmp_path, monkeypatch):
    passages = [passage(sentence(True, 30, number), document=f"{number}.md") for number in range(8)]

    def script(number, body):
        """With a reasoning field all queries repeat the passage's own number, without it none does."""
        if "observation" not in fields(body):
            return None
        text = next(one.text for one in passages if one.text in body["messages"][0]["content"])
        own = text.split()[-2]
        found = {name: f"{own} {sentence(True, 1, number * 9 + at)}" for at, name in enumerate(fields(body))}
        return reply(json.dumps(found | {"refusal": None}, ensure_ascii=False))

    mix = mix_of([], [], grounded=True)
    pools = []

    def filtered(examples, encoder, **options):
        pools.append(len(options["passages"]))
        return consistency_filter(examples, encoder, **options)

    monkeypatch.setattr("trine.curation.synthesis.sieve.consistency_filter", filtered)
    found = arms(
        compare_modes(
            tmp_path,
            endpoint(serve(script)),
            Settings(mix, 32),
            modes=("json_schema", "json_with_reasoning_field"),
            passages=passages,
            encoder=HashingEncoder(dense=512),
            consistency=Consistency(top=1),
        )
    )
    assert pools == [sum(arm.valid for arm in found.values())] * 2
    assert found["json_schema"].jobs == 32
    assert found["json_schema"].consistent < found["json_with_reasoning_field"].consistent


def test_a_comparison_that_was_stopped_goes_on(serve, endpoint, tmp_path):
    server = serve()
    small = settings(10, "sts", budget=Budget(max_tokens=5000), sampling=Sampling(max_tokens=500))
    single = [mode for mode in MODES if mode != "free_then_json"]
    first = compare_modes(tmp_path, endpoint(server), small, modes=single)
    assert first.stopped == "budget"
    assert sum(arm.valid for arm in first.arms) == server.paid < 40
    again = compare_modes(tmp_path, endpoint(server), settings(10, "sts", sampling=Sampling(max_tokens=500)))
    assert (again.stopped, server.paid) == ("", 50)
    assert [arm.valid for arm in again.arms] == [10] * 4
    for arm in first.arms:
        if not arm.jobs:
            assert (arm.validity, arm.distinct_1, arm.seconds_per_job, columns(arm)["95 %"]) == (None, None, None, "-")


def test_distinct_by_hand():
    units = ["a", "b", "a", "", "a", "b", ""]
    assert distinct(units, 1) == 2 / 5
    assert distinct(units, 2) == 2 / 3  # ab, ba, ab; nothing crosses the ""
    assert distinct([], 1) is None
    assert distinct([""], 2) is None


def test_similarity_by_hand():
    assert mean_similarity(["abcdef", "abcdef", "uvwxyz"]) == pytest.approx(1 / 3)
    assert mean_similarity(["abcdef", "abcdeg"]) == pytest.approx(1 / 3)  # one shared run of two each
    assert mean_similarity(["one"]) is None
    many = [sentence(True, 10, number) for number in range(80)]
    assert mean_similarity(many) == mean_similarity(many) < 0.2


def test_the_interval_by_hand():
    """Published example: 10 of 10 has the lower end n / (n + z²) = 0.7225."""
    low, high = wilson(10, 10)
    assert low == pytest.approx(10 / (10 + 1.959964**2))
    assert high == pytest.approx(1.0)
    assert wilson(0, 10) == pytest.approx((0.0, 1 - low))
    low, high = wilson(5, 10)
    assert low + high == pytest.approx(1.0)
