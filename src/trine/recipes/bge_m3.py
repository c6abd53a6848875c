"""BGE-M3: dense pre-training on weak pairs, then three heads trained together, each following the sum of all.

Source: Chen et al., "M3-Embedding", arXiv 2402.03216, sections 3.2 to 3.4 and appendix; the temperature is the one of
the released code. Stage 1 is the recipe `retromae` with the model's positions extended.
"""

from __future__ import annotations

from trine.recipes.config import PairRecipe

LENGTHS = (500, 1000, 2000, 3000, 4000, 5000, 6000, 7000, 8192)
UNSUPERVISED = (67_200, 54_720, 37_248, 27_648, 21_504, 17_280, 15_072, 12_288, 9_984)
FINE_TUNING = (1152, 768, 480, 432, 336, 336, 288, 240, 192)
"""Table 9: examples of one step by the length of its texts, over 96 and 24 GPUs."""


def bge_m3_unsupervised() -> PairRecipe:
    """Stage 2: dense InfoNCE on weak pairs of many languages, up to 8192 tokens."""
    return PairRecipe(
        name="bge_m3_unsupervised",
        source="arXiv 2402.03216, section 3.4 and appendix",
        steps=25_000,
        batch_size=67_200,
        length_batch_sizes=tuple(zip(LENGTHS, UNSUPERVISED, strict=True)),
        learning_rate=5e-5,
        query_length=512,
        passage_length=8192,
        temperature=0.02,
        pooling="cls",
        gradient_checkpointing=True,
    )


def bge_m3_unsupervised_small() -> PairRecipe:
    """The same for a laptop."""
    return PairRecipe(
        name="bge_m3_unsupervised_small",
        source="arXiv 2402.03216, section 3.4, scaled down",
        steps=500,
        batch_size=256,
        learning_rate=5e-4,
        query_length=48,
        passage_length=128,
        temperature=0.02,
        pooling="cls",
        save_every=100,
        evaluate_every=100,
    )


def bge_m3() -> PairRecipe:
    """Stage 3: all three heads with self-knowledge distillation, seven mined negatives."""
    return PairRecipe(
        name="bge_m3",
        source="arXiv 2402.03216, sections 3.3 and 3.4",
        epochs=1,
        batch_size=1152,
        length_batch_sizes=tuple(zip(LENGTHS, FINE_TUNING, strict=True)),
        learning_rate=1e-5,
        modes=("dense", "sparse", "multi_vector"),
        query_length=512,
        passage_length=8192,
        group_size=8,
        temperature=0.02,
        pooling="cls",
        self_distillation=True,
        shuffle_text=0.002,
        gradient_checkpointing=True,
    )


def bge_m3_small() -> PairRecipe:
    """The same for a laptop; fresh heads learn ten times faster, in place of a stage of their own."""
    return PairRecipe(
        name="bge_m3_small",
        source="arXiv 2402.03216, sections 3.3 and 3.4, scaled down",
        epochs=1,
        batch_size=64,
        learning_rate=1e-4,
        fresh_learning_rate=10.0,
        modes=("dense", "sparse", "multi_vector"),
        query_length=48,
        passage_length=192,
        vector_width=64,
        group_size=2,
        temperature=0.02,
        self_distillation=True,
        save_every=100,
        evaluate_every=100,
    )
