"""Every paid reply on disk, before anything else happens to it, so that a killed run repeats none."""

from __future__ import annotations

import json
import os
from dataclasses import asdict
from pathlib import Path
from threading import Lock
from typing import Any

from trine.curation.llm import Reply
from trine.curation.output import naming
from trine.errors import CollectionError, CollectionLocked, DataError, UsageError
from trine.search.lock import FileLock

NAME = "journal.jsonl"
_KIND = {"trine": "synthesis journal"}


class Journal:
    """Replies by the key of their request: JSON lines, synchronised one by one; safe from several threads.

    Texts stay on disk. A last line that a crash cut short is dropped; any other damage is an error.
    """

    def __init__(self, folder: Path) -> None:
        """Open or begin the journal of a folder, and hold it alone.

        Raises:
            UsageError: another process writes to it.
            DataError: it is damaged before its last line, or something else.
        """
        self.path = folder / NAME
        self.input_tokens = self.output_tokens = 0
        """Of all replies in it."""
        folder.mkdir(parents=True, exist_ok=True)
        self._guard = _locked(folder)
        self._lock = Lock()
        self._places: dict[str, tuple[int, int]] = {}
        try:
            self._file = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
            try:
                self._end = self._read()
                os.ftruncate(self._file, self._end)
                if not self._end:
                    self._append(_KIND)
            except BaseException:
                os.close(self._file)
                raise
        except BaseException:
            self._guard.release()
            raise

    def __len__(self) -> int:
        return len(self._places)

    def __contains__(self, key: str) -> bool:
        return key in self._places

    def get(self, key: str) -> Reply | None:
        """The reply to a request that was answered before."""
        with self._lock:
            place = self._places.get(key)
            if place is None:
                return None
            return _reply(json.loads(os.pread(self._file, place[1], place[0])))

    def add(self, key: str, reply: Reply) -> None:
        """Write a reply, down to the disk.

        Raises:
            OSError: the disk is full; what stood before stands.
        """
        with self._lock:
            start = self._end
            self._append({"key": key, **asdict(reply)})
            self._note(key, reply, start, self._end - start)

    def close(self) -> None:
        """Let others have it; calling it again does nothing."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1
        self._guard.release()

    def _append(self, record: dict[str, Any]) -> None:
        line = _line(record)
        with naming(self.path):
            try:
                written = 0
                while written < len(line):
                    written += os.pwrite(self._file, line[written:], self._end + written)
                os.fsync(self._file)
            except OSError:
                os.ftruncate(self._file, self._end)
                raise
        self._end += len(line)

    def _note(self, key: str, reply: Reply, start: int, size: int) -> None:
        self._places[key] = (start, size)
        self.input_tokens += reply.input_tokens
        self.output_tokens += reply.output_tokens

    def _read(self) -> int:
        """One past the last whole line."""
        end = 0
        with self.path.open("rb") as file:
            for number, line in enumerate(file, start=1):
                if not line.endswith(b"\n"):
                    break
                self._take(line, number, end)
                end += len(line)
        if not end and os.fstat(self._file).st_size > len(_line(_KIND)):
            raise self._foreign(1)
        return end

    def _take(self, line: bytes, number: int, start: int) -> None:
        try:
            record = json.loads(line)
            if number == 1:
                if record != _KIND:
                    raise self._foreign(number)
                return
            self._note(record["key"], _reply(record), start, len(line))
        except (ValueError, TypeError, LookupError) as error:
            raise self._foreign(number) from error

    def _foreign(self, number: int) -> DataError:
        return DataError(
            f"{self.path}:{number}: no line of a journal of trine synthesize; "
            "choose another folder, or remove that line to pay for its reply again"
        )


def _locked(folder: Path) -> FileLock:
    try:
        return FileLock(folder / ".lock")
    except CollectionLocked as error:
        raise UsageError(f"another run is writing to {folder}; wait for it, or choose another folder") from error
    except CollectionError as error:
        raise OSError(f"{folder} cannot be written: {error}") from error


def _reply(record: dict[str, Any]) -> Reply:
    return Reply(**{name: value for name, value in record.items() if name != "key"})


def _line(record: dict[str, Any]) -> bytes:
    text = json.dumps(record, ensure_ascii=False)
    try:
        return (text + "\n").encode()
    except UnicodeEncodeError:
        # A lone surrogate has no UTF-8; as an escape it comes back as it was.
        return (json.dumps(record) + "\n").encode()
