import threading

import pytest

from curation.synthesis.server import error, reply
from trine.curation.llm import CallFailed, Request
from trine.curation.synthesis.budget import Budget, BudgetReached
from trine.curation.synthesis.calls import Caller, checked_concurrency
from trine.errors import UsageError

ASKED = Request(({"role": "user", "content": "x" * 400},), max_tokens=100)


@pytest.fixture
def caller(tmp_path, endpoint, waits):
    made = []

    def make(server, budget=None, **options):
        made.append(Caller(tmp_path, endpoint(server, **options), budget=budget or Budget(), wait=waits.append))
        return made[-1]

    yield make
    for each in made:
        each.close()


def test_a_reply_is_paid_once_in_this_run_and_the_next(serve, caller):
    server = serve(lambda number, body: reply(f"answer {number}", usage=(100, 20)))
    one = caller(server)
    assert one(ASKED, purpose="a").text == one(ASKED, purpose="b").text == "answer 1"
    assert (one.paid, one.remembered) == (1, 1)
    assert one.usage["a"].calls == 1
    one.close()
    again = caller(server)
    assert again(ASKED, purpose="a").text == "answer 1"
    assert (again.account.input_tokens, again.account.output_tokens) == (100, 20)
    assert server.paid == 1


def test_equal_requests_at_the_same_time_are_one_call(serve, caller):
    server = serve(delay=0.1)
    one = caller(server)
    threads = [threading.Thread(target=one, args=(ASKED,), kwargs={"purpose": "a"}) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert server.paid == 1
    assert (one.paid, one.remembered) == (1, 5)


def test_the_budget_holds_before_the_call_and_what_is_known_costs_nothing(serve, caller):
    server = serve(lambda number, body: reply("a", usage=(108, 60)))
    one = caller(server, Budget(max_tokens=300))
    one(ASKED, purpose="a")
    with pytest.raises(BudgetReached):  # 168 spent, and 108 + 100 may come
        one(Request(ASKED.messages, max_tokens=100, sample="2"), purpose="a")
    assert one(ASKED, purpose="a").text == "a"
    assert server.paid == 1


def test_an_endpoint_that_fails_time_and_again_is_gone(serve, caller):
    server = serve(lambda number, body: error(500, "down"))
    one = caller(server, retries=0)
    for number in range(5):
        assert not one.gone
        with pytest.raises(CallFailed):
            one(Request(ASKED.messages, sample=str(number)), purpose="a")
    assert one.gone
    assert one.account.input_tokens == 0


def test_an_answer_in_between_starts_the_count_again(serve, caller):
    server = serve(lambda number, body: None if number == 5 else error(500, "down"))
    one = caller(server, retries=0)
    for number in range(9):
        if number == 4:
            one(Request(ASKED.messages, sample=str(number)), purpose="a")
        else:
            with pytest.raises(CallFailed):
                one(Request(ASKED.messages, sample=str(number)), purpose="a")
    assert not one.gone


@pytest.mark.parametrize("count", [0, 1000])
def test_concurrency(count):
    with pytest.raises(UsageError, match=f"concurrency is {count}"):
        checked_concurrency(count)
