"""The reranker: a cross-encoder, which reads query and passage together and gives one score.

Shapes: N pairs, B pairs and L tokens of a batch.
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence
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
from trine.models.devices import seeded
from trine.models.fingerprints import fingerprint
from trine.models.heads.layers import ACTIVATIONS
from trine.models.rerankers.pairs import PairTokenizer, RerankerConfig
from trine.tables import Row, resolve

if TYPE_CHECKING:
    from trine.models.encoder import Batch, Encoder

ENGINES = {"torch": Row("trine.encoding.pairs:PairEngine")}
"""How many pairs are scored fast; a name resolves here so that models need not know the room above."""


@dataclass(frozen=True, slots=True)
class Ranked:
    """One passage in the order of its score."""

    index: int
    """Its place in the list that was given."""
    score: float


class Reranker(nn.Module):
    """A sequence-classification model with one label, over pairs of a query and a passage.

    `Reranker.load` reads the folders of bge-reranker and of sentence-transformers' CrossEncoder; `score` is the way in
    for texts. Source: Nogueira and Cho, arXiv 1901.04085.
    """

    def __init__(self, config: RerankerConfig, *, model: Any, tokenizer: Any, name: str = "") -> None:
        super().__init__()
        self.config = config
        self.name = name
        self.model = model
        self.tokenizer = tokenizer
        self.pairs = PairTokenizer(tokenizer, config)
        self._types = self.pairs.has_types and "token_type_ids" in inspect.signature(model.forward).parameters

    @classmethod
    def load(
        cls,
        name: str | Path,
        *,
        layout: str | None = None,
        max_length: int | None = None,
        revision: str | None = None,
        device: str = "auto",
        dtype: str = "auto",
    ) -> Reranker:
        """Load a reranker.

        Args:
            name: a folder, or a model id on the hub such as "BAAI/bge-reranker-v2-m3".
            layout: one of `trine.models.rerankers.checkpoint.LAYOUTS`; None lets the folder's own files decide.
            max_length: tokens of a pair, in place of what the folder says; a limit on queries changes in proportion.
            revision: branch, tag or commit on the hub.
            device: as in `Encoder.load`.
            dtype: as in `Encoder.load`.

        Raises:
            CheckpointError: files are missing or contradict each other, or there is not one label; no weight is ever
                left random.
            UnknownName: layout, device or dtype is not known.
            UsageError: `max_length` is too short, or longer than the model's positions.
        """
        from trine.models.devices import choose_device, choose_dtype
        from trine.models.rerankers.checkpoint import bare, read_config, read_model
        from trine.models.sources import locate

        folder, known_as = locate(name, revision=revision)
        where = choose_device(device)
        form = choose_dtype(dtype, where)
        checkpoint = bare(folder)
        config = _with_length(read_config(folder, layout=layout), max_length, limit=checkpoint.config.text.max_length)
        # float16 keeps other bits than bfloat16, so its fingerprint is taken before the weights are rounded.
        read_as = torch.float32 if form == torch.float16 else form
        model = read_model(folder, dtype=read_as)
        reranker = cls(config, model=model, tokenizer=checkpoint.tokenizer(), name=known_as)
        if read_as != form:
            reranker.fingerprint  # noqa: B018
        return reranker.to(device=where, dtype=form).eval()

    @classmethod
    def from_backbone(
        cls, encoder: Encoder | str | Path, *, max_length: int | None = None, seed: int = 0, name: str = ""
    ) -> Reranker:
        """Put a new classification head on an encoder's transformer; its scores mean nothing until it is trained.

        Args:
            encoder: an encoder, whose weights are copied, or the folder or hub id of a transformer, read in float32.
            max_length: tokens of a pair; None for what the transformer reads.
            seed: of the head's weights.
            name: to remember it by.

        Raises:
            CheckpointError: the folder holds no transformer.
            UsageError: transformers knows no classification model of that architecture.
        """
        from trine.models.backbone import Backbone
        from trine.models.rerankers.checkpoint import bare
        from trine.models.sources import locate

        if isinstance(encoder, str | Path):
            checkpoint = bare(locate(encoder)[0])
            limit, tokenizer = checkpoint.config.text.max_length, checkpoint.tokenizer()
            source = Backbone.load(checkpoint.backbone, masked_lm=False, dtype=torch.float32).model
        else:
            limit, tokenizer, source = encoder.max_length, encoder.tokenizer, encoder.backbone.model.base_model
        config = _with_length(RerankerConfig(max_length=limit, untrained=True), max_length, limit=limit)
        return cls(config, model=_with_head(source, seed), tokenizer=tokenizer, name=name).eval()

    def save(self, folder: str | Path) -> Path:
        """Write a folder that sentence-transformers' CrossEncoder reads as well: safetensors and JSON, no pickle."""
        from trine.models.rerankers.checkpoint import write

        return write(self, Path(folder))

    def trained(self) -> Reranker:
        """Itself, after noting that its head is trained and its weights are others than before."""
        self.config = msgspec.structs.replace(self.config, untrained=False)
        self.__dict__.pop("fingerprint", None)
        return self

    # -- what it is ------------------------------------------------------------------------------------------------

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
            self,
            self.tokenizer,
            settings=msgspec.json.encode(msgspec.structs.replace(self.config, origin="", untrained=False)),
        )

    # -- texts in, scores out --------------------------------------------------------------------------------------

    def score(
        self,
        pairs: Sequence[tuple[str, str]],
        *,
        normalize: bool | None = None,
        batch_tokens: int | None = None,
        progress: bool = False,
        engine: str = "torch",
    ) -> NDArray[np.float32]:
        """The relevance of each passage to its query, (N,) float32 in input order; higher is better.

        Args:
            pairs: N times (query, passage); what exceeds the model's length is cut.
            normalize: None gives what the checkpoint states (`config.activation`: the logit itself for bge-reranker, a
                sigmoid for most of sentence-transformers); True the sigmoid of the logit, False the logit.
            batch_tokens: tokens of one batch, padding included; None chooses by device.
            progress: show a bar on standard error.
            engine: a name in `ENGINES`.

        Raises:
            UsageError: something that is no pair of texts.
        """
        _check_pairs(pairs)
        prompt = self.config.query_prompt
        asked = [(prompt + query, passage) for query, passage in pairs]
        runner = resolve(ENGINES, engine, kind="engine")(self, batch_tokens=batch_tokens)
        logits_N: NDArray[np.float32] = runner.logits(asked, progress=progress)
        stated = {None: self.config.activation, True: "sigmoid", False: "identity"}[normalize]
        scores_N: NDArray[np.float32] = ACTIVATIONS[stated]()(torch.from_numpy(logits_N)).numpy()
        return scores_N

    def rank(
        self, query: str, passages: Sequence[str], *, k: int | None = None, normalize: bool | None = None
    ) -> list[Ranked]:
        """The passages in the order of their scores, best first; equal ones in the order given.

        Args:
            query: the search request.
            passages: any number of them.
            k: how many to give back; None for all.
            normalize: as in `score`.
        """
        if isinstance(passages, str):
            raise UsageError("passages must be a list of strings; for one passage write [passage]")
        if k is not None and k < 1:
            raise UsageError(f"k is {k}; it must be at least 1")
        scores_N = self.score([(query, passage) for passage in passages], normalize=normalize)
        order = np.argsort(-scores_N, kind="stable")[:k]
        return [Ranked(int(index), float(scores_N[index])) for index in order]

    def forward(self, batch: Batch) -> Tensor:
        """(B,) logits of a padded batch of pairs, differentiable; `batch.prompt_lengths_B` ends the query's part."""
        inputs = {"input_ids": batch.ids_BL, "attention_mask": batch.attended_BL.long()}
        if self._types:
            column_L = torch.arange(batch.ids_BL.shape[1], device=batch.ids_BL.device)
            passage_BL = (column_L >= batch.prompt_lengths_B[:, None]) & batch.mask_BL
            inputs["token_type_ids"] = passage_BL.long()
        logits_B: Tensor = self.model(**inputs, return_dict=True).logits[:, 0]
        return logits_B


