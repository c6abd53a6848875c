"""Weak pairs from documents: queries that the documents themselves hold, with the passages that they stand for.

Source: the kinds of CCPairs that need nothing but documents, E5, arXiv 2212.03533, section 3; sections of parallel
documents as in mE5's translation pairs, arXiv 2402.05672, section 2; a text's first sentence for the rest of it, a
fixed choice of the inverse cloze task, Lee et al., arXiv 1906.00300, section 4.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from typing import Any

from trine.curation.headings import is_generic, unnumbered
from trine.curation.questions import is_question, question_answers
from trine.curation.sections import Section, Spans, pieces, sections, without_first_lines
from trine.curation.texts import canonical, length_of
from trine.curation.translations import Aligned, Unaligned, align, paragraphs_of, similar_length
from trine.data.sentences import sentence_spans
from trine.encoding.progress import progress_bar
from trine.errors import UsageError
from trine.tables import unknown
from trine.types import Document, Example

_DESCRIPTIONS = ("description", "summary", "abstract", "subtitle", "excerpt", "설명", "요약")


@dataclass(frozen=True, slots=True)
class PairRules:
    """What a pair must be to count; lengths are in letters and digits, one of Hangul or ideographs counting two."""

    least_query: int = 3
    most_query: int = 200
    """Not for translations, whose queries are sections."""
    least_passage: int = 60
    max_tokens: int = 256
    """Longer sections are cut where the index cuts them."""
    per_query: int = 1
    """Passages that one title or heading gets, from the start of its section: later ones answer it less and less."""
    least_alone: int = 12
    """A heading shorter than this carries the headings above it and the title, as E5's section titles do."""
    common_heading: int = 3
    """So does a heading in this many documents, and those in `trine.curation.headings.GENERIC`."""

    def __post_init__(self) -> None:
        """Refuse limits that nothing can meet."""
        if min(self.least_query, self.least_passage, self.per_query, self.common_heading) < 1:
            raise UsageError(f"{self}: least_query, least_passage, per_query and common_heading must be at least 1")
        if self.most_query < self.least_query:
            raise UsageError(f"most_query is {self.most_query}, under least_query {self.least_query}; raise it")


@dataclass(frozen=True, slots=True)
class Candidate:
    """A pair before the rules."""

    query: str
    passage: str
    document_id: str
    lang: str = ""
    names: tuple[str, ...] = ()
    """Title and headings: besides the query, what must not stand as the passage's first line."""
    parallel: bool = False
    """Whether both sides say the same in two languages."""
    too_long: bool = False
    """Whether a translation is longer than a passage, and cannot be cut so that both sides still match."""


@dataclass(frozen=True, slots=True)
class WeakPair:
    """A pair that stood the rules."""

    kind: str
    """Its row in `PAIR_KINDS`."""
    example: Example
    """One positive, no negatives."""
    document_id: str
    """Where the passage is from."""


@dataclass(frozen=True, slots=True)
class WeakPairs:
    """All pairs of a collection of documents."""

    pairs: tuple[WeakPair, ...]
    documents: int
    dropped: Mapping[str, Mapping[str, int]]
    """Kind -> rule -> candidates that it dropped."""
    unaligned: tuple[Unaligned, ...]
    """Documents that share a path but for the language, and yet have different outlines."""
    rules: PairRules

    @property
    def examples(self) -> tuple[Example, ...]:
        """The pairs alone."""
        return tuple(pair.example for pair in self.pairs)

    @property
    def sources(self) -> tuple[str, ...]:
        """The kind of each pair: what `consistency_filter` keeps statistics by."""
        return tuple(pair.kind for pair in self.pairs)

    def summary(self) -> dict[str, Any]:
        """Counts per kind and rules, ready for JSON."""
        counts = Counter(self.sources)
        return {
            "documents": self.documents,
            "pairs": len(self.pairs),
            "kinds": {
                kind: {"pairs": counts.get(kind, 0), "dropped": dict(reasons)} for kind, reasons in self.dropped.items()
            },
            "unaligned_documents": len(self.unaligned),
            "rules": asdict(self.rules),
        }


