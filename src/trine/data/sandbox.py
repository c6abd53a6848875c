"""Parsers of other people's formats run in a worker process: what crashes, hangs or swells there costs one file."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import msgspec

from trine.data.ingest import INGESTORS
from trine.data.sources import Limits
from trine.errors import DocumentError, MissingExtra
from trine.tables import resolve
from trine.types import Document, Heading

_FILES_PER_WORKER = 200
"""A fresh process now and then: native parsers fragment and leak."""
_BYTES_PER_CHARACTER = 8
"""JSON takes at most six; the rest is room for headings."""
_LONGEST_REASON = 300


@dataclass(frozen=True, slots=True)
class _Request:
    path: bytes
    name: str
    suffix: str


@dataclass(frozen=True, slots=True)
class _Reply:
    documents: list[Document]
    problem: str = ""


class Sandbox:
    """One worker process, started when first needed and again after it died; a context manager."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._worker: subprocess.Popen[bytes] | None = None
        self._files = 0

    def __enter__(self) -> Sandbox:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def read(self, path: Path, *, name: str, suffix: str) -> list[Document]:
        """The documents of one file.

        Raises:
            DocumentError: the parser refused the file, crashed, or exceeded the limits of time or memory.
        """
        if self._worker is None or self._files >= _FILES_PER_WORKER:
            self.close()
            self._worker = _start(self._limits)
            self._files = 0
        self._files += 1
        request = _Request(os.fsencode(path.absolute()), name, suffix)
        line, timed_out = self._ask(self._worker, msgspec.json.encode(request) + b"\n")
        if timed_out or not line.endswith(b"\n"):
            reason = self._why_it_died(timed_out)
            self.close()
            raise DocumentError(reason)
        try:
            reply = msgspec.json.decode(line, type=_Reply)
        except msgspec.MsgspecError as error:
            self.close()
            raise DocumentError(f"garbled its parser's answer: {error}") from error
        if reply.problem:
            raise DocumentError(reply.problem)
        return reply.documents

    def close(self) -> None:
        """End the worker; the next file starts another."""
        worker, self._worker = self._worker, None
        if worker is not None:
            worker.kill()
            with contextlib.suppress(OSError):
                worker.communicate()

    def _ask(self, worker: subprocess.Popen[bytes], request: bytes) -> tuple[bytes, bool]:
        expired = threading.Event()

        def expire() -> None:
            expired.set()
            worker.kill()

        timer = threading.Timer(self._limits.seconds, expire)
        timer.start()
        try:
            assert worker.stdin is not None
            assert worker.stdout is not None
            worker.stdin.write(request)
            worker.stdin.flush()
            line = worker.stdout.readline(_BYTES_PER_CHARACTER * self._limits.characters + 2**20)
        except BrokenPipeError:
            line = b""
        finally:
            timer.cancel()
            timer.join()
        return line, expired.is_set()

    def _why_it_died(self, timed_out: bool) -> str:
        if timed_out:
            return f"took longer than the limit of {self._limits.seconds:g} seconds"
        assert self._worker is not None
        self._worker.kill()
        code = self._worker.wait()
        how = signal.Signals(-code).name if code < 0 else f"exit code {code}"
        return (
            f"crashed its parser ({how}); it is broken, or needs more than {self._limits.memory_bytes} bytes of memory"
        )


def _start(limits: Limits) -> subprocess.Popen[bytes]:
    """Start the worker with this process's import path, less the working directory: files there are not ours to run."""
    here = os.path.realpath(os.curdir)
    paths = [entry for entry in sys.path if entry and os.path.realpath(entry) != here]
    paths.append(str(Path(__file__).resolve().parents[2]))
    # BLAS reserves address space for each of its threads, on many cores more than the whole limit.
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths), "OPENBLAS_NUM_THREADS": "1"}
    environment |= {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    worker = subprocess.Popen(
        [sys.executable, "-P", "-m", "trine.data.sandbox"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env=environment,
    )
    assert worker.stdin is not None
    with contextlib.suppress(BrokenPipeError):
        worker.stdin.write(msgspec.json.encode(limits) + b"\n")
    return worker


def main() -> None:
    """The worker: limits on the first line of stdin, then a request a line; a reply a line."""
    requests, replies = _private_pipes()
    limits = msgspec.json.decode(requests.readline(), type=Limits)
    _restrict(limits)
    for line in requests:
        if hasattr(signal, "alarm"):
            # Ends a worker that hangs after its parent was killed and can no longer end it.
            signal.alarm(int(limits.seconds) + 5)
        reply = _answer(msgspec.json.decode(line, type=_Request), limits)
        replies.write(msgspec.json.encode(reply) + b"\n")
        replies.flush()
        if hasattr(signal, "alarm"):
            signal.alarm(0)


def _private_pipes() -> tuple[BinaryIO, BinaryIO]:
    """Stdin and stdout under other numbers, so that a library that prints cannot garble the replies."""
    requests, replies = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    nowhere = os.open(os.devnull, os.O_RDWR)
    os.dup2(nowhere, 0)
    os.dup2(nowhere, 1)
    return requests, replies


def _restrict(limits: Limits) -> None:
    try:
        import resource
    except ImportError:  # Windows has no such limits; time is still bounded by the parent
        return
    # macOS refuses to set an address-space limit below what is already mapped.
    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_AS, (limits.memory_bytes, limits.memory_bytes))
    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def _answer(request: _Request, limits: Limits) -> _Reply:
    try:
        read = resolve(INGESTORS, request.suffix, kind="document type")
        documents = [
            _encodable(document)
            for document in read(Path(os.fsdecode(request.path)), name=request.name, limits=limits)
            if isinstance(document, Document)
        ]
    except (DocumentError, MissingExtra) as error:
        return _Reply([], str(error))
    except MemoryError:
        return _Reply([], f"needs more than the limit of {limits.memory_bytes} bytes of memory")
    except RecursionError:
        return _Reply([], "is nested too deeply")
    except Exception as error:  # whatever a parser raises on a broken file
        reason = f"is broken, or not what its name {request.suffix!r} says: {type(error).__name__}: {error}"
        return _Reply([], reason.encode("utf-8", "replace").decode()[:_LONGEST_REASON])
    if any(len(document.text) > limits.characters for document in documents):
        return _Reply([], f"holds more than the limit of {limits.characters} characters")
    return _Reply(documents)


def _encodable(document: Document) -> Document:
    """The same without lone surrogates, which no encoding can carry; each becomes one U+FFFD, so offsets stay."""
    return Document(
        document.id,
        without_surrogates(document.text),
        without_surrogates(document.title),
        {
            key: without_surrogates(value) if isinstance(value, str) else value
            for key, value in document.metadata.items()
        },
        [Heading(heading.start, heading.level, without_surrogates(heading.text)) for heading in document.headings],
    )


def without_surrogates(text: str) -> str:
    """`text` with each lone surrogate replaced by U+FFFD."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return "".join("\ufffd" if "\ud800" <= character <= "\udfff" else character for character in text)
    return text


if __name__ == "__main__":
    main()
