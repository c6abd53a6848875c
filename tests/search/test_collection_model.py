"""A collection against an oracle of plain dictionaries that scores everything by hand."""

import math
import tempfile
from collections import Counter

import numpy as np
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from trine.data.chunking import Chunking, chunk
from trine.index.analysis import BigramAnalyzer
from trine.search.collection import Collection
from trine.search.fusion import FUSIONS, RETRIEVERS
from trine.testing import HashingEncoder
from trine.types import Document

ENCODER = HashingEncoder(dense=8, sparse=512, multi_vector=4)
ANALYZER = BigramAnalyzer()
CHUNKING = Chunking(8)
WORDS = ["사과", "바다", "하늘", "apple", "sea", "sky", "2024", "🌊", "학교에서"]
EVERYTHING = 1000

ids = st.sampled_from(["a", "나", "c/d.txt", "é", "e"])
texts = st.lists(st.sampled_from([*WORDS, ".\n\n"]), max_size=14).map(" ".join)
metadata = st.fixed_dictionaries(
    {},
    optional={
        "언어": st.sampled_from(["ko", "en", None]),
        "year": st.sampled_from([2020, 2021.5, "2020", True]),
    },
)
documents = st.builds(Document, ids, texts, st.sampled_from(["", "제목 sky"]), metadata)
queries = st.lists(st.sampled_from([*WORDS, "unknown"]), min_size=1, max_size=3).map(" ".join)
conditions = st.sampled_from(
    [
        ({"언어": "ko"}, lambda row: row.get("언어", "") == "ko"),
        ({"언어": None}, lambda row: "언어" in row and row["언어"] is None),
        ({"year": {">=": 2020, "<": 2022}}, lambda row: type(row.get("year")) in (int, float)),
        ("언어!=ko", lambda row: row.get("언어", "") != "ko"),
        ("year=2020", lambda row: type(row.get("year")) in (int, str)),
        ("year=true|2021.5", lambda row: row.get("year") is True or row.get("year") == 2021.5),
    ]
)


def passages_of(document):
    parts = chunk(document, spans=ENCODER.token_spans, chunking=CHUNKING)
    return [part.content for part in parts] if parts else [f"{document.title}\n"] * bool(document.title)


class Oracle:
    def __init__(self):
        self.documents = {}

    def contents(self, keep=lambda row: True):
        """(document id, ordinal) -> what is embedded, of the documents that pass."""
        return {
            (document.id, ordinal): content
            for document in self.documents.values()
            if keep(document.metadata)
            for ordinal, content in enumerate(passages_of(document))
        }

    def scores(self, query, retriever, keep):
        """(document id, ordinal) -> score of every passage that the retriever can find."""
        scored = {key: self._score(query, content, retriever) for key, content in self.contents(keep).items()}
        return {key: score for key, score in scored.items() if score or retriever in ("dense", "multi_vector")}

    def _score(self, query, content, retriever):
        if retriever == "bm25":
            return self._bm25(query, content)
        left = ENCODER.encode([query], kind="query")
        right = ENCODER.encode([content], kind="passage")
        if retriever == "dense":
            return float(np.dot(left.dense[0], right.dense[0]))
        if retriever == "sparse":
            first, second = (dict(zip(*side.sparse.row(0), strict=True)) for side in (left, right))
            return float(sum(first[key] * second[key] for key in first.keys() & second.keys()))
        stored = right.multi_vector.values.astype(np.float16).astype(np.float32)
        return float(np.mean([max(np.dot(vector, other) for other in stored) for vector in left.multi_vector.values]))

    def _bm25(self, query, content, k1=0.9, b=0.6):
        bags = [Counter(terms) for text in self.contents().values() if (terms := ANALYZER.terms(text))]
        average = sum(sum(bag.values()) for bag in bags) / max(len(bags), 1)
        bag, total = Counter(ANALYZER.terms(content)), 0.0
        for term, count in Counter(ANALYZER.terms(query)).items():
            having = sum(term in other for other in bags)
            if bag[term]:
                idf = math.log(1 + (len(bags) - having + 0.5) / (having + 0.5))
                norm = k1 * (1 - b + b * sum(bag.values()) / average)
                total += count * idf * bag[term] / (bag[term] + norm)
        return total


def fused(hits, retrievers, fusion):
    """Fusion by the book, from the raw scores that the hits show."""
    totals = [0.0] * len(hits)
    weights = {"dense": 1.0, "sparse": 0.3, "multi_vector": 1.0} if fusion == "weighted" else {}
    for name in retrievers:
        column = [hit.scores.get(name) for hit in hits]
        known = [score for score in column if score is not None]
        least = min([*known, *([0.0] if len(known) < len(column) else [])])
        filled = [least if score is None else score for score in column]
        mean = sum(filled) / len(filled)
        deviation = math.sqrt(sum((score - mean) ** 2 for score in filled) / len(filled))
        for place, score in enumerate(column):
            if fusion == "rrf":
                share = 0.0 if score is None else 1 / (60 + 1 + sum(other > score for other in known))
            elif fusion == "weighted":
                share = score or 0.0
            elif max(filled) == least:
                share = 0.0
            elif fusion == "minmax":
                share = (filled[place] - least) / (max(filled) - least)
            else:
                share = (filled[place] - mean) / deviation
            totals[place] += weights.get(name, 1.0) * share
    return totals


