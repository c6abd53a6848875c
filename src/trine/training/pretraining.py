"""Pre-training on running text: masked language modelling, RetroMAE and DupMAE over any masked-LM backbone; masked and
plain next-token prediction over decoders.

Shapes: B texts and L tokens of a chunk, N texts, H hidden size, E width of the input embeddings, V vocabulary.
Sources: RetroMAE (arXiv 2205.12035, section 3), DupMAE (arXiv 2305.02564, section 3), masked next-token prediction
(LLM2Vec, arXiv 2404.05961, section 2.1).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from trine.encoding.batches import TokenBudget
from trine.encoding.engine import pad
from trine.errors import UsageError
from trine.models.backbone import AFTER_PROJECTION, Backbone, Prediction
from trine.models.devices import seeded
from trine.models.encoder import Encoder
from trine.models.heads.sparse import largest_logits
from trine.models.tokenization import Tokens, word_starts
from trine.objectives.base import Losses
from trine.objectives.masked_lm import (
    IGNORED,
    NOT_A_WORD,
    Masked,
    Masking,
    hashed,
    linear_cross_entropy,
    mask_tokens,
    next_token_labels,
    word_numbers,
)
from trine.objectives.retromae import Decoder, Decoding, bag_of_words_loss, reconstruction_labels, visibility
from trine.tables import unknown
from trine.training.ranks import OneProcess

PretrainingObjective: TypeAlias = Literal["mlm", "retromae", "dupmae", "mntp", "next_token"]
SHIFTED = ("mntp", "next_token")
"""Objectives of decoders: a token is predicted from the place before it, by the decoder's own output layer."""
BLANK = "_"
"""Stands in for the mask token where a tokenizer has none (LLM2Vec, section 2.2)."""


@dataclass(frozen=True, slots=True)
class Pretraining:
    """What the backbone learns from running text; the defaults are RetroMAE's."""

    objective: PretrainingObjective = "retromae"
    masking: Masking = field(default_factory=lambda: Masking(0.3))
    """Of the text that the encoder reads."""
    pooling: Literal["cls", "mean"] = "cls"
    """What the decoder rebuilds the text from."""
    decoder_rate: float = 0.5
    """Share of the words that the decoder does not see."""
    enhanced: bool = True
    """False: plain decoding of one masked text (RetroMAE, section 3.2)."""
    decoder_layers: int = 1
    bag_of_words_weight: float = 0.1
    """As in DupMAE's code; the paper writes 1."""

    def __post_init__(self) -> None:
        """Refuse names that there are not, and options without effect."""
        if self.objective not in get_args(PretrainingObjective):
            raise unknown(self.objective, get_args(PretrainingObjective), kind="pre-training objective")
        if self.pooling not in ("cls", "mean"):
            raise unknown(self.pooling, ("cls", "mean"), kind="pooling")
        if not self.decodes and (not self.enhanced or self.decoder_layers != 1):
            raise UsageError(
                f"enhanced and decoder_layers describe a decoder, and objective {self.objective!r} has none"
            )
        if not 0 < self.decoder_rate <= 1:
            raise UsageError(f"decoder_rate must be above 0 and at most 1, got {self.decoder_rate}")

    @property
    def decodes(self) -> bool:
        """Whether a decoder rebuilds the text from the sentence vector."""
        return self.objective in ("retromae", "dupmae")


@dataclass(frozen=True, slots=True)
class TextChunk:
    """Texts that pass through the model together, with what is hidden of them already drawn."""

    ids_BL: Tensor
    """The true tokens."""
    real_BL: Tensor
    """False for padding."""
    words_BL: Tensor
    """From `trine.objectives.masked_lm.word_numbers`."""
    masked: Masked
    """What the encoder reads, and what it must find."""
    decoder: Masked | None
    """What the decoder reads, and what it must rebuild."""
    seeds_B: Tensor
    seed: int
    """Of dropout."""

    def counts(self) -> dict[str, int]:
        """What each part of the loss is a mean over."""
        labels = {"mlm": self.masked.labels_BL}
        if self.decoder is not None:
            labels["decoder"] = self.decoder.labels_BL
        counted = {name: int((labels_BL != IGNORED).sum()) for name, labels_BL in labels.items()}
        return counted | {"bag_of_words": len(self.ids_BL)}


