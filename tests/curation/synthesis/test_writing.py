import json

import pytest

from curation.synthesis.jobs import LONG, OTHER, job
from trine.curation.llm import Reply
from trine.curation.synthesis.modes import MODES
from trine.curation.synthesis.writing import Sampling, first_message, written

TEXTS = {"user_query": "파드가 뭐야", "positive_document": LONG, "hard_negative_document": OTHER}


class Caller:
    """Answers from a list, and remembers what it was asked."""

    def __init__(self, *replies):
        self.replies, self.requests = list(replies), []

    def __call__(self, request, *, purpose):
        self.requests.append((purpose, request))
        return self.replies.pop(0)


def ask(mode, *replies):
    caller = Caller(*replies)
    one = job("short-long", "ko")
    return caller, written(one, "과제", mode=MODES[mode], format="json_schema", sampling=Sampling(), caller=caller)


@pytest.mark.parametrize("mode", [name for name in MODES if name != "free_then_json"])
def test_one_call_with_the_core_and_the_fields_in_order(mode):
    reply = Reply(json.dumps(TEXTS, ensure_ascii=False), "stop")
    caller, answer = ask(mode, reply)
    ((purpose, request),) = caller.requests
    assert purpose == "short-long"
    assert request.fields == MODES[mode].fields(tuple(TEXTS))
    (message,) = request.messages
    assert message["content"] == first_message(answer.job, "과제", MODES[mode])
    assert message["content"].startswith(answer.job.core("과제"))
    assert answer.texts == TEXTS
    assert answer.rejected is None


def test_thinking_first_is_a_call_of_the_same_conversation_without_a_form():
    caller, answer = ask("free_then_json", Reply("생각", "stop"), Reply(json.dumps(TEXTS), "stop"))
    (_, first), (_, second) = caller.requests
    assert first.fields == ()
    assert second.fields == ("refusal", *TEXTS)
    assert second.messages[0] == first.messages[0]
    assert second.messages[1] == {"role": "assistant", "content": "생각"}
    assert [message["role"] for message in second.messages] == ["user", "assistant", "user"]
    assert answer.texts == TEXTS


def test_a_thought_that_broke_off_is_a_reject_and_no_second_call():
    caller, answer = ask("free_then_json", Reply("생각하다", "length"))
    assert len(caller.requests) == 1
    assert (answer.texts, answer.rejected.reason, answer.reply) == (None, "truncated", "생각하다")


def test_a_reject_keeps_the_reply():
    _, answer = ask("json_schema", Reply("아무 말", "stop"))
    assert (answer.texts, answer.rejected.reason, answer.reply) == (None, "no JSON object", "아무 말")
