"""What the processes of the tests run; at the top of a module, so that each can import it."""

import contextlib
import os
import signal

import torch

from training import toys
from trine.errors import TrainingError
from trine.objectives.base import Embedded, TokenVectors, TokenWeights
from trine.training import checkpoints
from trine.training.loop import train
from trine.training.settings import LoopSettings
from trine.training.steps import cached_step, full_step

ALL = ("dense", "sparse", "multi_vector")
ROWS = (range(5), range(5, 8))
"""Unequal shares; 5 and 3 texts, of unequal lengths, in unequal numbers of chunks."""
EQUAL = (range(4), range(4, 8))


def packed(rank):
    """Two texts of rank 0, one of rank 1, with different numbers of tokens."""
    if rank == 0:
        return Embedded(
            torch.tensor([[1.0, 2.0], [3.0, 4.0]]),
            TokenWeights(torch.tensor([0.1, 0.2, 0.3]), torch.tensor([7, 8, 7]), torch.tensor([0, 1, 3]), width=10),
            TokenVectors(torch.tensor([[1.0], [2.0], [3.0], [4.0]]), torch.tensor([0, 4, 4])),
        )
    return Embedded(
        torch.tensor([[5.0, 6.0]]),
        TokenWeights(torch.tensor([0.4]), torch.tensor([9]), torch.tensor([0, 1]), width=10),
        TokenVectors(torch.tensor([[5.0], [6.0]]), torch.tensor([0, 2])),
    )


def gather(ranks):
    """What each rank sees of all, and the gradients that come back of a loss which differs by rank."""
    own = packed(ranks.rank)
    leaves = [leaf.requires_grad_() for leaf in own.leaves()]
    whole, rows = ranks.gather(own)
    loss = sum((leaf * (ranks.rank + 1)).sum() for leaf in whole.leaves()[:2])
    loss.backward()
    return (
        [leaf.detach().tolist() for leaf in whole.leaves()],
        [whole.sparse.ids_T.tolist(), whole.sparse.offsets.tolist(), whole.vectors.offsets.tolist()],
        (rows.start, rows.stop),
        [leaf.grad.tolist() for leaf in leaves],
    )


def wide(ranks):
    """Rows over the whole vocabulary."""
    own = Embedded(sparse=torch.full((ranks.rank + 1, 3), float(ranks.rank)))
    return ranks.gather(own)[0].sparse.tolist()


def talk(ranks):
    """Values, means, gradients that some ranks have and others not."""
    there, some, nowhere = (torch.nn.Parameter(torch.zeros(2)) for _ in range(3))
    there.grad = torch.full((2,), float(ranks.rank))
    if ranks.rank == 1:
        some.grad = torch.full((2,), 4.0)
    start = torch.full((3,), float(ranks.rank + 1))
    ranks.align([start])
    ranks.share_gradients([there, some, nowhere])
    return {
        "gradients": [there.grad.tolist(), some.grad.tolist(), nowhere.grad],
        "norm": ranks.gradient_norm([there, some, nowhere]),
        "mean": ranks.mean(float(ranks.rank)),
        "collect": ranks.collect(f"글 {ranks.rank}"),
        "tell": ranks.tell({"rank": ranks.rank}),
        "align": start.tolist(),
        "fill": ranks.fill(start, torch.tensor([1.0, 2.0]) if ranks.rank == 0 else None).tolist(),
        "whole": None if (found := ranks.whole(start)) is None else found.tolist(),
        "lost": ranks.lost() if ranks.rank == 0 else [],
    }


def steps(ranks, parallel, rows):
    """Gradients of one batch that the ranks share, by both steps."""
    found = {}
    for step in (full_step, cached_step):
        model, objective = toys.encoder(), toys.InBatch()
        if parallel == "fsdp":
            ranks.shard(model)
        embed = toys.embed(model, modes=ALL)
        part = toys.work(model, rows[ranks.rank], modes=ALL, budget=40, seed=1000 * ranks.rank)
        losses = step(embed, part, objective=objective, ranks=ranks)
        parameters = {**dict(model.named_parameters()), **dict(objective.named_parameters())}
        ranks.share_gradients(list(parameters.values()))
        norm = ranks.gradient_norm(list(parameters.values()))
        # Sharded gradients are collected by all ranks, so all walk the same list.
        whole = {name: ranks.whole(p.grad) for name, p in parameters.items() if p.grad is not None}
        found[step.__name__] = whole, norm, ranks.mean(float(losses.total))
    return found