class PretrainingModel(nn.Module):
    """A backbone under training, with a language-model head and, where the objective wants one, a decoder.

    The head is the backbone's own where it brings one. Otherwise a fresh one of BERT's form is put on, whose output
    projection is the input embeddings; it is thrown away with the decoder. A decoder of language modelling without its
    head uses the input embeddings as they are.
    """

    def __init__(
        self,
        encoder: Encoder,
        settings: Pretraining | None = None,
        *,
        language_model: Backbone | None = None,
        seed: int = 0,
    ) -> None:
        """Put the parts together.

        Args:
            encoder: gives tokenizer and backbone; its weights are trained in place.
            settings: the objective; None for RetroMAE as published.
            language_model: a backbone of the same tokenizer loaded with `masked_lm=True`, so that a pre-trained head is
                kept; it is trained in place of the encoder's backbone.
            seed: of the weights of a fresh head and decoder.

        Raises:
            UsageError: the tokenizer has no mask token, the decoder's own head is missing, or the parts do not fit.
        """
        super().__init__()
        self.settings = settings or Pretraining()
        self.backbone = _fitting(encoder, language_model)
        # In a tuple the encoder's heads are no parameters of this module.
        self._source = (encoder,)
        device = next(self.backbone.parameters()).device
        tokenizer = encoder.tokenizer
        self.mask_id = _mask_id(tokenizer, self.settings.objective)
        size = self.backbone.vocabulary_size
        special = torch.tensor(sorted({*tokenizer.all_special_ids, self.mask_id}))
        known = torch.tensor(sorted({number for number in tokenizer.get_vocab().values() if number < size}))
        self.special: Tensor
        self.ordinary: Tensor
        self.starts: Tensor
        self.register_buffer("special", special, persistent=False)
        self.register_buffer("ordinary", known[~torch.isin(known, special)], persistent=False)
        self.register_buffer("starts", torch.from_numpy(word_starts(tokenizer, width=size)), persistent=False)
        with seeded(seed):
            self.head = None if self.backbone.masked_lm else self._fresh_head()
            self.decoder = self._fresh_decoder() if self.settings.decodes else None
            self.positions = None
            if self.decoder is not None and self.backbone.positions is None:
                self.positions = nn.Embedding(encoder.max_length, self.backbone.hidden_size)
                nn.init.normal_(self.positions.weight, std=_deviation(self.backbone))
        self.to(device=device, dtype=next(self.backbone.parameters()).dtype)

    def _fresh_head(self) -> nn.Module:
        if self.settings.objective not in SHIFTED:
            return _Head(self.backbone)
        config = self.backbone.model.config
        if any(getattr(config, name, None) for name in AFTER_PROJECTION):
            raise UsageError(f"{type(self.backbone.model).__name__} changes its logits after the output layer")
        if self.settings.objective == "mntp" and not config.tie_word_embeddings:
            raise UsageError(
                "objective 'mntp' needs the decoder's own language-model head; load the backbone with masked_lm=True"
            )
        # What is learned so is saved as it was: the input embeddings are the output layer.
        config.tie_word_embeddings = True
        return _Tied()

    def _fresh_decoder(self) -> Decoder:
        config = self.backbone.model.config
        hidden = self.backbone.hidden_size
        if self.backbone.model.get_input_embeddings().embedding_dim != hidden:
            raise UsageError("a decoder needs input embeddings as wide as the hidden states; use objective 'mlm'")
        return Decoder(
            hidden=hidden,
            heads=config.num_attention_heads,
            feed_forward=int(getattr(config, "intermediate_size", 4 * hidden)),
            enhanced=self.settings.enhanced,
            layers=self.settings.decoder_layers,
            dropout=float(getattr(config, "hidden_dropout_prob", 0.1)),
            deviation=_deviation(self.backbone),
        )

    # -- texts in --------------------------------------------------------------------------------------------------

    def chunks(
        self, tokens: Tokens, *, seeds: int | NDArray[np.int64], budget: int | None = None, dropout_seed: int = 0
    ) -> list[TextChunk]:
        """Cut a batch into chunks of texts of similar length, and hide tokens.

        Args:
            tokens: N texts.
            seeds: what is hidden: one for the batch, or (N,) one a text, which then loses the same tokens in any batch,
                chunk and rank.
            budget: tokens of one chunk, padding included; None leaves the batch whole, in its order.
            dropout_seed: chunk number k draws its dropout from ``dropout_seed + k``.
        """
        device = self.starts.device
        if isinstance(seeds, np.ndarray):
            if len(seeds) != len(tokens.lengths):
                raise UsageError(f"{len(tokens.lengths)} texts need as many seeds, got {len(seeds)}")
            seeds_N = torch.from_numpy(seeds.astype(np.int64)).to(device)
        else:
            seeds_N = hashed(torch.tensor(seeds, device=device), torch.arange(len(tokens.lengths), device=device))
        groups: Any = (
            [np.arange(len(tokens.lengths))] if budget is None else TokenBudget(budget).batches(tokens.lengths)
        )
        return [
            self._chunk(tokens, rows, seeds_B=seeds_N[torch.from_numpy(rows).to(device)], seed=dropout_seed + number)
            for number, rows in enumerate(groups)
        ]

    def _chunk(self, tokens: Tokens, rows: NDArray[np.int64], *, seeds_B: Tensor, seed: int) -> TextChunk:
        batch = pad(tokens, rows, kind="passage", device=self.starts.device)
        real_BL = batch.mask_BL & batch.attended_BL
        ordinary_BL = real_BL & ~torch.isin(batch.ids_BL, self.special)
        words_BL = word_numbers(batch.ids_BL, starts_V=self.starts, ordinary_BL=ordinary_BL)
        return TextChunk(
            ids_BL=batch.ids_BL,
            real_BL=real_BL,
            words_BL=words_BL,
            masked=self._hidden(batch.ids_BL, real_BL, words_BL, seeds_B),
            decoder=self._for_decoder(batch.ids_BL, words_BL, seeds_B),
            seeds_B=seeds_B,
            seed=seed,
        )

    def _hidden(self, ids_BL: Tensor, real_BL: Tensor, words_BL: Tensor, seeds_B: Tensor) -> Masked:
        """What the backbone sees, and what it must say where."""
        if self.settings.objective == "next_token":
            return Masked(ids_BL, next_token_labels(torch.where(real_BL, ids_BL, IGNORED)))
        masked = self._masked(ids_BL, words_BL, self.settings.masking, seeds_B)
        if self.settings.objective == "mntp":
            return Masked(masked.ids_BL, next_token_labels(masked.labels_BL))
        return masked

    def _for_decoder(self, ids_BL: Tensor, words_BL: Tensor, seeds_B: Tensor) -> Masked | None:
        if self.decoder is None:
            return None
        if self.settings.enhanced:
            return Masked(ids_BL, reconstruction_labels(ids_BL, words_BL))
        masking = Masking(self.settings.decoder_rate, whole_word=self.settings.masking.whole_word)
        # Place 0 is the sentence vector's, whatever token stood there.
        rest_BL = words_BL.clone()
        rest_BL[:, 0] = NOT_A_WORD
        return self._masked(ids_BL, rest_BL, masking, hashed(seeds_B))

    def _masked(self, ids_BL: Tensor, words_BL: Tensor, masking: Masking, seeds_B: Tensor) -> Masked:
        return mask_tokens(
            ids_BL, words_BL, masking=masking, mask_id=self.mask_id, ordinary_R=self.ordinary, seeds_B=seeds_B
        )

    # -- losses out ------------------------------------------------------------------------------------------------

    def forward(self, chunk: TextChunk) -> dict[str, Tensor]:
        """The parts of the loss, summed over what `TextChunk.counts` counts."""
        states = self.backbone(chunk.masked.ids_BL, chunk.real_BL)
        prediction = states.prediction or self._predicted(states.hidden_BLH)
        parts = {"mlm": _summed(prediction, chunk.masked.labels_BL)}
        if self.decoder is not None:
            assert chunk.decoder is not None
            decoded_BLH = self._decoded(self._sentence(states.hidden_BLH, chunk.real_BL), chunk)
            parts["decoder"] = _summed(self._predicted(decoded_BLH), chunk.decoder.labels_BL)
        if self.settings.objective == "dupmae":
            bag_BL = chunk.words_BL != NOT_A_WORD
            # A text without ordinary tokens has no largest logit, and no word to find.
            largest_BV = largest_logits(prediction, bag_BL | ~bag_BL.any(1, keepdim=True))
            parts["bag_of_words"] = bag_of_words_loss(largest_BV, chunk.ids_BL, chunk.words_BL)
        return parts

    @property
    def weights(self) -> Mapping[str, float]:
        """Of the parts in the whole loss."""
        return {"mlm": 1.0, "decoder": 1.0, "bag_of_words": self.settings.bag_of_words_weight}

    def _predicted(self, hidden_BLH: Tensor) -> Prediction:
        return self.backbone.predict(hidden_BLH) if self.head is None else self.head(hidden_BLH, self.backbone)

    def _sentence(self, hidden_BLH: Tensor, real_BL: Tensor) -> Tensor:
        if self.settings.pooling == "cls":
            return hidden_BLH[:, 0]
        weight_BL1 = real_BL[:, :, None].to(hidden_BLH.dtype)
        return (hidden_BLH * weight_BL1).sum(1) / weight_BL1.sum(1).clamp(min=1)

    def _decoded(self, sentence_BH: Tensor, chunk: TextChunk) -> Tensor:
        assert self.decoder is not None
        assert chunk.decoder is not None
        embedded_BLH = self.backbone.embedded(chunk.decoder.ids_BL)
        place_L = torch.arange(chunk.ids_BL.shape[1], device=sentence_BH.device)
        learned = self.backbone.positions
        if learned is None:
            # Rotary positions are no part of the embeddings, and the decoder's attention knows none of its own.
            assert self.positions is not None
            positions_LH = self.positions(place_L)
            embedded_BLH = embedded_BLH + positions_LH
        else:
            positions_LH = learned.embedding(place_L + learned.first)
        inputs = Decoding(sentence_BH, embedded_BLH, positions_LH.expand_as(embedded_BLH))
        if not self.settings.enhanced:
            result: Tensor = self.decoder(inputs, visible=chunk.real_BL)
            return result
        words_BL = chunk.words_BL
        if not self.settings.masking.whole_word:
            words_BL = torch.where(words_BL != NOT_A_WORD, place_L, NOT_A_WORD)
        visible_BLL = visibility(words_BL, rate=self.settings.decoder_rate, seeds_B=chunk.seeds_B)
        result = self.decoder(inputs, visible=visible_BLL)
        return result

    # -- and back --------------------------------------------------------------------------------------------------

    def to_encoder(self) -> Encoder:
        """The encoder on the trained backbone, heads as they were; without decoder and fresh head."""
        (source,) = self._source
        backbone = self.backbone
        if backbone.masked_lm and not source.config.needs_masked_lm:
            backbone = Backbone(backbone.model.base_model, masked_lm=False, attention=backbone.attention)
        result = Encoder(source.config, backbone=backbone, tokenizer=source.tokenizer, name=source.name)
        for mode in source.modes:
            getattr(result, mode).load_state_dict(getattr(source, mode).state_dict())
        weight = next(backbone.parameters())
        return result.to(device=weight.device, dtype=weight.dtype).eval()


