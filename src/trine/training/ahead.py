"""Batches prepared one ahead of their use, in a thread, without losing the place.

The position that is told is that after the batch last handed out, not after the one that is being prepared.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Generic, TypeVar

from trine.data.sampling import Draw, Sampler

Item = TypeVar("Item")


class Ahead(Generic[Item]):
    """Draws and prepares; an error of the preparation comes out of `next` and leaves the place where it was."""

    def __init__(self, sampler: Sampler, prepare: Callable[[Draw], Item]) -> None:
        self._sampler, self._prepare = sampler, prepare
        self._state = sampler.state_dict()
        self._pool: ThreadPoolExecutor | None = None
        self._coming: Future[tuple[Draw, Item, dict[str, Any]] | None] | None = None

    def next(self) -> tuple[Draw, Item]:
        """The next draw, prepared.

        Raises:
            StopIteration: the sampler has come to its end.
        """
        self._coming = self._coming or self._submit()
        try:
            found = self._coming.result()
        except BaseException:
            self.load(self._state)
            raise
        self._coming = None
        if found is None:
            raise StopIteration
        draw, item, self._state = found
        self._coming = self._submit()
        return draw, item

    def state(self) -> dict[str, Any]:
        """The position after the batch last handed out."""
        return self._state

    def load(self, state: Mapping[str, Any]) -> None:
        """Go to a position; what was prepared is thrown away."""
        self._settle()
        try:
            self._sampler.load_state_dict(state)
        except BaseException:
            self._sampler.load_state_dict(self._state)
            raise
        self._state = self._sampler.state_dict()

    def close(self) -> None:
        """End the thread."""
        self._settle()
        if self._pool is not None:
            self._pool.shutdown()
            self._pool = None
        self._sampler.load_state_dict(self._state)

    def _settle(self) -> None:
        coming, self._coming = self._coming, None
        if coming is not None and not coming.cancel():
            # Its own error, if any, comes again when the batch is drawn again.
            coming.exception()

    def _submit(self) -> Future[tuple[Draw, Item, dict[str, Any]] | None]:
        if self._pool is None:
            self._pool = ThreadPoolExecutor(max_workers=1, thread_name_prefix="trine-batches")
        return self._pool.submit(self._produce)

    def _produce(self) -> tuple[Draw, Item, dict[str, Any]] | None:
        draw = next(self._sampler, None)
        return None if draw is None else (draw, self._prepare(draw), self._sampler.state_dict())
