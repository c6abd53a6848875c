"""Masked language modelling: which tokens are hidden, and a cross-entropy that never holds the logits of all tokens.

Shapes: B texts, L tokens, M tokens of all texts, H hidden size, V vocabulary, R ordinary ids, C rows of a chunk.
Sources: BERT (arXiv 1810.04805, section 3.1), whole words as in its later releases; masked next-token prediction of
LLM2Vec (arXiv 2404.05961, section 2.1).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from trine.errors import UsageError

IGNORED = -100
"""Label of a token that is not predicted."""

LOGITS_LIMIT = 1 << 24
"""Logits of one chunk: 64 MiB of float32, held twice."""

NOT_A_WORD = -1


@dataclass(frozen=True, slots=True)
class TokenLoss:
    """A loss over tokens, still to be divided by their number."""

    total: Tensor
    """Scalar, differentiable: the sum over labelled tokens."""
    count: Tensor
    """Scalar int64: labelled tokens."""


@dataclass(frozen=True, slots=True)
class Masking:
    """How tokens are hidden."""

    rate: float
    """Share of a text's ordinary tokens, exact on average; of a short text, at least one token on average."""
    whole_word: bool = True
    random_share: float = 0.1
    """Of the hidden tokens, replaced by a random token."""
    kept_share: float = 0.1
    """Of the hidden tokens, left as they are. With both shares 0, all become the mask token."""

    def __post_init__(self) -> None:
        """Refuse shares that are none."""
        if not 0 < self.rate <= 1:
            raise UsageError(f"the masking rate must be above 0 and at most 1, got {self.rate}")
        if min(self.random_share, self.kept_share) < 0 or self.random_share + self.kept_share > 1:
            raise UsageError(
                "random_share and kept_share must be at least 0 and together at most 1, "
                f"got {self.random_share} and {self.kept_share}"
            )


@dataclass(frozen=True, slots=True)
class Masked:
    """Texts with hidden tokens."""

    ids_BL: Tensor
    labels_BL: Tensor
    """The true id of each hidden token, else `IGNORED`."""


def word_numbers(ids_BL: Tensor, *, starts_V: Tensor, ordinary_BL: Tensor) -> Tensor:
    """(B, L) number of the word that each token belongs to, counted in each text; `NOT_A_WORD` for all others.

    Args:
        ids_BL: tokens.
        starts_V: true for the ids that begin a word.
        ordinary_BL: false for special tokens and padding, which stand between words.
    """
    after_other_BL = torch.ones_like(ordinary_BL)
    after_other_BL[:, 1:] = ~ordinary_BL[:, :-1]
    begins_BL = ordinary_BL & (starts_V[ids_BL] | after_other_BL)
    return torch.where(ordinary_BL, begins_BL.cumsum(1) - 1, NOT_A_WORD)


def next_token_labels(labels_BL: Tensor) -> Tensor:
    """Labels where a decoder predicts them: each at the place before its token, (B, L).

    A decoder's output at place i was trained to say token i + 1. Masked next-token prediction keeps that place, so that
    its output layer serves as it is. The first token has none before it, and is predicted nowhere.
    """
    return torch.cat([labels_BL[:, 1:], torch.full_like(labels_BL[:, :1], IGNORED)], dim=1)


def mask_tokens(
    ids_BL: Tensor, words_BL: Tensor, *, masking: Masking, mask_id: int, ordinary_R: Tensor, seeds_B: Tensor
) -> Masked:
    """Hide tokens; the same text with the same seed always loses the same ones, in whatever batch it stands.

    Args:
        ids_BL: tokens.
        words_BL: from `word_numbers`.
        masking: how many, and what takes their place.
        mask_id: of the mask token.
        ordinary_R: ids that may stand in as random tokens.
        seeds_B: int64, one a text.
    """
    place_BL = torch.arange(ids_BL.shape[1], device=ids_BL.device).expand_as(ids_BL)
    units_BL = words_BL if masking.whole_word else torch.where(words_BL >= 0, place_BL, NOT_A_WORD)
    hidden_BL = _hidden(units_BL, masking.rate, seeds_B)
    fate_BL = uniform(seeds_B[:, None], 2, place_BL)
    drawn_BL = (uniform(seeds_B[:, None], 3, place_BL) * len(ordinary_R)).long().clamp(max=len(ordinary_R) - 1)
    replaced_BL = torch.where(fate_BL < masking.random_share, ordinary_R[drawn_BL], mask_id)
    replaced_BL = torch.where(fate_BL >= 1 - masking.kept_share, ids_BL, replaced_BL)
    return Masked(torch.where(hidden_BL, replaced_BL, ids_BL), torch.where(hidden_BL, ids_BL, IGNORED))


def _hidden(units_BL: Tensor, rate: float, seeds_B: Tensor) -> Tensor:
    """True for the tokens of randomly chosen units, ``max(rate * tokens, 1)`` of them on average.

    Units are taken in random order. The one that crosses the target is taken with the probability that keeps the
    expected number of tokens exact.
    """
    batch, length = units_BL.shape
    ordinary_BL, unit_BL = units_BL >= 0, units_BL.clamp(min=0)
    place_L = torch.arange(length, device=units_BL.device)
    order_BL = (hashed(seeds_B[:, None], 0, unit_BL) >> 1).masked_fill(~ordinary_BL, torch.iinfo(torch.int64).max)
    rank_BL = torch.empty_like(unit_BL)
    rank_BL.scatter_(1, order_BL.argsort(dim=1, stable=True), place_L.expand(batch, -1))
    first_BU = torch.full_like(unit_BL, length).scatter_reduce_(
        1, unit_BL, torch.where(ordinary_BL, rank_BL, length), "amin"
    )
    size_BU = torch.zeros_like(unit_BL).scatter_add_(1, unit_BL, ordinary_BL.long())
    target_B1 = (ordinary_BL.sum(1, keepdim=True) * rate).clamp(min=1)
    taken_BU = first_BU + uniform(seeds_B[:, None], 1, place_L) * size_BU < target_B1
    return ordinary_BL & taken_BU.gather(1, unit_BL)


