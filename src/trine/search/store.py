"""The one truth of a collection: a SQLite file with text, metadata, terms and vectors.

Everything that belongs to a batch of documents becomes visible in one transaction, so a process that is killed loses
nothing that was acknowledged and leaves nothing half visible. All else on disk is derived from this file.

Writing goes through one connection and reading through another, so that a thread can search, in a snapshot of its own,
while a batch is being written.
"""

from __future__ import annotations

import json
import secrets
import sqlite3
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from trine.errors import CollectionError
from trine.search.database import FILE, Reader, connect_writer, reported
from trine.search.filters import Condition, normal, stored_form, unknown_key, where
from trine.search.folder import require_collection
from trine.types import Document, Embeddings, Heading, Mode, PackedRows, Passage, SparseRows

KEPT_GENERATIONS = 10_000
"""How many transactions the log of removed passages goes back; who is further behind compares all ids instead."""

ANALYZER = "analyzer_fingerprint"
"""The one row of `config` that can change."""

_AMONG = "IN (SELECT value FROM json_each(?))"
_DOCUMENT = "number, id, text, title, metadata, headings"
_PASSAGE = (
    "passages.id, metadata, documents.id, ordinal, start, end, line, passages.text, passages.title "
    "FROM passages JOIN documents ON number = document"
)


class Generation(NamedTuple):
    """A committed state of the collection."""

    number: int
    """Grows by one with every transaction."""
    token: int
    """Random: a file restored from a backup may repeat a number, never a token."""


class Changes(NamedTuple):
    """What happened to passages since a generation; ids ascend."""

    added: NDArray[np.int64]
    removed: NDArray[np.int64]


class NewDocument(NamedTuple):
    """A document on its way into the store."""

    document: Document
    source: bytes | None = None
    """Absolute path of the file it was read from."""


class Known(NamedTuple):
    """What tells whether a stored document has changed."""

    digest: bytes
    source: bytes | None


class StoredPassage(NamedTuple):
    """A passage as search shows it."""

    passage: Passage
    metadata: dict[str, Any]


