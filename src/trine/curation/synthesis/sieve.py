"""Answers to examples and counted rejects, in the order of the jobs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from trine.curation.consistency import Consistency, Consistent, consistency_filter
from trine.curation.synthesis.checks import Candidate, Seen, candidates
from trine.curation.synthesis.parsing import Rejected
from trine.curation.synthesis.plan import Job
from trine.curation.synthesis.writing import Answer
from trine.data.example_formats import example_record
from trine.types import Example, TextEncoder


@dataclass(frozen=True, slots=True)
class Written:
    """A valid example and where it comes from."""

    example: Example
    job: Job
    task: str
    field: str

    def record(self, *, source: str, mode: str) -> dict[str, Any]:
        """A line of the examples file: FlagEmbedding's columns, and ours behind them."""
        about = {"source": source, "group": self.job.group.name, "task": self.task, "mode": mode}
        if self.job.grounding is not None:
            about |= {"document": self.job.grounding.document, "kind": self.field}
        return example_record(self.example) | about | {"job": self.job.number}


@dataclass(slots=True)
class Sieve:
    """What is kept, and why the rest is not."""

    instruct: bool = False
    written: list[Written] = field(default_factory=list)
    rejects: list[dict[str, Any]] = field(default_factory=list)
    seen: Seen = field(default_factory=Seen)

    def take(self, answer: Answer) -> int:
        """Enter an answer; the number of examples it gave."""
        if answer.texts is None:
            self._reject(answer, answer.rejected or Rejected("empty"), "")
            return 0
        prompt = f"Instruct: {answer.task}\nQuery: " if self.instruct else None
        before = len(self.written)
        for name, outcome in zip(_names(answer.job), candidates(answer.job, answer.texts, prompt=prompt), strict=True):
            self._enter(answer, outcome, name)
        return len(self.written) - before

    def _enter(self, answer: Answer, outcome: Candidate | Rejected, name: str) -> None:
        try:
            if isinstance(outcome, Rejected):
                raise outcome
            self.seen.check(outcome.example.query)
        except Rejected as rejected:
            self._reject(answer, rejected, name)
            return
        self.written.append(Written(outcome.example, answer.job, answer.task, outcome.field))

    def _reject(self, answer: Answer, rejected: Rejected, name: str) -> None:
        job = answer.job
        self.rejects.append(
            reject_row(rejected, group=job.group.name, lang=job.language_label, reply=answer.reply)
            | {"task": answer.task, "job": job.number}
            | ({"kind": name} if job.grounding is not None and name else {})
        )

    def filter(self, encoder: TextEncoder, settings: Consistency, *, pool: Sequence[str] | None = None) -> Consistent:
        """Take out the examples that a model does not agree with (`trine.curation.consistency`)."""
        found = consistency_filter(
            [one.example for one in self.written],
            encoder,
            settings=settings,
            sources=[one.job.group.name for one in self.written],
            passages=pool,
        )
        for one, kept, rank in zip(self.written, found.kept, found.ranks, strict=True):
            if not kept:
                rejected = Rejected("inconsistent", f"rank {rank} of {found.pool + 1}")
                row = reject_row(rejected, group=one.job.group.name, lang=one.job.language_label, reply="")
                self.rejects.append(row | {"task": one.task, "job": one.job.number} | example_record(one.example))
        self.written = [one for one, kept in zip(self.written, found.kept, strict=True) if kept]
        return found


def reject_row(rejected: Rejected, *, group: str, lang: str, reply: str, stage: str = "example") -> dict[str, Any]:
    """A line of the rejects file."""
    return {
        "reason": rejected.reason,
        "detail": rejected.detail,
        "stage": stage,
        "group": group,
        "lang": lang,
        "reply": reply,
    }


def counted(sieve: Sieve) -> dict[str, Any]:
    """Examples and rejects by reason, group and language."""
    tables: dict[str, dict[str, dict[str, Any]]] = {"groups": {}, "languages": {}}
    for table, key_of in (("groups", lambda row: row["group"]), ("languages", lambda row: row["lang"] or "unknown")):
        rows = [{"group": one.job.group.name, "lang": one.job.language_label} for one in sieve.written]
        valid = Counter(map(key_of, rows))
        rejected: dict[str, Counter[str]] = {}
        for row in sieve.rejects:
            rejected.setdefault(key_of(row), Counter())[row["reason"]] += 1
        for name in dict.fromkeys([*valid, *rejected]):
            reasons = dict(rejected.get(name, Counter()).most_common())
            tables[table][name] = {"examples": valid[name], "rejected": sum(reasons.values()), "reasons": reasons}
    reasons = dict(Counter(row["reason"] for row in sieve.rejects).most_common())
    return {"examples": len(sieve.written), "rejected": len(sieve.rejects), "reasons": reasons, **tables}


def _names(job: Job) -> tuple[str, ...]:
    return job.group.fields if job.grounding is not None else job.group.fields[:1]
