"""The dense head: pooled token states -> one vector a text.

Shapes: B texts, L tokens, H hidden size, D dimensions.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from trine.models.config import DenseConfig, Pooling
from trine.models.heads import layers


class DenseHead(nn.Module):
    """Pooling, then layers."""

    def __init__(self, config: DenseConfig, *, hidden_size: int, cls_every: int | None = None) -> None:
        super().__init__()
        self.config = config
        self.cls_every = cls_every
        self.layers = layers.build(config.layers)
        self.width = layers.width_after(config.layers, hidden_size * len(config.pooling))

    def forward(self, states_BLH: Tensor, mask_BL: Tensor, prompt_lengths_B: Tensor) -> Tensor:
        """Embed each text.

        Args:
            states_BLH: last hidden states.
            mask_BL: true for real tokens; padding may stand on either side.
            prompt_lengths_B: tokens of the prompt and the special tokens before it; used where the
                configuration leaves prompts out of pooling.
        """
        pooled_mask_BL = mask_BL if self.config.include_prompt else _without_prompt(mask_BL, prompt_lengths_B)
        pooled = [self._pooled(name, states_BLH, pooled_mask_BL, mask_BL) for name in self.config.pooling]
        dense_BD: Tensor = self.layers(torch.cat(pooled, dim=-1))
        return dense_BD

    def _pooled(self, name: Pooling, states_BLH: Tensor, pooled_BL: Tensor, mask_BL: Tensor) -> Tensor:
        if name == "cls_mean":
            assert self.cls_every is not None
            return _mean(states_BLH, cls_places(mask_BL, every=self.cls_every), mask_BL)
        return POOLINGS[name](states_BLH, pooled_BL, mask_BL)


def cls_places(mask_BL: Tensor, *, every: int) -> Tensor:
    """(B, L) where `every` tokens apart the CLS tokens of a text stand: the first place, and none at its end.

    Their places follow from the rule by which the tokenizer puts them there, so that a text which contains the word
    "[CLS]" cannot add one.
    """
    position_BL, length_B1 = _position(mask_BL), mask_BL.sum(dim=1, keepdim=True)
    inner_BL = (position_BL % (every + 1) == 0) & (position_BL < length_B1 - 1)
    return mask_BL & (inner_BL | (position_BL == 0))


def _without_prompt(mask_BL: Tensor, prompt_lengths_B: Tensor) -> Tensor:
    position_BL = _position(mask_BL)
    return mask_BL & (position_BL >= prompt_lengths_B[:, None])


def _position(mask_BL: Tensor) -> Tensor:
    """Position of each token counted from the first real one, whatever the padding side."""
    first_B = mask_BL.to(torch.int32).argmax(dim=1)
    return torch.arange(mask_BL.shape[1], device=mask_BL.device)[None, :] - first_B[:, None]


def _weighted(states_BLH: Tensor, weight_BL: Tensor, total_B: Tensor) -> Tensor:
    # Sums run in float32: bfloat16 loses digits over hundreds of tokens.
    weight_BL = weight_BL.float()
    summed_BH = torch.einsum("blh,bl->bh", states_BLH.float(), weight_BL)
    return (summed_BH / total_B.clamp(min=1e-9)[:, None]).to(states_BLH.dtype)


def _cls(states_BLH: Tensor, pooled_BL: Tensor, mask_BL: Tensor) -> Tensor:
    first_B = pooled_BL.to(torch.int32).argmax(dim=1)
    return states_BLH[torch.arange(len(states_BLH), device=states_BLH.device), first_B]


def _last_token(states_BLH: Tensor, pooled_BL: Tensor, mask_BL: Tensor) -> Tensor:
    last_B = pooled_BL.shape[1] - 1 - pooled_BL.flip(1).to(torch.int32).argmax(dim=1)
    return states_BLH[torch.arange(len(states_BLH), device=states_BLH.device), last_B]


def _mean(states_BLH: Tensor, pooled_BL: Tensor, mask_BL: Tensor) -> Tensor:
    return _weighted(states_BLH, pooled_BL, pooled_BL.sum(dim=1).float())


def _mean_sqrt_len(states_BLH: Tensor, pooled_BL: Tensor, mask_BL: Tensor) -> Tensor:
    return _weighted(states_BLH, pooled_BL, pooled_BL.sum(dim=1).float().sqrt())


def _weighted_mean(states_BLH: Tensor, pooled_BL: Tensor, mask_BL: Tensor) -> Tensor:
    weight_BL = pooled_BL * (_position(mask_BL) + 1)
    return _weighted(states_BLH, weight_BL, weight_BL.sum(dim=1).float())


def _max(states_BLH: Tensor, pooled_BL: Tensor, mask_BL: Tensor) -> Tensor:
    return states_BLH.masked_fill(~pooled_BL[:, :, None], float("-inf")).amax(dim=1)


POOLINGS: dict[Pooling, Callable[[Tensor, Tensor, Tensor], Tensor]] = {
    "cls": _cls,
    "mean": _mean,
    "max": _max,
    "mean_sqrt_len": _mean_sqrt_len,
    "weighted_mean": _weighted_mean,
    "last_token": _last_token,
}
"""Each takes states (B, L, H), the tokens to pool (B, L) and the real tokens (B, L), and gives (B, H). Besides these,
"cls_mean" is the mean of several CLS tokens."""
