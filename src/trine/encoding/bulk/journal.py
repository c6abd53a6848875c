"""When what happened to a job, as lines of JSON, and who may write to its folder."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

from trine.errors import UsageError


class Journal:
    """A log that is only added to; while it is open, no other process can open it."""

    def __init__(self, path: Path) -> None:
        """Open the log and lock it; the lock ends with the process, in whatever way that ends.

        Raises:
            UsageError: another process works on the same job.
        """
        self._stream = path.open("ab")
        if os.name != "nt":
            import fcntl

            try:
                fcntl.flock(self._stream.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                self._stream.close()
                raise UsageError(f"another process is at work in {path.parent}; wait for it or end it") from error

    def write(self, event: str, **facts: Any) -> None:
        """Add a line with the time of day, in one piece."""
        stamp = time.strftime("%Y-%m-%dT%H:%M:%S%z")
        line = json.dumps({"time": stamp, "event": event, **facts}, ensure_ascii=False)
        self._stream.write(line.encode("utf-8", "backslashreplace") + b"\n")
        self._stream.flush()

    def close(self) -> None:
        """Let others have the job."""
        self._stream.close()
