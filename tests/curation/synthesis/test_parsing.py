import json

import pytest

from trine.curation.llm import Reply
from trine.curation.synthesis.parsing import Rejected, payload, tasks, whole_text

FIELDS = ("query", "positive")
GOOD = {"refusal": None, "query": "질문 하나", "positive": " a document \n"}


def said(content, finish="stop", **how):
    return Reply(content if isinstance(content, str) else json.dumps(content, ensure_ascii=False), finish, **how)


@pytest.mark.parametrize(
    "text",
    [
        json.dumps(GOOD),
        "Here you are:\n```json\n" + json.dumps(GOOD, indent=2) + "\n```\nAnything else?",
        "```\n" + json.dumps(GOOD) + "\n```",
        "Sure! " + json.dumps(GOOD) + " I hope it helps.",
        "<think>{not json}</think>\n" + json.dumps(GOOD),
        json.dumps({"observation": "x", **GOOD, "extra": [1]}),
        json.dumps({key: value for key, value in GOOD.items() if key != "refusal"}),
        json.dumps({**GOOD, "refusal": "null"}),
    ],
)
def test_an_object_is_found_wherever_it_stands(text):
    assert payload(said(text), FIELDS) == {"query": "질문 하나", "positive": "a document"}


@pytest.mark.parametrize(
    ("reply", "reason"),
    [
        (said(GOOD, "length"), "truncated"),
        (said(GOOD, "content_filter"), "filtered"),
        (said("<html>", "malformed"), "malformed response"),
        (said("", "context_length"), "prompt too long"),
        (said("", refusal="I can't help with that."), "refused"),
        (said(""), "empty"),
        (said(" \n"), "empty"),
        (said("<think>and so on</think>"), "empty"),
        (said("no object at all"), "no JSON object"),
        (said('["a"]'), "no JSON object"),
        (said("I'm sorry, but I can't write that."), "refused"),
        (said("죄송하지만 요청하신 내용은 작성할 수 없습니다."), "refused"),
        (said('{"query": "a", "positive": "b'), "malformed JSON"),
        (said("{'query': 'a', 'positive': 'b'}"), "malformed JSON"),
        (said('{"query": "a" "positive": "b"}'), "malformed JSON"),
        (said("{" * 100_000), "malformed JSON"),
        (said('{"a":' * 50_000), "malformed JSON"),
        (said({"query": "a"}), "missing key"),
        (said({**GOOD, "query": ["a"]}), "wrong type"),
        (said({**GOOD, "query": None}), "wrong type"),
        (said({**GOOD, "query": 5}), "wrong type"),
        (said({**GOOD, "query": "  "}), "empty text"),
        (said({**GOOD, "query": "\u200b"}), "empty text"),
        (said({**GOOD, "query": "Query"}), "empty text"),
        (said({**GOOD, "query": "..."}), "empty text"),
        (said('{"query": "a\\ud800", "positive": "b"}'), "broken characters"),
        (said({**GOOD, "query": "가\ufffd나"}), "broken characters"),
        (said({**GOOD, "refusal": "해로운 내용이라 쓸 수 없습니다", "query": ""}), "refused"),
        (said({**GOOD, "positive": "I'm sorry, but I can't assist with that request."}), "refused"),
        (said({**GOOD, "positive": "죄송합니다. 해당 요청은 도와드릴 수 없습니다."}), "refused"),
    ],
)
def test_everything_else_has_a_reason(reply, reason):
    with pytest.raises(Rejected) as caught:
        payload(reply, FIELDS)
    assert caught.value.reason == reason


@pytest.mark.parametrize(
    "text",
    [
        "죄송하지만 배송이 늦어져서 환불을 받고 싶어요.",
        "I am sorry about the delay of your parcel.",
        "I can help you move.",
    ],
)
def test_a_text_that_is_sorry_is_no_refusal(text):
    assert payload(said({**GOOD, "positive": text}), FIELDS)["positive"] == text


LISTED = ["Given a symptom, find its cause.", "증상이 주어지면 원인을 찾는다."]


@pytest.mark.parametrize(
    "text",
    [
        "\n".join(LISTED),
        "1. " + LISTED[0] + "\n\n 2) " + LISTED[1],
        "- " + LISTED[0] + '\n* "' + LISTED[1] + '"',
        "Tasks in which one searches:\n" + "\n".join(LISTED),
        json.dumps(LISTED),
        json.dumps({"tasks": LISTED}, ensure_ascii=False),
        "```json\n" + json.dumps(LISTED) + "\n```",
        "\n".join([*LISTED, LISTED[0].upper(), "short", "x" * 500]),
    ],
)
def test_tasks_are_read_line_by_line(text):
    found = tasks(said(text))
    assert [task.lower() for task in found] == [task.lower() for task in LISTED]


@pytest.mark.parametrize(
    ("reply", "reason"),
    [
        (said("\n".join(LISTED), "length"), "truncated"),
        (said("I'm sorry, but I can't do that."), "refused"),
        (said("ok"), "no tasks"),
        (said("[]"), "no tasks"),
        (said("[1, 2]"), "no tasks"),
    ],
)
def test_a_brainstorm_without_tasks_has_a_reason(reply, reason):
    with pytest.raises(Rejected) as caught:
        tasks(reply)
    assert caught.value.reason == reason


def test_thoughts_in_front_are_left_out():
    assert whole_text(said("<think>hm\nhm</think> answer")) == "answer"
