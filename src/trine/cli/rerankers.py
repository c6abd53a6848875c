"""The one way by which commands get a reranker."""

from __future__ import annotations

from typing import TYPE_CHECKING

from trine.cli.encoders import silence_libraries

if TYPE_CHECKING:
    from trine.models.reranker import Reranker


def read_reranker(name: str, *, device: str = "auto", dtype: str = "auto") -> Reranker:
    """`trine.Reranker.load`, in silence.

    Raises:
        ModelNotFound: there is no such model.
        CheckpointError: it is there, and is no reranker, or cannot be used.
    """
    silence_libraries()
    from trine.models.reranker import Reranker

    return Reranker.load(name, device=device, dtype=dtype)


def untrained_reranker_sentence(name: str) -> str:
    """What has to be said where a head that nobody trained puts passages in order."""
    return f"the head of {name} was never trained; the order it gives means nothing"
