"""The response modes side by side on one endpoint: same jobs, same core of the prompt, same parser and checks."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from trine.curation.consistency import Consistency
from trine.curation.llm import Endpoint, EndpointError
from trine.curation.output import write_json
from trine.curation.sections import word_spans
from trine.curation.synthesis.calls import Usage
from trine.curation.synthesis.documents import Grounding
from trine.curation.synthesis.modes import MODES
from trine.curation.synthesis.plan import Job, Plan
from trine.curation.synthesis.run import Run, Settings, write_rows
from trine.curation.synthesis.sieve import Sieve, Written, counted
from trine.curation.texts import canonical, jaccard, length_of, shingles
from trine.encoding.progress import progress_bar
from trine.types import TextEncoder

REPORT = "comparison.json"
_FORM = frozenset(
    ("no JSON object", "malformed JSON", "missing key", "wrong type", "empty text", "empty", "broken characters")
)
"""Rejects that the form of an answer is to blame for, and not its content."""
LEGEND = (
    "valid: examples of the jobs, with the 95 % interval; form: answers that could not be read; dist-2: share of "
    "different neighbouring pairs of words; alike: mean likeness of two queries; query, passage: mean length; "
    "kept: share that the filter keeps"
)
_PAIRS = 2000
"""Pairs of queries whose likeness is measured, at most."""
_SHINGLE = 5
_95 = 1.959964


@dataclass(frozen=True, slots=True)
class Arm:
    """One mode, measured; a share or mean of nothing is None."""

    mode: str
    jobs: int
    """That were answered; of a passage, one for each query asked for."""
    valid: int
    validity: float | None
    """Share of valid examples in `jobs`."""
    validity_interval: tuple[float, float] | None
    """95 % (Wilson, 1927)."""
    form_errors: int
    """Of the rejects, those that are no readable answer; the others are readable and wrong."""
    reasons: Mapping[str, int]
    distinct_1: float | None
    """Share of different units (words; of Hangul and ideographs, pairs) in the queries and positives, of as
    many units in each mode (Li et al., arXiv 1510.03055)."""
    distinct_2: float | None
    """Of pairs of neighbouring units."""
    similarity: float | None
    """Mean Jaccard similarity of two queries' runs of five characters."""
    query_length: float | None
    """Mean, in Latin characters (`trine.curation.texts.length_of`)."""
    passage_length: float | None
    calls: int
    """Paid for these jobs, in this run or an earlier one; brainstorms are shared and not in it."""
    input_tokens: int
    output_tokens: int
    cost: float | None
    cost_per_example: float | None
    seconds_per_job: float | None
    """Time of the calls, not of the run."""
    consistent: float | None
    """Share of the valid examples that pass the consistency filter, among the passages of all modes."""


@dataclass(frozen=True, slots=True)
class Comparison:
    """What each mode gave."""

    arms: tuple[Arm, ...]
    stopped: str
    error: EndpointError | None
    folder: Path

    def to_dict(self) -> dict[str, Any]:
        """Ready for JSON."""
        return {"stopped": self.stopped, "error": str(self.error or ""), "modes": [asdict(arm) for arm in self.arms]}


def compare_modes(
    folder: Path,
    endpoint: Endpoint,
    settings: Settings,
    *,
    modes: Sequence[str] = tuple(MODES),
    passages: Sequence[Grounding] = (),
    encoder: TextEncoder | None = None,
    consistency: Consistency | None = None,
    progress: bool = False,
    wait: Callable[[float], None] | None = None,
) -> Comparison:
    """Write `settings.count` examples in every mode and measure them; tasks are brainstormed once for all.

    Writes comparison.json, and of each mode examples.MODE.jsonl and rejects.MODE.jsonl. Resumes as `synthesize` does.

    Args:
        folder: where it goes.
        endpoint: who writes.
        settings: what; the mode in it has no effect.
        modes: rows of `MODES`.
        passages: for the group "grounded".
        encoder: measures consistency; None leaves it out.
        consistency: how.
        progress: show a bar.
        wait: sleeps between tries.

    Raises:
        UsageError: settings that do not fit, or a folder in use.
        DataError: the folder's journal is damaged.
    """
    jobs = Plan(settings.mix, passages).take(settings.count)
    run = Run(folder, endpoint, settings, wait=wait)
    sieves: dict[str, Sieve] = {}
    asked: dict[str, list[Job]] = {}
    usage: dict[str, Usage] = {}
    try:
        with progress_bar("Comparison", total=len(jobs) * len(modes), shown=progress) as advance:
            for mode in modes:
                before = _usage(run)
                answers = run.answers(jobs, mode=mode, advance=advance)
                sieves[mode], asked[mode] = Sieve(instruct=settings.instruct), [answer.job for answer in answers]
                for answer in answers:
                    sieves[mode].take(answer)
                usage[mode] = _minus(_usage(run), before)
    finally:
        run.close()
    for mode, sieve in sieves.items():
        write_rows(
            folder / f"examples.{mode}.jsonl",
            (one.record(source=f"synthesis:{endpoint.model}", mode=mode) for one in sieve.written),
        )
    passed = _passed(sieves, encoder, consistency or Consistency())
    arms = tuple(
        _arm(mode, sieves, jobs=asked[mode], usage=usage[mode], passed=passed.get(mode), settings=settings)
        for mode in sieves
    )
    result = Comparison(arms, run.stopped, run.ending.error, folder)
    for mode, sieve in sieves.items():
        write_rows(folder / f"rejects.{mode}.jsonl", sieve.rejects)
    facts = {"model": endpoint.model, "endpoint": endpoint.url, "settings": asdict(settings)}
    write_json(folder / REPORT, result.to_dict() | facts)
    return result


