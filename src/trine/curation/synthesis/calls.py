"""One way to an answer: from the journal, or within the budget from the endpoint."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from threading import Condition, Lock

from trine.curation.llm import CallFailed, Client, Endpoint, Reply, Request, prompt_tokens
from trine.curation.synthesis.budget import Account, Budget
from trine.curation.synthesis.journal import Journal
from trine.errors import UsageError

_FAILURES = 5
"""Calls that may fail in a row, each after all its tries, before the endpoint counts as gone."""


@dataclass(slots=True)
class Usage:
    """Calls and tokens of one purpose, whether paid in this run or in an earlier one."""

    calls: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    seconds: float = 0.0

    def add(self, reply: Reply) -> None:
        """Enter a reply."""
        self.calls += 1
        self.input_tokens += reply.input_tokens
        self.output_tokens += reply.output_tokens
        self.seconds += reply.seconds


class Caller:
    """Answers requests; safe from several threads. Two equal requests are one call, also at the same time."""

    def __init__(
        self, folder: Path, endpoint: Endpoint, *, budget: Budget, wait: Callable[[float], None] | None = None
    ) -> None:
        """Open the folder's journal and a client.

        Raises:
            UsageError: the folder is in use, or a key is missing.
            DataError: the journal is damaged.
        """
        self.client = Client(endpoint, wait=wait)
        try:
            self.journal = Journal(folder)
        except BaseException:
            self.client.close()
            raise
        self.account = Account(budget, spent=(self.journal.input_tokens, self.journal.output_tokens))
        self.usage: dict[str, Usage] = defaultdict(Usage)
        self.paid = self.remembered = 0
        self._lock, self._waiting = Lock(), Condition()
        self._flying: set[str] = set()
        self._failed_in_a_row = 0

    def __call__(self, request: Request, *, purpose: str) -> Reply:
        """The reply to a request; `purpose` says what its tokens are booked under.

        Raises:
            EndpointError: the endpoint cannot be used.
            BudgetReached: the call might go beyond the budget.
            Stopped: the run is being stopped.
        """
        key = request.key(self.client.endpoint.model)
        with self._waiting:
            while key in self._flying:
                self._waiting.wait()
            self._flying.add(key)
        try:
            reply = self.journal.get(key)
            fresh = reply is None
            if reply is None:
                reply = self._paid(key, request)
        finally:
            with self._waiting:
                self._flying.discard(key)
                self._waiting.notify_all()
        with self._lock:
            self.paid += fresh
            self.remembered += not fresh
            self.usage[purpose].add(reply)
        return reply

    def _paid(self, key: str, request: Request) -> Reply:
        aside = prompt_tokens(request.messages), request.max_tokens
        self.account.reserve(*aside)
        reply = None
        try:
            reply = self.client.complete(request)
            self.journal.add(key, reply)
            self._failed_in_a_row = 0
        except CallFailed:
            with self._lock:
                self._failed_in_a_row += 1
                gone = self._failed_in_a_row >= _FAILURES
            if gone:
                self.client.stop()
            raise
        finally:
            self.account.settle(*aside, reply)
        return reply

    @property
    def gone(self) -> bool:
        """Whether so many calls failed in a row that there is no use in more."""
        return self._failed_in_a_row >= _FAILURES

    def close(self) -> None:
        """Close journal and connections."""
        self.client.close()
        self.journal.close()


def checked_concurrency(count: int) -> int:
    """The number of calls at a time, if it can be one."""
    if not 1 <= count <= 512:
        raise UsageError(f"concurrency is {count}; it must lie between 1 and 512")
    return count