class Pairs:
    """The same texts in every batch, under other dropout."""

    def __init__(self, model, share, rank, *, budget=40):
        self.model, self.share, self.rank, self.budget, self.number = model, share, rank, budget, 0

    def __iter__(self):
        return self

    def __next__(self):
        self.number += 1
        return [
            toys.work(self.model, rows, modes=ALL, budget=self.budget, seed=10_000 * self.number + 1000 * rank)
            for rank, rows in self.share
        ]

    def state_dict(self):
        return {"number": self.number}

    def load_state_dict(self, state):
        self.number = state["number"]


SETTINGS = dict(
    steps=6,
    learning_rate=1e-2,
    warmup=2,
    weight_decay=0.1,
    # Adam divides by the gradient's own size, so it blows up what rounding leaves of a gradient that is zero (a bias
    # before a softmax); this epsilon leaves such gradients small.
    epsilon=1e-3,
    save_every=2,
    log_every=1,
    multipliers={"encoder.sparse.": 3.0},
    accumulate=2,
)


class Interrupted(Exception):
    """Raised by both ranks in the middle of a step."""


def training(ranks, folder, parallel="ddp", kill_at=None, break_at=None, own_kill_at=None, **changes):
    """Six steps of two batches each; one process takes the batches of both ranks joined."""
    model, objective = toys.encoder(), toys.InBatch()
    if ranks.rank == 1:
        # Random heads differ from rank to rank until the first gives the others its own.
        with torch.no_grad():
            for parameter in [*model.parameters(), *objective.parameters()]:
                parameter.add_(1.0)
    if parallel == "fsdp":
        ranks.shard(model)
    module = torch.nn.ModuleDict({"encoder": model, "objective": objective})
    share = list(enumerate(EQUAL)) if ranks.size == 1 else [(ranks.rank, EQUAL[ranks.rank])]
    batches = Pairs(model, share, ranks.rank)
    embed = toys.embed(model, modes=ALL)

    def step(parts):
        if kill_at is not None and ranks.rank == 1 and batches.number >= kill_at:
            os.kill(os.getpid(), signal.SIGKILL)
        if own_kill_at is not None and batches.number >= own_kill_at:
            os.kill(os.getpid(), signal.SIGKILL)
        if break_at is not None and batches.number >= break_at:
            raise Interrupted
        joined = toys.joined(parts) if len(parts) > 1 else parts[0]
        return cached_step(embed, joined, objective=objective, ranks=ranks)

    settings = LoopSettings(**{**SETTINGS, **changes})
    evaluate = None
    if settings.evaluate_every:

        def evaluate():
            texts = toys.QUERIES[:2]
            return {"length": float(abs(model.encode(texts, kind="query", modes=["dense"]).dense).sum())}

        # As one does who wants to know what training brings; it leaves a sharded model whole.
        evaluate()

    summary = train(
        module, batches=batches, step=step, settings=settings, folder=folder, ranks=ranks, evaluate=evaluate
    )
    return summary


def full_disk(ranks, folder):
    """The first rank cannot write its second checkpoint; every rank hears of it."""
    real = checkpoints.write

    def write(root, step, checkpoint):
        if step == 4:
            raise TrainingError("No space left on device")
        return real(root, step, checkpoint)

    checkpoints.write = write
    try:
        training(ranks, folder)
    except TrainingError as error:
        return str(error)
    finally:
        checkpoints.write = real
    return "nothing was raised"


def sharded(ranks, folder):
    """Evaluation between the steps of a sharded model."""
    return training(ranks, folder, "fsdp", evaluate_every=1, metric="length", steps=3, warmup=1)


def everything(ranks, folder):
    """All that needs two processes and lets them live, in one go: most of a process's time is its imports."""
    found = {
        "gather": gather(ranks),
        "wide": wide(ranks),
        "talk": talk(ranks),
        "full disk": full_disk(ranks, folder / "full"),
    }
    for parallel in ("ddp", "fsdp"):
        found["equal", parallel] = steps(ranks, parallel, EQUAL)
        found["unequal", parallel] = steps(ranks, parallel, ROWS)
        found["whole", parallel] = training(ranks, folder / f"whole-{parallel}", parallel)
        if parallel == "fsdp":
            with contextlib.suppress(Interrupted):
                training(ranks, folder / "stopped-fsdp", parallel, break_at=7)
        found["before", parallel] = list(checkpoints.every(folder / f"stopped-{parallel}" / "checkpoints"))
        found["resumed", parallel] = training(ranks, folder / f"stopped-{parallel}", parallel)
    found["sharded"] = sharded(ranks, folder / "sharded")
    return found
