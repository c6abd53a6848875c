"""A cross-encoder that re-orders what the embeddings found.

Sources: the softmax over a positive and mined negatives of BGE's rerankers (arXiv 2309.07597, section 3.3); monoBERT's
input (Nogueira and Cho, arXiv 1901.04085).
"""

from __future__ import annotations

from trine.recipes.config import RerankerRecipe


def reranker() -> RerankerRecipe:
    """Fifteen mined negatives a query, softmax over the group."""
    return RerankerRecipe(
        name="reranker",
        source="arXiv 2309.07597, section 3.3",
        epochs=2,
        batch_size=128,
        learning_rate=6e-5,
        group_size=16,
        max_length=512,
    )


def reranker_small() -> RerankerRecipe:
    """The same for a laptop."""
    return RerankerRecipe(
        name="reranker_small",
        source="arXiv 2309.07597, section 3.3, scaled down",
        epochs=1,
        batch_size=16,
        learning_rate=2e-4,
        group_size=4,
        max_length=192,
        save_every=100,
        evaluate_every=100,
    )
