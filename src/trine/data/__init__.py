"""Files -> documents -> passages.

Names resolve on first use: the table of document types is all that this package loads.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

_HOMES = {
    "Chunking": "trine.data.chunking",
    "DocumentReader": "trine.data.files",
    "Limits": "trine.data.sources",
    "Skipped": "trine.data.sources",
    "chunk": "trine.data.chunking",
    "decode": "trine.data.decoding",
    "read_documents": "trine.data.files",
    "sentence_spans": "trine.data.sentences",
}

if TYPE_CHECKING:
    from trine.data.chunking import Chunking, chunk
    from trine.data.decoding import decode
    from trine.data.files import DocumentReader, read_documents
    from trine.data.sentences import sentence_spans
    from trine.data.sources import Limits, Skipped

__all__ = [
    "Chunking",
    "DocumentReader",
    "Limits",
    "Skipped",
    "chunk",
    "decode",
    "read_documents",
    "sentence_spans",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'trine.data' has no attribute {name!r}; it has {', '.join(__all__)}")
    value = getattr(importlib.import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
