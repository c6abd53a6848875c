"""What several test files train: a tiny encoder on pairs of texts, and a network of numbers."""

import random
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from models import tiny
from trine.objectives.base import Losses, PairBatch
from trine.training.embedding import chunks, embedder
from trine.training.steps import Work

QUERIES = [
    "검색",
    "deadlock",
    "가상 메모리 페이지",
    "late interaction keeps vectors",
    "🙂",
    "지하철은 하루에",
    "index",
    "a",
]
PASSAGES = [
    "검색 엔진은 문서를 찾아 순위를 매긴다.",
    "Deadlock happens when two processes wait for each other.",
    "가상 메모리는 페이지 단위로 관리된다. " * 3,
    "Late interaction keeps one vector for every token.",
    "이모지 🙂 그리고 👩‍👩‍👧‍👦 가족",
    "서울의 지하철은 하루에 수백만 명을 나른다.",
    "The index of a database is like the index of a book.",
    "가",
]
DROPPED = 0.1


def encoder(name="bert", *, dropout=DROPPED):
    """All three heads, dropout on."""
    model = tiny.encoder(name)
    for part in model.modules():
        if isinstance(part, nn.Dropout):
            part.p = dropout
    for layer in model.modules():
        if hasattr(layer, "dropout_prob"):
            layer.dropout_prob = dropout
    return model.train()


def sides(model, rows, *, modes, budget, seed=0):
    """Query and passage chunks of the given pairs."""
    result = []
    for kind, texts in (("query", QUERIES), ("passage", PASSAGES)):
        tokens = model.text([texts[row] for row in rows], kind=kind)
        start = seed + 100 * (kind == "passage")
        result.append(chunks(model, tokens, kind=kind, modes=modes, budget=budget, seed=start))
    return result


def work(model, rows=range(8), *, modes, budget, seed=0, pair=PairBatch):
    """One batch of this process."""
    queries, passages = sides(model, rows, modes=modes, budget=budget, seed=seed)
    return Work(queries, passages, lambda q, p, own: pair(q, p, rows=own))


def joined(parts):
    """The batches of several ranks as one of one process, chunk for chunk, so that dropout is the same."""
    sides = []
    for side in ("queries", "passages"):
        start, chunked = 0, []
        for part in parts:
            own = getattr(part, side)
            for chunk in own:
                chunked.append(
                    type(chunk)(chunk.batch, chunk.rows + start, chunk.weighted_BL, chunk.kept_BL, chunk.seed)
                )
            start += sum(len(chunk.rows) for chunk in own)
        sides.append(chunked)
    return Work(*sides, parts[0].pair)


def embed(model, *, modes, precision=None):
    return embedder(model, modes=modes, width=model.dimensions["sparse"], precision=precision)


class InBatch(nn.Module):
    """Cross-entropy over the batch for every representation that is there, by the naive formulas; learns its scale."""

    def __init__(self):
        super().__init__()
        self.log_scale = nn.Parameter(torch.tensor(1.0))

    def forward(self, batch):
        rows = batch.row_numbers
        parts = {}
        for name, scores_QP in (
            ("dense", self.dense(batch)),
            ("sparse", self.sparse(batch)),
            ("multi_vector", self.vectors(batch)),
        ):
            if scores_QP is not None:
                parts[name] = nn.functional.cross_entropy(
                    scores_QP[rows] * self.log_scale.exp(), rows * batch.group_size
                )
        return Losses(sum(parts.values()), {name: loss.detach() for name, loss in parts.items()})

    @staticmethod
    def dense(batch):
        return None if batch.queries.dense_ND is None else batch.queries.dense_ND @ batch.passages.dense_ND.T

    @staticmethod
    def sparse(batch):
        if batch.queries.sparse is None:
            return None
        sides = []
        for side in (batch.queries.sparse, batch.passages.sparse):
            rows = torch.repeat_interleave(torch.arange(len(side)), side.offsets.diff())
            wide = torch.zeros(len(side), side.width)
            sides.append(wide.index_put((rows, side.ids_T), side.weights_T, accumulate=True))
        return sides[0] @ sides[1].T * 0.1

    @staticmethod
    def vectors(batch):
        if batch.queries.vectors is None:
            return None
        q, p = batch.queries.vectors, batch.passages.vectors

        def one(packed, n):
            return packed.values_Td[packed.offsets[n] : packed.offsets[n + 1]]

        return torch.stack(
            [torch.stack([(one(q, i) @ one(p, j).T).amax(dim=1).mean() for j in range(len(p))]) for i in range(len(q))]
        )


def gradients(*modules):
    return {
        f"{number}.{name}": parameter.grad.clone()
        for number, module in enumerate(modules)
        for name, parameter in module.named_parameters()
        if parameter.grad is not None
    }


def assert_close(found, wanted, *, relative=1e-6):
    """Equal up to a share of the largest gradient; the scale is what a step of the optimizer sees."""
    assert found.keys() == wanted.keys()
    scale = max(float(tensor.abs().max()) for tensor in wanted.values())
    assert scale > 1e-3, "gradients that vanish prove nothing"
    for name, tensor in wanted.items():
        gap = float((found[name] - tensor).abs().max()) / scale
        assert gap <= relative, f"{name}: {gap:.2g}"


# -- a network of numbers --------------------------------------------------------------------------------------------


@dataclass
class Numbers:
    x_BI: torch.Tensor
    y_BO: torch.Tensor
    tokens: int


class Drawn:
    """Batches of a linear map with noise, drawn from all kinds of random numbers; counts what it has handed out."""

    def __init__(self, *, size=16, rank=0, ranks=1, poisoned=(), end=None):
        self.size, self.rank, self.ranks, self.poisoned, self.end = size, rank, ranks, set(poisoned), end
        self.number = 0

    def __iter__(self):
        return self

    def __next__(self):
        if self.number == self.end:
            raise StopIteration
        generator = np.random.default_rng(self.number)
        self.number += 1
        x_BI = generator.standard_normal((self.size, 4)).astype(np.float32)
        y_BO = x_BI @ np.arange(8, dtype=np.float32).reshape(4, 2) / 4
        own = slice(self.rank * self.size // self.ranks, (self.rank + 1) * self.size // self.ranks)
        x, y = torch.from_numpy(x_BI[own]), torch.from_numpy(y_BO[own])
        if self.number in self.poisoned:
            y = y * float("nan")
        return Numbers(x, y, tokens=len(x))

    def state_dict(self):
        return {"number": self.number}

    def load_state_dict(self, state):
        self.number = state["number"]


def network(*, dropout=0.2, seed=3):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(4, 16), nn.LayerNorm(16), nn.ReLU(), nn.Dropout(dropout), nn.Linear(16, 2))


def squares(module):
    """A step that draws from torch (dropout), numpy and Python."""

    def step(batch):
        shift = float(np.random.random()) * 0.01 + random.random() * 0.01
        loss = (module(batch.x_BI + shift) - batch.y_BO).square().mean()
        loss.backward()
        return Losses(loss.detach(), {"squares": loss.detach(), "shift": torch.tensor(shift)})

    return step
