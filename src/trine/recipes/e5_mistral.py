"""E5-Mistral: a decoder as embedder, by its last token, instructions in front of queries, and adapters.

Source: Wang et al., "Improving Text Embeddings with Large Language Models", arXiv 2401.00368, sections 3.2 and 4.2, and
appendix A. The paper does not state the adapters' alpha; here it is twice the rank.
"""

from __future__ import annotations

from trine.recipes.config import PairRecipe

TEMPLATE = "Instruct: {instruction}\nQuery: "
"""The trailing blank belongs to it."""
TASK = "Given a web search query, retrieve relevant passages that answer the query"
"""The paper's instruction for web search; data of another task wants its own (--set query_prompt=...)."""


def e5_mistral() -> PairRecipe:
    """One pass with one hard negative, batch 2048; the decoder stays causal (numbers of Mistral 7B)."""
    return PairRecipe(
        name="e5_mistral",
        source="arXiv 2401.00368, section 4.2 and appendix A",
        epochs=1,
        batch_size=2048,
        learning_rate=1e-4,
        warmup=100,
        weight_decay=0.1,
        query_length=512,
        passage_length=512,
        group_size=2,
        temperature=0.02,
        pooling="last_token",
        append_eos=True,
        query_prompt=TEMPLATE.format(instruction=TASK),
        instruction_prompt=TEMPLATE,
        lora_rank=16,
        gradient_checkpointing=True,
    )


def e5_mistral_small() -> PairRecipe:
    """The same for a laptop and a small decoder: batch 32, 300 steps."""
    return PairRecipe(
        name="e5_mistral_small",
        source="arXiv 2401.00368, section 4.2, scaled down",
        steps=300,
        batch_size=32,
        learning_rate=1e-3,
        weight_decay=0.1,
        query_length=64,
        passage_length=128,
        group_size=2,
        temperature=0.02,
        pooling="last_token",
        append_eos=True,
        query_prompt=TEMPLATE.format(instruction=TASK),
        instruction_prompt=TEMPLATE,
        lora_rank=16,
        save_every=100,
        evaluate_every=100,
    )
