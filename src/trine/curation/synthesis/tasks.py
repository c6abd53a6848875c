"""The first step: calls that brainstorm tasks, whose examples are then written in calls of their own."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from trine.curation.llm import Reply, Request
from trine.curation.synthesis.language_check import is_in
from trine.curation.synthesis.languages import LANGUAGES
from trine.curation.synthesis.parsing import Rejected, tasks
from trine.curation.synthesis.plan import TASKS_PER_CALL, Job
from trine.curation.synthesis.templates import filled
from trine.curation.texts import canonical

_IDLE_CALLS = 3
"""Calls of a group that may bring nothing new in a row before its tasks are used again from the first."""


@dataclass(frozen=True, slots=True)
class Brainstorm:
    """One call for tasks of one group."""

    group: str
    prompts: str
    number: int

    def prompt(self) -> str:
        """What is sent."""
        return filled(f"brainstorm-{self.group}", self.prompts, {"count": str(TASKS_PER_CALL)})

    def request(self, *, temperature: float, top_p: float, max_tokens: int) -> Request:
        """The call; the same prompt every time, and every time another answer."""
        message = {"role": "user", "content": self.prompt()}
        sample = f"brainstorm {self.number}"
        return Request((message,), temperature=temperature, top_p=top_p, max_tokens=max_tokens, sample=sample)

    def found(self, reply: Reply) -> list[str]:
        """The tasks of a reply in the language of the prompt.

        Raises:
            Rejected: there are none.
        """
        listed = tasks(reply)
        kept = [task for task in listed if is_in(task, LANGUAGES[self.prompts])]
        if not kept:
            raise Rejected("wrong language", listed[0][:80])
        return kept


class TaskPools:
    """Tasks by group and prompt language, in the order in which they were thought of."""

    def __init__(self, *, per_task: int) -> None:
        """`per_task` examples are written for each task before the next is taken."""
        self.per_task = per_task
        self._pools: dict[tuple[str, str], dict[str, str]] = defaultdict(dict)
        self._calls: dict[tuple[str, str], int] = defaultdict(int)
        self._idle: dict[tuple[str, str], int] = defaultdict(int)

    def __len__(self) -> int:
        return sum(map(len, self._pools.values()))

    def missing(self, jobs: Sequence[Job]) -> list[Brainstorm]:
        """The calls that may bring the tasks that the jobs still lack; none where they have them or it is no use."""
        needed: dict[tuple[str, str], int] = {}
        for job in jobs:
            if job.group.two_step:
                key = (job.group.name, job.prompts)
                needed[key] = max(needed.get(key, 0), job.rank // self.per_task + 1)
        calls = []
        for key, count in needed.items():
            lacking = count - len(self._pools[key])
            if lacking > 0 and self._idle[key] < _IDLE_CALLS:
                for _ in range(math.ceil(lacking / TASKS_PER_CALL)):
                    calls.append(Brainstorm(*key, self._calls[key]))
                    self._calls[key] += 1
        return calls

    def add(self, call: Brainstorm, found: Sequence[str]) -> None:
        """Take up what a call brought; an empty list counts against the group."""
        key = (call.group, call.prompts)
        pool, before = self._pools[key], len(self._pools[key])
        for task in found:
            pool.setdefault(canonical(task), task)
        self._idle[key] = 0 if len(pool) > before else self._idle[key] + 1

    def task(self, job: Job) -> str | None:
        """The task of a job; None where its group has none at all."""
        if job.group.task is not None:
            return job.group.task[job.prompts]
        pool = list(self._pools[job.group.name, job.prompts].values())
        return pool[job.rank // self.per_task % len(pool)] if pool else None
