"""The second step: one example for one task, in a call of its own (or two, where the mode thinks first)."""

from __future__ import annotations

from dataclasses import dataclass

from trine.curation.llm import Format, Request
from trine.curation.synthesis.calls import Caller
from trine.curation.synthesis.modes import Mode
from trine.curation.synthesis.parsing import Rejected, payload, whole_text
from trine.curation.synthesis.plan import Job


@dataclass(frozen=True, slots=True)
class Sampling:
    """How answers are drawn; the paper's are the defaults (arXiv 2401.00368, section 4.1)."""

    temperature: float = 1.0
    top_p: float = 1.0
    max_tokens: int = 4096
    """Of one answer: two Korean documents of 500 words are about 2,500."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What came of a job: its texts, or the reason why there are none."""

    job: Job
    task: str
    reply: str
    """As it came."""
    texts: dict[str, str] | None
    rejected: Rejected | None = None


def first_message(job: Job, task: str, mode: Mode) -> str:
    """The prompt that a job begins with."""
    return mode.first_turn(job.core(task), job.group.fields, language=job.prompts)


def written(job: Job, task: str, *, mode: Mode, format: Format, sampling: Sampling, caller: Caller) -> Answer:
    """Ask for one example.

    Raises:
        EndpointError: the endpoint cannot be used.
        BudgetReached: a call might go beyond the budget.
        Stopped: the run is being stopped.
    """
    fields = job.group.fields
    messages = [{"role": "user", "content": first_message(job, task, mode)}]
    reply = None
    try:
        if mode.thinks:
            reply = caller(_request(messages, (), job, sampling, format), purpose=job.group.name)
            thought = whole_text(reply)
            messages.append({"role": "assistant", "content": thought})
            messages.append({"role": "user", "content": mode.last_turn(fields, language=job.prompts)})
        reply = caller(_request(messages, mode.fields(fields), job, sampling, format), purpose=job.group.name)
        return Answer(job, task, reply.text, payload(reply, fields))
    except Rejected as rejected:
        return Answer(job, task, reply.text if reply is not None else "", None, rejected)


def _request(
    messages: list[dict[str, str]], fields: tuple[str, ...], job: Job, sampling: Sampling, format: Format
) -> Request:
    return Request(
        messages=tuple(messages),
        fields=fields,
        format=format,
        temperature=sampling.temperature,
        top_p=sampling.top_p,
        max_tokens=sampling.max_tokens,
        sample=f"example {job.number}",
    )
