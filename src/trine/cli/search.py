"""`trine search`: the best passages for a query."""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from trine.cli.choices import chosen_retrievers, one_of, parsed_weights
from trine.cli.encoders import model_name, uncovered_sentence, untrained_modes, untrained_sentence
from trine.cli.opening import Opened, is_collection, require_collection, searchable
from trine.cli.options import Device, DType, Html, Json, Model, Quiet, Retrievers, Weights, collection_path
from trine.cli.output import Output
from trine.cli.rerankers import untrained_reranker_sentence
from trine.cli.texts import STDIN, read_texts
from trine.errors import UsageError

if TYPE_CHECKING:
    from trine.models.reranker import Reranker
    from trine.search.explain import Marks
    from trine.types import Hit, TextEncoder

SHOWN = ("collection", "model", "modes", "fusion", "reranker")
"""Facts on a page."""
TOGETHER = 64
"""Queries from standard input that are embedded and searched at a time."""


@dataclass(frozen=True, slots=True)
class Request:
    """How to search, as the options say it."""

    retrievers: Sequence[str] | None
    fusion: str | None
    weights: str | Mapping[str, float] | None
    filters: Sequence[str] | None
    k: int
    depth: int
    rerank_depth: int | None = None
    reranker: Reranker | None = None

    @staticmethod
    def of(
        *,
        modes: Sequence[str] | None,
        fusion: str | None,
        weights: str | None,
        filters: Sequence[str] | None,
        k: int,
        depth: int,
    ) -> Request:
        """Check names and fill in the fusion: given weights mean a weighted sum, otherwise ranks are fused."""
        from trine.search.filters import parse_filters
        from trine.search.fusion import FUSIONS, RETRIEVERS

        parsed = parsed_weights(weights)
        chosen = chosen_retrievers(modes, known=RETRIEVERS)
        if fusion is None and parsed is not None:
            fusion = "weighted"
        if fusion is not None:
            one_of(fusion, FUSIONS, kind="fusion")
        parse_filters(filters)
        return Request(chosen, fusion, parsed, filters or None, k, depth)

    @property
    def needs_model(self) -> bool:
        """Whether any retriever but BM25 takes part."""
        return self.retrievers is None or any(name != "bm25" for name in self.retrievers)

    def run(self, opened: Opened, queries: Sequence[str]) -> list[list[Hit]]:
        """Search."""
        from trine.search.fusion import DEFAULT_FUSION

        return opened.collection.search_many(
            queries,
            k=self.k,
            retrievers=self.retrievers,
            fusion=self.fusion or DEFAULT_FUSION,
            weights=self.weights,
            filters=self.filters,
            depth=self.depth,
            rerank=self.reranker,
            rerank_depth=self.rerank_depth,
        )

    def with_reranker(self, name: str | None, *, depth: int | None, device: str, dtype: str) -> Request:
        """The same, re-ordered by the model `name`, which is loaded here."""
        if name is None:
            if depth is not None:
                raise UsageError(f"--rerank-depth {depth} has no effect without --rerank; say which model re-orders")
            return self
        from trine.cli import rerankers

        reranker = rerankers.read_reranker(name, device=device, dtype=dtype)
        return replace(self, reranker=reranker, rerank_depth=depth)

    def used(self, opened: Opened, query: str) -> list[str]:
        """The retrievers that answer a query."""
        from trine.search.fusion import DEFAULT_FUSION
        from trine.search.plan import Plan

        fusion = self.fusion or DEFAULT_FUSION
        if self.retrievers is None and self.weights is None:
            return list(opened.collection.retrievers_for(query, fusion=fusion))
        available = opened.collection.retrievers
        return list(
            Plan.of(
                available, retrievers=self.retrievers, fusion=fusion, weights=self.weights, k=self.k, depth=self.depth
            ).retrievers
        )


@dataclass(frozen=True, slots=True)
class Results:
    """What one query found, and what it depends on."""

    query: str
    hits: Sequence[Hit]
    marks: Sequence[Marks]
    facts: Mapping[str, Any]

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        hits = [_hit(hit, marks) for hit, marks in zip(self.hits, self.marks, strict=True)]
        return {"query": self.query, **self.facts, "hits": hits}


