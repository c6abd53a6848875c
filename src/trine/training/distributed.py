"""Several processes that train one model: everything of torch.distributed stands here.

Each rank answers for its own queries, and its loss is the mean over them; embeddings are gathered from all ranks, and
the gradient of a gathered embedding is the sum of what all ranks want of it. The mean of the ranks' gradients is then
that of one process with the whole batch.

Replicas ("ddp") average their gradients once a step, by hand and not through torch's DistributedDataParallel: that one
wants every parameter in every backward pass, while here a pooler is in none, a head in those of some chunks, and a
temperature outside the model. Shards ("fsdp") are torch's `fully_shard`: the parameters are whole while the chunks of a
step pass and cut at its end, so that ranks with unequal numbers of chunks never wait for each other in between.

Shapes: n texts of this rank, T tokens, W ranks.
"""

from __future__ import annotations

import contextlib
import math
import os
import platform
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor

from trine.errors import TrainingError
from trine.objectives.base import Embedded, TokenWeights
from trine.training.ranks import OneProcess, Place, gradient_length, place

T = TypeVar("T")

BUCKET = 1 << 23
"""Numbers that are averaged in one go: 32 MiB of float32."""
TIMEOUT = 600.0
"""Seconds that a rank waits for another before it gives up."""


class Processes(OneProcess):
    """Several processes, after `torch.distributed.init_process_group`; `connect` makes it."""

    def __init__(self, *, rank: int, size: int, device: torch.device) -> None:
        self.rank, self.size = rank, size
        self.device = device
        self.sharded: list[nn.Module] = []
        self._processes: list[tuple[str, int]] = []
        self._processes = self.collect((platform.node(), os.getpid()))

    # -- embeddings ------------------------------------------------------------------------------------------------

    def gather(self, embedded: Embedded) -> tuple[Embedded, slice]:
        """The embeddings of all ranks in the order of the ranks, and the rows of this one."""
        leaves = embedded.leaves()
        with self._talking("gathering embeddings"):
            own = torch.tensor([len(embedded), *(len(leaf) for leaf in leaves)], device=self.device)
            texts, *sizes = torch.stack(self._all(own)).T.tolist()
            whole = embedded.with_leaves(_Gathered.apply(self, sizes, *leaves))
            start = sum(texts[: self.rank])
            return self._packed(whole, texts, sizes), slice(start, start + len(embedded))

    def _packed(self, whole: Embedded, texts: list[int], sizes: list[list[int]]) -> Embedded:
        """With the leaves of all ranks already: the ids and offsets of all ranks, too."""
        sparse, vectors = whole.sparse, whole.vectors
        if isinstance(sparse, TokenWeights):
            tokens = sizes[whole.dense_ND is not None]
            ids_T = torch.cat(self._unequal(sparse.ids_T, tokens))
            sparse = replace(sparse, ids_T=ids_T, offsets=self._offsets(sparse.offsets, texts))
        if vectors is not None:
            vectors = replace(vectors, offsets=self._offsets(vectors.offsets, texts))
        return Embedded(whole.dense_ND, sparse, vectors)

    def _offsets(self, offsets: Tensor, texts: list[int]) -> Tensor:
        lengths = torch.cat(self._unequal(offsets.diff(), texts))
        return torch.cat([lengths.new_zeros(1), lengths.cumsum(0)])

    def _unequal(self, tensor: Tensor, sizes: Sequence[int]) -> list[Tensor]:
        """The tensor of every rank; they differ in their first dimension, `sizes`."""
        room = tensor.new_zeros((max(sizes), *tensor.shape[1:]))
        room[: len(tensor)] = tensor
        return [found[:size] for found, size in zip(self._all(room), sizes, strict=True)]

    def _all(self, tensor: Tensor) -> list[Tensor]:
        found = [torch.empty_like(tensor) for _ in range(self.size)]
        dist.all_gather(found, tensor.contiguous())
        return found

    # -- parameters and gradients ----------------------------------------------------------------------------------

    def shard(self, module: nn.Module) -> None:
        """Cut the parameters of `module` among the ranks, a transformer layer at a time (FSDP2).

        Outside of a training step each rank then holds one part of the weights, gradients and optimizer state.
        """
        self.align([*module.parameters(), *module.buffers()])
        mesh = init_device_mesh(self.device.type, (self.size,))
        for part in [*_layers(module), module]:
            fully_shard(part, mesh=mesh, reshard_after_forward=False)
        self.sharded.append(module)
        # The memory for whole parameters is made once; made in an evaluation, under inference mode, no training could
        # use it.
        for sharded in self._parts():
            sharded.unshard()
        self.settle()

    def holding_gradients(self, hold: bool) -> contextlib.AbstractContextManager[Any]:
        """While `hold`, a sharded model's gradients pile up whole; replicas share theirs in `share_gradients`."""
        return self._held() if hold and self.sharded else contextlib.nullcontext()

    @contextlib.contextmanager
    def _held(self) -> Iterator[None]:
        self._switch(False)
        try:
            yield
        finally:
            self._switch(True)

    def _switch(self, share: bool) -> None:
        for part in self._parts():
            part.set_requires_gradient_sync(share, recurse=False)
            part.set_reshard_after_backward(share, recurse=False)

    def settle(self) -> None:
        """Cut whole parameters again, as an evaluation without backward pass leaves them."""
        for part in self._parts():
            part.reshard()

    def _parts(self) -> list[FSDPModule]:
        return [part for module in self.sharded for part in module.modules() if isinstance(part, FSDPModule)]

    def align(self, tensors: Sequence[Tensor]) -> None:
        """Give all ranks the first one's values; parts of a sharded model have been given theirs."""
        with self._talking("sending the first weights"), torch.no_grad():
            for tensor in tensors:
                if not isinstance(tensor, DTensor):
                    self._broadcast(tensor)

    def share_gradients(self, parameters: Sequence[nn.Parameter]) -> None:
        """Average the gradients of replicas; a sharded model's are averaged in its last backward pass.

        A parameter that has a gradient on some ranks only counts as zero on the others; one that has none anywhere
        keeps none.
        """
        self.settle()
        replicas = [parameter for parameter in parameters if not isinstance(parameter, DTensor)]
        if not replicas:
            return
        with self._talking("sharing gradients"), torch.no_grad():
            present = torch.tensor([parameter.grad is not None for parameter in replicas], dtype=torch.int32)
            present = present.to(self.device)
            dist.all_reduce(present, op=dist.ReduceOp.MAX)
            used = [parameter for parameter, seen in zip(replicas, present.tolist(), strict=True) if seen]
            for bucket in _buckets(used):
                self._average(bucket)

    def _average(self, bucket: Sequence[nn.Parameter]) -> None:
        for parameter in bucket:
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
        gradients = [parameter.grad for parameter in bucket if parameter.grad is not None]
        flat = torch.cat([gradient.reshape(-1) for gradient in gradients])
        dist.all_reduce(flat)
        flat /= self.size
        for gradient, mean in zip(gradients, flat.split([part.numel() for part in gradients]), strict=True):
            gradient.copy_(mean.view_as(gradient))

    def gradientgradient_length(self, parameters: Sequence[nn.Parameter]) -> float:
        """The length of all gradients together; each rank adds up its own shards."""
        gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
        shards = [gradient.to_local() for gradient in gradients if isinstance(gradient, DTensor)]
        copies = gradient_length([gradient for gradient in gradients if not isinstance(gradient, DTensor)])
        square = gradient_length(shards).double().square().to(self.device)
        with self._talking("measuring gradients"):
            dist.all_reduce(square)
        return math.sqrt(float(square) + float(copies) ** 2)

    # -- values ----------------------------------------------------------------------------------------------------

    def mean(self, number: float) -> float:
        """The mean over the ranks; not finite where one is not."""
        value = torch.tensor(number, dtype=torch.float64, device=self.device)
        with self._talking("comparing losses"):
            dist.all_reduce(value)
        return float(value) / self.size

    def collect(self, value: T) -> list[T]:
        """The values of all ranks, on every rank."""
        found: list[Any] = [None] * self.size
        with self._talking("exchanging values"):
            dist.all_gather_object(found, value)
        return found

    def tell(self, value: T) -> T:
        """The first rank's value."""
        found = [value]
        with self._talking("hearing from rank 0"):
            dist.broadcast_object_list(found, src=0)
        return found[0]

    def whole(self, tensor: Tensor) -> Tensor | None:
        """All of a tensor on the first rank's CPU; ranks must ask in the same order."""
        with self._talking("collecting weights"):
            found = (tensor.full_tensor() if isinstance(tensor, DTensor) else tensor).detach()
        return found.cpu() if self.rank == 0 else None

    def fill(self, target: Tensor, value: Tensor | None) -> Tensor:
        """A tensor placed like `target` with the first rank's `value`; of another shape it stays whole everywhere."""
        described = self.tell(None if value is None else (tuple(value.shape), value.dtype))
        assert described is not None
        shape, dtype = described
        whole = torch.empty(shape, dtype=dtype, device=self.device) if value is None else value.to(self.device)
        with self._talking("sending weights"):
            if isinstance(target, DTensor) and shape == tuple(target.shape):
                return distribute_tensor(whole, target.device_mesh, target.placements)
            self._broadcast(whole)
        return whole

    def _broadcast(self, tensor: Tensor) -> None:
        whole = tensor.detach().contiguous()
        dist.broadcast(whole, src=0)
        if whole.data_ptr() != tensor.data_ptr():
            tensor.copy_(whole)

    # -- when a process dies ---------------------------------------------------------------------------------------

    def lost(self) -> list[int]:
        """Ranks on this machine whose process has ended; waits five seconds for one that is about to."""
        host = platform.node()
        here = [(rank, pid) for rank, (name, pid) in enumerate(self._processes) if name == host and rank != self.rank]
        for _ in range(50):
            if gone := [rank for rank, pid in here if _ended(pid)]:
                return gone
            time.sleep(0.1)
        return []

    @contextlib.contextmanager
    def _talking(self, what: str) -> Iterator[None]:
        """Say which rank is gone where a word to the others fails."""
        try:
            yield
        except RuntimeError as error:
            raise self.failure(what, error) from error


