"""Indexes derived from the store: built from it, brought up to date before a search, made anew when in doubt."""

from __future__ import annotations

import json
import os
import shutil
import warnings
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from trine.errors import CollectionError, CollectionLocked, UsageError
from trine.index import INDEXES, Index, Ranking
from trine.index.bm25 import Bm25Index
from trine.search.lock import FileLock
from trine.search.store import Changes, Generation, Store
from trine.tables import resolve
from trine.types import Embeddings, Mode

_BLOCK = 1024
"""Passages that are copied from the store into an index at a time."""

_Ids = NDArray[np.int64]
_Result = TypeVar("_Result")


class IndexView:
    """The vector index of a collection.

    The default backend, Qdrant Edge, keeps a shard in a folder beside the store. Two processes on one shard damage it
    (seen when it was tried), so the first to come takes a lock and every other process searches an exact index in
    memory instead, which finds the same. For the same reason the shard can never be the truth: one that is corrupt,
    foreign or from another past is made anew from the store.
    """

    def __init__(self, folder: Path, store: Store, *, backend: str, dimensions: Mapping[Mode, int]) -> None:
        """Prepare; nothing is opened before the first use."""
        self._store = store
        # Multi-vectors re-rank what dense found, straight from the store; only without dense must an index hold them.
        self._dimensions: dict[Mode, int] = {
            mode: width for mode, width in dimensions.items() if mode != "multi_vector" or "dense" not in dimensions
        }
        exact = backend == "exact" or "multi_vector" in self._dimensions
        self._shard = None if exact else _Shard(folder, backend, self._dimensions)
        self._failed = False
        self._index: Index | None = None
        self._follower = _Follower(store)

    @property
    def modes(self) -> tuple[Mode, ...]:
        """The representations that can be searched."""
        return tuple(self._dimensions)

    def synchronise(self) -> None:
        """Make the index hold what the store holds now; to be called within a snapshot of it."""
        self._attempt(lambda index: None)

    def search(self, queries: Embeddings, *, mode: Mode, k: int, allowed: _Ids | None = None) -> Ranking:
        """As `trine.index.Index.search`, over what the store holds now; to be called within a snapshot of it."""
        return self._attempt(lambda index: index.search(queries, mode=mode, k=k, allowed=allowed))

    def optimize(self) -> None:
        """Have the backend reorganise its files; to be called within a snapshot."""
        self.synchronise()
        if self._shard is None:
            raise CollectionError("there is no index on disk to optimise, or another process holds it")
        self._attempt(lambda index: getattr(index, "optimize", index.flush)())

    def close(self) -> None:
        """Release the shard and its lock."""
        if self._index is not None:
            self._index.close()
            self._index = None
        if self._shard is not None:
            self._shard.release()

    def _attempt(self, use: Callable[[Index], _Result]) -> _Result:
        """Use the synchronised index; a shard that fails is made anew once, and then done without."""
        while self._shard is not None:
            try:
                return use(self._synchronised())
            except (UsageError, KeyboardInterrupt, SystemExit):
                raise
            except CollectionLocked:
                # Someone who does not know of the lock beside the folder has the shard itself open.
                self._drop()
                self._give_up()
            # A damaged shard can raise anything, and a panic inside the Rust library is no `Exception`.
            except BaseException as error:
                self._recover(error)
        return use(self._synchronised())

    def _synchronised(self) -> Index:
        if self._index is None and self._shard is not None and not self._shard.acquire():
            self._shard = None
        if self._index is None:
            if self._shard is not None:
                self._index = self._shard.open(self._store)
            else:
                self._index = resolve(INDEXES, "exact", kind="index").open(None, dimensions=self._dimensions)
            self._follower = _Follower(self._store)
        if self._follower.behind:
            if self._shard is not None:
                self._shard.stamp(self._store.generation())
            self._follow(self._index)
        return self._index

    def _follow(self, index: Index) -> None:
        changes = self._follower.changes(index.ids)
        if len(changes.removed):
            index.delete(changes.removed)
        for start in range(0, len(changes.added), _BLOCK):
            ids = changes.added[start : start + _BLOCK]
            index.add(ids, self._store.embeddings(ids, dimensions=self._dimensions))
        index.flush()
        self._follower.done(changes)

    def _drop(self) -> None:
        """Forget the index, even one that cannot be closed any more."""
        if self._index is not None:
            with suppress(BaseException):
                self._index.close()
            self._index = None

    def _give_up(self) -> None:
        """Leave the shard to others."""
        if self._shard is not None:
            self._shard.release()
            self._shard = None

    def _recover(self, error: BaseException) -> None:
        self._drop()
        assert self._shard is not None
        try:
            self._shard.discard()
        except OSError:
            self._failed = True
        if self._failed:
            self._give_up()
            warnings.warn(
                f"the index on disk cannot be kept ({error!r}); searching an exact one in memory", stacklevel=5
            )
        self._failed = True