# -- random numbers that depend on nothing but their seed and place ----------------------------------------------------


def hashed(seeds: Tensor, *places: int | Tensor) -> Tensor:
    """Pseudo-random int64, the same on every device: splitmix64 (Steele et al., OOPSLA 2014) over seed and places.

    A generator would give a text other numbers in another batch, chunk or rank.
    """
    value = _mixed(seeds)
    for place in places:
        value = _mixed(value ^ torch.as_tensor(place, device=seeds.device))
    return value


def uniform(seeds: Tensor, *places: int | Tensor) -> Tensor:
    """float32 in [0, 1) by `hashed`."""
    return _shifted(hashed(seeds, *places), 40).float() * 2.0**-24


def _mixed(value: Tensor) -> Tensor:
    value = value + -0x61C8864680B583EB
    value = (value ^ _shifted(value, 30)) * -0x40A7B892E31B1A47
    value = (value ^ _shifted(value, 27)) * -0x6B2FB644ECCEEE15
    return value ^ _shifted(value, 31)


def _shifted(value: Tensor, bits: int) -> Tensor:
    """Logical shift to the right, which torch lacks for int64."""
    return (value >> bits) & ((1 << (64 - bits)) - 1)


# -- cross-entropy -----------------------------------------------------------------------------------------------------


def linear_cross_entropy(
    states_MH: Tensor, labels_M: Tensor, *, weight_VH: Tensor, bias_V: Tensor | None = None, chunk: int | None = None
) -> TokenLoss:
    """Sum of the cross-entropies of ``states @ weight.T + bias``, in the memory of one chunk of logits.

    Loss and gradients are computed together, chunk by chunk, in the forward pass: the backward pass only scales them.
    The logits are summed in float32 (or float64) whatever the states' type.

    Args:
        states_MH: what the output projection sees.
        labels_M: true ids; `IGNORED` for tokens that do not count.
        weight_VH: the output projection, which may be the input embeddings themselves.
        bias_V: added to the logits.
        chunk: tokens at a time; None allows `LOGITS_LIMIT` logits.
    """
    if chunk is not None and chunk < 1:
        raise UsageError(f"chunk must be at least 1 token, got {chunk}")
    counted_M = labels_M != IGNORED
    rows = chunk or max(LOGITS_LIMIT // len(weight_VH), 1)
    total: Tensor = _LinearCrossEntropy.apply(
        states_MH[counted_M], labels_M[counted_M], weight_VH, bias_V, rows, torch.is_grad_enabled()
    )
    return TokenLoss(total, counted_M.sum())


class _LinearCrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        states_MH: Tensor,
        labels_M: Tensor,
        weight_VH: Tensor,
        bias_V: Tensor | None,
        rows: int,
        tracked: bool,
    ) -> Tensor:
        wide = torch.promote_types(states_MH.dtype, torch.float32)
        inputs = (states_MH, None, weight_VH, bias_V)
        sums = [
            torch.zeros_like(tensor, dtype=wide) if tensor is not None and tracked and needed else None
            for tensor, needed in zip(inputs, ctx.needs_input_grad, strict=False)
        ]
        total = states_MH.new_zeros((), dtype=wide)
        for start in range(0, len(states_MH), rows):
            span = slice(start, start + rows)
            logits_CV = (states_MH[span] @ weight_VH.T).to(wide)
            if bias_V is not None:
                logits_CV += bias_V
            loss, gradient_CV = _chunk(logits_CV, labels_M[span])
            total += loss
            _add_gradients(sums, gradient_CV, span=span, states_MH=states_MH, weight_VH=weight_VH)
        found = [None if s is None or t is None else s.to(t.dtype) for s, t in zip(sums, inputs, strict=True)]
        ctx.present = [tensor is not None for tensor in found]
        ctx.save_for_backward(*(tensor for tensor in found if tensor is not None))
        return total

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        saved = iter(ctx.saved_tensors)
        scaled = [next(saved) * gradients[0] if present else None for present in ctx.present]
        return (*scaled, None, None)


def _chunk(logits_CV: Tensor, labels_C: Tensor) -> tuple[Tensor, Tensor]:
    """The chunk's loss, and its gradient with respect to the logits."""
    chances_CV = logits_CV.log_softmax(dim=1)
    loss = -chances_CV.gather(1, labels_C[:, None]).sum()
    chances_CV.exp_()
    chances_CV.scatter_add_(1, labels_C[:, None], -torch.ones_like(labels_C[:, None], dtype=logits_CV.dtype))
    return loss, chances_CV


def _add_gradients(
    sums: list[Tensor | None], gradient_CV: Tensor, *, span: slice, states_MH: Tensor, weight_VH: Tensor
) -> None:
    for_states, _, for_weight, for_bias = sums
    narrow_CV = gradient_CV.to(weight_VH.dtype)
    if for_states is not None:
        for_states[span] = narrow_CV @ weight_VH
    if for_weight is not None:
        if for_weight.dtype == states_MH.dtype:
            for_weight.addmm_(gradient_CV.T, states_MH[span])
        else:
            for_weight += narrow_CV.T @ states_MH[span].to(narrow_CV.dtype)
    if for_bias is not None:
        for_bias += gradient_CV.sum(dim=0)