def token_step(
    model: PretrainingModel,
    chunks: Sequence[TextChunk],
    *,
    ranks: OneProcess | None = None,
    precision: torch.dtype | None = None,
) -> Losses:
    """Add the gradients of one batch to the parameters, chunk by chunk.

    Each part of the loss is the mean over all tokens (or texts) of the batch on all ranks, so that the gradient does
    not depend on how the batch is cut: the mean of the ranks' gradients is that of one process with the whole batch.

    Args:
        model: under training.
        chunks: of `PretrainingModel.chunks`.
        ranks: None for a single process.
        precision: of autocast; None computes in the weights' own.
    """
    ranks = ranks or OneProcess()
    counted: dict[str, int] = {}
    for chunk in chunks:
        for name, count in chunk.counts().items():
            counted[name] = counted.get(name, 0) + count
    counts = {name: max(ranks.mean(count), 1e-9) for name, count in sorted(counted.items())}
    sums: dict[str, Tensor] = {}
    for number, chunk in enumerate(chunks):
        with ranks.holding_gradients(number < len(chunks) - 1), seeded(chunk.seed, chunk.ids_BL.device):
            with torch.autocast(chunk.ids_BL.device.type, dtype=precision, enabled=precision is not None):
                parts = model(chunk)
            shares = {name: part / counts[name] for name, part in parts.items()}
            _weighted(shares, model.weights).backward()
        for name, share in shares.items():
            sums[name] = sums.get(name, torch.zeros_like(share)).detach() + share.detach()
    return Losses(total=_weighted(sums, model.weights), parts=sums)


