import signal
import threading
import time

import pytest

from trine.curation.llm import CallFailed, EndpointError, Stopped
from trine.curation.synthesis.budget import BudgetReached
from trine.curation.synthesis.threads import Ending, outcomes


def ending():
    stopped = threading.Event()
    return Ending(stopped.set), stopped


def test_results_are_in_order_whoever_is_first():
    end, _ = ending()
    seen = []

    def work(item):
        time.sleep(0.02 * (3 - item))
        return item * item

    found = outcomes(work, range(4), concurrency=4, ending=end, done=lambda item, result: seen.append((item, result)))
    assert found == [0, 1, 4, 9]
    assert sorted(seen) == [(0, 0), (1, 1), (2, 4), (3, 9)]
    assert end.reason == ""


@pytest.mark.parametrize(("error", "reason"), [(EndpointError("gone"), "endpoint"), (BudgetReached(), "budget")])
def test_what_ends_a_run_leaves_the_rest_out(error, reason):
    end, stopped = ending()

    def work(item):
        if item == 2:
            raise error
        return item

    found = outcomes(work, range(50), concurrency=1, ending=end)
    assert found == [0, 1, *[None] * 48]
    assert end.reason == reason
    assert stopped.is_set()
    assert (str(end.error) == "gone") == (reason == "endpoint")


def test_a_call_that_failed_is_an_outcome_and_the_others_go_on():
    end, _ = ending()

    def work(item):
        if item == 1:
            raise CallFailed("no")
        return item

    found = outcomes(work, range(3), concurrency=2, ending=end)
    assert (found[0], found[2], str(found[1])) == (0, 2, "no")
    assert end.reason == ""


def test_any_other_error_is_raised():
    end, stopped = ending()

    def work(item):
        raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space left"):
        outcomes(work, range(3), concurrency=2, ending=end)
    assert stopped.is_set()


def test_ctrl_c_lets_the_calls_in_flight_come_in():
    end, stopped = ending()
    begun = threading.Event()

    def work(item):
        if stopped.is_set():
            raise Stopped
        begun.set()
        stopped.wait(10)
        return item

    def interrupt():
        begun.wait(10)
        # To the main thread itself, as a terminal has it: nothing else wakes it from its wait.
        signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)

    threading.Thread(target=interrupt).start()
    found = outcomes(work, range(20), concurrency=2, ending=end)
    assert end.reason == "interrupted"
    assert 1 <= sum(outcome is not None for outcome in found) <= 2
