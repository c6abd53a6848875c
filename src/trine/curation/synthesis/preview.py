"""What a run would send and cost, without sending anything."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from trine.curation.llm import estimated_tokens
from trine.curation.synthesis.documents import Grounding
from trine.curation.synthesis.modes import MODES, WORDS, Mode
from trine.curation.synthesis.plan import TASKS_PER_CALL, Job, Plan
from trine.curation.synthesis.run import Settings
from trine.curation.synthesis.tasks import Brainstorm
from trine.curation.synthesis.writing import first_message
from trine.errors import UsageError

_SAMPLED = 200
"""Jobs that the estimate is taken from."""
_TOKENS_PER_WORD = {"en": 1.4, "ko": 2.5}
"""Of an answer; a Korean word (eojeol) has about 2.5 tokens in the vocabularies of multilingual models."""
_TASK_TOKENS = 40
_TASK = {"en": "<a task from the brainstorm>", "ko": "<앞에서 떠올린 과제>"}
_WORDS = {"short-long": 2.0, "long-long": 600.0, "long-short": 90.0, "short-short": 30.0, "sts": 60.0, "bitext": 60.0}
"""Words of an answer; of "short-long", times the number of words that was drawn, for it has two documents."""
_DEFAULT_WORDS = 60.0


@dataclass(frozen=True, slots=True)
class Preview:
    """Prompts, and an estimate of what they would cost."""

    prompts: tuple[tuple[str, str], ...]
    """(what it is, the text): of each group its brainstorm and the first message of its first job."""
    brainstorms: int
    jobs: int
    calls: int
    input_tokens: int
    output_tokens: int
    cost: float | None

    def to_dict(self) -> dict[str, Any]:
        """Ready for JSON."""
        return asdict(self) | {"prompts": [{"name": name, "text": text} for name, text in self.prompts]}


def preview(settings: Settings, passages: Sequence[Grounding] = (), *, modes: Sequence[str] = ()) -> Preview:
    """What `synthesize` would send if every answer were valid; with `modes`, what `compare_modes` would.

    Raises:
        UsageError: there is nothing to write.
    """
    jobs = Plan(settings.mix, passages).take(settings.count)
    if not jobs:
        raise UsageError("there is nothing to write: no group, or no passage")
    asked = [MODES[name] for name in modes or (settings.mode,)]
    prompts: dict[str, str] = {}
    needed: dict[tuple[str, str], int] = {}
    for job in jobs:
        if job.group.two_step:
            key = (job.group.name, job.prompts)
            needed[key] = job.rank // settings.per_task + 1
            prompts.setdefault(f"brainstorm {'/'.join(key)}", Brainstorm(*key, 0).prompt())
        name = f"example {job.group.name}/{job.prompts}"
        if name not in prompts:
            prompts[name] = first_message(job, _task(job), asked[0])
    brainstorms = sum(math.ceil(count / TASKS_PER_CALL) for count in needed.values())
    ask = sum(estimated_tokens(text) for name, text in prompts.items() if name.startswith("brainstorm"))
    sample = jobs[:_SAMPLED]
    scale = len(jobs) / len(sample)
    tokens = [_tokens(job, mode) for job in sample for mode in asked]
    per_brainstorm = ask / max(1, len(needed))
    input_tokens = round(brainstorms * per_brainstorm + scale * sum(sent for sent, _ in tokens))
    output_tokens = round(brainstorms * TASKS_PER_CALL * _TASK_TOKENS + scale * sum(back for _, back in tokens))
    prices = settings.budget.prices
    return Preview(
        prompts=tuple(prompts.items()),
        brainstorms=brainstorms,
        jobs=len(jobs) * len(asked),
        calls=brainstorms + sum(2 if mode.thinks else 1 for mode in asked) * len(jobs),
        input_tokens=input_tokens,
        output_tokens=output_tokens,
        cost=prices.cost(input_tokens, output_tokens) if prices.cost(1, 1) else None,
    )


def _task(job: Job) -> str:
    return job.group.task[job.prompts] if job.group.task is not None else _TASK[job.prompts]


def _tokens(job: Job, mode: Mode) -> tuple[int, int]:
    """(in, out) of one job."""
    per_word = _TOKENS_PER_WORD[job.prompts]
    words = _WORDS.get(job.group.name, _DEFAULT_WORDS)
    if job.group.name == "short-long":
        words = words * float(job.drawn["num_words"]) + 10
    sent = estimated_tokens(first_message(job, _task(job), mode))
    thought = round(WORDS * per_word) if mode.thinks or mode.reasons else 0
    if mode.thinks:
        # The second call sends the first one's prompt and answer again.
        sent = 2 * sent + thought + estimated_tokens(mode.last_turn(job.group.fields, language=job.prompts))
    return sent, round(words * per_word) + thought + 10 * len(job.group.fields)
