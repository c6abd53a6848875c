"""Many calls at a time, their outcomes in order, and a clean end whatever happens."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from threading import Lock
from typing import TypeVar

from trine.curation.llm import CallFailed, EndpointError, Stopped
from trine.curation.synthesis.budget import BudgetReached

Item = TypeVar("Item")
Result = TypeVar("Result")


class Ending:
    """Why no more calls are made; the first reason stays. Safe from several threads."""

    def __init__(self, stop: Callable[[], None]) -> None:
        """`stop` keeps further calls from being made; those in flight end by themselves."""
        self._stop = stop
        self._lock = Lock()
        self.reason = ""
        """"", "budget", "endpoint", "interrupted" or "failed"."""
        self.error: EndpointError | None = None

    def set(self, reason: str, error: EndpointError | None = None) -> None:
        """End for a reason."""
        with self._lock:
            if not self.reason:
                self.reason, self.error = reason, error
        self._stop()


def outcomes(
    function: Callable[[Item], Result],
    items: Sequence[Item],
    *,
    concurrency: int,
    ending: Ending,
    done: Callable[[Item, Result | CallFailed], None] | None = None,
) -> list[Result | CallFailed | None]:
    """The result of each item, in order; None where it was not run, an error where its call did not come through.

    Ctrl-C lets the calls in flight come in, for they are paid.

    Args:
        function: run in threads.
        items: what it is given.
        concurrency: calls at a time.
        ending: takes note of why the rest was left out.
        done: called in this thread after each.
    """
    found: list[Result | CallFailed | None] = [None] * len(items)
    waiting = deque(range(len(items)))
    running: dict[Future[None], int] = {}

    def work(number: int) -> None:
        # Entered by the thread itself, so that no Ctrl-C in the main one can lose it.
        found[number] = _outcome(function, items[number], ending)

    with ThreadPoolExecutor(concurrency, thread_name_prefix="synthesis") as executor:
        while waiting or running:
            try:
                while waiting:
                    number = waiting.popleft()
                    running[executor.submit(work, number)] = number
                for future in as_completed(list(running)):
                    number = running.pop(future)
                    future.result()
                    outcome = found[number]
                    if outcome is not None and done is not None:
                        done(items[number], outcome)
            except BaseException as error:
                interrupted = isinstance(error, KeyboardInterrupt) and not ending.reason
                ending.set("interrupted" if interrupted else "failed")
                if not interrupted:
                    raise
    return found


def _outcome(function: Callable[[Item], Result], item: Item, ending: Ending) -> Result | CallFailed | None:
    """Runs in a thread, so that an end is known before the next call begins."""
    if ending.reason:
        return None
    try:
        return function(item)
    except CallFailed as error:
        return error
    except EndpointError as error:
        ending.set("endpoint", error)
    except BudgetReached:
        ending.set("budget")
    except Stopped:
        pass
    except BaseException:
        ending.set("failed")
        raise
    return None
