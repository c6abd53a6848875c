"""A teacher's embeddings of every training text, computed once and looked up by the text's key.

Shapes: N texts, E dimensions of the teacher, R queries of this rank, G passages of a query.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from trine.data.examples import Source, text_key
from trine.encoding.progress import progress_bar
from trine.errors import TrainingError, UsageError
from trine.objectives.base import PairBatch
from trine.training.ranks import OneProcess
from trine.types import Kind, TextEncoder

_BLOCK = 4096


@dataclass(frozen=True, slots=True)
class TeacherVectors:
    """Unit vectors by text, on disk; queries and passages apart, since prompts differ."""

    keys: dict[Kind, NDArray[np.int64]]
    """Ascending."""
    vectors: dict[Kind, NDArray[np.float16]]
    """(N, E), memory-mapped."""

    @property
    def width(self) -> int:
        """E"""
        return int(self.vectors["query"].shape[1])

    def beside(self, batch: PairBatch) -> PairBatch:
        """The batch with the teacher's embeddings of this rank's texts.

        Raises:
            UsageError: the batch does not say which texts it holds.
        """
        if batch.query_keys_Q is None or batch.passage_keys_P is None:
            raise UsageError("the teacher's embeddings are found by text, and the batch has no keys")
        rows = batch.row_numbers
        passage_keys = batch.passage_keys_P.view(-1, batch.group_size)[rows]
        return replace(
            batch,
            teacher_queries_RE=self._found("query", batch.query_keys_Q[rows]),
            teacher_passages_RGE=self._found("passage", passage_keys),
        )

    def _found(self, kind: Kind, keys: Tensor) -> Tensor:
        wanted = keys.cpu().numpy()
        places = np.searchsorted(self.keys[kind], wanted)
        places = np.minimum(places, len(self.keys[kind]) - 1)
        if not np.array_equal(self.keys[kind][places], wanted):
            raise UsageError(
                f"the teacher has not seen a {kind} of the batch; the examples changed since it embedded them"
            )
        return torch.from_numpy(np.asarray(self.vectors[kind][places], np.float32)).to(keys.device)


def teacher_vectors(
    teacher: TextEncoder,
    sources: Sequence[Source],
    *,
    folder: Path,
    same_text: bool = False,
    ranks: OneProcess | None = None,
    progress: bool = False,
) -> TeacherVectors:
    """Embed every query and passage of the sources, or take what an earlier run left in `folder`.

    Args:
        teacher: gives dense embeddings.
        sources: examples.
        folder: for the embeddings; they are taken from there where teacher and sources are the same.
        same_text: whether passages are the queries themselves.
        ranks: of several, the first embeds and the others wait for it.
        progress: show a bar.

    Raises:
        UsageError: the teacher gives no dense embeddings.
        TrainingError: the first rank died while it embedded.
    """
    ranks = ranks or OneProcess()
    if "dense" not in teacher.dimensions:
        raise UsageError(f"a teacher must give dense embeddings; this one gives {', '.join(teacher.dimensions)}")
    stamp = "-".join([teacher.fingerprint[:16], *(source.fingerprint[:12] for source in sources)])
    folder.mkdir(parents=True, exist_ok=True)
    sides: tuple[Kind, ...] = ("query",) if same_text else ("query", "passage")
    for kind in sides:
        path = folder / f"{stamp}-{kind}"
        if ranks.rank == 0:
            _embed(teacher, sources, path, kind, progress)
        while not Path(f"{path}-keys.npy").is_file():
            if 0 in ranks.lost():
                raise TrainingError("the first rank died while it embedded the examples with the teacher; start again")
            time.sleep(1)
    names = {kind: folder / f"{stamp}-{'query' if same_text else kind}" for kind in ("query", "passage")}
    return TeacherVectors(
        {kind: np.load(f"{path}-keys.npy") for kind, path in names.items()},  # type: ignore[misc]
        {kind: np.load(f"{path}.npy", mmap_mode="r") for kind, path in names.items()},  # type: ignore[misc]
    )


def _embed(teacher: TextEncoder, sources: Sequence[Source], path: Path, kind: Kind, progress: bool) -> None:
    if Path(f"{path}-keys.npy").is_file():
        return
    texts = {text_key(text): text for text in _texts(sources, kind)}
    keys = np.array(sorted(texts), np.int64)
    vectors = np.lib.format.open_memmap(
        f"{path}.npy", mode="w+", dtype=np.float16, shape=(len(keys), teacher.dimensions["dense"])
    )
    with progress_bar(f"teacher, {kind}", total=len(keys), shown=progress) as advance:
        for block in _blocks(len(keys)):
            found = teacher.encode([texts[int(keys[number])] for number in block], kind=kind, modes=["dense"]).dense
            assert found is not None
            vectors[block.start : block.stop] = found / np.maximum(np.linalg.norm(found, axis=1, keepdims=True), 1e-12)
            advance(len(block))
    vectors.flush()
    # Last, and by renaming, because it says that the vectors are whole.
    np.save(f"{path}-partial.npy", keys)
    Path(f"{path}-partial.npy").rename(f"{path}-keys.npy")


def _blocks(count: int) -> Iterator[range]:
    for start in range(0, count, _BLOCK):
        yield range(start, min(start + _BLOCK, count))


def _texts(sources: Sequence[Source], kind: Kind) -> Iterator[str]:
    for source in sources:
        for example in source:
            if kind == "query":
                yield example.query
            else:
                yield from (*example.positives, *example.negatives)
