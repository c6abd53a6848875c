"""Opening the SQLite file of a collection: its schema, its connections, and what can be wrong with it."""

from __future__ import annotations

import json
import secrets
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from trine.errors import CollectionCorrupt, CollectionError

FILE = "collection.sqlite"
SCHEMA_VERSION = 1
APPLICATION_ID = 0x7472696E
"""Marks the SQLite file as a collection in its header: "trin"."""


# Large columns come last in their tables, so that reading the others does not walk through them. Each kind of vector
# has its own table: scanning the dense ones must not read the multi-vectors, which are a hundred times their size.
SCHEMA = """
CREATE TABLE config (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE commits (generation INTEGER PRIMARY KEY AUTOINCREMENT, token INTEGER NOT NULL);
CREATE TABLE documents (
    number INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE, source BLOB, digest BLOB NOT NULL,
    title TEXT NOT NULL, metadata TEXT NOT NULL, headings TEXT NOT NULL, text TEXT NOT NULL
);
CREATE TABLE metadata (
    document INTEGER NOT NULL REFERENCES documents ON DELETE CASCADE, key TEXT NOT NULL, kind TEXT NOT NULL, value,
    PRIMARY KEY (document, key)
) WITHOUT ROWID;
CREATE INDEX metadata_values ON metadata (key, kind, value);
CREATE TABLE passages (
    id INTEGER PRIMARY KEY AUTOINCREMENT, document INTEGER NOT NULL REFERENCES documents ON DELETE CASCADE,
    ordinal INTEGER NOT NULL, start INTEGER NOT NULL, end INTEGER NOT NULL, line INTEGER NOT NULL,
    title TEXT NOT NULL, text TEXT NOT NULL
);
CREATE INDEX passages_of_document ON passages (document);
CREATE TABLE removed (
    generation INTEGER NOT NULL, passage INTEGER NOT NULL, PRIMARY KEY (generation, passage)
) WITHOUT ROWID;
CREATE TABLE vocabulary (id INTEGER PRIMARY KEY, term TEXT NOT NULL UNIQUE);
CREATE TABLE terms (
    passage INTEGER PRIMARY KEY REFERENCES passages ON DELETE CASCADE, ids BLOB NOT NULL, weights BLOB NOT NULL
);
CREATE TABLE dense (passage INTEGER PRIMARY KEY REFERENCES passages ON DELETE CASCADE, vector BLOB NOT NULL);
CREATE TABLE sparse (
    passage INTEGER PRIMARY KEY REFERENCES passages ON DELETE CASCADE, ids BLOB NOT NULL, weights BLOB NOT NULL
);
CREATE TABLE multi_vector (passage INTEGER PRIMARY KEY REFERENCES passages ON DELETE CASCADE, vectors BLOB NOT NULL);
"""


def create(path: Path, config: Mapping[str, object]) -> None:
    """Make an empty database, all of it in one transaction.

    Raises:
        CollectionError: the file holds a database already.
    """
    connection = connect(path, "mode=rwc")
    try:
        with reported(path):
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute("BEGIN IMMEDIATE")
            # A process killed while creating leaves a file without tables; it may be used.
            if connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()[0]:
                raise CollectionError(f"{path.parent} already holds a collection, or another database called {FILE}")
            for statement in SCHEMA.split(";"):
                connection.execute(statement)
            connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
            connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
            rows = [(key, json.dumps(value, ensure_ascii=False)) for key, value in config.items()]
            connection.executemany("INSERT INTO config VALUES (?, ?)", rows)
            connection.execute("INSERT INTO commits (token) VALUES (?)", (secrets.randbits(62),))
            connection.execute("COMMIT")
    finally:
        connection.close()


def connect(path: Path, options: str) -> sqlite3.Connection:
    """A connection in autocommit; callers see to it that only one thread uses it at a time."""
    with reported(path):
        return sqlite3.connect(
            f"{path.absolute().as_uri()}?{options}", uri=True, timeout=30, isolation_level=None, check_same_thread=False
        )


def connect_writer(path: Path) -> sqlite3.Connection:
    """The connection to write through: what it commits is on the disk when it returns."""
    connection = connect(path, "mode=rw")
    with reported(path):
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute("PRAGMA foreign_keys = ON")
    return connection


