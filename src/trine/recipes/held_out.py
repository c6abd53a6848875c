"""A judged set out of documents themselves: some are held out, and the pairs in them become queries with answers."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import msgspec

from trine.curation.decontamination import Decontaminated, Overlap, decontaminate
from trine.curation.duplicates import MinHashIndex, NearDuplicates
from trine.curation.sections import Spans, pieces, sections, without_first_lines
from trine.curation.texts import canonical
from trine.curation.translations import language_key
from trine.curation.weak_pairs import PairRules, WeakPair
from trine.evaluation.beir import Dataset
from trine.types import Document, Example, Qrels, Query

OVERLAP = Overlap(words=40, characters=80)
"""What must not be shared between training and held-out texts. The usual 13 words and 30 letters are for benchmarks
from elsewhere: documents of one domain share phrases of that length that say nothing (names of products, warnings)."""


@dataclass(frozen=True, slots=True)
class Part:
    """A share of the documents, by the different queries that their pairs hold."""

    share: float
    """Of all queries."""
    least: int
    """Queries wanted at least, however few there are in all."""
    most: int
    """Queries at most, however many."""

    def wanted(self, queries: int) -> int:
        """Queries to set aside of so many."""
        return min(max(round(self.share * queries), self.least), self.most)


def families(documents: Iterable[Document]) -> dict[str, str]:
    """Document id -> the family that is never split: a document with its translations (`language_key`)."""
    keys = ((document.id, language_key(document.id)) for document in documents)
    return {identity: key[0] if key else identity for identity, key in keys}


def set_aside(pairs: Sequence[WeakPair], family_of: Mapping[str, str], part: Part, *, seed: int) -> set[str]:
    """Families that together hold as many different queries as wanted, drawn by `seed`.

    Whether a family is drawn early depends on its name and the seed alone, so that a folder that grows keeps most of
    its held-out documents. A family with more queries than are wanted is passed over.
    """
    queries: dict[str, set[str]] = defaultdict(set)
    for pair in pairs:
        queries[family_of[pair.document_id]].add(canonical(pair.example.query))
    wanted = part.wanted(len(set().union(*queries.values())))
    chosen: set[str] = set()
    found: set[str] = set()
    for family in sorted(queries, key=lambda name: _draw(name, seed)):
        if len(found) >= wanted:
            break
        if len(queries[family]) <= wanted:
            chosen.add(family)
            found |= queries[family]
    return chosen


def passages_of(documents: Iterable[Document], *, rules: PairRules, spans: Spans | None = None) -> list[Document]:
    """The passages of documents as `weak_pairs` cuts them, each text once: no titles, no first lines that repeat one.

    Ids count up; the metadata's `document` names where a passage is from.
    """
    found: dict[str, Document] = {}
    for document in documents:
        for section in sections(document):
            for piece in pieces(section.text, max_tokens=rules.max_tokens, spans=spans):
                text = without_first_lines(piece, [document.title, *section.path], spelling=canonical)
                if text:
                    passage = Document(f"p{len(found)}", text, metadata={"document": document.id})
                    found.setdefault(canonical(text), passage)
    return list(found.values())


def judged_set(
    asked: Sequence[WeakPair], passages: Sequence[Document], *, others: Sequence[WeakPair] = (), name: str
) -> Dataset:
    """Queries with the passages that answer them, over a corpus.

    Relevant are the passages of all pairs with the query's spelling, near copies of these, and passages that contain
    one. A passage that a pair was torn out of, as a question and its answer in running text are, leaves the corpus: it
    holds the query itself.

    Args:
        asked: held-out pairs; their queries are judged, each spelling once.
        passages: the corpus, as `passages_of` gives it.
        others: further pairs; their passages count where the query is the same.
        name: of the set.
    """
    corpus = _Corpus(passages)
    corpus.tear_out(asked)
    near = MinHashIndex(NearDuplicates())
    for text in corpus.spellings:
        near.add(text)
    relevant: dict[str, set[str]] = {}
    texts: dict[str, str] = {}
    for pair in asked:
        spelling = canonical(pair.example.query)
        texts.setdefault(spelling, pair.example.query)
        relevant.setdefault(spelling, set())
    for pair in (*asked, *others):
        found = relevant.get(canonical(pair.example.query))
        if found is not None:
            found |= corpus.homes(pair)
            for positive in pair.example.positives:
                found |= {corpus.documents[number].id for number, _ in near.near(canonical(positive))}
    queries = [Query(f"q{number}", text) for number, text in enumerate(texts.values())]
    qrels: Qrels = {
        query.id: dict.fromkeys(sorted(found), 1) for query, found in zip(queries, relevant.values(), strict=True)
    }
    return Dataset(name, corpus.documents, queries, qrels)


def texts_of(data: Dataset) -> list[str]:
    """What training must not have seen of a judged set: its queries, and the passages that answer them."""
    answers = {document for judged in data.qrels.values() for document, grade in judged.items() if grade > 0}
    return [
        *(query.text for query in data.judged),
        *(document.text for document in data.corpus if document.id in answers),
    ]


def overlapping(examples: Sequence[Example], sets: Iterable[Dataset]) -> Decontaminated:
    """What is left of examples without those that share a query or passage with judged sets."""
    return decontaminate(examples, {data.name: texts_of(data) for data in sets}, settings=OVERLAP)


def write_set(data: Dataset, folder: Path) -> None:
    """Write a judged set in BEIR's layout, as `trine evaluate` reads it."""
    (folder / "qrels").mkdir(parents=True, exist_ok=True)
    _write_lines(
        folder / "corpus.jsonl",
        (
            {"_id": document.id, "title": document.title, "text": document.text, **document.metadata}
            for document in data.corpus
        ),
    )
    _write_lines(folder / "queries.jsonl", ({"_id": query.id, "text": query.text} for query in data.queries))
    rows = (f"{query}\t{document}\t{grade}" for query, row in data.qrels.items() for document, grade in row.items())
    lines = ["query-id\tcorpus-id\tscore", *rows]
    (folder / "qrels" / "test.tsv").write_text("\n".join(lines) + "\n", encoding="utf-8")