def _weighted(parts: Mapping[str, Tensor], weights: Mapping[str, float]) -> Tensor:
    return torch.stack([weights[name] * part for name, part in parts.items()]).sum()


class _Head(nn.Module):
    """A language-model head as in BERT: a layer, GELU, a norm, and the input embeddings as output projection."""

    def __init__(self, backbone: Backbone) -> None:
        super().__init__()
        width = int(backbone.model.get_input_embeddings().embedding_dim)
        self.dense = nn.Linear(backbone.hidden_size, width)
        self.norm = nn.LayerNorm(width, eps=float(getattr(backbone.model.config, "layer_norm_eps", 1e-12)))
        self.bias = nn.Parameter(torch.zeros(backbone.vocabulary_size))
        nn.init.normal_(self.dense.weight, std=_deviation(backbone))
        nn.init.zeros_(self.dense.bias)

    def forward(self, hidden_BLH: Tensor, backbone: Backbone) -> Prediction:
        states_BLE = self.norm(nn.functional.gelu(self.dense(hidden_BLH)))
        return Prediction(states_BLE, backbone.model.get_input_embeddings().weight, self.bias)


class _Tied(nn.Module):
    """A decoder's language-model head that is its input embeddings."""

    def forward(self, hidden_BLH: Tensor, backbone: Backbone) -> Prediction:
        return Prediction(hidden_BLH, backbone.model.get_input_embeddings().weight)


