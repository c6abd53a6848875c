"""Documents in: cleaned, compared with what is stored, cut, embedded and written, one transaction per batch."""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trine.data.chunking import Chunking, chunk
from trine.data.sources import Skipped
from trine.errors import CollectionError, UsageError
from trine.index.analysis import Analyzer
from trine.search.files import FileRun, Item
from trine.search.store import NewDocument, Store, Transaction
from trine.types import Document, Embeddings, Passage, SparseRows, TextEncoder

CHARACTERS = 1024
"""Characters of text per document of a batch: a batch of long documents holds fewer."""


@dataclass(frozen=True, slots=True)
class AddReport:
    """What adding did."""

    added: int = 0
    updated: int = 0
    unchanged: int = 0
    """Documents that were stored with the same content already; they were not embedded again."""
    removed: int = 0
    """Documents deleted because their text, or their place in a file, is gone."""
    passages: int = 0
    """Passages embedded and written."""
    skipped: tuple[Skipped, ...] = ()
    """What could not be read or holds no text, with the reason."""
    ignored: Mapping[str, int] = field(default_factory=dict)
    """Files inside folders that no reader is known for: suffix -> number."""
    seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class Acknowledged:
    """A batch that is on the disk: no crash can undo it."""

    ids: tuple[str, ...]
    """Documents that are now stored as they were given, changed or not."""
    report: AddReport
    """Totals so far."""


class Adder:
    """Adds documents to a store."""

    def __init__(
        self,
        store: Store,
        encoder: TextEncoder,
        analyzer: Analyzer,
        *,
        chunking: Chunking,
        batch: int,
        on_ack: Callable[[Acknowledged], None] | None,
    ) -> None:
        if batch < 1:
            raise UsageError(f"batch is {batch}; it must be at least 1")
        self._store, self._encoder, self._analyzer = store, encoder, analyzer
        self._chunking, self._batch, self._on_ack = chunking, batch, on_ack
        self._salt = asdict(chunking)
        self._counts: Counter[str] = Counter()
        self._skipped: list[Skipped] = []
        self._ignored: Mapping[str, int] = {}
        self._start = time.monotonic()

    def add(self, items: Iterable[Item]) -> None:
        """Add documents (`cleaned`) in batches; one stored unchanged is left alone, a changed one replaced."""
        for group in self._groups(items):
            self._write(group)

    def add_files(self, run: FileRun, *, prune: bool) -> None:
        """Add what the files hold, then delete what they held before."""
        self.add(run.items())
        with self._store.transaction() as transaction:
            self._counts["removed"] += transaction.delete(list(run.stale(transaction.sources(), prune=prune)))
        self._ignored = dict(run.ignored)

    def report(self) -> AddReport:
        """Totals so far."""
        seconds = time.monotonic() - self._start
        return AddReport(**self._counts, skipped=tuple(self._skipped), ignored=self._ignored, seconds=seconds)

    def _groups(self, items: Iterable[Item]) -> Iterator[dict[str, NewDocument]]:
        """Batches of documents by id; of two with one id the later counts."""
        group: dict[str, NewDocument] = {}
        size = 0
        for item in items:
            if isinstance(item, Skipped):
                self._skipped.append(item)
                continue
            group[item.document.id] = item
            size += len(item.document.text)
            if len(group) >= self._batch or size >= self._batch * CHARACTERS:
                yield group
                group, size = {}, 0
        if group:
            yield group

    def _write(self, group: dict[str, NewDocument]) -> None:
        counts: Counter[str] = Counter()
        empty: set[str] = set()
        taken: dict[str, Skipped] = {}
        with self._store.transaction() as transaction:
            known = transaction.known(group)
            ids: list[int] = []
            passages: list[Passage] = []
            for key, new in group.items():
                digest = self._digest(new.document)
                owner = _other_file(known[key].source, new.source) if key in known else None
                if key in known and known[key].digest == digest:
                    counts["unchanged"] += 1
                    if owner is None and known[key].source != new.source:
                        transaction.set_source(key, new.source)
                    continue
                if owner is not None:
                    taken[key] = _taken(key, new, owner)
                    continue
                parts = self._passages(new.document)
                if not parts:
                    empty.add(key)
                    counts["removed"] += transaction.delete([key])
                    continue
                number = transaction.put_document(new, digest)
                ids += transaction.put_passages(number, parts)
                passages += parts
                counts["updated" if key in known else "added"] += 1
            for start in range(0, len(ids), self._batch):
                part = slice(start, start + self._batch)
                self._embed(transaction, ids[part], [passage.content for passage in passages[part]])
            counts["passages"] = len(ids)
        self._counts += counts
        self._skipped += [Skipped(document_id, "it holds no text") for document_id in sorted(empty)]
        self._skipped += taken.values()
        if self._on_ack is not None:
            stored = tuple(
                document_id for document_id in group if document_id not in empty and document_id not in taken
            )
            self._on_ack(Acknowledged(stored, self.report()))

    def _embed(self, transaction: Transaction, ids: Sequence[int], contents: Sequence[str]) -> None:
        embeddings = self._encoder.encode(contents, kind="passage")
        _check(embeddings, contents, self._encoder)
        transaction.put_embeddings(ids, embeddings)
        transaction.put_terms(ids, counted(contents, self._analyzer, transaction))

    def _passages(self, document: Document) -> list[Passage]:
        """A document that is nothing but a title is found by it."""
        if document.title and not document.text.strip():
            return [Passage(document.id, 0, start=0, end=0, line=1, text="", title=document.title)]
        return chunk(document, spans=self._encoder.token_spans, chunking=self._chunking)

    def _digest(self, document: Document) -> bytes:
        """Of all that the stored passages depend on, the encoder apart, which a collection never changes."""
        content = [document.text, document.title, [asdict(heading) for heading in document.headings]]
        metadata = dict(document.metadata)
        text = json.dumps([self._salt, content, metadata], sort_keys=True)
        return hashlib.blake2b(text.encode(), digest_size=16).digest()


