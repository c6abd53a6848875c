"""Files that one process at a time may hold."""

from __future__ import annotations

import os
from pathlib import Path

from trine.errors import CollectionError, CollectionLocked


class FileLock:
    """An advisory lock on a file that is never removed; when its holder dies, in whatever way, it is free again."""

    def __init__(self, path: Path) -> None:
        """Take the lock.

        Raises:
            CollectionLocked: another process, or another handle of this one, holds it; the message says which.
            CollectionError: the file cannot be written.
        """
        import fcntl

        try:
            self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        except OSError as error:
            raise CollectionError(
                f"{path.parent} cannot be written ({error.strerror}); open it with read_only=True to search it"
            ) from error
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            holder = os.pread(self._descriptor, 32, 0).decode("ascii", "replace").strip() or "unknown"
            os.close(self._descriptor)
            own = ", this very process" if holder == str(os.getpid()) else ""
            raise CollectionLocked(
                f"{path.parent} is open for writing in process {holder}{own}; wait for it, close it, "
                f"or open with read_only=True to search meanwhile"
            ) from error
        except OSError as error:
            os.close(self._descriptor)
            raise CollectionError(
                f"{path.parent} lies on a file system without locks ({error.strerror}); move it to a local disk"
            ) from error
        os.truncate(self._descriptor, 0)
        self._owner = os.getpid()
        os.pwrite(self._descriptor, str(self._owner).encode(), 0)

    def release(self) -> None:
        """Let others have it; calling it again does nothing."""
        import fcntl

        if self._descriptor >= 0:
            # A forked child shares the lock: if it unlocked, it would do so for the parent; if the parent only closed,
            # a child that outlives it would keep the lock.
            if self._owner == os.getpid():
                fcntl.flock(self._descriptor, fcntl.LOCK_UN)
            os.close(self._descriptor)
            self._descriptor = -1