def search(  # noqa: PLR0913 -- a command's parameters are its options
    words: Annotated[
        list[str],
        typer.Argument(
            metavar="[COLLECTION] QUERY",
            help="What to look for, in quotes; '-' reads one query per line from standard input and prints JSONL. "
            "Without COLLECTION: TRINE_COLLECTION, else .trine in this folder.",
        ),
    ],
    k: Annotated[int, typer.Option("--top", "-k", metavar="N", min=1, help="How many passages.")] = 10,
    mode: Retrievers = None,
    fusion: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            show_default=False,
            help="How scores become one: zscore (the default), weighted (the default with --weights), minmax, or rrf "
            "(reciprocal ranks).",
        ),
    ] = None,
    weights: Weights = None,
    filters: Annotated[
        list[str] | None,
        typer.Option(
            "--filter",
            metavar="KEY=VALUE",
            show_default=False,
            help="Only documents whose metadata say so: lang=ko, year>=2020, 'lang=ko|en'. Several must all hold.",
        ),
    ] = None,
    depth: Annotated[int, typer.Option(metavar="N", min=1, help="Candidates of each mode before fusion.")] = 100,
    rerank: Annotated[
        str | None,
        typer.Option(
            metavar="NAME|FOLDER",
            show_default=False,
            help="Re-order the best passages by a cross-encoder, such as BAAI/bge-reranker-v2-m3.",
        ),
    ] = None,
    rerank_depth: Annotated[
        int | None,
        typer.Option(metavar="N", min=1, show_default=False, help="Passages that --rerank reads; 50."),
    ] = None,
    full: Annotated[bool, typer.Option("--full", help="Print passages whole, not just around the matches.")] = False,
    html: Html = None,
    model: Model = None,
    device: Device = "auto",
    dtype: DType = "auto",
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Find passages by meaning (dense), by terms (sparse, BM25) and token by token (multi_vector), fused into one list.

    trine search 'how do I roll back a release?'

    trine search docs.trine '격리 수준' --mode bm25 --filter lang=ko -k 3
    """
    output = Output(json=json, quiet=quiet)
    path, query = collection_and_query(words)
    if query == STDIN and html is not None:
        raise UsageError("--html shows a single query; it cannot be used with '-'")
    request = Request.of(modes=mode, fusion=fusion, weights=weights, filters=filters, k=k, depth=depth)
    request = request.with_reranker(rerank, depth=rerank_depth, device=device, dtype=dtype)
    with searchable(path, model=model, with_model=request.needs_model, device=device, dtype=dtype) as opened:
        if query == STDIN:
            said: set[str] = set()
            for results in _answers(opened, request):
                output.line(results.to_dict())
                said |= set(_warnings(results))
            for warning in sorted(said):
                output.warn(warning)
            return
        results = next(found(opened, request, [query]))
    _show(results, html=html, full=full, output=output)


def collection_and_query(words: Sequence[str]) -> tuple[Path, str]:
    """Tell "QUERY" from "COLLECTION QUERY".

    Raises:
        CollectionNotFound: there is none; the message says so also where a query was not quoted.
        UsageError: more than two words, or a collection without a query.
    """
    if len(words) > 2:
        raise UsageError(
            f"{len(words)} arguments, where [COLLECTION] QUERY are wanted; quote the query: {_quoted(words)}"
        )
    path, query = collection_path(words[0] if len(words) == 2 else None), words[-1]
    if len(words) == 1 and is_collection(Path(query)):
        raise UsageError(f"{query!r} is a collection; say what to look for: trine search {query} 'QUERY'")
    hint = f"if the query has two words, quote it: {_quoted(words)}" if len(words) == 2 else ""
    if not query.strip():
        raise UsageError("the query is blank")
    require_collection(path, hint=hint)
    return path, query


def found(opened: Opened, request: Request, queries: Sequence[str]) -> Iterator[Results]:
    """Search for several queries at once and mark what matched."""
    from trine.index.analysis import BigramAnalyzer
    from trine.search.explain import Highlighter
    from trine.search.fusion import DEFAULT_FUSION

    collection, encoder = opened
    start = time.perf_counter()
    answers = request.run(opened, queries)
    seconds = (time.perf_counter() - start) / len(queries)
    for query, hits in zip(queries, answers, strict=True):
        used = request.used(opened, query)
        sparse = encoder if "sparse" in used else None
        # BM25's own analyser cuts words in the way that its terms were cut; where there are none any will do.
        own = sparse is None and "bm25" in used
        analyzer = collection.analyzer if own else BigramAnalyzer()
        highlighter = Highlighter(query, encoder=sparse, analyzer=analyzer)
        facts = {
            "collection": str(collection.path),
            "model": None if encoder is None else model_name(encoder),
            "untrained": _untrained(encoder, used, request.reranker),
            "covered": None if encoder is None else encoder.covers(query),
            "modes": used,
            "fusion": None if len(used) < 2 else request.fusion or DEFAULT_FUSION,
            "reranker": None if request.reranker is None else request.reranker.name,
            "seconds": round(seconds, 4),
        }
        yield Results(query, hits, [highlighter.marks(hit) for hit in hits], facts)


def _answers(opened: Opened, request: Request) -> Iterator[Results]:
    """The results of every query on standard input, as they come."""
    queries = (text for _, text in read_texts(STDIN))
    while part := list(itertools.islice(queries, TOGETHER)):
        yield from found(opened, request, part)


def _show(results: Results, *, html: Path | None, full: bool, output: Output) -> None:
    warnings = list(_warnings(results))
    if html is not None:
        from trine.search.page import search_page

        facts = {name: _readable(results.facts[name]) for name in SHOWN}
        shown = {name: fact for name, fact in facts.items() if fact}
        output.page(html, search_page(results.query, results.hits, marks=results.marks, facts=shown, notes=warnings))
    if output.json:
        output.document(results.to_dict())
    else:
        from trine.cli.show_hits import print_hits

        print_hits(results.hits, results.marks, full=full)
        fused = f" ({results.facts['fusion']})" if results.facts["fusion"] else ""
        fused += f", re-ordered by {results.facts['reranker']}," if results.facts["reranker"] else ""
        plural = "" if len(results.hits) == 1 else "s"
        count = f"{len(results.hits)} passage{plural}" if results.hits else "nothing found"
        output.note(f"{count} by {' + '.join(results.facts['modes'])}{fused} in {results.facts['seconds']:.2f} s")
    for warning in warnings:
        output.warn(warning)


def _warnings(results: Results) -> Iterator[str]:
    """What has to be said of the model: that it does not know the script of the query, or that nobody trained it."""
    model, modes, untrained = (results.facts[name] for name in ("model", "modes", "untrained"))
    if results.facts["covered"] is False:
        alone = "; bm25 alone was asked, --mode asks the model all the same" if modes == ["bm25"] else ""
        yield uncovered_sentence(model) + alone
    if parts := tuple(name for name in untrained if name != "reranker"):
        yield untrained_sentence(model, parts)
    if "reranker" in untrained:
        yield untrained_reranker_sentence(results.facts["reranker"])


def _untrained(encoder: TextEncoder | None, used: Sequence[str], reranker: Reranker | None) -> list[str]:
    """What took part without ever having been trained."""
    modes: list[str] = [] if encoder is None else [mode for mode in untrained_modes(encoder) if mode in used]
    return modes + (["reranker"] if reranker is not None and reranker.config.untrained else [])


def _hit(hit: Hit, marks: Marks) -> dict[str, Any]:
    passage = hit.passage
    return {
        "rank": hit.rank,
        "score": hit.score,
        "scores": dict(hit.scores),
        "document": passage.document_id,
        "line": passage.line,
        "title": passage.title,
        "text": passage.text,
        "start": passage.start,
        "end": passage.end,
        "passage": passage.ordinal,
        "passage_id": hit.passage_id,
        "metadata": dict(hit.metadata),
        "terms": dict(hit.terms),
        "highlights": {
            part: [[mark.start, mark.end, round(mark.weight, 4)] for mark in getattr(marks, part)]
            for part in ("title", "text")
        },
    }


def _readable(value: object) -> object:
    return ", ".join(value) if isinstance(value, list) else value


def _quoted(words: Sequence[str]) -> str:
    return f"trine search '{' '.join(words)}'"
