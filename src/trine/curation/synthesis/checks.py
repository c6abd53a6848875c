"""What an answer must be besides well-formed: the group's own rules, the language, and not yet there."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from trine.curation.duplicates import MinHashIndex, NearDuplicates
from trine.curation.synthesis.language_check import is_in
from trine.curation.synthesis.parsing import Rejected
from trine.curation.synthesis.plan import Job
from trine.curation.texts import canonical, has_dense_letters, length_of
from trine.types import Example

_LEAST_LONG = 80
"""Latin characters (`length_of`) of a document: about a dozen words, where the prompts ask for 50 and more."""
_LEAST_COPY = 24
"""From this length on, a query that stands in the passage word for word was copied."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """An example that was written, before it is known whether it is new."""

    example: Example
    field: str
    """The key that the query came from."""


def candidates(job: Job, texts: Mapping[str, str], *, prompt: str | None) -> list[Candidate | Rejected]:
    """The examples of one answer: one, or of a passage one for each query; each is checked on its own.

    Args:
        job: what was asked for.
        texts: the group's fields.
        prompt: the query's prompt, and on symmetric groups the passage's too; None leaves them to the model.
    """
    if job.grounding is not None:
        return [_outcome(job, {name: text}, prompt) for name, text in texts.items()]
    return [_outcome(job, texts, prompt)]


def _outcome(job: Job, texts: Mapping[str, str], prompt: str | None) -> Candidate | Rejected:
    names = list(texts)
    if job.grounding is None:
        query, positive, *negatives = texts.values()
    else:
        query, positive, negatives = texts[names[0]], job.grounding.text, []
    try:
        _check_language(job, texts)
        _check_lengths(job, texts)
        _check_different(query, positive, negatives)
        _check_copies(job, names[0], query, positive, negatives)
    except Rejected as rejected:
        return rejected
    example = Example(
        query=query,
        positives=(positive,),
        negatives=tuple(negatives),
        query_prompt=prompt,
        passage_prompt=prompt if job.group.symmetric else None,
        lang=job.language_label,
    )
    return Candidate(example, names[0])


def _check_language(job: Job, texts: Mapping[str, str]) -> None:
    wanted = dict(zip(job.group.fields, job.languages, strict=True))
    for name, text in texts.items():
        language = wanted[name]
        if language is not None and not is_in(text, language):
            raise Rejected("wrong language", f"{name} is not {language.names['en']}: {text[:80]!r}")


def _check_lengths(job: Job, texts: Mapping[str, str]) -> None:
    for name in job.group.long_fields:
        if length_of(texts[name]) < _LEAST_LONG:
            raise Rejected("too short", f"{name}: {texts[name][:80]!r}")


def _check_different(query: str, positive: str, negatives: list[str]) -> None:
    spellings = [canonical(text) for text in (query, positive, *negatives)]
    if len(set(spellings)) < len(spellings):
        raise Rejected("same text twice")


def _check_copies(job: Job, name: str, query: str, positive: str, negatives: list[str]) -> None:
    inside, around = canonical(query), canonical(positive)
    if job.group.name in ("short-long", "grounded") and name != "keywords":
        if length_of(query) >= _LEAST_COPY and inside in around:
            raise Rejected("copied", f"the document holds the query word for word: {query[:80]!r}")
    elif job.group.name == "long-short" and any(_holds(inside, label) for label in (positive, *negatives)):
        raise Rejected("label in text", f"{positive[:40]!r}")


def _holds(spelling: str, label: str) -> bool:
    """Whether a label stands in a text; as words of their own, but for scripts that put endings behind them."""
    wanted = canonical(label)
    if has_dense_letters(wanted):
        return wanted in spelling
    return re.search(rf"(?<!\w){re.escape(wanted)}(?!\w)", spelling) is not None


class Seen:
    """Queries so far: a copy or near copy of one adds nothing, and would be a false negative in its batch."""

    def __init__(self, settings: NearDuplicates | None = None) -> None:
        """Begin with none."""
        self._spellings: set[str] = set()
        self._index = MinHashIndex(settings or NearDuplicates())

    def check(self, query: str) -> None:
        """Take up a query.

        Raises:
            Rejected: it is one of those before.
        """
        spelling = canonical(query)
        if spelling in self._spellings:
            raise Rejected("duplicate", query[:80])
        found = self._index.nearest_or_add(spelling)
        if found is not None:
            raise Rejected("near duplicate", f"{found[1]:.2f} like an earlier query")
        self._spellings.add(spelling)