def _mask_id(tokenizer: Any, objective: PretrainingObjective) -> int:
    if objective == "next_token":
        return -1  # nothing is hidden
    number = tokenizer.mask_token_id
    if number is None and objective == "mntp":
        # As a piece of its own, without a space in front; a vocabulary without it may still write it as a byte.
        written = tokenizer(BLANK, add_special_tokens=False)["input_ids"][-1:]
        number = tokenizer.get_vocab().get(BLANK, *written)
        number = None if number == tokenizer.unk_token_id else number
    if number is None:
        blank = f", and no {BLANK!r} in its place" if objective == "mntp" else ""
        raise UsageError(f"the tokenizer has no mask token{blank}; pre-training hides tokens behind one")
    return int(number)


def _summed(prediction: Prediction, labels_BL: Tensor) -> Tensor:
    if prediction.weight_VH is None:
        raise UsageError("pre-training needs a language-model head that ends in a linear layer over the vocabulary")
    return linear_cross_entropy(
        prediction.states_BLH.flatten(0, 1),
        labels_BL.flatten(),
        weight_VH=prediction.weight_VH,
        bias_V=prediction.bias_V,
    ).total


def _deviation(backbone: Backbone) -> float:
    return float(getattr(backbone.model.config, "initializer_range", 0.02))


def _fitting(encoder: Encoder, language_model: Backbone | None) -> Backbone:
    if language_model is None:
        return encoder.backbone
    if encoder.backbone.masked_lm:
        raise UsageError("the encoder's backbone has a language-model head already; leave language_model out")
    if not language_model.masked_lm:
        raise UsageError("language_model has no language-model head; load it with masked_lm=True")
    found, wanted = ((part.hidden_size, part.vocabulary_size) for part in (language_model, encoder.backbone))
    if found != wanted:
        raise UsageError(f"language_model has hidden size and vocabulary {found}, but the encoder has {wanted}")
    return language_model
