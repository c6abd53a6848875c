"""Text in, hits out: documents kept in a folder, embedded once, searched with every retriever and their fusion."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self

from trine.data.chunking import Chunking
from trine.data.files import Progress
from trine.data.sources import Limits
from trine.errors import CollectionError, UsageError
from trine.index import ANALYZERS, INDEXES
from trine.index.analysis import Analyzer, default_analyzer
from trine.search import database
from trine.search.adding import Acknowledged, Adder, AddReport, counted
from trine.search.documents import cleaned, storable_id
from trine.search.files import FileRun, Paths
from trine.search.filters import Condition, Filters, parse_filters
from trine.search.folder import LOCK, holds_collection, require_collection, require_vacant, size_of
from trine.search.fusion import DEFAULT_FUSION, RETRIEVERS, Weights
from trine.search.lock import FileLock
from trine.search.plan import Plan
from trine.search.rerank import Reranking, Scorer
from trine.search.searching import Searcher
from trine.search.settings import Models, Settings, load_analyzer, named
from trine.search.store import ANALYZER, NewDocument, Store
from trine.search.views import IndexView
from trine.tables import unknown
from trine.types import MODES, Document, Hit, Mode, Passage, TextEncoder


@dataclass(frozen=True, slots=True)
class CollectionInfo:
    """What a collection holds and what it was made with."""

    path: str
    documents: int
    passages: int
    bytes: int
    """On disk, the index included."""
    encoder: str | None
    """Name or path of the model; "" for the default model, None for an encoder object without a name."""
    fingerprint: str
    dimensions: Mapping[Mode, int]
    retrievers: tuple[str, ...]
    """Everything it can be searched with."""
    analyzer: str
    chunking: Chunking
    index: str
    metadata_keys: tuple[str, ...]
    schema: int


class Collection:
    """A folder of documents that can be searched.

    What was added is on the disk and can be found once `add` returns, or its `on_ack` was called; a crash at any moment
    loses none of it and leaves no document half stored. One process may write while any number search, each of which
    sees what was added at its next search. A handle may be used from several threads.
    """

    def __init__(
        self, path: str | Path, *, encoder: TextEncoder | str | Path | None = None, read_only: bool = False
    ) -> None:
        """Open an existing collection; see `Collection.open`."""
        self.path = Path(path)
        self.read_only = read_only
        self._writing, self._reading = threading.RLock(), threading.RLock()
        require_collection(self.path)
        self._lock = None if read_only else FileLock(self.path / LOCK)
        store: Store | None = None
        try:
            store = Store(self.path, read_only=read_only)
            self.settings = Settings.from_config(store.config())
            self._models = Models(encoder, self.settings)
        except BaseException:
            if store is not None:
                store.close()
            if self._lock is not None:
                self._lock.release()
            raise
        self._opened: Store | None = store
        self._index = IndexView(self.path, store, backend=self.settings.index, dimensions=self.settings.dimensions)
        self._searcher = Searcher(store, self.settings, self._models, index=self._index)

    @classmethod
    def create(
        cls,
        path: str | Path,
        *,
        encoder: TextEncoder | str | Path | None = None,
        chunking: Chunking | None = None,
        analyzer: str | None = None,
        index: str | None = None,
        exist_ok: bool = False,
    ) -> Collection:
        """Make a collection in a new or empty folder, open for writing.

        Args:
            path: the folder; its parents are made too.
            encoder: a model, or its name or path; None for the default model.
            chunking: how documents are cut; None for passages of 256 tokens, or fewer where the model reads less.
            analyzer: a name in `trine.index.ANALYZERS`, for BM25; None for the best one installed.
            index: a name in `trine.index.INDEXES`; None for "qdrant-edge".
            exist_ok: open a collection that is there already, if it was made with the same settings.

        Raises:
            CollectionError: the folder holds something else, or a collection and `exist_ok` is False.
            ModelMismatch: the existing collection was made with another encoder.
        """
        folder = Path(path)
        for name, table, kind in ((analyzer, ANALYZERS, "analyzer"), (index, INDEXES, "index")):
            if name is not None and name not in table:
                raise unknown(name, table, kind=kind)
        if exist_ok and holds_collection(folder):
            return cls(folder, encoder=encoder)._same_as(chunking=chunking, analyzer=analyzer, index=index)
        require_vacant(folder)
        model, model_name = named(encoder)
        settings = Settings(
            encoder=model_name,
            fingerprint=model.fingerprint,
            dimensions={mode: int(model.dimensions[mode]) for mode in MODES if mode in model.dimensions},
            analyzer=analyzer or default_analyzer(),
            chunking=chunking or _fitting(model),
            index=index or "qdrant-edge",
        )
        config = {**settings.to_config(), ANALYZER: load_analyzer(settings.analyzer).fingerprint}
        folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(folder / LOCK)
        try:
            database.create(folder / database.FILE, config)
        finally:
            lock.release()
        return cls(folder, encoder=model)

    @classmethod
    def open(
        cls, path: str | Path, *, encoder: TextEncoder | str | Path | None = None, read_only: bool = False
    ) -> Collection:
        """Open an existing collection.

        Args:
            path: its folder.
            encoder: the model it was made with, or a name or path to load that by; None loads the one recorded. A
                name is loaded when the first text is to be embedded.
            read_only: change nothing, and let others write.

        Raises:
            CollectionNotFound: there is none.
            CollectionLocked: another process has it open for writing.
            ModelMismatch: the encoder is another than the collection was made with.
            CollectionError: the store is damaged, or of a newer schema.
        """
        return cls(path, encoder=encoder, read_only=read_only)

    def close(self) -> None:
        """Release files and locks; calling it again does nothing."""
        with self._writing, self._reading:
            if self._opened is not None:
                self._index.close()
                self._opened.close()
                self._opened = None
            if self._lock is not None:
                self._lock.release()
                self._lock = None

    # Documents

    def add(
        self,
        documents: Iterable[Document],
        *,
        batch: int = 128,
        on_ack: Callable[[Acknowledged], None] | None = None,
    ) -> AddReport:
        """Add documents, or replace those whose id is there already; unchanged ones are not embedded again.

        They are read as they are needed, so that any number of them takes little memory. If anything fails on the
        way, what was acknowledged before stays.

        Args:
            documents: of two with the same id the later counts.
            batch: documents (or, of long ones, KiB of text) that are embedded, and become visible, together.
            on_ack: called after each batch that is safe on the disk.

        Raises:
            UsageError: a document without an id, or with metadata that are no scalars.
        """
        with self._writing:
            adder = self._adder(batch, on_ack)
            adder.add(NewDocument(cleaned(document)) for document in documents)
            return adder.report()

    def add_files(
        self,
        paths: Paths,
        *,
        prune: bool = False,
        batch: int = 128,
        limits: Limits | None = None,
        progress: Progress | None = None,
        on_ack: Callable[[Acknowledged], None] | None = None,
    ) -> AddReport:
        """Add the documents in files, folders and patterns, see `trine.data.read_documents`.

        A file that was added before is replaced as a whole: a row or document that it no longer holds is deleted. What
        cannot be read is reported as skipped, and never ends the run; earlier documents from such a file stay.

        Args:
            paths: one path, or several.
            prune: also delete documents from files below these paths that do not exist any more.
            batch: see `add`.
            limits: the most that a single file may cost.
            progress: called after each file with the number of files done and found.
            on_ack: see `add`.

        Raises:
            UsageError: a path does not exist, or a pattern finds nothing.
        """
        with self._writing:
            adder = self._adder(batch, on_ack)
            adder.add_files(FileRun(paths, limits=limits, progress=progress), prune=prune)
            return adder.report()

    def delete(self, ids: Iterable[str]) -> int:
        """Delete documents, all of them at once; unknown ids are ignored. Returns how many there were."""
        wanted = [ids] if isinstance(ids, str) else ids
        with self._writing, self._store.transaction() as transaction:
            return transaction.delete(storable_id(document_id) for document_id in wanted)

    def reanalyze(self) -> None:
        """Count the BM25 terms of all passages anew, after the analyser's package has changed; embeddings stay."""
        with self._writing, self._store.transaction() as transaction:
            analyzer = self._models.analyzer()
            transaction.replace_terms(
                lambda contents: counted(contents, analyzer, transaction), fingerprint=analyzer.fingerprint
            )

    def documents(self) -> Iterator[Document]:
        """All documents, in the order in which they were first added."""
        last = 0
        while True:
            with self._read() as store, store.snapshot():
                page = store.documents(after=last)
            if not page:
                return
            yield from page.values()
            last = max(page)

    def document(self, document_id: str) -> Document | None:
        """A document, or None."""
        with self._read() as store, store.snapshot():
            return store.document(storable_id(document_id))

    def passages(self, document_id: str) -> list[Passage]:
        """The passages of a document, in order; none for an unknown id."""
        with self._read() as store, store.snapshot():
            return list(store.passages_of(storable_id(document_id)).values())

    def __len__(self) -> int:
        """Number of documents."""
        with self._read() as store, store.snapshot():
            return store.document_count()

    def __bool__(self) -> bool:
        """True: an empty collection is one, too."""
        return True

    # Search

    def search(
        self,
        query: str,
        *,
        k: int = 10,
        retrievers: Sequence[str] | None = None,
        fusion: str = DEFAULT_FUSION,
        weights: Weights = None,
        filters: Filters = None,
        depth: int = 100,
        rerank: Scorer | None = None,
        rerank_depth: int | None = None,
    ) -> list[Hit]:
        """The `k` best passages for a query, best first.

        Args:
            query: a text that is not blank.
            k: how many passages.
            retrievers: names in `trine.search.fusion.RETRIEVERS`; None for all that the collection has, or for bm25
                alone where the query is in a script that the model was never trained on.
            fusion: a name in `trine.search.fusion.FUSIONS`; a single retriever is ranked by its own score.
            weights: a name in `trine.scoring.WEIGHTS`, or a weight per retriever.
            filters: conditions on the metadata of the documents, see `trine.search.filters`.
            depth: candidates that each retriever contributes, at least `k` and `rerank_depth`.
            rerank: re-orders the best candidates, whose score is then the reranker's own (also "reranker" in
                `Hit.scores`); see `trine.search.rerank`.
            rerank_depth: how many of the best it reads; None for 50.

        Raises:
            UsageError: a blank query, or options that are unknown or do not fit together.
        """
        how: Any = {"retrievers": retrievers, "fusion": fusion, "weights": weights, "filters": filters, "depth": depth}
        return self.search_many([query], k=k, rerank=rerank, rerank_depth=rerank_depth, **how)[0]

    def search_many(
        self,
        queries: Sequence[str],
        *,
        k: int = 10,
        retrievers: Sequence[str] | None = None,
        fusion: str = DEFAULT_FUSION,
        weights: Weights = None,
        filters: Filters = None,
        depth: int = 100,
        rerank: Scorer | None = None,
        rerank_depth: int | None = None,
    ) -> list[list[Hit]]:
        """`search` for several queries, embedded together and answered from one state of the collection."""
        if isinstance(queries, str) or any(not isinstance(query, str) or not query.strip() for query in queries):
            raise UsageError(f"queries must be texts that are not blank; got {queries!r:.200}")
        reranking = Reranking.of(rerank, depth=rerank_depth)
        plan = reranking.widened(
            Plan.of(self.retrievers, retrievers=retrievers, fusion=fusion, weights=weights, k=k, depth=depth)
        )
        conditions = parse_filters(filters)
        words = replace(plan, retrievers=("bm25",)) if retrievers is None and weights is None else plan
        known = [words is plan or self.encoder.covers(query) for query in queries]
        results: list[list[Hit]] = [[] for _ in queries]
        for choice, wanted in ((plan, True), (words, False)):
            places = [place for place, is_known in enumerate(known) if is_known is wanted]
            found = self._run([queries[place] for place in places], choice, conditions)
            for place, hits in zip(places, found, strict=True):
                results[place] = hits
        # Outside the reading lock: a reranker may take seconds.
        return reranking.apply(queries, results, k=k)

    def retrievers_for(self, query: str, *, fusion: str = DEFAULT_FUSION) -> tuple[str, ...]:
        """The retrievers that `search` asks when it is given neither retrievers nor weights.

        A model that never saw a script ranks its texts by accident: fused with the default model, Korean questions
        reach an nDCG@10 of .72 where BM25 alone has .88 (docs/LOG.md). So they are left to BM25.
        """
        if not self.encoder.covers(query):
            return ("bm25",)
        return Plan.of(self.retrievers, retrievers=None, fusion=fusion, weights=None, k=1, depth=1).retrievers

    def _run(self, queries: Sequence[str], plan: Plan, conditions: Sequence[Condition]) -> list[list[Hit]]:
        if not queries:
            return []
        embeddings = self._searcher.embed(queries, plan)
        with self._read():
            return self._searcher.search(queries, embeddings, plan, conditions)

    @property
    def analyzer(self) -> Analyzer:
        """What BM25 cuts texts with."""
        return self._models.analyzer()

    @property
    def retrievers(self) -> tuple[str, ...]:
        """Everything this collection can be searched with."""
        return tuple(name for name in RETRIEVERS if name == "bm25" or name in self.settings.dimensions)

    @property
    def encoder(self) -> TextEncoder:
        """The model, loaded when it is first asked for."""
        return self._models.encoder()

    def prepare(self) -> None:
        """Bring the vector index up to date now instead of during the next search."""
        with self._read() as store, store.snapshot():
            self._index.synchronise()

    def optimize(self) -> None:
        """Reorganise the vector index on disk for large collections; see `QdrantEdgeIndex.optimize` for when it pays.

        Raises:
            CollectionError: this process searches in memory, since another one holds the index or there is none.
        """
        with self._read() as store, store.snapshot():
            self._index.optimize()

    def info(self) -> CollectionInfo:
        """Counts, size and settings; needs no model."""
        with self._read() as store, store.snapshot():
            return CollectionInfo(
                path=str(self.path),
                documents=store.document_count(),
                passages=store.passage_count(),
                bytes=size_of(self.path),
                encoder=self.settings.encoder,
                fingerprint=self.settings.fingerprint,
                dimensions=self.settings.dimensions,
                retrievers=self.retrievers,
                analyzer=self.settings.analyzer,
                chunking=self.settings.chunking,
                index=self.settings.index,
                metadata_keys=tuple(store.metadata_keys()),
                schema=database.SCHEMA_VERSION,
            )

    def __enter__(self) -> Self:
        """Itself."""
        return self

    def __exit__(self, *error: object) -> None:
        """Close."""
        self.close()

    # Parts

    @property
    def _store(self) -> Store:
        if self._opened is None:
            raise CollectionError(f"the collection {self.path} was closed; open it again")
        return self._opened

    @contextmanager
    def _read(self) -> Iterator[Store]:
        """The store, for one thread at a time."""
        with self._reading:
            yield self._store

    def _adder(self, batch: int, on_ack: Callable[[Acknowledged], None] | None) -> Adder:
        with self._read() as store:
            store.require_writable()
            analyzer = self._models.analyzer(store.analyzer_fingerprint())
        chunking = self.settings.chunking
        return Adder(store, self._models.encoder(), analyzer, chunking=chunking, batch=batch, on_ack=on_ack)

    def _same_as(self, *, chunking: Chunking | None, analyzer: str | None, index: str | None) -> Self:
        """Itself, if it was made with these settings."""
        for name, wanted in (("chunking", chunking), ("analyzer", analyzer), ("index", index)):
            present = getattr(self.settings, name)
            if wanted is not None and wanted != present:
                self.close()
                raise UsageError(
                    f"{self.path} was made with {name}={present!r}, not {wanted!r}; leave it out, or make another"
                )
        return self


def _fitting(encoder: TextEncoder) -> Chunking:
    """The default lengths, with a quarter of the model's input left to titles and special tokens."""
    return Chunking(max_tokens=min(Chunking().max_tokens, max(3 * encoder.max_length // 4, 8)))