@dataclass(frozen=True)
class Parsed:
    """Documents cut into sections, with what only all of them together tell."""

    documents: Sequence[Document]
    rules: PairRules
    spans: Spans | None = None
    sections: Sequence[Sequence[Section]] = field(default=())

    @cached_property
    def common_headings(self) -> frozenset[str]:
        """Headings, in canonical spelling, of so many documents that they say nothing alone."""
        counts = Counter(
            heading
            for parts in self.sections
            for heading in {canonical(unnumbered(part.path[-1])) for part in parts if part.path}
        )
        return frozenset(heading for heading, count in counts.items() if count >= self.rules.common_heading)

    @cached_property
    def aligned(self) -> list[Aligned | Unaligned]:
        """What the documents that are translations of each other share, and those that are none after all."""
        return list(align(self.documents))

    def each(self) -> Iterator[tuple[Document, Sequence[Section]]]:
        """The documents with their sections."""
        yield from zip(self.documents, self.sections, strict=True)

    def is_generic(self, heading: str) -> bool:
        """Whether a heading says nothing without a title."""
        return is_generic(heading) or canonical(unnumbered(heading)) in self.common_headings

    def query_for(self, document: Document, section: Section) -> str:
        """The heading, behind the headings above it and the title as far as it says nothing without them.

        Empty where nothing at all does.
        """
        path = [unnumbered(name) for name in (document.title, *section.path) if name.strip()]
        kept: list[str] = []
        telling = 0
        for name in reversed(list(dict.fromkeys(path))):
            kept.insert(0, name)
            telling += 0 if self.is_generic(name) else length_of(name)
            if telling >= self.rules.least_alone:
                break
        return " ".join(kept) if telling else ""

    def passages(self, text: str, most: int) -> list[str]:
        """The first passages of a section."""
        return pieces(text, max_tokens=self.rules.max_tokens, spans=self.spans)[:most]


def weak_pairs(
    documents: Iterable[Document],
    *,
    kinds: Sequence[str] | None = None,
    rules: PairRules | None = None,
    spans: Spans | None = None,
    progress: bool = False,
) -> WeakPairs:
    """Make query-passage pairs of documents.

    Passages hold the text alone, without the titles that queries are made of, and lose first lines that repeat the
    query: a pair cannot be solved by copying its first line. A pair found twice, also under two kinds, counts once.

    Args:
        documents: as `trine.data.read_documents` yields them, without what it skipped; all are held.
        kinds: rows of `PAIR_KINDS`, in the order in which they claim a pair; None is `DEFAULT_KINDS`.
        rules: lengths and limits.
        spans: the tokens of the model to be trained (`TextEncoder.token_spans`), for `PairRules.max_tokens`; None
            counts words.
        progress: show a bar.

    Raises:
        UsageError: an unknown kind, or a document whose headings do not fit its text.
    """
    chosen = DEFAULT_KINDS if kinds is None else tuple(dict.fromkeys(kinds))
    for kind in chosen:
        if kind not in PAIR_KINDS:
            raise unknown(kind, PAIR_KINDS, kind="kind of weak pair")
    held = list(documents)
    limits = rules or PairRules()
    seen: set[tuple[str, str]] = set()
    pairs: list[WeakPair] = []
    dropped: dict[str, Counter[str]] = {kind: Counter() for kind in chosen}
    with progress_bar("Weak pairs", total=len(held) * len(chosen), shown=progress) as advance:
        parsed = Parsed(held, limits, spans, [sections(document) for document in held])
        for kind in chosen:
            for candidate in PAIR_KINDS[kind](parsed):
                example, reason = judged(candidate, limits, seen)
                if example is None:
                    dropped[kind][reason] += 1
                else:
                    pairs.append(WeakPair(kind, example, candidate.document_id))
            advance(len(held))
    missed = [item for item in parsed.aligned if isinstance(item, Unaligned)] if "translation" in chosen else []
    return WeakPairs(tuple(pairs), len(held), dropped, tuple(missed), limits)


def judged(candidate: Candidate, rules: PairRules, seen: set[tuple[str, str]]) -> tuple[Example | None, str]:
    """The candidate as an example, or None and the name of the rule that it breaks; `seen` grows by what stood."""
    query = candidate.query.strip() if candidate.parallel else " ".join(candidate.query.split())
    passage = candidate.passage.strip()
    if not candidate.parallel:
        passage = without_first_lines(passage, [query, *candidate.names], spelling=canonical)
    key = (canonical(query), canonical(passage))
    reason = _fault(query, passage, candidate, rules) or ("same text" if key[0] == key[1] else "")
    reason = reason or ("repeated" if key in seen else "")
    if reason:
        return None, reason
    seen.add(key)
    return Example(query, (passage,), lang=candidate.lang), ""


