"""The encoder: tokenizer, backbone and heads put together; one forward pass gives all three representations.

Shapes: B texts, L tokens, H hidden size, D dense and d multi-vector dimensions, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from trine.errors import UsageError
from trine.models.backbone import Backbone, States
from trine.models.config import EncoderConfig
from trine.models.fingerprints import fingerprint
from trine.models.heads.dense import DenseHead
from trine.models.heads.multi_vector import MultiVectorHead
from trine.models.heads.sparse import SparseHead, SparseTensors
from trine.models.merging import merge_lora
from trine.models.prefixes import Prefix, continued
from trine.models.scripts import covered
from trine.models.tokenization import TextTokenizer
from trine.tables import Row, resolve, unknown
from trine.types import MODES, Embeddings, Kind, Mode

if TYPE_CHECKING:
    from trine.models.checkpoints.base import Checkpoint

ENGINES = {"torch": Row("trine.encoding.engine:TorchEngine")}
"""How many texts are encoded fast; a name resolves here so that models need not know the room above."""


@dataclass(frozen=True, slots=True)
class Batch:
    """A padded batch on the device."""

    ids_BL: Tensor
    mask_BL: Tensor
    """True for every token that is not padding."""
    attended_BL: Tensor
    """True for every token that others see."""
    prompt_lengths_B: Tensor
    kind: Kind
    prefix: Prefix | None = None
    """What all texts begin with, where that was computed before."""


@dataclass(frozen=True, slots=True)
class Representations:
    """What one forward pass gives; differentiable, padding still in it."""

    dense_BD: Tensor | None
    sparse: SparseTensors | None
    vectors_BLd: Tensor | None


class Encoder(nn.Module):
    """A text embedding model: a value put together from parts, never a subclass per checkpoint.

    `Encoder.load` reads any layout that trine knows; `encode` is the way in for texts.
    """

    def __init__(self, config: EncoderConfig, *, backbone: Backbone, tokenizer: Any, name: str = "") -> None:
        super().__init__()
        if backbone.attention != config.attention:
            raise UsageError(
                f"the backbone's attention is {backbone.attention!r}, the configuration says {config.attention!r}; "
                "build the backbone with the configuration's attention"
            )
        self.config = config
        self.name = name
        self.backbone = backbone
        self.tokenizer = tokenizer
        self.text = TextTokenizer(tokenizer, config.text)
        size = backbone.hidden_size
        self.dense = (
            None if config.dense is None else DenseHead(config.dense, hidden_size=size, cls_every=config.text.cls_every)
        )
        self.sparse = None if config.sparse is None else SparseHead(config.sparse, hidden_size=size)
        self.multi_vector = (
            None if config.multi_vector is None else MultiVectorHead(config.multi_vector, hidden_size=size)
        )

    @classmethod
    def load(
        cls,
        name: str | Path | None = None,
        *,
        layout: str | None = None,
        profile: str | None = None,
        pooling: str | None = None,
        prompts: Mapping[str, str] | None = None,
        adapter: str | Path | None = None,
        revision: str | None = None,
        device: str = "auto",
        dtype: str = "auto",
    ) -> Encoder:
        """Load a model.

        Args:
            name: a folder, a model id on the hub, or None for the default model (package extra "demo").
            layout: one of `trine.models.checkpoints.CHECKPOINTS`; None lets the folder's own files decide.
            profile: one of `trine.models.profiles.PROFILES`: what a bare checkpoint does not say of itself.
            pooling: pooling of a bare checkpoint ("cls", "mean", "last_token", ...), in place of a profile.
            prompts: text put in front, by kind ("query", "passage"); replaces the checkpoint's own.
            adapter: folder or hub id of a LoRA adapter (peft's files) to merge into the model, after its own ones.
            revision: branch, tag or commit on the hub.
            device: "auto", "cpu", "cuda", "cuda:1", "mps".
            dtype: "auto" (float32 on CPU, bfloat16 on CUDA, float16 on MPS), "float32", "bfloat16", "float16".

        Raises:
            CheckpointError: files are missing or contradict each other; nothing is ever left random.
            UnknownName: layout, profile, pooling or dtype is not known.
        """
        from trine.models.checkpoints import LoadOptions, load

        options = LoadOptions(
            layout=layout, profile=profile, pooling=pooling, prompts=prompts, adapter=adapter, revision=revision
        )
        return load(name, options, device=device, dtype=dtype)

    @classmethod
    def from_checkpoint(cls, checkpoint: Checkpoint, *, name: str, device: torch.device, dtype: torch.dtype) -> Encoder:
        """Put the parts of a checkpoint together; every head weight must be there, and no other."""
        # float16 keeps other bits than bfloat16, so its fingerprint is taken before the weights are rounded.
        read_as = torch.float32 if dtype == torch.float16 else dtype
        backbone = Backbone.load(
            checkpoint.backbone,
            masked_lm=checkpoint.config.needs_masked_lm,
            dtype=read_as,
            ignored=checkpoint.ignored,
            attention=checkpoint.config.attention,
        )
        for adapter in checkpoint.adapters:
            merge_lora(backbone.model, adapter)
        encoder = cls(checkpoint.config, backbone=backbone, tokenizer=checkpoint.tokenizer(), name=name)
        checkpoint.fill(encoder)
        if read_as != dtype:
            encoder.fingerprint  # noqa: B018
        return encoder.to(device=device, dtype=dtype).eval()

    def save(self, folder: str | Path) -> Path:
        """Write trine's own layout: safetensors and JSON, no pickle. The folder appears only when it is complete."""
        from trine.models.checkpoints.native import write

        return write(self, Path(folder))

    def export(self, folder: str | Path, *, layout: str) -> Path:
        """Write another library's layout: "bge_m3" or "sentence_transformers"."""
        from trine.models.checkpoints import EXPORTS

        write: Any = resolve(EXPORTS, layout, kind="export layout")
        return Path(write(self, Path(folder)))

    # -- what it is ------------------------------------------------------------------------------------------------

    @property
    def modes(self) -> tuple[Mode, ...]:
        """The representations it gives."""
        return self.config.modes

    @property
    def dimensions(self) -> Mapping[Mode, int]:
        """Width of each representation: D, V and d."""
        heads = {"dense": self.dense, "sparse": self.sparse, "multi_vector": self.multi_vector}
        return {mode: head.width for mode in MODES if (head := heads[mode]) is not None}

    @property
    def max_length(self) -> int:
        """Tokens after which a passage is cut, special tokens included."""
        return self.text.max_length("passage")

    def covers(self, text: str) -> bool:
        """Whether `text` is written in scripts that the model was trained on; True where it does not say which."""
        return covered(text, self.config.scripts)

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return next(self.parameters()).device

    @property
    def dtype(self) -> torch.dtype:
        """Of the weights."""
        return next(self.parameters()).dtype

    @cached_property
    def fingerprint(self) -> str:
        """Changes with any weight tensor, the settings or the vocabulary; the same on every device and dtype."""
        return fingerprint(
            self, self.tokenizer, settings=msgspec.json.encode(msgspec.structs.replace(self.config, origin=""))
        )

    # -- texts in, embeddings out ----------------------------------------------------------------------------------

    def encode(
        self,
        texts: Sequence[str],
        *,
        kind: Kind = "passage",
        modes: Iterable[Mode] | None = None,
        prompt: str | None = None,
        instruction: str | None = None,
        batch_tokens: int | None = None,
        progress: bool = False,
        engine: str = "torch",
    ) -> Embeddings:
        """Embed texts, in input order.

        Args:
            texts: N texts of any length; what exceeds the model's length is cut.
            kind: "query" or "passage"; decides prompt, length and, in some models, the tokens that count.
            modes: representations to compute; None for all the model has.
            prompt: put in front instead of the configured prompt of `kind`.
            instruction: what the texts are embedded for, where the model has a template for it; in place of `prompt`.
            batch_tokens: tokens of one batch, padding included; None chooses by device.
            progress: show a bar on standard error.
            engine: a name in `ENGINES`.
        """
        _refuse_one_string(texts)
        prompt = self._prompt(prompt, instruction)
        runner = resolve(ENGINES, engine, kind="engine")(self, batch_tokens=batch_tokens)
        embeddings: Embeddings = runner.encode(texts, kind=kind, modes=modes, prompt=prompt, progress=progress)
        return embeddings

    def encode_stream(
        self,
        texts: Iterable[str],
        *,
        kind: Kind = "passage",
        modes: Iterable[Mode] | None = None,
        prompt: str | None = None,
        instruction: str | None = None,
        batch_tokens: int | None = None,
        window: int = 1024,
        engine: str = "torch",
    ) -> Iterator[Embeddings]:
        """Embed any number of texts in flat memory: yields the embeddings of `window` texts at a time, in order."""
        _refuse_one_string(texts)
        prompt = self._prompt(prompt, instruction)
        runner = resolve(ENGINES, engine, kind="engine")(self, batch_tokens=batch_tokens)
        stream: Iterator[Embeddings] = runner.stream(texts, kind=kind, modes=modes, prompt=prompt, window=window)
        return stream

    def _prompt(self, prompt: str | None, instruction: str | None) -> str | None:
        if instruction is None:
            return prompt
        if prompt is not None:
            raise UsageError(f"give prompt ({prompt!r}) or instruction ({instruction!r}), not both")
        return self.text.instructed(instruction)

    def chosen_modes(self, modes: Iterable[Mode] | None) -> tuple[Mode, ...]:
        """Check a choice of representations; None means all that the model has."""
        if modes is None:
            return self.modes
        if isinstance(modes, str):
            raise UsageError(f"modes must be a list; for one mode write [{modes!r}]")
        wanted = tuple(dict.fromkeys(modes))
        for mode in wanted:
            if mode not in MODES:
                raise unknown(mode, MODES, kind="mode")
            if mode not in self.modes:
                raise UsageError(
                    f"{self.name or 'this model'} gives no {mode} embeddings; it gives {', '.join(self.modes)}"
                )
        if not wanted:
            raise UsageError(f"no representation chosen; this model gives {', '.join(self.modes)}")
        return wanted

    def forward(self, batch: Batch, modes: Sequence[Mode]) -> Representations:
        """One pass for all `modes`; the backbone is skipped where no mode needs it (static sparse queries)."""
        needs_backbone = any(mode != "sparse" for mode in modes) or (
            self.sparse is not None and self.sparse.source(batch.kind) != "static"
        )
        states = self._states(batch) if needs_backbone else None
        dense = sparse = vectors = None
        if "dense" in modes:
            assert self.dense is not None
            assert states is not None
            dense = self.dense(states.hidden_BLH, batch.attended_BL & batch.mask_BL, batch.prompt_lengths_B)
        if "sparse" in modes:
            assert self.sparse is not None
            sparse = self.sparse(
                ids_BL=batch.ids_BL,
                mask_BL=batch.mask_BL & batch.attended_BL,
                states_BLH=None if states is None else states.hidden_BLH,
                prediction=None if states is None else states.prediction,
                kind=batch.kind,
            )
        if "multi_vector" in modes:
            assert self.multi_vector is not None
            assert states is not None
            vectors = self.multi_vector(states.hidden_BLH)
        return Representations(dense, sparse, vectors)

    def _states(self, batch: Batch) -> States:
        if batch.prefix is not None:
            return continued(self.backbone, batch.prefix, batch.ids_BL, batch.attended_BL)
        states: States = self.backbone(batch.ids_BL, batch.attended_BL)
        return states

    # -- tokens, for chunking and explanation ----------------------------------------------------------------------

    def token_spans(self, text: str) -> NDArray[np.int64]:
        """(tokens, 2) code-point spans of all tokens of `text`; no special tokens, nothing cut."""
        return self.text.token_spans(text)

    def token_labels(self, ids: Iterable[int]) -> list[str]:
        """The vocabulary's own strings for `ids`."""
        labels: list[str] = self.tokenizer.convert_ids_to_tokens([int(number) for number in ids])
        return labels

    def vector_spans(self, text: str, *, kind: Kind) -> NDArray[np.int64]:
        """(vectors, 2) span in `text` behind each multi-vector row; (-1, -1) for special and prompt tokens."""
        if self.multi_vector is None:
            raise UsageError(f"{self.name or 'this model'} gives no multi_vector embeddings")
        ids, spans = self.text.spans(text, kind=kind)
        return spans[self.multi_vector.kept(ids, np.zeros(1, np.int64), kind=kind)]

    def sparse_spans(self, text: str, *, kind: Kind) -> list[tuple[int, int, int]]:
        """(vocabulary id, start, end) of each token of `text` that can carry a sparse weight."""
        dropped = set() if self.config.sparse is None else set(self.config.sparse.dropped_ids)
        ids, spans = self.text.spans(text, kind=kind)
        return [
            (int(number), int(start), int(end))
            for number, (start, end) in zip(ids, spans, strict=True)
            if start >= 0 and int(number) not in dropped
        ]


def _refuse_one_string(texts: Iterable[str]) -> None:
    if isinstance(texts, str):
        raise UsageError("texts must be a list of strings; for one text write [text]")
