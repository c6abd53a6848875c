import pytest

from curation.synthesis.jobs import LONG, OTHER, job, passage
from trine.curation.synthesis.checks import Candidate, Seen, candidates
from trine.curation.synthesis.parsing import Rejected


def outcome(one, *texts, prompt=None):
    (found,) = candidates(one, dict(zip(one.group.fields, texts, strict=True)), prompt=prompt)
    return found


def test_a_valid_example_has_its_sides_language_and_prompts():
    found = outcome(job("short-long", "ko"), "파드가 뭐야", LONG, OTHER, prompt="P: ")
    assert isinstance(found, Candidate)
    example = found.example
    assert (example.query, example.positives, example.negatives, example.lang) == (
        "파드가 뭐야",
        (LONG,),
        (OTHER,),
        "ko",
    )
    assert (example.query_prompt, example.passage_prompt) == ("P: ", None)
    same = outcome(job("sts", "ko"), "비가 온다.", "비가 내린다.", "눈이 온다.", prompt="P: ").example
    assert (same.query_prompt, same.passage_prompt) == ("P: ", "P: ")
    pair = outcome(job("short-short", "ko"), "나사를 돌리는 공구", "드라이버").example
    assert (pair.negatives, pair.query_prompt) == ((), None)


@pytest.mark.parametrize(
    ("group", "texts", "reason"),
    [
        ("short-long", ("what is a pod", LONG, OTHER), "wrong language"),
        ("short-long", ("파드가 뭐야", "The pod is the unit. " * 8, OTHER), "wrong language"),
        ("short-long", ("파드가 뭐야", LONG, "노드이다."), "too short"),
        ("short-long", ("파드가 뭐야", LONG, LONG.replace(" ", "  ")), "same text twice"),
        ("short-long", ("가장 작은 배포 단위이며 같은 노드 위에서", LONG, OTHER), "copied"),
        ("long-short", ("배송이 늦어 화가 났다고 적은 글", "배송", "환불"), "label in text"),
        ("long-short", ("환불이 늦어 화가 났다고 적은 글", "배송", "환불"), "label in text"),
        ("long-short", ("배송이 늦다고 적은 글", "물류", "물류"), "same text twice"),
        ("long-long", (LONG, "짧다."), "too short"),
    ],
)
def test_the_rules_of_the_groups(group, texts, reason):
    found = outcome(job(group, "ko"), *texts)
    assert isinstance(found, Rejected)
    assert found.reason == reason


def test_a_label_inside_another_word_is_not_in_the_text():
    one = job("long-short", "en")
    assert isinstance(outcome(one, "I started a smart campaign", "art", "pain"), Candidate)
    assert outcome(one, "I like Art.", "art", "pain").reason == "label in text"


def test_both_sides_of_a_translation_are_checked():
    one = next(each for each in (job("bitext", "ko", seed=seed) for seed in range(9)) if each.lang == "en")
    assert isinstance(outcome(one, "It rains.", "비가 온다.", "눈이 온다."), Candidate)
    assert outcome(one, "비가 온다.", "비가 온다.", "눈이 온다.").reason == "wrong language"
    assert outcome(one, "It rains.", "It is raining.", "눈이 온다.").reason == "wrong language"


def test_each_query_of_a_passage_stands_for_itself():
    one = job("grounded", passages=[passage()])
    texts = (
        "파드는 무엇을 담나요?",
        "pod container",
        "같은 노드 위에서 함께 실행되고 저장소와",
        "앱을 배포하려고 한다.",
    )
    found = candidates(one, dict(zip(one.group.fields, texts, strict=True)), prompt=None)
    assert [getattr(each, "reason", None) or each.field for each in found] == [
        *("question", "wrong language", "copied", "situation")
    ]
    assert found[0].example.positives == (LONG,)
    assert found[0].example.negatives == ()


def test_keywords_may_stand_in_the_passage():
    one = job("grounded", passages=[passage()])
    texts = dict.fromkeys(one.group.fields, "저장소와 네트워크를 나누어 쓴다")
    texts["keywords"] = "가장 작은 배포 단위이며 같은 노드"
    assert isinstance(candidates(one, texts, prompt=None)[1], Candidate)


def test_copies_and_near_copies_are_seen_once():
    seen = Seen()
    first = "겨울에 화분을 베란다에 두면 어떤 식물이 얼어 죽고 어떤 식물이 살아남는지 알려 주는 안내"
    seen.check(first)
    with pytest.raises(Rejected, match="near duplicate"):
        seen.check(first + "서")
    with pytest.raises(Rejected, match=r"^duplicate"):
        seen.check(f"  {first} ")
    seen.check("여름에 마당을 가꾸는 방법")
