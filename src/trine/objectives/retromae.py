"""RetroMAE and DupMAE: a sentence vector good enough for a weak decoder to rebuild the text from.

Shapes: B texts, L tokens, K masks drawn for a text, H hidden size, V vocabulary.
Sources: RetroMAE (arXiv 2205.12035, sections 3.1 to 3.3), DupMAE (arXiv 2305.02564, section 3).
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from trine.errors import UsageError
from trine.objectives.masked_lm import IGNORED, NOT_A_WORD, hashed, uniform

MASKS = 256
"""Masks drawn for a text; its tokens share them when it is longer."""


class Decoding(NamedTuple):
    """What the decoder needs of a batch."""

    sentence_BH: Tensor
    """The sentence vectors."""
    embedded_BLH: Tensor
    """Input embeddings, of the true ids in enhanced decoding, of heavily masked ones in plain decoding."""
    positions_BLH: Tensor
    """Position embeddings."""


class Decoder(nn.Module):
    """The weak decoder, thrown away after pre-training.

    Enhanced decoding (section 3.3) has two streams. Token i asks with its position and the sentence vector; what it
    may look at are the sentence vector, at place 0, and the true tokens that its own mask leaves visible, never itself.
    Plain decoding (section 3.2) runs ordinary layers over the sentence vector and the embeddings of a masked text.
    """

    def __init__(
        self,
        *,
        hidden: int,
        heads: int,
        feed_forward: int,
        enhanced: bool = True,
        layers: int = 1,
        dropout: float = 0.1,
        epsilon: float = 1e-12,
        deviation: float = 0.02,
    ) -> None:
        super().__init__()
        if hidden % heads:
            raise UsageError(f"hidden ({hidden}) must be a multiple of heads ({heads})")
        if layers < 1 or (enhanced and layers > 1):
            raise UsageError(
                f"the decoder cannot have {layers} layers: enhanced decoding has exactly 1, plain decoding at least 1"
            )
        self.enhanced = enhanced
        self.layers = nn.ModuleList(
            _Layer(hidden=hidden, heads=heads, feed_forward=feed_forward, dropout=dropout, epsilon=epsilon)
            for _ in range(layers)
        )
        for part in self.modules():
            if isinstance(part, nn.Linear):
                nn.init.normal_(part.weight, std=deviation)
                nn.init.zeros_(part.bias)

    def forward(self, inputs: Decoding, *, visible: Tensor) -> Tensor:
        """(B, L, H) states to be sent through the language-model head.

        Args:
            inputs: of the batch.
            visible: (B, L, L) from `visibility` in enhanced decoding; (B, L) the real tokens in plain decoding.
        """
        context_BLH = torch.cat([inputs.sentence_BH[:, None], inputs.embedded_BLH[:, 1:]], dim=1)
        if self.enhanced:
            asking_BLH = inputs.positions_BLH + inputs.sentence_BH[:, None]
            decoded_BLH: Tensor = self.layers[0](asking_BLH, context_BLH, visible[:, None])
            return decoded_BLH
        states_BLH = context_BLH
        for layer in self.layers:
            states_BLH = layer(states_BLH, states_BLH, visible[:, None, None])
        return states_BLH


class _Layer(nn.Module):
    """A transformer layer as in BERT: norms after the residuals, which run along the asking stream."""

    def __init__(self, *, hidden: int, heads: int, feed_forward: int, dropout: float, epsilon: float) -> None:
        super().__init__()
        self.heads = heads
        self.query, self.key, self.value, self.output = (nn.Linear(hidden, hidden) for _ in range(4))
        self.attention_norm = nn.LayerNorm(hidden, eps=epsilon)
        self.expand, self.contract = nn.Linear(hidden, feed_forward), nn.Linear(feed_forward, hidden)
        self.output_norm = nn.LayerNorm(hidden, eps=epsilon)
        self.dropout = nn.Dropout(dropout)

    def forward(self, asking_BLH: Tensor, context_BLH: Tensor, visible_B1LL: Tensor) -> Tensor:
        """(B, L, H); `visible_B1LL` is true where a row of `asking_BLH` may look at a row of `context_BLH`."""
        mixed = nn.functional.scaled_dot_product_attention(
            self._split(self.query(asking_BLH)),
            self._split(self.key(context_BLH)),
            self._split(self.value(context_BLH)),
            attn_mask=visible_B1LL,
            dropout_p=self.dropout.p if self.training else 0.0,
        )
        mixed_BLH = self.output(mixed.transpose(1, 2).flatten(2))
        states_BLH = self.attention_norm(asking_BLH + self.dropout(mixed_BLH))
        wide = nn.functional.gelu(self.expand(states_BLH))
        result_BLH: Tensor = self.output_norm(states_BLH + self.dropout(self.contract(wide)))
        return result_BLH

    def _split(self, states_BLH: Tensor) -> Tensor:
        split: Tensor = states_BLH.unflatten(2, (self.heads, -1))
        return split.transpose(1, 2)


def visibility(words_BL: Tensor, *, rate: float, seeds_B: Tensor, masks: int = MASKS) -> Tensor:
    """(B, L, L) what each token may look at in enhanced decoding.

    For each text up to `masks` whole-word masks are drawn, and each of its tokens takes one of them at random. A token
    sees the sentence vector at place 0 and the ordinary tokens that its mask spares; never itself, a special token or
    padding. Rows that are not decoded see place 0 alone.

    Args:
        words_BL: from `masked_lm.word_numbers`.
        rate: share of the words that a mask hides.
        seeds_B: int64, one a text; the same text with the same seed gets the same masks in any batch.
        masks: K
    """
    if not 0 <= rate <= 1:
        raise UsageError(f"the decoder's masking rate must be from 0 to 1, got {rate}")
    length, device = words_BL.shape[1], words_BL.device
    ordinary_BL = words_BL != NOT_A_WORD
    count_B = ordinary_BL.sum(1).clamp(min=1, max=masks)
    place_L = torch.arange(length, device=device)
    number_K = torch.arange(min(masks, length), device=device)
    hidden_BKL = uniform(seeds_B[:, None, None], 4, number_K[:, None], words_BL[:, None, :]) < rate
    spared_BKL = ordinary_BL[:, None, :] & ~hidden_BKL
    taken_BL = (hashed(seeds_B[:, None], 5, place_L) >> 1) % count_B[:, None]
    visible_BLL = spared_BKL.gather(1, taken_BL[:, :, None].expand(-1, -1, length))
    visible_BLL &= ordinary_BL[:, :, None] & ~torch.eye(length, dtype=torch.bool, device=device)
    visible_BLL[:, :, 0] = True
    return visible_BLL


def reconstruction_labels(ids_BL: Tensor, words_BL: Tensor) -> Tensor:
    """(B, L) the true ids of the tokens that enhanced decoding rebuilds: all ordinary ones but place 0."""
    labels_BL = torch.where(words_BL != NOT_A_WORD, ids_BL, IGNORED)
    labels_BL[:, 0] = IGNORED
    return labels_BL


def bag_of_words_loss(largest_BV: Tensor, ids_BL: Tensor, words_BL: Tensor) -> Tensor:
    """Sum over texts of ``-sum_v w_v log softmax(largest)_v``, where w is 1 / length for each distinct token (DupMAE).

    Args:
        largest_BV: each vocabulary entry's largest logit over the text's tokens.
        ids_BL: the true tokens.
        words_BL: from `masked_lm.word_numbers`; tells the ordinary tokens.
    """
    ordinary_BL = words_BL != NOT_A_WORD
    log_chance_BV = torch.log_softmax(largest_BV.to(torch.promote_types(largest_BV.dtype, torch.float32)), dim=1)
    ordered_BL = torch.where(ordinary_BL, ids_BL, -1).sort(dim=1).values
    first_BL = ordered_BL >= 0
    first_BL[:, 1:] &= ordered_BL[:, 1:] != ordered_BL[:, :-1]
    share_B1 = 1 / ordinary_BL.sum(1, keepdim=True).clamp(min=1).to(log_chance_BV.dtype)
    return -(log_chance_BV.gather(1, ordered_BL.clamp(min=0)) * first_BL * share_B1).sum()