def _fault(query: str, passage: str, candidate: Candidate, rules: PairRules) -> str:
    if not query:
        return "generic query"
    if length_of(query) < rules.least_query or not any(map(str.isalpha, query)):
        return "short query"
    if length_of(passage) < rules.least_passage:
        return "short passage"
    if candidate.parallel:
        if length_of(query) < rules.least_passage:
            return "short query"
        if candidate.too_long:
            return "too long"
        return "" if similar_length(query, passage) else "unequal length"
    return "long query" if length_of(query) > rules.most_query else ""


def _title_passage(parsed: Parsed) -> Iterator[Candidate]:
    for document, parts in parsed.each():
        lead = next((part.text for part in parts if part.text), "")
        title = unnumbered(document.title) if document.title.strip() else ""
        if title and lead:
            query = "" if parsed.is_generic(title) else title
            for passage in parsed.passages(lead, parsed.rules.per_query):
                yield Candidate(query, passage, document.id, _language_of(document), (document.title,))


def _heading_passage(parsed: Parsed) -> Iterator[Candidate]:
    for document, parts in parsed.each():
        for part in parts:
            if part.path and part.text:
                query = parsed.query_for(document, part)
                for passage in parsed.passages(part.text, parsed.rules.per_query):
                    yield Candidate(query, passage, document.id, _language_of(document), (document.title, *part.path))


def _question_answer(parsed: Parsed) -> Iterator[Candidate]:
    for document, parts in parsed.each():
        language = _language_of(document)
        for part in parts:
            if part.path and part.text and is_question(part.path[-1]):
                query = parsed.query_for(document, part)
                for passage in parsed.passages(part.text, parsed.rules.per_query):
                    yield Candidate(query, passage, document.id, language, (document.title, *part.path))
            for question, answer in question_answers(part.text):
                for passage in parsed.passages(answer, parsed.rules.per_query):
                    yield Candidate(question, passage, document.id, language)


def _description_passage(parsed: Parsed) -> Iterator[Candidate]:
    for document, parts in parsed.each():
        lead = next((part.text for part in parts if part.text), "")
        texts = (document.metadata.get(name) for name in _DESCRIPTIONS)
        description = next((text for text in texts if isinstance(text, str) and text.strip()), None)
        if description is not None and lead:
            for passage in parsed.passages(lead, parsed.rules.per_query):
                yield Candidate(description, passage, document.id, _language_of(document))


def _first_sentence(parsed: Parsed) -> Iterator[Candidate]:
    for document, parts in parsed.each():
        for part in parts:
            for passage in pieces(part.text, max_tokens=parsed.rules.max_tokens, spans=parsed.spans):
                spans = sentence_spans(passage)
                if len(spans) > 1:
                    start, end = spans[0].tolist()
                    yield Candidate(passage[start:end], passage[end:], document.id, _language_of(document))


def _translation(parsed: Parsed) -> Iterator[Candidate]:
    for item in parsed.aligned:
        for pair in [] if isinstance(item, Unaligned) else _cut(item, parsed):
            (left, right), (first, second) = pair.languages, pair.document_ids
            long = not _fits(pair, parsed)
            yield Candidate(pair.left, pair.right, second, f"{left}-{right}", parallel=True, too_long=long)
            yield Candidate(pair.right, pair.left, first, f"{right}-{left}", parallel=True, too_long=long)


def _cut(pair: Aligned, parsed: Parsed) -> list[Aligned]:
    """The pair, or its paragraphs where it is too long and both sides have as many."""
    return [pair] if _fits(pair, parsed) else paragraphs_of(pair)


def _fits(pair: Aligned, parsed: Parsed) -> bool:
    return all(len(parsed.passages(side, 2)) < 2 for side in (pair.left, pair.right))


def _language_of(document: Document) -> str:
    found = document.metadata.get("lang") or document.metadata.get("language")
    return found if isinstance(found, str) else ""


PAIR_KINDS: Mapping[str, Callable[[Parsed], Iterator[Candidate]]] = {
    "question_answer": _question_answer,
    "title_passage": _title_passage,
    "heading_passage": _heading_passage,
    "description_passage": _description_passage,
    "translation": _translation,
    "first_sentence": _first_sentence,
}
"""Kind of pair -> what finds its candidates in parsed documents."""

DEFAULT_KINDS: tuple[str, ...] = tuple(kind for kind in PAIR_KINDS if kind != "first_sentence")
"""First sentences are left to those who ask: such a pair is torn out of one text instead of found, and there are as
many of them as there are passages."""
