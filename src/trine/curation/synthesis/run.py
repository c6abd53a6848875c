"""`synthesize`: from an endpoint to a file of training examples, within a budget, resumable at any point."""

from __future__ import annotations

import json
import os
import secrets
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

from trine.curation.consistency import Consistency
from trine.curation.llm import CallFailed, Endpoint, EndpointError, Format
from trine.curation.output import naming, write_json
from trine.curation.synthesis.budget import Budget
from trine.curation.synthesis.calls import Caller, checked_concurrency
from trine.curation.synthesis.documents import Grounding
from trine.curation.synthesis.modes import DEFAULT_MODE, MODES
from trine.curation.synthesis.parsing import Rejected
from trine.curation.synthesis.plan import Job, Mix, Plan
from trine.curation.synthesis.sieve import Sieve, counted, reject_row
from trine.curation.synthesis.tasks import Brainstorm, TaskPools
from trine.curation.synthesis.threads import Ending, outcomes
from trine.curation.synthesis.writing import Answer, Sampling, written
from trine.encoding.progress import progress_bar
from trine.errors import UsageError
from trine.tables import unknown
from trine.types import TextEncoder

EXAMPLES, REJECTS, REPORT = "examples.jsonl", "rejects.jsonl", "report.json"
_MOST_ATTEMPTS = 3
"""Jobs for each example that is asked for, before a run gives up on an endpoint that mostly writes rejects."""


@dataclass(frozen=True, slots=True)
class Settings:
    """What to write, and how to ask for it."""

    mix: Mix
    count: int
    mode: str = DEFAULT_MODE
    format: Format = "json_schema"
    sampling: Sampling = field(default_factory=Sampling)
    per_task: int = 3
    """Examples of each brainstormed task; the paper has 500,000 of 150,000."""
    concurrency: int = 8
    instruct: bool = False
    """Write the task into the query's prompt, as E5-Mistral is trained: ``Instruct: {task}\\nQuery: ``."""
    budget: Budget = field(default_factory=Budget)

    def __post_init__(self) -> None:
        """Refuse what cannot work."""
        if self.mode not in MODES:
            raise unknown(self.mode, MODES, kind="response mode")
        if self.count < 1 or self.per_task < 1:
            raise UsageError(f"count is {self.count} and per_task {self.per_task}; both must be at least 1")
        checked_concurrency(self.concurrency)
        limits = self.sampling
        if not (0 <= limits.temperature <= 2 and 0 < limits.top_p <= 1 and limits.max_tokens >= 16):
            raise UsageError(
                f"temperature is {limits.temperature}, top_p {limits.top_p}, and an answer has {limits.max_tokens} "
                "tokens; they must lie in 0 to 2, above 0 to 1, and be 16 or more"
            )


@dataclass(frozen=True, slots=True)
class Synthesised:
    """What a run wrote."""

    folder: Path
    stopped: str
    """"" where there are as many examples as were asked for; else why there are fewer: "budget", "endpoint",
    "interrupted", "attempts", "documents" or "tasks"."""
    error: EndpointError | None
    report: Mapping[str, Any]

    @property
    def examples(self) -> int:
        """Valid ones."""
        return int(self.report["examples"])


def synthesize(
    folder: Path,
    endpoint: Endpoint,
    settings: Settings,
    *,
    passages: Sequence[Grounding] = (),
    encoder: TextEncoder | None = None,
    consistency: Consistency | None = None,
    progress: bool = False,
    wait: Callable[[float], None] | None = None,
) -> Synthesised:
    """Have an LLM write training examples (E5-Mistral, arXiv 2401.00368, section 3.1, and queries for passages).

    Writes examples.jsonl, rejects.jsonl and report.json into `folder`. Every reply goes to journal.jsonl first; the
    same call goes on with a run that was stopped, and repeats no call that was paid.

    Args:
        folder: where it goes.
        endpoint: who writes.
        settings: what.
        passages: for the group "grounded".
        encoder: filters the examples at the end; None leaves them.
        consistency: how it filters.
        progress: show a bar.
        wait: sleeps between tries, as in `trine.curation.llm.Client`.

    Raises:
        UsageError: settings that do not fit, or a folder in use.
        DataError: the folder's journal is damaged.
    """
    run = Run(folder, endpoint, settings, wait=wait)
    plan, sieve, jobs = Plan(settings.mix, passages), Sieve(instruct=settings.instruct), 0
    stopped = ""
    try:
        with progress_bar("Synthesis", total=settings.count, shown=progress) as advance:
            while not stopped and len(sieve.written) < settings.count:
                wave = plan.take(settings.count - len(sieve.written))
                jobs += len(wave)
                if not wave or jobs > _MOST_ATTEMPTS * settings.count + 20:
                    stopped = "attempts" if wave else "documents"
                    break
                for answer in run.answers(wave, mode=settings.mode, advance=advance):
                    sieve.take(answer)
                stopped = run.stopped
        report = run.report(sieve)
        if encoder is not None and sieve.written:
            found = sieve.filter(encoder, consistency or Consistency())
            report |= counted(sieve) | {"consistency": found.summary()}
    finally:
        run.close()
    report |= {"stopped": stopped, "error": str(run.ending.error or "")}
    sieve.rejects[:0] = run.rejects
    source = f"synthesis:{endpoint.model}"
    write_rows(folder / EXAMPLES, (one.record(source=source, mode=settings.mode) for one in sieve.written))
    write_rows(folder / REJECTS, sieve.rejects)
    write_json(folder / REPORT, report)
    return Synthesised(folder, stopped, run.ending.error, report)


