"""An evaluation set in memory, and the systems that search it."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from trine.encoding.progress import progress_bar
from trine.evaluation.beir import Dataset
from trine.evaluation.cache import encode_cached
from trine.evaluation.metrics import as_run
from trine.evaluation.systems import System
from trine.index.analysis import Analyzer
from trine.index.bm25 import Bm25Index, Vocabulary
from trine.index.exact import ExactIndex
from trine.index.selection import best
from trine.scoring import score_mode
from trine.search.fusion import fuse
from trine.search.retrieve import Candidates, Sources, retrieve
from trine.types import MODES, Embeddings, FloatArray, Mode, Passage, Query, Run, SparseRows, TextEncoder

_Ranked: TypeAlias = tuple[NDArray[np.int64], FloatArray]
"""Documents by number, best first, and their scores."""

_BLOCK = 1 << 24
"""Multi-vector scores held at a time: 64 MiB."""


@dataclass
class Clock:
    """Wall time per stage."""

    seconds: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def time(self, stage: str) -> Iterator[None]:
        start = time.perf_counter()
        yield
        self.seconds[stage] = time.perf_counter() - start


class Bench:
    """The documents of a data set in memory, and the systems that search them."""

    def __init__(self, data: Dataset, systems: Sequence[System], *, depth: int, clock: Clock, progress: bool) -> None:
        self._documents = [document.id for document in data.corpus]
        self._contents = [_content(document.title, document.text) for document in data.corpus]
        self._numbers = np.arange(len(data.corpus), dtype=np.int64)
        self._asked: list[Query] = data.judged
        self._systems, self._depth, self._clock, self._progress = systems, depth, clock, progress
        self._queries = self._passages = Embeddings()
        self._index: ExactIndex | None = None
        self._bm25: Bm25Index | None = None
        self._terms: SparseRows | None = None

    def embed(self, encoder: TextEncoder, cache: str | os.PathLike[str] | None) -> None:
        """Embed queries and documents, in the modes that the systems need."""
        needed = {retriever for system in self._systems for retriever in system.retrievers}
        modes = [mode for mode in MODES if mode in needed]
        if not modes:
            return
        encode = partial(encode_cached, encoder, modes=modes, folder=cache, progress=self._progress)
        with self._clock.time("encode queries"):
            self._queries = encode([query.text for query in self._asked], kind="query")
        with self._clock.time("encode passages"):
            self._passages = encode(self._contents, kind="passage")
        # Multi-vector never searches the index beside another mode; left out, it is not copied.
        searched: list[Mode] = [mode for mode in modes if mode != "multi_vector"] or ["multi_vector"]
        self._index = ExactIndex.open(dimensions={mode: encoder.dimensions[mode] for mode in searched})
        self._index.add(self._numbers, self._passages.only(searched))

    def analyze(self, analyzer: Analyzer) -> None:
        """Count the terms of queries and documents."""
        vocabulary = Vocabulary()
        self._bm25 = Bm25Index()
        with (
            self._clock.time("analyze"),
            progress_bar("analyzing", total=len(self._contents), shown=self._progress) as advance,
        ):
            terms = _counted(map(analyzer.terms, self._contents), advance)
            self._bm25.add(self._numbers, vocabulary.encode(terms, grow=True))
            self._terms = vocabulary.encode([analyzer.terms(query.text) for query in self._asked], grow=False)

    def runs(self) -> dict[str, Run]:
        """The run of every system; systems of the same retrievers share their candidates."""
        groups: dict[tuple[str, ...], list[System]] = {}
        for system in self._systems:
            groups.setdefault(system.retrievers, []).append(system)
        runs: dict[str, Run] = {}
        with (
            self._clock.time("search"),
            progress_bar("searching", total=len(groups), shown=self._progress) as advance,
        ):
            for retrievers, systems in groups.items():
                if retrievers == ("multi_vector",):
                    runs |= {system.name: self._run(self._scan()) for system in systems}
                else:
                    runs |= self._fused(retrievers, systems)
                advance(1)
        return runs

    def _fused(self, retrievers: tuple[str, ...], systems: Sequence[System]) -> dict[str, Run]:
        held = [mode for mode in MODES if mode in retrievers]
        vectors = self._passages.only(held)
        candidates = retrieve(
            self._queries.only(held),
            self._terms if "bm25" in retrievers else None,
            Sources(self._index, vectors.take, self._bm25),
            retrievers=retrievers,
            depth=self._depth,
        )
        return {system.name: self._run([self._ranked(system, found) for found in candidates]) for system in systems}

    def _ranked(self, system: System, found: Candidates) -> _Ranked:
        """The best candidates of one query, equal scores by rising number: what `trine.search.plan.Plan.rank` does."""
        if system.fusion is None:
            scores_C = np.nan_to_num(found.scores[:, 0].astype(np.float64))
        else:
            scores_C = fuse(found.scores, found.retrievers, fusion=system.fusion, weights=system.weights)
        order = np.lexsort((found.ids, -scores_C))[: self._depth]
        return found.ids[order], scores_C[order]

    def _scan(self) -> list[_Ranked]:
        """The best documents of every query by multi-vector scores over all documents."""
        queries, passages = self._queries.only(["multi_vector"]), self._passages.only(["multi_vector"])
        ranked = []
        for block in queries.split(max(_BLOCK // len(passages), 1)):
            for scores_P in score_mode(block, passages, "multi_vector"):
                top = best(scores_P, self._depth)
                ranked.append((top, scores_P[top]))
        return ranked

    def _run(self, ranked: Sequence[_Ranked]) -> Run:
        return {
            query.id: as_run([self._documents[number] for number in numbers], scores)
            for query, (numbers, scores) in zip(self._asked, ranked, strict=True)
        }


def _content(title: str, text: str) -> str:
    return Passage("", 0, 0, len(text), 1, text, title).content


def _counted(items: Iterator[list[str]], advance: Callable[[int], None]) -> Iterator[list[str]]:
    for item in items:
        advance(1)
        yield item