class Bm25View:
    """The BM25 index of a collection, in memory."""

    def __init__(self, store: Store) -> None:
        """Prepare; nothing is read before the first use."""
        self._store = store
        self._index: Bm25Index | None = None
        self._analyzer = ""
        self._follower = _Follower(store)

    def synchronised(self) -> Bm25Index:
        """The index, holding what the store holds now; to be called within a snapshot of it."""
        if self._index is None or (self._follower.behind and self._analyzer != self._store.analyzer_fingerprint()):
            self._index, self._follower = Bm25Index(), _Follower(self._store)
            self._analyzer = self._store.analyzer_fingerprint()
        if self._follower.behind:
            changes = self._follower.changes(self._index.ids)
            if len(changes.removed):
                self._index.delete(changes.removed)
            for start in range(0, len(changes.added), _BLOCK):
                ids = changes.added[start : start + _BLOCK]
                self._index.add(ids, self._store.terms(ids))
            self._follower.done(changes)
        return self._index


class _Follower:
    """How far an index has followed the store."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._generation: Generation | None = None
        self._last_id = -1

    @property
    def behind(self) -> bool:
        return self._generation != self._store.generation()

    def changes(self, held: Callable[[], _Ids]) -> Changes:
        """What an index must add and delete; at first, and after long, by comparing all ids with those it holds."""
        known = self._generation and self._store.changes(self._generation, last_id=self._last_id)
        if known:
            return known
        wanted, present = self._store.passage_ids(), held()
        self._last_id = int(wanted[-1]) if len(wanted) else -1
        return Changes(np.setdiff1d(wanted, present), np.setdiff1d(present, wanted))

    def done(self, changes: Changes) -> None:
        """The index has made these changes."""
        self._generation = self._store.generation()
        if len(changes.added):
            self._last_id = int(changes.added[-1])


class _Shard:
    """The folder of an index on disk, with the lock on it and the stamp that says which past it belongs to."""

    def __init__(self, folder: Path, backend: str, dimensions: Mapping[Mode, int]) -> None:
        self._backend, self._dimensions = backend, dimensions
        self._path = folder / backend
        self._lock_path = folder / f"{backend}.lock"
        self._stamp_path = folder / f"{backend}.json"
        self._lock: FileLock | None = None

    def acquire(self) -> bool:
        """Take the lock, if it is free and the folder can be written to."""
        if self._lock is None:
            try:
                self._lock = FileLock(self._lock_path)
            except CollectionError:
                return False
        return True

    def release(self) -> None:
        if self._lock is not None:
            self._lock.release()
            self._lock = None

    def open(self, store: Store) -> Index:
        """The index; emptied first unless it was made of this very collection."""
        if not self._belongs_to(store):
            self.discard()
        index: Index = resolve(INDEXES, self._backend, kind="index").open(str(self._path), dimensions=self._dimensions)
        return index

    def discard(self) -> None:
        """Delete everything; the store has it all."""
        self._stamp_path.unlink(missing_ok=True)
        if self._path.is_dir() and not self._path.is_symlink():
            shutil.rmtree(self._path)
        else:
            self._path.unlink(missing_ok=True)

    def stamp(self, generation: Generation) -> None:
        """Note, before anything of it is added, up to which state the shard may hold passages.

        A store restored from an older backup has never been in that state, and may since have given the same passage
        ids to other texts.
        """
        fresh = self._stamp_path.with_suffix(".new")
        fresh.write_text(json.dumps({"generation": generation, "dimensions": self._dimensions}))
        os.replace(fresh, self._stamp_path)

    def _belongs_to(self, store: Store) -> bool:
        try:
            stamp = json.loads(self._stamp_path.read_bytes())
            return stamp["dimensions"] == self._dimensions and store.holds(Generation(*stamp["generation"]))
        except (OSError, ValueError, TypeError, LookupError):
            return False
