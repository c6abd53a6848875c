"""What sizes are measured on: a judged set, one without judgements, or documents alone; and a sample of it."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from trine.data import Skipped, read_documents
from trine.data.chunking import Chunking, chunk
from trine.data.sentences import sentence_spans
from trine.errors import DataError, UsageError
from trine.evaluation.beir import Dataset, read_beir
from trine.types import Document, Passage, Query, TextEncoder

_LEAST_SENTENCE = 20
"""Characters under which a sentence asks for nothing in particular."""


@dataclass(frozen=True, slots=True)
class Corpus:
    """A sample to measure on, and how large the whole is."""

    data: Dataset
    """Documents, queries and, where there are any, judgements."""
    whole: int
    """Documents or passages that the sample stands for."""
    queries: str
    """Where the queries come from: "judged", "given" (without judgements) or "sentences" of the documents."""


def read_corpus(
    path: str | os.PathLike[str], encoder: TextEncoder, *, documents: int = 2000, queries: int = 300, seed: int = 0
) -> Corpus:
    """Read what sizes are measured on, and sample it.

    A folder with ``corpus.jsonl`` is an evaluation set, whose documents are embedded whole. Any other folder, file or
    pattern is read as `trine index` does and cut into passages; sentences of them stand in for queries.

    Args:
        path: folder, file or pattern.
        encoder: gives the tokens by which documents are cut.
        documents: most of the sample; documents that a sampled query's judgements name are kept beyond that.
        queries: most of the sample.
        seed: of the draws.

    Raises:
        DataError: the set breaks its format.
        UsageError: nothing could be read, or a number is below 1.
    """
    if documents < 1 or queries < 1:
        raise UsageError(f"a sample of {documents} documents and {queries} queries is empty; both are at least 1")
    generator = np.random.default_rng(seed)
    root = Path(path)
    if root.is_dir() and any(root.glob("corpus.jsonl*")):
        return _sampled(read_beir(root, judged=any(root.glob("qrels*"))), documents, queries, generator)
    return _passages(path, encoder, documents, queries, generator)


def content(document: Document) -> str:
    """What is embedded of a document: its title line and its text."""
    return Passage("", 0, 0, len(document.text), 1, document.text, document.title).content


def _sampled(data: Dataset, documents: int, queries: int, generator: np.random.Generator) -> Corpus:
    asked = [query for query in (data.judged if data.qrels else data.queries) if query.text.strip()]
    if not asked or not data.corpus:
        raise UsageError(f"{data.name}: no document, or no query with text and judgements; there is nothing to measure")
    chosen = [asked[number] for number in _drawn(len(asked), queries, generator)]
    qrels = {query.id: data.qrels[query.id] for query in chosen} if data.qrels else {}
    named = {document for judged in qrels.values() for document in judged}
    kept = np.array([document.id in named for document in data.corpus])
    others = np.flatnonzero(~kept)
    kept[others[_drawn(len(others), max(documents - int(kept.sum()), 0), generator)]] = True
    sample = replace(data, corpus=[data.corpus[number] for number in np.flatnonzero(kept)], queries=chosen, qrels=qrels)
    return Corpus(sample, len(data.corpus), "judged" if qrels else "given")


def _passages(
    path: str | os.PathLike[str], encoder: TextEncoder, documents: int, queries: int, generator: np.random.Generator
) -> Corpus:
    held: list[Document] = []
    reasons, read = [], 0
    for item in read_documents(path):
        if isinstance(item, Skipped):
            reasons.append(f"{item.path}: {item.reason}")
            continue
        read += 1
        # A reservoir: every document is in it with the same chance, however many follow.
        place = read - 1 if read <= documents else int(generator.integers(read))
        if place < documents:
            held[place : place + 1] = [item]
    chunking = Chunking(max_tokens=max(min(256, encoder.max_length * 3 // 4), 8))
    found = [part for each in held for part in chunk(each, spans=encoder.token_spans, chunking=chunking)]
    if not found:
        raise DataError(f"{path}: no document with text in it" + "".join(f"; {reason}" for reason in reasons[:3]))
    whole = round(len(found) / len(held) * read)
    sample = [found[number] for number in _drawn(len(found), documents, generator)]
    corpus = [Document(f"{each.document_id}#{each.ordinal}", each.text, each.title) for each in sample]
    asked = [
        Query(corpus[number].id, _sentence(corpus[number].text, generator))
        for number in _drawn(len(corpus), queries, generator)
    ]
    return Corpus(Dataset(Path(path).name, corpus, asked, {}), whole, "sentences")


def _sentence(text: str, generator: np.random.Generator) -> str:
    """A sentence of the text by chance; the text itself where none is long enough."""
    sentences = [text[start:end].strip() for start, end in sentence_spans(text)]
    usable = [sentence for sentence in sentences if len(sentence) >= _LEAST_SENTENCE]
    return usable[int(generator.integers(len(usable)))] if usable else text.strip()


def _drawn(count: int, most: int, generator: np.random.Generator) -> list[int]:
    """At most `most` of `count` positions, ascending."""
    if count <= most:
        return list(range(count))
    return sorted(generator.choice(count, most, replace=False).tolist())
