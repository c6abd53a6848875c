import threading

import pytest

from trine.curation.llm import Reply
from trine.curation.synthesis.budget import Account, Budget, BudgetReached, Prices
from trine.errors import UsageError


def test_money_by_hand():
    assert Prices(2.0, 10.0).cost(1_000_000, 500_000) == 7.0
    budget = Budget(max_cost=0.01, prices=Prices(2.0, 10.0))
    assert budget.holds(0, 1000)
    assert not budget.holds(1, 1000)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"max_tokens": 0}, "max_tokens is 0"),
        ({"max_cost": 1.0}, "--price-in"),
        ({"prices": Prices(-1, 0)}, "below 0"),
        ({"prices": Prices(float("nan"), 0)}, "below 0"),
        ({"max_cost": float("inf"), "prices": Prices(1, 1)}, "max_cost is inf"),
    ],
)
def test_limits_that_cannot_be_kept(options, says):
    with pytest.raises(UsageError, match=says):
        Budget(**options)


def test_what_is_set_aside_counts_until_it_is_settled():
    account = Account(Budget(max_tokens=1000), spent=(100, 0))
    account.reserve(100, 700)
    with pytest.raises(BudgetReached):  # 100 + 901 > 1000 whatever the call in flight costs
        account.reserve(101, 800)
    account.settle(100, 700, Reply("", "stop", input_tokens=100, output_tokens=50))
    assert (account.input_tokens, account.output_tokens) == (200, 50)
    account.reserve(50, 700)
    account.settle(50, 700, None)
    assert (account.input_tokens, account.output_tokens) == (200, 50)


def test_a_call_waits_for_those_in_flight_that_may_leave_enough():
    account = Account(Budget(max_tokens=1000), spent=(0, 0))
    account.reserve(0, 900)
    outcome = []
    waiting = threading.Thread(target=lambda: outcome.append(account.reserve(0, 900)))
    waiting.start()
    assert outcome == []
    account.settle(0, 900, Reply("", "stop", output_tokens=100))
    waiting.join(10)
    assert outcome == [None]


def test_and_gives_up_when_they_leave_too_little():
    account = Account(Budget(max_tokens=1000), spent=(0, 0))
    account.reserve(0, 900)
    outcome = []

    def reserve():
        try:
            account.reserve(0, 900)
        except BudgetReached:
            outcome.append("reached")

    waiting = threading.Thread(target=reserve)
    waiting.start()
    account.settle(0, 900, Reply("", "stop", output_tokens=900))
    waiting.join(10)
    assert outcome == ["reached"]


def test_cost_of_what_is_spent():
    account = Account(Budget(prices=Prices(1, 2)), spent=(1_000_000, 1_000_000))
    assert account.cost == 3.0
