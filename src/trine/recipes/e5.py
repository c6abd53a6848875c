"""E5: weakly supervised contrastive pre-training, then fine-tuning with hard negatives and a reranker's scores.

Source: Wang et al., "Text Embeddings by Weakly-Supervised Contrastive Pre-training", arXiv 2212.03533, section 4.
Learning rates, warm-up and lengths are those known of the released models; the paper does not state all of them.
"""

from __future__ import annotations

from trine.recipes.config import PairRecipe

QUERY, PASSAGE = "query: ", "passage: "
"""The trailing blank belongs to them."""


def e5_pretrain() -> PairRecipe:
    """Stage 1 on filtered weak pairs: in-batch negatives alone, a very large batch (numbers of the base model)."""
    return PairRecipe(
        name="e5_pretrain",
        source="arXiv 2212.03533, section 4.2 and appendix",
        steps=20_000,
        batch_size=32_768,
        learning_rate=2e-4,
        warmup=1000,
        query_length=128,
        passage_length=128,
        temperature=0.01,
        pooling="mean",
        query_prompt=QUERY,
        passage_prompt=PASSAGE,
    )


def e5_pretrain_small() -> PairRecipe:
    """The same for a laptop: batch 256, minutes instead of days."""
    return PairRecipe(
        name="e5_pretrain_small",
        source="arXiv 2212.03533, section 4.2, scaled down",
        steps=500,
        batch_size=256,
        learning_rate=5e-4,
        query_length=48,
        passage_length=128,
        temperature=0.02,
        pooling="mean",
        save_every=100,
        evaluate_every=100,
        query_prompt=QUERY,
        passage_prompt=PASSAGE,
    )


def e5_finetune() -> PairRecipe:
    """Stage 2 on labelled data: mined negatives, KL to a cross-encoder's scores plus 0.2 of the contrastive loss."""
    return PairRecipe(
        name="e5_finetune",
        source="arXiv 2212.03533, section 4.3",
        epochs=3,
        batch_size=256,
        learning_rate=2e-5,
        warmup=400,
        query_length=192,
        passage_length=192,
        group_size=8,
        temperature=0.01,
        pooling="mean",
        distillation="kl",
        contrastive_weight=0.2,
        query_prompt=QUERY,
        passage_prompt=PASSAGE,
    )


def e5_finetune_small() -> PairRecipe:
    """The same for a laptop: batch 32, group of 4."""
    return PairRecipe(
        name="e5_finetune_small",
        source="arXiv 2212.03533, section 4.3, scaled down",
        epochs=1,
        batch_size=32,
        learning_rate=1e-4,
        query_length=48,
        passage_length=128,
        group_size=4,
        temperature=0.02,
        pooling="mean",
        distillation="kl",
        contrastive_weight=0.2,
        save_every=100,
        evaluate_every=100,
        query_prompt=QUERY,
        passage_prompt=PASSAGE,
    )
