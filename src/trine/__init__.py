"""Dense, learned sparse and multi-vector embeddings from one model; index, hybrid search and evaluation on top.

Names resolve on first use, so that ``import trine`` loads neither torch nor numpy.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

_HOMES = {
    "Collection": "trine.search.collection",
    "Document": "trine.types",
    "Embeddings": "trine.types",
    "Encoder": "trine.models.encoder",
    "Hit": "trine.types",
    "Passage": "trine.types",
    "Query": "trine.types",
    "Reranker": "trine.models.reranker",
    "TrineError": "trine.errors",
    "evaluate": "trine.evaluation.evaluate",
    "score": "trine.scoring",
}

if TYPE_CHECKING:
    from trine.errors import TrineError
    from trine.evaluation.evaluate import evaluate
    from trine.models.encoder import Encoder
    from trine.models.reranker import Reranker
    from trine.scoring import score
    from trine.search.collection import Collection
    from trine.types import Document, Embeddings, Hit, Passage, Query

__all__ = [
    "Collection",
    "Document",
    "Embeddings",
    "Encoder",
    "Hit",
    "Passage",
    "Query",
    "Reranker",
    "TrineError",
    "evaluate",
    "score",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'trine' has no attribute {name!r}; it has {', '.join(__all__)}")
    value = getattr(importlib.import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