class Store:
    """Reads and, where it was opened for it, writes the SQLite file of a collection.

    Reading methods see the state of the last commit, or of the start of the `snapshot` they are called in. Writing
    methods are called inside `transaction`.
    """

    def __init__(self, folder: Path, *, read_only: bool) -> None:
        """Open an existing store.

        Raises:
            CollectionNotFound: there is none in `folder`.
            CollectionError: the file is truncated, corrupt, not a collection, or of a newer schema.
        """
        require_collection(folder)
        self.path = folder / FILE
        self._reader = Reader(self.path)
        self._writer: sqlite3.Connection | None = None
        if not read_only:
            try:
                self._writer = connect_writer(self.path)
                self._trim(self._writer)
            except BaseException:
                self.close()
                raise

    def close(self) -> None:
        """Close both connections; a writer that closes last folds the write-ahead log into the file."""
        self._reader.close()
        if self._writer is not None:
            self._writer.close()

    # Reading

    def snapshot(self) -> AbstractContextManager[None]:
        """Everything read inside sees one and the same committed state."""
        return self._reader.snapshot()

    def config(self) -> dict[str, Any]:
        """What `create` was given."""
        return {key: json.loads(value) for key, value in self._reader.rows("SELECT key, value FROM config")}

    def analyzer_fingerprint(self) -> str:
        """Of the analyser that made the stored terms; `replace_terms` changes it."""
        return str(json.loads(self._reader.rows("SELECT value FROM config WHERE key = ?", (ANALYZER,))[0][0]))

    def generation(self) -> Generation:
        """The state that is seen now."""
        number, token = self._reader.rows("SELECT generation, token FROM commits ORDER BY generation DESC LIMIT 1")[0]
        return Generation(number, token)

    def holds(self, generation: Generation) -> bool:
        """Whether this file went through that state, as far as the log goes back."""
        rows = self._reader.rows("SELECT token FROM commits WHERE generation = ?", (generation.number,))
        return rows == [(generation.token,)]

    def passage_ids(self) -> NDArray[np.int64]:
        """The ids of all passages, ascending."""
        return _integers(self._reader.rows("SELECT id FROM passages ORDER BY id"))

    def changes(self, since: Generation, *, last_id: int) -> Changes | None:
        """What was added with ids above `last_id` and removed after `since`; None where the log is too short."""
        if not self.holds(since):
            return None
        added = self._reader.rows("SELECT id FROM passages WHERE id > ? ORDER BY id", (last_id,))
        sql = "SELECT passage FROM removed WHERE generation > ? ORDER BY passage"
        return Changes(_integers(added), _integers(self._reader.rows(sql, (since.number,))))

    def embeddings(self, ids: NDArray[np.int64], *, dimensions: Mapping[Mode, int]) -> Embeddings:
        """The stored vectors of the modes in `dimensions`, in the order of `ids`, which must ascend.

        Dense is (N, D) float32; multi-vectors are kept in float16.
        """
        dense = multi_vector = None
        if "dense" in dimensions:
            blobs = [row[0] for row in self._of("SELECT vector FROM dense", ids)]
            dense = np.frombuffer(b"".join(blobs), np.float32).reshape(len(blobs), dimensions["dense"])
        if "multi_vector" in dimensions:
            width = dimensions["multi_vector"]
            blobs = [row[0] for row in self._of("SELECT vectors FROM multi_vector", ids)]
            offsets = _offsets(len(blob) // (2 * width) for blob in blobs)
            multi_vector = PackedRows(np.frombuffer(b"".join(blobs), np.float16).reshape(-1, width), offsets)
        sparse = self._sparse_rows("sparse", ids, dimensions["sparse"]) if "sparse" in dimensions else None
        return Embeddings(dense=dense, sparse=sparse, multi_vector=multi_vector)

    def terms(self, ids: NDArray[np.int64]) -> SparseRows:
        """Term counts of the passages `ids`, which must ascend."""
        return self._sparse_rows("terms", ids, self.vocabulary_size())

    def vocabulary_size(self) -> int:
        """One more than the largest term id."""
        return int(self._reader.rows("SELECT coalesce(max(id), -1) + 1 FROM vocabulary")[0][0])

    def term_ids(self, terms: Iterable[str]) -> dict[str, int]:
        """Ids of those terms that some passage has had."""
        return _term_ids(self._reader.rows, terms)

    def term_labels(self, ids: Iterable[int]) -> list[str]:
        """The terms with those ids, in their order."""
        wanted = [int(number) for number in ids]
        terms = dict(self._reader.rows(f"SELECT id, term FROM vocabulary WHERE id {_AMONG}", (json.dumps(wanted),)))
        return [terms[number] for number in wanted]

    def matching(self, conditions: Sequence[Condition]) -> NDArray[np.int64]:
        """Ids of the passages whose documents meet all conditions, ascending.

        Raises:
            UsageError: a condition on a key that no document has; nothing is raised while the collection is empty.
        """
        for condition in conditions:
            key = normal(condition.key)
            if not self._reader.rows("SELECT 1 FROM metadata WHERE key = ? LIMIT 1", (key,)) and self.document_count():
                raise unknown_key(key, self.metadata_keys())
        clause, parameters = where(conditions)
        sql = f"SELECT id FROM passages WHERE document IN (SELECT number FROM documents WHERE {clause}) ORDER BY id"
        return _integers(self._reader.rows(sql, parameters))

    def metadata_keys(self) -> list[str]:
        """All keys that documents have, sorted."""
        return [key for (key,) in self._reader.rows("SELECT DISTINCT key FROM metadata ORDER BY key")]

    def document_count(self) -> int:
        """Number of documents."""
        return int(self._reader.rows("SELECT count(*) FROM documents")[0][0])

    def passage_count(self) -> int:
        """Number of passages."""
        return int(self._reader.rows("SELECT count(*) FROM passages")[0][0])

    def document(self, document_id: str) -> Document | None:
        """A document by its id."""
        rows = self._reader.rows(f"SELECT {_DOCUMENT} FROM documents WHERE id = ?", (document_id,))
        return _document(rows[0][1:]) if rows else None

    def documents(self, *, after: int = 0, limit: int = 64) -> dict[int, Document]:
        """The next `limit` documents with numbers above `after`, in the order in which they were first added."""
        sql = f"SELECT {_DOCUMENT} FROM documents WHERE number > ? ORDER BY number LIMIT ?"
        return {row[0]: _document(row[1:]) for row in self._reader.rows(sql, (after, limit))}

    def passages_of(self, document_id: str) -> dict[int, Passage]:
        """The passages of a document by their ids, in order."""
        rows = self._reader.rows(f"SELECT {_PASSAGE} WHERE documents.id = ? ORDER BY ordinal", (document_id,))
        return {row[0]: Passage(*row[2:]) for row in rows}

    def passages(self, ids: Iterable[int]) -> dict[int, StoredPassage]:
        """The passages that there are among `ids`."""
        wanted = json.dumps([int(key) for key in ids])
        rows = self._reader.rows(f"SELECT {_PASSAGE} WHERE passages.id {_AMONG}", (wanted,))
        return {row[0]: StoredPassage(Passage(*row[2:]), json.loads(row[1])) for row in rows}

    # Writing

    @contextmanager
    def transaction(self) -> Iterator[Transaction]:
        """Write; all becomes visible and durable at the end, or, with any exception, nothing."""
        connection = self.require_writable()
        with reported(self.path):
            connection.execute("BEGIN IMMEDIATE")
            try:
                yield Transaction(connection)
                connection.execute("COMMIT")
            except BaseException:
                if connection.in_transaction:
                    connection.execute("ROLLBACK")
                raise

    def require_writable(self) -> sqlite3.Connection:
        """The connection to write through.

        Raises:
            CollectionError: the store was opened for reading only.
        """
        if self._writer is None:
            raise CollectionError(f"{self.path.parent} was opened with read_only=True; open it without to change it")
        return self._writer

    def _trim(self, connection: sqlite3.Connection) -> None:
        horizon = "(SELECT max(generation) FROM commits) - ?"
        with reported(self.path):
            for table in ("removed", "commits"):
                connection.execute(f"DELETE FROM {table} WHERE generation <= {horizon}", (KEPT_GENERATIONS,))

    def _of(self, select: str, ids: NDArray[np.int64]) -> list[Any]:
        rows = self._reader.rows(f"{select} WHERE passage {_AMONG} ORDER BY passage", (json.dumps(ids.tolist()),))
        if len(rows) != len(ids):
            raise CollectionError(
                f"{self.path} has vectors for {len(rows)} of {len(ids)} passages: it is damaged; restore it from a "
                f"backup or index the documents anew"
            )
        return rows

    def _sparse_rows(self, table: str, ids: NDArray[np.int64], width: int) -> SparseRows:
        rows = self._of(f"SELECT ids, weights FROM {table}", ids)
        return SparseRows(
            _offsets(len(row[0]) // 4 for row in rows),
            np.frombuffer(b"".join(row[0] for row in rows), np.int32),
            np.frombuffer(b"".join(row[1] for row in rows), np.float32),
            width,
        )


class Transaction:
    """The writing half of a store, for the time of one transaction."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        """Begin; a generation is counted with the first change."""
        self._connection = connection
        self._number: int | None = None

    def put_document(self, new: NewDocument, digest: bytes) -> int:
        """Insert a document, or replace it and drop its passages; returns its number for `put_passages`."""
        self._generation()
        document = new.document
        columns = {
            "source": new.source,
            "digest": digest,
            "title": document.title,
            "metadata": json.dumps(dict(document.metadata), ensure_ascii=False, allow_nan=False),
            "headings": json.dumps([(part.start, part.level, part.text) for part in document.headings]),
            "text": document.text,
        }
        known = self._connection.execute("SELECT number FROM documents WHERE id = ?", (document.id,)).fetchone()
        if known is None:
            names, marks = ", ".join(columns), ", ".join("?" * len(columns))
            cursor = self._connection.execute(
                f"INSERT INTO documents (id, {names}) VALUES (?, {marks})", (document.id, *columns.values())
            )
            number = int(cursor.lastrowid or 0)
        else:
            number = int(known[0])
            self._drop_passages(number)
            self._connection.execute("DELETE FROM metadata WHERE document = ?", (number,))
            settings = ", ".join(f"{name} = ?" for name in columns)
            self._connection.execute(f"UPDATE documents SET {settings} WHERE number = ?", (*columns.values(), number))
        rows = {normal(key): stored_form(value) for key, value in document.metadata.items()}
        self._connection.executemany(
            "INSERT INTO metadata VALUES (?, ?, ?, ?)", [(number, key, *row) for key, row in rows.items()]
        )
        return number

    def put_passages(self, number: int, passages: Iterable[Passage]) -> list[int]:
        """Insert the passages of a document; returns their ids, which ascend and are never used again."""
        sql = "INSERT INTO passages (document, ordinal, start, end, line, title, text) VALUES (?, ?, ?, ?, ?, ?, ?)"
        ids = []
        for part in passages:
            row = (number, part.ordinal, part.start, part.end, part.line, part.title, part.text)
            ids.append(int(self._connection.execute(sql, row).lastrowid or 0))
        return ids

    def put_embeddings(self, ids: Sequence[int], embeddings: Embeddings) -> None:
        """Insert the vectors of passages."""
        if embeddings.dense is not None:
            dense = np.ascontiguousarray(embeddings.dense, np.float32)
            self._connection.executemany(
                "INSERT INTO dense VALUES (?, ?)", ((key, row.tobytes()) for key, row in zip(ids, dense, strict=True))
            )
        if embeddings.sparse is not None:
            self._put_sparse_rows("sparse", ids, embeddings.sparse)
        if (packed := embeddings.multi_vector) is not None:
            self._connection.executemany(
                "INSERT INTO multi_vector VALUES (?, ?)",
                ((key, packed.row(place).astype(np.float16).tobytes()) for place, key in enumerate(ids)),
            )

    def put_terms(self, ids: Sequence[int], counts: SparseRows) -> None:
        """Insert the term counts of passages."""
        self._put_sparse_rows("terms", ids, counts)

    def term_ids(self, terms: Iterable[str]) -> dict[str, int]:
        """Ids of terms; new terms get new ids."""
        wanted = json.dumps(list(terms))
        self._connection.execute("INSERT OR IGNORE INTO vocabulary (term) SELECT value FROM json_each(?)", (wanted,))
        return _term_ids(self._rows, json.loads(wanted))

    def replace_terms(self, count: Callable[[Sequence[str]], SparseRows], *, fingerprint: str) -> None:
        """Count the terms of all passages anew; `count` gets the contents of some passages at a time."""
        self._generation()
        self._connection.execute("DELETE FROM terms")
        self._connection.execute("UPDATE config SET value = ? WHERE key = ?", (json.dumps(fingerprint), ANALYZER))
        last = 0
        sql = f"SELECT {_PASSAGE} WHERE passages.id > ? ORDER BY passages.id LIMIT 256"
        while rows := self._rows(sql, (last,)):
            last = rows[-1][0]
            self.put_terms([row[0] for row in rows], count([Passage(*row[2:]).content for row in rows]))

    def known(self, ids: Iterable[str]) -> dict[str, Known]:
        """Those documents that there are."""
        rows = self._rows(f"SELECT id, digest, source FROM documents WHERE id {_AMONG}", (json.dumps(list(ids)),))
        return {row[0]: Known(*row[1:]) for row in rows}

    def set_source(self, document_id: str, source: bytes | None) -> None:
        """Note that an unchanged document lies in another file now."""
        self._connection.execute("UPDATE documents SET source = ? WHERE id = ?", (source, document_id))

    def sources(self) -> list[tuple[str, bytes]]:
        """Id and file of each document that came from one."""
        return self._rows("SELECT id, source FROM documents WHERE source IS NOT NULL")

    def delete(self, ids: Iterable[str]) -> int:
        """Delete documents with all that belongs to them; returns how many there were."""
        sql = f"SELECT number FROM documents WHERE id {_AMONG}"
        numbers = [row[0] for row in self._rows(sql, (json.dumps(list(ids)),))]
        if numbers:
            self._generation()
        for number in numbers:
            self._drop_passages(number)
        self._connection.executemany("DELETE FROM documents WHERE number = ?", [(number,) for number in numbers])
        return len(numbers)

    def _rows(self, sql: str, parameters: Sequence[Any] = ()) -> list[Any]:
        return self._connection.execute(sql, parameters).fetchall()

    def _generation(self) -> int | None:
        if self._number is None:
            sql = "INSERT INTO commits (token) VALUES (?)"
            self._number = self._connection.execute(sql, (secrets.randbits(62),)).lastrowid
        return self._number

    def _drop_passages(self, number: int) -> None:
        sql = "INSERT INTO removed SELECT ?, id FROM passages WHERE document = ?"
        self._connection.execute(sql, (self._generation(), number))
        self._connection.execute("DELETE FROM passages WHERE document = ?", (number,))

    def _put_sparse_rows(self, table: str, ids: Sequence[int], rows: SparseRows) -> None:
        keys, weights = rows.ids.astype(np.int32, copy=False), rows.weights.astype(np.float32, copy=False)
        spans = zip(ids, rows.offsets[:-1], rows.offsets[1:], strict=True)
        self._connection.executemany(
            f"INSERT INTO {table} VALUES (?, ?, ?)",
            ((key, keys[first:last].tobytes(), weights[first:last].tobytes()) for key, first, last in spans),
        )


def _term_ids(rows: Callable[[str, Sequence[Any]], list[Any]], terms: Iterable[str]) -> dict[str, int]:
    return dict(rows(f"SELECT term, id FROM vocabulary WHERE term {_AMONG}", (json.dumps(list(terms)),)))


def _document(row: Sequence[Any]) -> Document:
    document_id, text, title, metadata, headings = row
    return Document(
        document_id, text, title, json.loads(metadata), tuple(Heading(*heading) for heading in json.loads(headings))
    )


def _integers(rows: list[tuple[int]]) -> NDArray[np.int64]:
    return np.fromiter((row[0] for row in rows), np.int64, len(rows))


def _offsets(lengths: Iterable[int]) -> NDArray[np.int64]:
    return np.cumsum([0, *lengths], dtype=np.int64)