def _other_file(stored: bytes | None, given: bytes | None) -> bytes | None:
    """The file that a stored document came from, if it is still there and is not the one given now."""
    if stored is None or given is None or stored == given:
        return None
    try:
        return None if os.path.samefile(stored, given) else stored
    except OSError:
        return None  # It was moved.


def _taken(document_id: str, new: NewDocument, owner: bytes) -> Skipped:
    """Ids are relative to what is indexed, so that two folders can hold the same; neither may replace the other."""
    return Skipped(
        os.fsdecode(new.source or b"") or document_id,
        f"its id {document_id!r} is that of a document from {os.fsdecode(owner)}, indexed before; index both "
        "folders in one command, which tells them apart, or use another collection",
    )


def counted(contents: Iterable[str], analyzer: Analyzer, transaction: Transaction) -> SparseRows:
    """Term counts of passages; new terms are entered into the vocabulary."""
    rows = [Counter(analyzer.terms(content)) for content in contents]
    numbers = transaction.term_ids({term for row in rows for term in row})
    counts = ({numbers[term]: float(count) for term, count in row.items()} for row in rows)
    return SparseRows.from_rows(counts, width=max(numbers.values(), default=0) + 1)


def _check(embeddings: Embeddings, contents: Sequence[str], encoder: TextEncoder) -> None:
    """Refuse what an encoder must never give: one vector that is not a number would spoil every search."""
    if len(embeddings) != len(contents) or set(embeddings.modes) != set(encoder.dimensions):
        raise CollectionError(
            f"the encoder promised {dict(encoder.dimensions)} for {len(contents)} passages "
            f"and gave {embeddings.modes} for {len(embeddings)}"
        )
    arrays: list[NDArray[Any]] = []
    if embeddings.dense is not None:
        arrays.append(embeddings.dense)
    if embeddings.sparse is not None:
        arrays.append(embeddings.sparse.weights)
    if embeddings.multi_vector is not None:
        arrays.append(embeddings.multi_vector.values)
    if not all(np.isfinite(array).all() for array in arrays):
        raise CollectionError(
            f"the encoder gave values that are not finite, for a passage among {contents[0]!r:.80} ..."
        )