class _Corpus:
    """Passages by spelling and by document."""

    def __init__(self, passages: Sequence[Document]) -> None:
        self.documents = list(passages)
        self._index()

    def _index(self) -> None:
        self.spellings = [canonical(passage.text) for passage in self.documents]
        self.numbers = {spelling: number for number, spelling in enumerate(self.spellings)}
        self.of_document: dict[str, list[int]] = defaultdict(list)
        for number, passage in enumerate(self.documents):
            self.of_document[str(passage.metadata["document"])].append(number)

    def homes(self, pair: WeakPair) -> set[str]:
        """Ids of the passages that are a pair's, or contain it."""
        found: set[str] = set()
        for positive in pair.example.positives:
            spelling = canonical(positive)
            if spelling in self.numbers:
                found.add(self.documents[self.numbers[spelling]].id)
            found |= {self.documents[number].id for number in self._holding(spelling, pair.document_id)}
        return found

    def tear_out(self, pairs: Sequence[WeakPair]) -> None:
        """Put the passages of pairs that are no passage of the corpus in the place of those that hold them."""
        own = {canonical(positive) for pair in pairs for positive in pair.example.positives}
        gone: set[int] = set()
        fresh: dict[str, Document] = {}
        for pair in pairs:
            for positive in pair.example.positives:
                spelling = canonical(positive)
                if spelling not in self.numbers:
                    passage = Document("", positive, metadata={"document": pair.document_id})
                    fresh.setdefault(spelling, passage)
                    held = self._holding(spelling, pair.document_id)
                    gone |= {number for number in held if self.spellings[number] not in own}
        kept = [passage for number, passage in enumerate(self.documents) if number not in gone]
        self.documents = [replace(passage, id=f"p{number}") for number, passage in enumerate([*kept, *fresh.values()])]
        self._index()

    def _holding(self, spelling: str, document: str) -> list[int]:
        return [number for number in self.of_document.get(document, ()) if spelling in self.spellings[number]]


def _draw(name: str, seed: int) -> bytes:
    return hashlib.blake2b(f"{seed}:{name}".encode("utf-8", "surrogatepass"), digest_size=16).digest()


def _write_lines(path: Path, rows: Iterable[Mapping[str, object]]) -> None:
    encode: Callable[[object], bytes] = msgspec.json.Encoder().encode
    with path.open("wb") as stream:
        for row in rows:
            stream.write(encode(row) + b"\n")
