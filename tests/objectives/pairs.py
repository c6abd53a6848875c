"""Random batches with all three representations, in float64."""

from dataclasses import replace

import torch

from trine.objectives.base import Embedded, PairBatch, TokenVectors, TokenWeights

WIDTH = 13


def offsets(lengths):
    return torch.tensor([0, *torch.tensor(lengths).cumsum(0).tolist()])


def embedded(lengths, *, seed, dimensions=6, vector_width=4):
    generator = torch.Generator().manual_seed(seed)
    count, tokens = len(lengths), sum(lengths)

    def random(*shape):
        return torch.randn(*shape, dtype=torch.float64, generator=generator)

    return Embedded(
        dense_ND=torch.nn.functional.normalize(random(count, dimensions), dim=1),
        sparse=TokenWeights(
            torch.rand(tokens, dtype=torch.float64, generator=generator),
            torch.randint(WIDTH, (tokens,), generator=generator),
            offsets(lengths),
            width=WIDTH,
        ),
        vectors=TokenVectors(torch.nn.functional.normalize(random(tokens, vector_width), dim=1), offsets(lengths)),
    )


def batch(*, queries=4, size=2, seed=0, **options):
    """A batch whose texts differ in length."""
    query_lengths = [2 + n % 3 for n in range(queries)]
    passage_lengths = [3 + n % 5 for n in range(queries * size)]
    return PairBatch(
        embedded(query_lengths, seed=seed),
        embedded(passage_lengths, seed=seed + 1),
        group_size=size,
        **options,
    )


def with_leaves(found):
    """The same batch on tensors of its own that keep their gradients, and those tensors."""
    leaves = [
        leaf.detach().clone().requires_grad_() for side in (found.queries, found.passages) for leaf in side.leaves()
    ]
    count = len(found.queries.leaves())
    fresh = replace(
        found, queries=found.queries.with_leaves(leaves[:count]), passages=found.passages.with_leaves(leaves[count:])
    )
    return fresh, leaves
