"""A process that takes FlagEmbedding's unified M3 steps; run by the interpreter that has it, with nothing of ours."""

from __future__ import annotations

import json
import random
from pathlib import Path
from types import SimpleNamespace

import torch
from training_loop import Step, adamw, serve, set_dropout


def flag_embedding(job: SimpleNamespace) -> tuple[torch.optim.Optimizer, Step]:
    """Its runner's model, its collator, self-distillation from the first step, in-batch negatives."""
    from FlagEmbedding.abc.finetune.embedder import AbsEmbedderCollator
    from FlagEmbedding.finetune.embedder.encoder_only.m3.modeling import EncoderOnlyEmbedderM3Model
    from FlagEmbedding.finetune.embedder.encoder_only.m3.runner import EncoderOnlyEmbedderM3Runner
    from transformers import AutoTokenizer

    rows = [json.loads(line) for line in Path(job.data).read_text(encoding="utf-8").splitlines()]
    tokenizer = AutoTokenizer.from_pretrained(job.model)
    model = EncoderOnlyEmbedderM3Model(
        EncoderOnlyEmbedderM3Runner.get_model(job.model),
        tokenizer=tokenizer,
        temperature=0.02,
        normalize_embeddings=True,
        sentence_pooling_method="cls",
        unified_finetuning=True,
        use_self_distill=True,
    ).train()
    set_dropout(model, job.dropout)
    collate = AbsEmbedderCollator(tokenizer, query_max_len=32, passage_max_len=256)
    optimizer = adamw(model.parameters())
    rng = random.Random(job.seed)

    def step() -> tuple[int, float]:
        chosen = rng.sample(rows, job.batch_size)
        batch = collate([(row["query"], [*row["pos"], *row["neg"]], None) for row in chosen])
        loss = model(batch["queries"], batch["passages"]).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        tokens = sum(int(batch[side]["attention_mask"].sum()) for side in ("queries", "passages"))
        return tokens, float(loss)

    return optimizer, step


if __name__ == "__main__":
    serve(flag_embedding)
