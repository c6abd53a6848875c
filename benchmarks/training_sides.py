"""A process that trains with trine or with sentence-transformers; started by training.py and training_memory.py."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import torch
from training_loop import Step, adamw, serve, set_dropout

TEMPERATURE = 0.05
"""sentence-transformers' default scale of 20."""


def sentence_transformers(job: SimpleNamespace) -> tuple[torch.optim.Optimizer, Step]:
    """As its trainer does: batches in random order, each column padded to its longest text, fused AdamW, clipping."""
    from sentence_transformers import SentenceTransformer, losses

    rows = [json.loads(line) for line in Path(job.data).read_text(encoding="utf-8").splitlines()]
    model = SentenceTransformer(job.model, device="cpu").train()
    set_dropout(model, job.dropout)
    if job.cached:
        objective = losses.CachedMultipleNegativesRankingLoss(model, scale=1 / TEMPERATURE)
    else:
        objective = losses.MultipleNegativesRankingLoss(model, scale=1 / TEMPERATURE)
    optimizer = adamw(model.parameters())
    batches = _shuffled(len(rows), job.batch_size, seed=job.seed)

    def step() -> tuple[int, float]:
        chosen = [rows[row] for row in next(batches)]
        sides = [model.preprocess(texts) for texts in ([r["query"] for r in chosen], [r["pos"][0] for r in chosen])]
        tokens = sum(int(side["attention_mask"].sum()) for side in sides)
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=job.precision == "bfloat16"):
            loss = objective(sides, None)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        return tokens, float(loss)

    return optimizer, step


def _shuffled(count: int, size: int, *, seed: int) -> Iterator[list[int]]:
    generator = torch.Generator().manual_seed(seed)
    while True:
        order = torch.randperm(count, generator=generator).tolist()
        yield from (order[start : start + size] for start in range(0, count - size + 1, size))


def trine(job: SimpleNamespace) -> tuple[torch.optim.Optimizer, Step]:
    """Its batches, steps and objective, with the same optimizer and clipping."""
    from trine import Encoder
    from trine.data.examples import open_examples
    from trine.data.sampling import Sampling
    from trine.objectives.embedding import EmbeddingObjective
    from trine.training.batches import PairBatches, Pairing
    from trine.training.drawing import Grouping
    from trine.training.embedding import embedder
    from trine.training.steps import cached_step, full_step

    encoder = Encoder.load(job.model, device="cpu", dtype="float32").train()
    set_dropout(encoder, job.dropout)
    batches = PairBatches(
        [open_examples(job.data)],
        encoder=encoder,
        sampling=Sampling(batch_size=job.batch_size, boundaries=None if job.bucketed else (0,), seed=job.seed),
        pairing=Pairing(grouping=Grouping(group_size=job.group_size), chunk_tokens=job.chunk_tokens),
        modes=job.modes,
    )
    embed = embedder(
        encoder,
        modes=job.modes,
        width=encoder.backbone.vocabulary_size,
        precision=torch.bfloat16 if job.precision == "bfloat16" else None,
    )
    several = len(job.modes) > 1
    objective = EmbeddingObjective(
        modes=tuple(job.modes), temperature=0.02 if several else TEMPERATURE, self_distillation=several
    )
    take = cached_step if job.cached else full_step
    optimizer = adamw(encoder.parameters())

    def step() -> tuple[int, float]:
        batch = next(batches)
        losses = take(embed, batch.work, objective=objective)
        torch.nn.utils.clip_grad_norm_(encoder.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        return batch.tokens, float(losses.total)

    return optimizer, step


if __name__ == "__main__":
    serve(lambda job: {"trine": trine, "sentence-transformers": sentence_transformers}[job.side](job))
