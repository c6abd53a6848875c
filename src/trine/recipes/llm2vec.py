"""LLM2Vec: a decoder made an encoder in three stages: no causal mask and masked next tokens, SimCSE, labelled pairs.

Source: BehnamGhader et al., "LLM2Vec", arXiv 2404.05961, sections 2 and 5, and the settings published with its code.
Every stage has adapters of its own, which are merged before the next begins. The learning rate stays level, nearly as
it does in the authors' thousand steps of a linear decay over three passes.
"""

from __future__ import annotations

from trine.recipes.config import PairRecipe, PretrainingRecipe

TASK = "Given a web search query, retrieve relevant passages that answer the query"
"""For web search; data of another task wants its own (--set query_prompt=...)."""


def llm2vec_mntp() -> PretrainingRecipe:
    """Stage 1 on running text: bidirectional attention and masked next-token prediction.

    Numbers of the Llama models; Mistral's are encoder_mask=0.8 and mask_all=true. Texts should fill 512 tokens: the
    authors join the lines of Wikipedia.
    """
    return PretrainingRecipe(
        name="llm2vec_mntp",
        source="arXiv 2404.05961, section 2.2",
        objective="mntp",
        attention="bidirectional",
        steps=1000,
        batch_size=32,
        learning_rate=5e-5,
        schedule="constant",
        warmup=0.0,
        weight_decay=0.0,
        max_length=512,
        encoder_mask=0.2,
        pooling="mean",
        lora_rank=16,
        lora_alpha=32,
        lora_dropout=0.05,
        gradient_checkpointing=True,
        save_every=200,
    )


def llm2vec_mntp_small() -> PretrainingRecipe:
    """The same for a laptop and a small decoder."""
    return PretrainingRecipe(
        name="llm2vec_mntp_small",
        source="arXiv 2404.05961, section 2.2, scaled down",
        objective="mntp",
        attention="bidirectional",
        steps=300,
        batch_size=16,
        learning_rate=1e-3,
        weight_decay=0.0,
        max_length=128,
        encoder_mask=0.2,
        pooling="mean",
        lora_rank=16,
        lora_alpha=32,
        lora_dropout=0.05,
        save_every=100,
    )


def llm2vec_simcse() -> PairRecipe:
    """Stage 2 on sentences: a text is its own positive under other dropout, of attention weights and adapters."""
    return PairRecipe(
        name="llm2vec_simcse",
        source="arXiv 2404.05961, section 2.2",
        attention="bidirectional",
        steps=1000,
        batch_size=128,
        learning_rate=3e-5,
        schedule="constant",
        warmup=0.0,
        weight_decay=0.0,
        query_length=128,
        passage_length=128,
        temperature=0.05,
        pooling="mean",
        same_text=True,
        attention_dropout=0.3,
        lora_rank=16,
        lora_alpha=32,
        lora_dropout=0.05,
        gradient_checkpointing=True,
        save_every=200,
    )


def llm2vec_simcse_small() -> PairRecipe:
    """The same for a laptop and a small decoder."""
    return PairRecipe(
        name="llm2vec_simcse_small",
        source="arXiv 2404.05961, section 2.2, scaled down",
        attention="bidirectional",
        steps=200,
        batch_size=64,
        learning_rate=3e-4,
        weight_decay=0.0,
        query_length=64,
        passage_length=64,
        temperature=0.05,
        pooling="mean",
        same_text=True,
        attention_dropout=0.3,
        lora_rank=16,
        lora_alpha=32,
        lora_dropout=0.05,
        save_every=100,
        evaluate_every=100,
    )


def llm2vec_supervised() -> PairRecipe:
    """Stage 3, or 2 in place of SimCSE: labelled pairs with a hard negative; instructions see, but are not pooled."""
    return PairRecipe(
        name="llm2vec_supervised",
        source="arXiv 2404.05961, section 5",
        attention="bidirectional",
        steps=1000,
        batch_size=512,
        learning_rate=2e-4,
        schedule="constant",
        warmup=300,
        weight_decay=0.0,
        query_length=512,
        passage_length=512,
        group_size=2,
        temperature=0.02,
        pooling="mean",
        pool_prompt=False,
        query_prompt=f"{TASK}: ",
        lora_rank=16,
        lora_alpha=32,
        lora_dropout=0.05,
        gradient_checkpointing=True,
        save_every=200,
    )


def llm2vec_supervised_small() -> PairRecipe:
    """The same for a laptop and a small decoder."""
    return PairRecipe(
        name="llm2vec_supervised_small",
        source="arXiv 2404.05961, section 5, scaled down",
        attention="bidirectional",
        steps=300,
        batch_size=32,
        learning_rate=1e-3,
        weight_decay=0.0,
        query_length=64,
        passage_length=128,
        group_size=2,
        temperature=0.02,
        pooling="mean",
        pool_prompt=False,
        query_prompt=f"{TASK}: ",
        lora_rank=16,
        lora_alpha=32,
        lora_dropout=0.05,
        save_every=100,
        evaluate_every=100,
    )
