"""Small reports to look at."""

from dataclasses import replace

import pytest

from trine.evaluation.results import Counts, Facts, Report, summarize
from trine.evaluation.systems import System

GOOD = System(("dense",), name="dense")
BAD = System(("bm25",), name="bm25")
MIXED = System(("dense", "bm25"), "rrf", name="dense+bm25 (rrf)")


def ranking(place: int, wanted: str) -> dict[str, float]:
    """Ten documents with `wanted` at a rank from 1; 0 leaves it out."""
    documents = [f"x{number}" for number in range(9)]
    if place:
        documents.insert(place - 1, wanted)
    return {document: 1.0 - number / 16 for number, document in enumerate(documents)}


def build(*, dataset="표본", queries=40, names=("dense", "bm25", "dense+bm25 (rrf)"), **changes) -> Report:
    """The first system finds every document at rank 1, the second at rank 3, the third at 1 and 2 in turn."""
    qrels = {f"q{number}": {f"d{number}": 1} for number in range(queries)}
    places = [lambda number: 1, lambda number: 3, lambda number: 1 + number % 2]
    systems = [replace(system, name=name) for system, name in zip([GOOD, BAD, MIXED], names, strict=True)]
    runs = {
        name: {query: ranking(place(int(query[1:])), f"d{query[1:]}") for query in qrels}
        for name, place in zip(names, places, strict=True)
    }
    counts = changes.pop("counts", Counts(documents=1234, passages=1234, queries=50, judged=queries))
    facts = Facts(
        dataset,
        counts,
        model=changes.pop("model", "hashing-32"),
        settings={"depth": 100, "analyzer": None},
        seconds={"search": 0.25},
    )
    keep = changes.pop("keep", names)
    chosen = [system for name in keep for system in systems if system.name == name]
    options = {"systems": chosen, "metrics": ["ndcg@10", "mrr@10"], **changes}
    return summarize(runs, qrels, facts=facts, **options)


@pytest.fixture
def sample():
    return build


@pytest.fixture
def plain():
    return build()
