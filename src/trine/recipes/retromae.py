"""RetroMAE and DupMAE: a sentence vector from which a weak decoder can rebuild a heavily masked text.

Sources: Xiao et al., "RetroMAE", arXiv 2205.12035, sections 3 and 4.1; Liu et al., "RetroMAE-2" (DupMAE), ACL 2023.
"""

from __future__ import annotations

import msgspec

from trine.recipes.config import PretrainingRecipe


def retromae() -> PretrainingRecipe:
    """Stage "general": Wikipedia and BookCorpus, 8 GPUs with 32 texts each."""
    return PretrainingRecipe(
        name="retromae",
        source="arXiv 2205.12035, section 4.1",
        epochs=8,
        batch_size=256,
        learning_rate=1e-4,
        max_length=512,
        encoder_mask=0.3,
        decoder_mask=0.5,
    )


def retromae_small() -> PretrainingRecipe:
    """The same for a laptop: short texts, a higher learning rate for a small model."""
    return PretrainingRecipe(
        name="retromae_small",
        source="arXiv 2205.12035, section 4.1, scaled down",
        steps=1000,
        batch_size=32,
        learning_rate=5e-4,
        max_length=128,
        encoder_mask=0.3,
        decoder_mask=0.5,
        save_every=200,
        evaluate_every=200,
    )


def dupmae() -> PretrainingRecipe:
    """RetroMAE with a second task, the text's bag of words from its ordinary tokens; its weight is the code's 0.1."""
    return msgspec.structs.replace(
        retromae(), name="dupmae", source="RetroMAE-2, ACL 2023, section 3", objective="dupmae"
    )


def dupmae_small() -> PretrainingRecipe:
    """The same for a laptop."""
    return msgspec.structs.replace(
        retromae_small(),
        name="dupmae_small",
        source="RetroMAE-2, ACL 2023, section 3, scaled down",
        objective="dupmae",
    )
