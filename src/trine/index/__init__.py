"""Vectors in, ids and scores out. Knows no model, no text and no torch."""

from trine.index.base import Index, Ranking
from trine.tables import Row

INDEXES = {
    "qdrant-edge": Row("trine.index.qdrant_edge:QdrantEdgeIndex"),
    "exact": Row("trine.index.exact:ExactIndex"),
}
ANALYZERS = {
    "bigram": Row("trine.index.analysis:BigramAnalyzer"),
    "kiwi": Row("trine.index.kiwi:KiwiAnalyzer", "korean"),
}

__all__ = ["ANALYZERS", "INDEXES", "Index", "Ranking"]