class Reader:
    """The connection to read through; it writes nothing to the database and waits for no writer."""

    def __init__(self, path: Path) -> None:
        """Connect.

        Raises:
            CollectionCorrupt: the file is truncated, damaged or no collection.
            CollectionError: it cannot be read, or is of a newer schema.
        """
        self._path = path
        _check_length(path)
        self._open()
        try:
            self._check_header()
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Disconnect."""
        self._connection.close()

    def rows(self, sql: str, parameters: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        """All rows of a query."""
        with reported(self._path):
            return self._connection.execute(sql, parameters).fetchall()

    @contextmanager
    def snapshot(self) -> Iterator[None]:
        """All rows read inside are of one and the same committed state."""
        if self._immutable is not None and self._immutable != self._signature():
            self.close()
            self._open()
        self.rows("BEGIN")
        try:
            yield
        finally:
            self.rows("COMMIT")

    def _open(self) -> None:
        self._immutable: tuple[object, ...] | None = None
        self._connection = connect(self._path, "mode=ro")
        try:
            self._connection.execute("SELECT 1 FROM sqlite_schema").fetchone()
        except sqlite3.OperationalError as error:
            if error.sqlite_errorname.startswith(("SQLITE_READONLY", "SQLITE_CANTOPEN")):
                self._reopen_immutable(error)
        except sqlite3.DatabaseError:
            return  # Reported by the first query, with its reason.

    def _reopen_immutable(self, error: sqlite3.OperationalError) -> None:
        """Read a folder that one may not write to.

        SQLite wants to make the log's index there even for reading, and does without only if told that the file never
        changes; `snapshot` looks whether it did.
        """
        self.close()
        if _log_size(self._path):
            raise CollectionError(
                f"{self._path} cannot be opened ({error}): its write-ahead log holds changes that only someone "
                f"who may write to the folder can fold in; open it once as such"
            ) from error
        self._immutable = self._signature()
        self._connection = connect(self._path, "mode=ro&immutable=1")

    def _signature(self) -> tuple[object, ...]:
        state = self._path.stat()
        return state.st_mtime_ns, state.st_size, state.st_ino, _log_size(self._path) > 0

    def _check_header(self) -> None:
        application, version = (self.rows(f"PRAGMA {name}")[0][0] for name in ("application_id", "user_version"))
        if application != APPLICATION_ID:
            raise CollectionCorrupt(f"{self._path} is not a trine collection, though its name says so")
        if version > SCHEMA_VERSION:
            raise CollectionError(
                f"{self._path} has schema version {version}, this trine reads up to {SCHEMA_VERSION}; "
                f"install the newer trine that made it"
            )


@contextmanager
def reported(path: Path) -> Iterator[None]:
    """Turn what SQLite complains about into this library's error."""
    try:
        yield
    except sqlite3.Error as error:
        name = getattr(error, "sqlite_errorname", type(error).__name__)
        remedy = {
            "SQLITE_FULL": "free some space and repeat; what was acknowledged is safe",
            "SQLITE_BUSY": "another process has held it for 30 s; wait for it or end it",
            "SQLITE_READONLY": "it may not be written; open with read_only=True to search it",
        }.get(name, "if it is damaged, restore it from a backup or index the documents anew")
        damaged = name.startswith(("SQLITE_CORRUPT", "SQLITE_NOTADB", "SQLITE_FORMAT"))
        kind = CollectionCorrupt if damaged else CollectionError
        raise kind(f"{path}: {error} ({name}); {remedy}") from error


def _check_length(path: Path) -> None:
    """A file shorter than its header says, without a log that could hold the rest, has lost its end.

    SQLite itself notices only when it reads a missing page, in the middle of some search.
    """
    try:
        with path.open("rb") as file:
            header = file.read(100)
    except OSError as error:
        raise CollectionError(f"{path} cannot be read: {error.strerror}") from error
    if len(header) < 100 or _log_size(path):
        return
    page_size = int.from_bytes(header[16:18], "big")
    expected = (65536 if page_size == 1 else page_size) * int.from_bytes(header[28:32], "big")
    size = path.stat().st_size
    if header.startswith(b"SQLite format 3\0") and size < expected:
        raise CollectionCorrupt(f"{path} is truncated: {size} of {expected} bytes; restore it from a backup")


def _log_size(path: Path) -> int:
    log = Path(f"{path}-wal")
    return log.stat().st_size if log.is_file() else 0
