"""How far a job is, how fast it goes and how long it will take."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from trine.encoding.bulk.plan import Survey
from trine.encoding.bulk.workers import Done


@dataclass(frozen=True, slots=True)
class Progress:
    """Where a job stands."""

    stage: str
    """"reading" the input for the first time, or "encoding" it."""
    texts: int
    """Read so far, or on the disk as embeddings."""
    total: int | None = None
    shards: int = 0
    total_shards: int = 0
    tokens_per_second: float | None = None
    """About, of all workers together, since this run began to encode."""
    seconds_left: float | None = None


class Pace:
    """Counts shards and tells how it goes."""

    def __init__(
        self, found: Survey, tell: Callable[[Progress], None], *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._found, self._tell, self._clock = found, tell, clock
        self._start: float | None = None
        self._texts = self._shards = self._characters = 0
        self.fresh_shards = self.fresh_tokens = self._fresh_characters = 0

    def begin(self) -> None:
        """Start the clock."""
        self._start = self._clock()
        self._say()

    def count(self, done: Done, *, fresh: bool) -> None:
        """Add a shard; `fresh`: encoded in this run, and so a measure of its speed."""
        self._texts += done.texts
        self._shards += 1
        self._characters += done.characters
        if fresh:
            self.fresh_shards += 1
            self.fresh_tokens += done.tokens
            self._fresh_characters += done.characters
        self._say()

    @property
    def seconds(self) -> float:
        """Since the clock was started."""
        return 0.0 if self._start is None else self._clock() - self._start

    def _say(self) -> None:
        seconds = self.seconds
        known = self.fresh_shards > 0 and seconds > 0
        left = self._found.characters - self._characters
        self._tell(
            Progress(
                stage="encoding",
                texts=self._texts,
                total=self._found.texts,
                shards=self._shards,
                total_shards=len(self._found.digests),
                tokens_per_second=self.fresh_tokens / seconds if known else None,
                seconds_left=left * seconds / max(self._fresh_characters, 1) if known else None,
            )
        )
