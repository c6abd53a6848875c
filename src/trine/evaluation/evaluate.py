"""Evaluation set in, numbers out: every retriever alone and their fusions, over the same queries."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from trine.encoding.progress import progress_bar
from trine.errors import UsageError
from trine.evaluation.beir import Dataset, read_beir
from trine.evaluation.bench import Bench, Clock
from trine.evaluation.metrics import DEFAULT_METRICS, as_run, parse_metric
from trine.evaluation.results import Counts, Facts, Report, summarize
from trine.evaluation.systems import AS_SEARCHED, System, select_systems
from trine.index.analysis import Analyzer, default_analyzer
from trine.search.collection import Collection
from trine.search.fusion import DEFAULT_FUSION
from trine.search.settings import load_analyzer, named
from trine.types import MODES, Hit, Run, Scalar, TextEncoder


def evaluate(
    dataset: Dataset | str | os.PathLike[str],
    encoder: TextEncoder | str | Path | None = None,
    *,
    systems: Sequence[str] | None = None,
    metrics: Sequence[str] = DEFAULT_METRICS,
    depth: int = 100,
    analyzer: str | Analyzer | None = None,
    cache: str | os.PathLike[str] | None = None,
    progress: bool = False,
    seed: int = 0,
) -> Report:
    """Measure how well documents are found, one passage per document, with exact search in memory.

    A document is its title line and its text, cut by the encoder where they are too long for it. Dense, sparse and
    BM25 alone, and every fusion, find and rank as `Collection.search` does; multi-vector alone scans all documents,
    while in a fusion it re-ranks what the others found.

    Args:
        dataset: an evaluation set, or the folder of one in the BEIR layout (its split "test").
        encoder: a model, or its name or path; None for the default model. Not loaded where only BM25 is asked for.
        systems: what to compare, see `trine.evaluation.systems.parse_system`; None for the usual ones.
        metrics: names such as "ndcg@10"; the first is the one that plots show and systems are ordered by.
        depth: documents per query in a run, and candidates of each retriever for fusion.
        analyzer: for BM25, or its name in `trine.index.ANALYZERS`; None for the best one installed.
        cache: folder in which embeddings are kept, so that only a first evaluation costs encoding.
        progress: show progress on standard error.
        seed: of the bootstrap.

    Raises:
        DataError: the folder's files are missing or break their format.
        UsageError: an unknown system or metric, a cutoff deeper than `depth`, or no judged query or document.
    """
    data = dataset if isinstance(dataset, Dataset) else read_beir(dataset)
    _check(data, metrics, depth)
    if not data.corpus:
        raise UsageError(f"the evaluation set {data.name!r} has no documents")
    model = None if _lexical_only(systems) else named(encoder)[0]
    held = () if model is None else tuple(mode for mode in MODES if mode in model.dimensions)
    chosen = select_systems(systems, modes=held)
    clock = Clock()
    bench = Bench(data, chosen, depth=depth, clock=clock, progress=progress)
    settings: dict[str, Scalar] = {"split": data.split, "depth": depth, **_traits(model)}
    if model is not None:
        bench.embed(model, cache)
    if _lexical(chosen):
        terms = _analyzer(analyzer)
        settings["analyzer"] = terms.fingerprint
        bench.analyze(terms)
    runs, size = bench.runs(), len(data.corpus)
    counts = _counts(data, documents=size, passages=size, missing_documents=len(data.missing_documents))
    facts = Facts(data.name, counts, _name(model), settings, clock.seconds)
    return summarize(runs, data.qrels, systems=chosen, metrics=metrics, facts=facts, seed=seed)


def evaluate_collection(
    collection: Collection,
    dataset: Dataset | str | os.PathLike[str],
    *,
    systems: Sequence[str] | None = None,
    metrics: Sequence[str] = DEFAULT_METRICS,
    depth: int = 100,
    progress: bool = False,
    seed: int = 0,
) -> Report:
    """Measure how well a collection finds its documents, through `Collection.search` as it is.

    A document is ranked by its best passage. The documents of a run are those of the best `depth` passages, so a
    collection of long documents needs a greater depth for the recall at 100 documents to be that. Multi-vector alone
    re-ranks what dense found, as `trine.search.retrieve` has it.

    Args:
        collection: what to search.
        dataset: queries and judgements of document ids; or their folder, which needs no corpus.
        systems: what to compare, see `trine.evaluation.systems.parse_system`; None for the usual ones and for what
            `Collection.search` does when nothing is asked for.
        metrics: names such as "ndcg@10"; the first is the one that plots show and systems are ordered by.
        depth: passages per query, and candidates of each retriever for fusion.
        progress: show progress on standard error.
        seed: of the bootstrap.

    Raises:
        DataError: the folder's files are missing or break their format.
        UsageError: an unknown system or metric, a cutoff deeper than `depth`, or no judged query.
    """
    data = dataset if isinstance(dataset, Dataset) else read_beir(dataset, corpus=False)
    _check(data, metrics, depth)
    info = collection.info()
    chosen = select_systems(systems, modes=[mode for mode in MODES if mode in info.dimensions])
    if systems is None:
        chosen.append(AS_SEARCHED)
    asked = [query for query in data.judged if query.text.strip()]
    runs: dict[str, Run] = {}
    clock = Clock()
    with clock.time("search"), progress_bar("searching", total=len(chosen), shown=progress) as advance:
        for system in chosen:
            found = collection.search_many(
                [query.text for query in asked],
                k=depth,
                retrievers=system.retrievers or None,
                fusion=system.fusion or DEFAULT_FUSION,
                weights=system.weights,
                depth=depth,
            )
            runs[system.name] = {query.id: _by_document(hits) for query, hits in zip(asked, found, strict=True)}
            advance(1)
    judged = {document for grades in data.qrels.values() for document in grades}
    absent = sum(collection.document(document) is None for document in judged)
    counts = _counts(data, documents=info.documents, passages=info.passages, missing_documents=absent)
    settings: dict[str, Scalar] = {"split": data.split, "depth": depth, "index": info.index}
    if _lexical(chosen):
        settings["analyzer"] = info.analyzer
    facts = Facts(data.name, counts, info.encoder or info.fingerprint, settings, clock.seconds)
    return summarize(runs, data.qrels, systems=chosen, metrics=metrics, facts=facts, seed=seed)


def _by_document(hits: Sequence[Hit]) -> dict[str, float]:
    """Documents by their best passage."""
    scores: dict[str, float] = {}
    for hit in hits:
        scores.setdefault(hit.passage.document_id, hit.score)
    return as_run(list(scores), scores.values())


def _check(data: Dataset, metrics: Sequence[str], depth: int) -> None:
    if not data.judged:
        raise UsageError(
            f"the evaluation set {data.name!r} has no judged query: of {len(data.queries)} queries none is among the "
            f"{len(data.qrels)} of the judgements; compare their ids"
        )
    if depth < 1:
        raise UsageError(f"depth is {depth}; at least one document must be looked at")
    for name in [] if isinstance(metrics, str) else metrics:
        cutoff = parse_metric(name)[1]
        if cutoff is not None and cutoff > depth:
            raise UsageError(f"{name} needs a depth of at least {cutoff}; it is {depth}")


def _counts(data: Dataset, *, documents: int, passages: int, missing_documents: int) -> Counts:
    return Counts(
        documents=documents,
        passages=passages,
        queries=len(data.queries),
        judged=len(data.judged),
        missing_queries=len(data.missing_queries),
        missing_documents=missing_documents,
    )


def _lexical_only(systems: Sequence[str] | None) -> bool:
    return bool(systems) and all(name.strip() == "bm25" for name in systems or ())


def _lexical(systems: Sequence[System]) -> bool:
    return any("bm25" in system.retrievers for system in systems)


def _analyzer(given: str | Analyzer | None) -> Analyzer:
    return load_analyzer(given or default_analyzer()) if given is None or isinstance(given, str) else given


def _name(model: TextEncoder | None) -> str:
    return "" if model is None else str(getattr(model, "name", "") or model.fingerprint)


def _traits(model: TextEncoder | None) -> dict[str, str]:
    """What tells one use of a model from another, as far as it says so."""
    if model is None:
        return {}
    traits = {trait: str(getattr(model, trait)) for trait in ("device", "dtype") if hasattr(model, trait)}
    return {"fingerprint": model.fingerprint, **traits}