class Run:
    """Calls of one run and what is known of them; shared by `synthesize` and the comparison of modes."""

    def __init__(
        self, folder: Path, endpoint: Endpoint, settings: Settings, *, wait: Callable[[float], None] | None = None
    ) -> None:
        """Open the folder's journal.

        Raises:
            UsageError: the folder is in use, or the endpoint's key is missing.
            DataError: the journal is damaged.
        """
        self.settings = settings
        self.caller = Caller(folder, endpoint, budget=settings.budget, wait=wait)
        self.ending = Ending(self.caller.client.stop)
        self.pools = TaskPools(per_task=settings.per_task)
        self.rejects: list[dict[str, Any]] = []
        """Of brainstorms."""
        self.failed: Counter[str] = Counter()
        """Jobs whose calls did not come through."""
        self._without_tasks = False

    @property
    def stopped(self) -> str:
        """Why no more calls are made; "" while they are."""
        if self.caller.gone and not self.ending.reason:
            return "endpoint"
        return self.ending.reason or ("tasks" if self._without_tasks else "")

    def answers(self, jobs: Sequence[Job], *, mode: str, advance: Callable[[int], None] | None = None) -> list[Answer]:
        """The answers to those jobs that were run, in their order; tasks are brainstormed as they are needed."""
        self._brainstorm(jobs)
        tasked = [(job, task) for job in jobs if (task := self.pools.task(job)) is not None]
        self._without_tasks = bool(jobs) and not tasked

        def one(item: tuple[Job, str]) -> Answer:
            settings = self.settings
            return written(
                *item, mode=MODES[mode], format=settings.format, sampling=settings.sampling, caller=self.caller
            )

        def done(item: tuple[Job, str], outcome: Answer | CallFailed) -> None:
            if advance is not None and isinstance(outcome, Answer) and outcome.texts is not None:
                advance(len(outcome.texts) if item[0].grounding is not None else 1)

        found = self._outcomes(one, tasked, done)
        return [outcome for outcome in found if isinstance(outcome, Answer)]

    def _brainstorm(self, jobs: Sequence[Job]) -> None:
        limits = self.settings.sampling

        def one(call: Brainstorm) -> Any:
            request = call.request(temperature=limits.temperature, top_p=limits.top_p, max_tokens=limits.max_tokens)
            return self.caller(request, purpose="brainstorm")

        while not self.stopped and (calls := self.pools.missing(jobs)):
            for call, reply in zip(calls, self._outcomes(one, calls, None), strict=True):
                found: list[str] = []
                if reply is not None and not isinstance(reply, CallFailed):
                    try:
                        found = call.found(reply)
                    except Rejected as rejected:
                        row = reject_row(rejected, group=call.group, lang=call.prompts, reply=reply.text, stage="tasks")
                        self.rejects.append(row)
                self.pools.add(call, found)

    def _outcomes(self, function: Callable[[Any], Any], items: Sequence[Any], done: Any) -> list[Any]:
        if self.stopped:
            return []
        concurrency = self.settings.concurrency
        found = outcomes(function, items, concurrency=concurrency, ending=self.ending, done=done)
        failures = [outcome for outcome in found if isinstance(outcome, CallFailed)]
        self.failed.update(type(error).__name__ for error in failures)
        if self.caller.gone:
            self.ending.set("endpoint", failures[-1] if failures else None)
        return found

    def report(self, sieve: Sieve) -> dict[str, Any]:
        """Everything that is counted, ready for JSON."""
        account, traffic = self.caller.account, self.caller.client.traffic
        endpoint = self.caller.client.endpoint
        return {
            "trine": version("trine"),
            "endpoint": endpoint.url,
            "model": endpoint.model,
            **counted(sieve),
            "tasks": len(self.pools),
            "tasks_rejected": dict(Counter(row["reason"] for row in self.rejects)),
            "failed_calls": sum(self.failed.values()),
            "calls": {
                "paid_now": self.caller.paid,
                "from_journal": self.caller.remembered,
                "in_journal": len(self.caller.journal),
                "requests_sent": traffic.sent,
                "retried": dict(traffic.retried),
            },
            "tokens": {"input": account.input_tokens, "output": account.output_tokens},
            "cost": account.cost if account.budget.prices.cost(1, 1) else None,
            "usage": {name: asdict(usage) for name, usage in sorted(self.caller.usage.items())},
            "settings": asdict(self.settings),
        }

    def close(self) -> None:
        """Close journal and connections."""
        self.caller.close()


def write_rows(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """Write JSON lines; the file takes its place when it is complete."""
    scratch = path.with_name(f".{secrets.token_hex(8)}.partial")
    try:
        with naming(path):
            with scratch.open("w", encoding="utf-8", errors="backslashreplace") as file:
                for row in rows:
                    file.write(json.dumps(row, ensure_ascii=False) + "\n")
                file.flush()
                os.fsync(file.fileno())
            os.replace(scratch, path)
    finally:
        scratch.unlink(missing_ok=True)
