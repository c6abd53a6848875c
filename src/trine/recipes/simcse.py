"""SimCSE, unsupervised: a text is its own positive, under another dropout.

Source: Gao et al., "SimCSE", arXiv 2104.08821, sections 3 and 5, and appendix A.
"""

from __future__ import annotations

from trine.recipes.config import PairRecipe


def simcse() -> PairRecipe:
    """One pass over a million sentences (numbers of BERT base)."""
    return PairRecipe(
        name="simcse",
        source="arXiv 2104.08821, appendix A",
        epochs=1,
        batch_size=64,
        learning_rate=3e-5,
        warmup=0.0,
        weight_decay=0.0,
        query_length=32,
        passage_length=32,
        temperature=0.05,
        pooling="cls",
        same_text=True,
        dropout=0.1,
        evaluate_every=250,
    )


def simcse_small() -> PairRecipe:
    """The same for a laptop."""
    return PairRecipe(
        name="simcse_small",
        source="arXiv 2104.08821, appendix A, scaled down",
        steps=300,
        batch_size=64,
        learning_rate=1e-4,
        query_length=48,
        passage_length=48,
        temperature=0.05,
        same_text=True,
        dropout=0.1,
        save_every=100,
        evaluate_every=100,
    )
