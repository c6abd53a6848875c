from collections import Counter

import pytest

from curation.synthesis.jobs import job, passage
from trine.curation.synthesis.plan import Plan, mix_of
from trine.errors import UnknownName, UsageError


def shares(jobs, key):
    counts = Counter(map(key, jobs))
    return {name: count / len(jobs) for name, count in counts.items()}


def test_the_same_settings_give_the_same_jobs_however_they_are_taken():
    mix = mix_of([], ["ko", "en"], grounded=False, seed=3)
    whole = Plan(mix).take(50)
    parts = Plan(mix)
    assert [*parts.take(7), *parts.take(30), *parts.take(13)] == whole
    assert Plan(mix_of([], ["ko", "en"], grounded=False, seed=4)).take(50) != whole


def test_groups_have_the_papers_shares_and_languages_their_own():
    jobs = Plan(mix_of([], ["ko=0.75", "en=0.25"], grounded=False)).take(2000)
    found = shares(jobs, lambda one: one.group.name)
    for name, thousands in {"short-long": 167, "long-short": 122, "sts": 99, "bitext": 89, "long-long": 17}.items():
        assert found[name] == pytest.approx(thousands / 507, abs=0.001)
    single = [one for one in jobs if one.group.name != "bitext"]
    assert shares(single, lambda one: one.lang)["ko"] == pytest.approx(0.75, abs=0.04)


def test_shares_of_one_s_own():
    jobs = Plan(mix_of(["sts=3", "short-short"], ["ko"], grounded=False)).take(40)
    assert Counter(one.group.name for one in jobs) == {"sts": 30, "short-short": 10}


def test_the_papers_languages():
    jobs = Plan(mix_of(["short-short"], ["paper"], grounded=False)).take(3000)
    found = shares(jobs, lambda one: one.lang)
    assert found["en"] == pytest.approx(0.431, abs=0.03)
    assert len(found) > 60


def test_prompts_are_korean_for_korean_texts():
    jobs = Plan(mix_of(["short-long"], ["ko", "en", "ja"], grounded=False)).take(60)
    assert {(one.lang, one.prompts) for one in jobs} == {("ko", "ko"), ("en", "en"), ("ja", "en")}
    assert {one.drawn["language"] for one in jobs} == {"한국어", "English", "Japanese"}
    english = Plan(mix_of(["short-long"], ["ko"], grounded=False, prompts="en")).take(3)
    assert {(one.prompts, one.drawn["language"]) for one in english} == {("en", "Korean")}
    ranks = {(one.prompts, one.rank) for one in jobs}
    assert len(ranks) == 60
    assert {rank for prompts, rank in ranks if prompts == "ko"} == set(
        range(len([j for j in jobs if j.prompts == "ko"]))
    )


def test_translations_have_two_languages():
    both = Plan(mix_of(["bitext"], ["ko", "en", "ja"], grounded=False)).take(100)
    assert all(one.lang != one.target for one in both)
    assert len({(one.lang, one.target) for one in both}) == 6
    alone = Plan(mix_of(["bitext"], ["ko"], grounded=False)).take(30)
    assert {(one.lang, one.target) for one in alone} == {("ko", "en"), ("en", "ko")}
    one = next(one for one in alone if one.lang == "en")
    assert [language.code for language in one.languages] == ["en", "ko", "ko"]
    assert one.language_label == "en-ko"
    assert "English" in one.core("") or "영어" in one.core("")


def test_the_core_holds_task_and_values_and_no_open_braces():
    for prompts in ("en", "ko"):
        for one in Plan(mix_of([], ["ko", "en"], grounded=False, prompts=prompts)).take(60):
            core = one.core("THE TASK")
            assert "{" not in core
            assert ("THE TASK" in core) == one.group.two_step
            assert all(value in core for value in one.drawn.values())


def test_each_passage_is_used_once_and_then_there_is_no_more():
    passages = [passage(f"글 {number}. " + passage().text, document=str(number)) for number in range(5)]
    plan = Plan(mix_of([], [], grounded=True), passages)
    first, rest = plan.take(9), plan.take(100)
    assert (len(first), len(rest)) == (3, 2)
    assert sorted(one.grounding.document for one in [*first, *rest]) == list("01234")
    assert plan.take(1) == []
    mixed = Plan(mix_of(["grounded=1", "sts=1"], ["ko"], grounded=True), passages[:1]).take(20)
    assert Counter(one.group.name for one in mixed) == {"grounded": 1, "sts": 16}


@pytest.mark.parametrize(
    ("text", "said", "lang", "prompts"),
    [
        (passage().text, "", "ko", "ko"),
        (passage().text, "en", "ko", "ko"),
        ("The pod is the smallest unit that can be deployed, and it holds one or more containers.", "", "en", "en"),
        ("Ein Pod ist die kleinste Einheit, die ausgeliefert werden kann.", "de", "de", "en"),
        ("Ein Pod ist die kleinste Einheit, die ausgeliefert werden kann.", "", "", "en"),
        ("Ein Pod ist die kleinste Einheit, die ausgeliefert werden kann.", "german", "", "en"),
    ],
)
def test_queries_are_in_the_language_of_the_passage(text, said, lang, prompts):
    one = job("grounded", passages=[passage(text, lang=said, title="")])
    assert (one.lang, one.prompts) == (lang, prompts)
    assert text in one.core("")
    assert one.languages[0] is None or one.languages[0].code == lang
    if not lang:
        assert "the language of the passage" in one.core("")


def test_without_groups():
    assert list(mix_of([], [], grounded=True).groups) == ["grounded"]
    assert "bitext" not in mix_of([], ["en"], grounded=False).groups
    assert len(mix_of([], ["en"], grounded=False).groups) == 5
    assert len(mix_of([], ["ko"], grounded=False).groups) == 6


@pytest.mark.parametrize(
    ("groups", "languages", "grounded", "says"),
    [
        (["grounded"], [], False, "give it --documents"),
        (["sts"], [], True, "leave the documents out"),
        ([], ["ko"], True, "no effect on the group 'grounded'"),
        (["bitext"], [], False, "two languages"),
        (["bitext"], ["en"], False, "two languages"),
        (["sts"], ["paper", "ko"], False, "no language called 'paper'"),
    ],
)
def test_what_would_have_no_effect(groups, languages, grounded, says):
    with pytest.raises(UsageError, match=says):
        mix_of(groups, languages, grounded=grounded)


def test_typos_suggest_the_nearest():
    with pytest.raises(UnknownName, match="did you mean 'short-long'"):
        mix_of(["short_long"], [], grounded=False)
    with pytest.raises(UnknownName, match="'auto'"):
        mix_of([], [], grounded=False, prompts="aut")