class _Gathered(torch.autograd.Function):
    """The leaves of all ranks; the gradient of a rank's own is the sum over what all ranks want of it."""

    @staticmethod
    def forward(ctx: Any, ranks: Processes, sizes: list[list[int]], *leaves: Tensor) -> tuple[Tensor, ...]:
        starts = [sum(each[: ranks.rank]) for each in sizes]
        ctx.ranks = ranks
        ctx.spans = [slice(start, start + len(leaf)) for start, leaf in zip(starts, leaves, strict=True)]
        return tuple(torch.cat(ranks._unequal(leaf, each)) for leaf, each in zip(leaves, sizes, strict=True))

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        # One all-reduce a leaf, of embeddings only: small beside the weights' gradients.
        own = []
        with ctx.ranks._talking("sharing the gradients of embeddings"):
            for gradient, span in zip(gradients, ctx.spans, strict=True):
                whole = gradient.clone(memory_format=torch.contiguous_format)
                dist.all_reduce(whole)
                own.append(whole[span])
        return (None, None, *own)


# -- beginning and end -----------------------------------------------------------------------------------------------


@contextlib.contextmanager
def connect(
    where: Place | None = None, *, device: str = "auto", timeout: float = TIMEOUT, meeting: str | None = None
) -> Iterator[OneProcess]:
    """Meet the other processes, and part from them at the end of the block.

    Args:
        where: None asks the environment, as torchrun sets it; a single process meets nobody.
        device: "auto", "cpu" or "cuda"; each rank takes the GPU of its local number.
        timeout: seconds without answer from another rank after which this one gives up. On the CPU that is a
            `TrainingError`; NCCL ends the process.
        meeting: address in torch's form, such as "file:///..."; None takes MASTER_ADDR and MASTER_PORT.

    Raises:
        TrainingError: the others do not come.
    """
    where = place() if where is None else where
    if where.size == 1:
        yield OneProcess()
        return
    cuda = device == "cuda" or (device == "auto" and torch.cuda.is_available())
    chosen = torch.device("cuda", where.local_rank) if cuda else torch.device("cpu")
    if cuda:
        torch.cuda.set_device(chosen)
    try:
        dist.init_process_group(
            "cpu:gloo,cuda:nccl" if cuda else "gloo",
            init_method=meeting or "env://",
            rank=where.rank,
            world_size=where.size,
            timeout=timedelta(seconds=timeout),
        )
    except (RuntimeError, ValueError) as error:
        raise TrainingError(f"rank {where.rank} of {where.size} did not find the others: {error}") from error
    try:
        yield Processes(rank=where.rank, size=where.size, device=chosen)
    finally:
        dist.destroy_process_group()


def _buckets(parameters: Sequence[nn.Parameter]) -> Iterator[list[nn.Parameter]]:
    """Parameters of one type that are averaged together."""
    bucket: list[nn.Parameter] = []
    size = 0
    for parameter in parameters:
        if bucket and (size + parameter.numel() > BUCKET or parameter.dtype != bucket[0].dtype):
            yield bucket
            bucket, size = [], 0
        bucket.append(parameter)
        size += parameter.numel()
    if bucket:
        yield bucket


def _layers(module: nn.Module) -> list[nn.Module]:
    """The transformer's layers: the list of modules with the most parameters."""
    lists = [list(part) for part in module.modules() if isinstance(part, nn.ModuleList)]
    return max(lists, key=_weight_count, default=[])


def _weight_count(modules: Sequence[nn.Module]) -> int:
    return sum(parameter.numel() for module in modules for parameter in module.parameters())


def _ended(pid: int) -> bool:
    """Whether a process of this machine runs no more, waited for by its parent or not."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        return state in "ZX"
    except FileNotFoundError:
        pass
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    except PermissionError:
        return False
    return Path("/proc/self").exists()