def _usage(run: Run) -> Usage:
    total = Usage()
    for purpose, usage in run.caller.usage.items():
        if purpose != "brainstorm":
            total.calls += usage.calls
            total.input_tokens += usage.input_tokens
            total.output_tokens += usage.output_tokens
            total.seconds += usage.seconds
    return total


def _minus(after: Usage, before: Usage) -> Usage:
    return Usage(
        after.calls - before.calls,
        after.input_tokens - before.input_tokens,
        after.output_tokens - before.output_tokens,
        after.seconds - before.seconds,
    )


def _passed(sieves: Mapping[str, Sieve], encoder: TextEncoder | None, settings: Consistency) -> dict[str, float]:
    """Share of the valid examples of each mode that the filter keeps, each among the passages of all modes."""
    if encoder is None:
        return {}
    pool = [text for sieve in sieves.values() for one in sieve.written for text in one.example.positives]
    shares = {}
    for mode, sieve in sieves.items():
        if sieve.written:
            trial = replace(sieve, written=list(sieve.written), rejects=[])
            shares[mode] = float(trial.filter(encoder, settings, pool=pool).kept.mean())
    return shares


def _arm(
    mode: str,
    sieves: Mapping[str, Sieve],
    *,
    jobs: Sequence[Job],
    usage: Usage,
    passed: float | None,
    settings: Settings,
) -> Arm:
    sieve = sieves[mode]
    wanted = sum(len(job.group.fields) if job.grounding is not None else 1 for job in jobs)
    # An answer about a passage that cannot be read is one reject and loses all of its queries.
    examples, reasons = sieve.written, counted(sieve)["reasons"]
    units = _units(examples)
    most = min(len(_units(other.written)) for other in sieves.values() if other.written) if examples else 0
    prices = settings.budget.prices
    cost = prices.cost(usage.input_tokens, usage.output_tokens) if prices.cost(1, 1) else None
    return Arm(
        mode=mode,
        jobs=wanted,
        valid=len(examples),
        validity=len(examples) / wanted if wanted else None,
        validity_interval=wilson(len(examples), wanted) if wanted else None,
        form_errors=sum(count for reason, count in reasons.items() if reason in _FORM),
        reasons=reasons,
        distinct_1=distinct(units[:most], 1),
        distinct_2=distinct(units[:most], 2),
        similarity=mean_similarity([one.example.query for one in examples]),
        query_length=_mean([length_of(one.example.query) for one in examples]),
        passage_length=_mean([length_of(one.example.positives[0]) for one in examples]),
        calls=usage.calls,
        input_tokens=usage.input_tokens,
        output_tokens=usage.output_tokens,
        cost=cost,
        cost_per_example=cost / len(examples) if cost is not None and examples else None,
        seconds_per_job=usage.seconds / len(jobs) if jobs else None,
        consistent=passed,
    )


def _units(examples: Sequence[Written]) -> list[str]:
    """Units of all texts, a "" between two so that no pair crosses from one into the next."""
    found = []
    for one in examples:
        for text in (one.example.query, *(one.example.positives if one.job.grounding is None else ())):
            spelling = canonical(text)
            found.extend([*(spelling[start:end] for start, end in word_spans(spelling).tolist()), ""])
    return found


def distinct(units: Sequence[str], n: int) -> float | None:
    """Different runs of `n` units per run; runs across a "" do not count. None where there is none."""
    runs = list(pairwise(units)) if n == 2 else [(unit,) for unit in units]
    whole = [run for run in runs if "" not in run]
    return len(set(whole)) / len(whole) if whole else None


def mean_similarity(texts: Sequence[str]) -> float | None:
    """Mean Jaccard similarity of two texts' shingles, over all pairs or `_PAIRS` drawn ones; None below two texts."""
    if len(texts) < 2:
        return None
    marks = [shingles(text, characters=_SHINGLE) for text in texts]
    total, draw = len(texts) * (len(texts) - 1) // 2, random.Random(0)
    if total <= _PAIRS:
        pairs = [(left, right) for left in range(len(texts)) for right in range(left)]
    else:
        pairs = [tuple(draw.sample(range(len(texts)), 2)) for _ in range(_PAIRS)]  # type: ignore[misc]
    return float(np.mean([jaccard(marks[left], marks[right]) for left, right in pairs]))


def wilson(successes: int, trials: int) -> tuple[float, float]:
    """95 % interval of a share (Wilson, 1927)."""
    share, square = successes / trials, _95**2
    middle = (share + square / (2 * trials)) / (1 + square / trials)
    half = _95 / (1 + square / trials) * math.sqrt(share * (1 - share) / trials + square / (4 * trials**2))
    return max(0.0, middle - half), min(1.0, middle + half)


def _mean(values: Sequence[int]) -> float | None:
    return float(np.mean(values)) if values else None


def columns(arm: Arm) -> dict[str, str]:
    """A row of the table for people, which fits into 120 columns; `LEGEND` says what they are."""
    low, high = arm.validity_interval or (math.nan, math.nan)
    shown = {
        "mode": arm.mode,
        "valid": f"{arm.valid}/{arm.jobs}",
        "95 %": f"{low:.2f}-{high:.2f}" if arm.validity_interval else "-",
        "form": str(arm.form_errors),
        "dist-2": _shown(arm.distinct_2, 3),
        "alike": _shown(arm.similarity, 3),
        "query": _shown(arm.query_length, 0),
        "passage": _shown(arm.passage_length, 0),
        "tokens": str(arm.input_tokens + arm.output_tokens),
        "kept": _shown(arm.consistent, 2),
    }
    return shown if arm.cost is None else shown | {"cost": f"{arm.cost:.4f}"}


def _shown(value: float | None, digits: int) -> str:
    return "-" if value is None else f"{value:.{digits}f}"