class CollectionMachine(RuleBasedStateMachine):
    index = "exact"

    @initialize()
    def make(self):
        self.folder = tempfile.TemporaryDirectory()
        self.path = f"{self.folder.name}/collection"
        self.oracle = Oracle()
        self.collection = Collection.create(
            self.path, encoder=ENCODER, analyzer="bigram", chunking=CHUNKING, index=self.index
        )
        self.reader = Collection.open(self.path, encoder=ENCODER, read_only=True)

    def teardown(self):
        if hasattr(self, "folder"):
            self.collection.close()
            self.reader.close()
            self.folder.cleanup()

    @rule(batch=st.lists(documents, max_size=4), size=st.integers(1, 3))
    def add(self, batch, size):
        before = dict(self.oracle.documents)
        report = self.collection.add(batch, batch=size)
        for document in batch:
            if passages_of(document):
                self.oracle.documents[document.id] = document
            else:
                self.oracle.documents.pop(document.id, None)
        if len({document.id for document in batch}) == len(batch):
            kept = [document for document in batch if passages_of(document)]
            assert report.unchanged == sum(before.get(document.id) == document for document in kept)
            assert report.added == sum(document.id not in before for document in kept)
            assert report.updated == len(kept) - report.unchanged - report.added
            assert len(report.skipped) == len(batch) - len(kept)

    @rule(gone=st.lists(ids, max_size=3))
    def delete(self, gone):
        expected = len(set(gone) & self.oracle.documents.keys())
        assert self.collection.delete(gone) == expected
        for document_id in gone:
            self.oracle.documents.pop(document_id, None)

    @rule()
    def reopen(self):
        self.collection.close()
        self.collection = Collection.open(self.path, encoder=ENCODER)

    @rule()
    def reopen_reader(self):
        self.reader.close()
        self.reader = Collection.open(self.path, encoder=ENCODER, read_only=True)

    @rule(
        query=queries, retriever=st.sampled_from(RETRIEVERS), k=st.sampled_from([1, 3, EVERYTHING]), other=st.booleans()
    )
    def search_one_way(self, query, retriever, k, other):
        self.compare_single(self.reader if other else self.collection, query, retriever, k)

    @precondition(lambda self: any({"언어", "year"} <= d.metadata.keys() for d in self.oracle.documents.values()))
    @rule(query=queries, retriever=st.sampled_from(RETRIEVERS), condition=conditions, other=st.booleans())
    def search_filtered(self, query, retriever, condition, other):
        filters, keep = condition
        handle = self.reader if other else self.collection
        self.compare_single(handle, query, retriever, EVERYTHING, filters=filters, keep=keep)

    def compare_single(self, handle, query, retriever, k, filters=None, keep=lambda row: True):
        expected = self.oracle.scores(query, retriever, keep)
        hits = handle.search(query, retrievers=[retriever], k=k, depth=EVERYTHING, filters=filters)
        found = {(hit.passage.document_id, hit.passage.ordinal): hit.score for hit in hits}
        assert len(found) == len(hits) == min(k, len(expected))
        for key, score in found.items():
            assert score == pytest.approx(expected[key], abs=1e-4)
        best = sorted(expected.values(), reverse=True)[:k]
        assert [hit.score for hit in hits] == pytest.approx(best, abs=1e-4)

    @rule(query=queries, fusion=st.sampled_from(sorted(FUSIONS)), other=st.booleans())
    def search_fused(self, query, fusion, other):
        handle = self.reader if other else self.collection
        retrievers = RETRIEVERS if fusion != "weighted" else RETRIEVERS[:3]
        hits = handle.search(query, fusion=fusion, k=EVERYTHING, depth=EVERYTHING)
        expected = {name: self.oracle.scores(query, name, lambda row: True) for name in retrievers}
        assert {(hit.passage.document_id, hit.passage.ordinal) for hit in hits} == self.oracle.contents().keys()
        for hit in hits:
            key = (hit.passage.document_id, hit.passage.ordinal)
            assert hit.scores == pytest.approx(
                {name: scores[key] for name, scores in expected.items() if key in scores}, abs=1e-4
            )
        if hits:
            assert [hit.score for hit in hits] == pytest.approx(fused(hits, retrievers, fusion), abs=1e-5)
        assert [hit.score for hit in hits] == sorted((hit.score for hit in hits), reverse=True)

    @rule(other=st.booleans())
    def everything_is_there(self, other):
        handle = self.reader if other else self.collection
        assert {document.id: document for document in handle.documents()} == {
            key: Document(d.id, d.text, d.title, d.metadata, ()) for key, d in self.oracle.documents.items()
        }
        for document_id, document in self.oracle.documents.items():
            assert [passage.content for passage in handle.passages(document_id)] == passages_of(document)

    @invariant()
    def counts_agree(self):
        if hasattr(self, "folder"):
            assert len(self.collection) == len(self.reader) == len(self.oracle.documents)


class ShardMachine(CollectionMachine):
    index = "qdrant-edge"


CHECKS = [HealthCheck.too_slow, HealthCheck.filter_too_much]

TestExact = CollectionMachine.TestCase
TestExact.settings = settings(
    max_examples=30, stateful_step_count=25, deadline=None, derandomize=True, suppress_health_check=CHECKS
)
TestShard = ShardMachine.TestCase
TestShard.settings = settings(
    max_examples=6, stateful_step_count=20, deadline=None, derandomize=True, suppress_health_check=CHECKS
)
