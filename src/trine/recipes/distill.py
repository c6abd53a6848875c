"""A large embedder into a small encoder: the student's vectors follow the teacher's, no labels needed.

Sources: jina-embeddings-v5-text, arXiv 2602.15547, stage 1 (a projection of the student onto the teacher, 1 - cosine);
cosines between texts, arXiv 1904.05068, section 3; Matryoshka prefixes, arXiv 2205.13147.
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
    """The same for a laptop, by the cosines between the texts of a batch: they taught a small student more.

    With labelled pairs, contrastive_weight=1 adds their loss.
    """
    return PairRecipe(
        name="distill_small",
        source="arXiv 2602.15547, scaled down; arXiv 1904.05068, section 3",
        steps=500,
        batch_size=128,
        learning_rate=5e-4,
        query_length=48,
        passage_length=128,
        pooling="mean",
        contrastive_weight=0.0,
        embedding_distillation="geometry",
        embedding_distillation_weight=100.0,
        save_every=100,
        evaluate_every=100,
    )