def _check_pairs(pairs: Sequence[Any]) -> None:
    if isinstance(pairs, str):
        raise UsageError("pairs must be a list of (query, passage); for one pair write [(query, passage)]")
    for number, pair in enumerate(pairs):
        if isinstance(pair, str) or len(pair) != 2 or not all(isinstance(text, str) for text in pair):
            raise UsageError(f"pair {number} is {pair!r:.80}; a pair is (query, passage), two strings")


def _with_length(config: RerankerConfig, length: int | None, *, limit: int) -> RerankerConfig:
    if length is None:
        return config
    if length > limit:
        raise UsageError(f"max_length {length} is more than the {limit} tokens that the model reads")
    query = config.query_max_length
    return msgspec.structs.replace(
        config, max_length=length, query_max_length=query and query * length // config.max_length
    )


def _with_head(source: Any, seed: int) -> Any:
    """A classification model with a copy of the weights of `source`, a bare transformer, and a head from `seed`."""
    import copy

    import transformers

    settings = copy.deepcopy(source.config)
    settings.num_labels = 1
    with seeded(seed):
        try:
            model = transformers.AutoModelForSequenceClassification.from_config(settings)
        except ValueError as error:
            raise UsageError(f"transformers has no classifier of the architecture {settings.model_type!r}") from error
    target = getattr(model, model.base_model_prefix)
    missing, surplus = target.load_state_dict(source.state_dict(), strict=False)
    # A pooler is BERT's next-sentence head: part of the new head where the classifier reads it, of no use elsewhere.
    wrong = [key for key in (*missing, *surplus) if not key.startswith("pooler.")]
    if wrong:
        raise UsageError(f"the classifier of {settings.model_type!r} has other weights than the encoder: {wrong[:3]}")
    parameter = next(source.parameters())
    return model.to(device=parameter.device, dtype=parameter.dtype)
