"""A large embedder into a small encoder: the student's vectors follow the teacher's, no labels needed.

Sources: jina-embeddings-v5-text, arXiv 2602.15547, stage 1 (a projection of the student onto the teacher, 1 - cosine);
Matryoshka prefixes, arXiv 2205.13147.
"""

from __future__ import annotations

from trine.recipes.config import PairRecipe


def distill() -> PairRecipe:
    """Embedding distillation with the numbers of jina-embeddings-v5-text-small."""
    return PairRecipe(
        name="distill",
        source="arXiv 2602.15547, table of stages",
        steps=50_000,
        batch_size=4096,
        learning_rate=1e-4,
        query_length=512,
        passage_length=512,
        pooling="mean",
        contrastive_weight=0.0,
        embedding_distillation="cosine",
    )


def distill_small() -> PairRecipe:
    """The same for a laptop."""
    return PairRecipe(
        name="distill_small",
        source="arXiv 2602.15547, scaled down",
        steps=500,
        batch_size=128,
        learning_rate=5e-4,
        query_length=48,
        passage_length=128,
        pooling="mean",
        contrastive_weight=0.0,
        embedding_distillation="cosine",
        save_every=100,
        evaluate_every=100,
    )
