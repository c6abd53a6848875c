"""Tokens that many texts begin with, an instruction above all, passed through a decoder once.

Under a causal mask a token's state does not depend on what comes behind it, so that the prefix's states, keys and
values are those of every text that begins with it.

Shapes: B texts, L tokens with the prefix, P tokens of the prefix, H hidden size.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from trine.models.backbone import Backbone, States


@dataclass(frozen=True, slots=True)
class Prefix:
    """What a decoder makes of the first tokens."""

    hidden_PH: Tensor
    cache: Any
    """Keys and values of every layer, of one text."""

    def __len__(self) -> int:
        """P"""
        return len(self.hidden_PH)


def take_prefix(backbone: Backbone, ids_P: Tensor) -> Prefix | None:
    """Pass the prefix through; None where the texts' states are not made of it.

    That is so where tokens see those behind them, where the transformer keeps no keys and values, and where its logits
    are wanted too.
    """
    if backbone.masked_lm or not backbone.keeps_cache or backbone.sees_ahead:
        return None
    output = backbone.model(
        input_ids=ids_P[None], attention_mask=torch.ones_like(ids_P)[None], use_cache=True, return_dict=True
    )
    return Prefix(output.last_hidden_state[0], output.past_key_values)


def continued(backbone: Backbone, prefix: Prefix, ids_BL: Tensor, mask_BL: Tensor) -> States:
    """The states of texts that begin with the prefix; only the tokens behind it are computed."""
    count = len(ids_BL)
    cache = copy.deepcopy(prefix.cache)  # it grows by the texts' own keys and values
    cache.batch_repeat_interleave(count)
    output = backbone.model(
        input_ids=ids_BL[:, len(prefix) :],
        attention_mask=mask_BL.long(),
        past_key_values=cache,
        use_cache=True,
        return_dict=True,
    )
    return States(torch.cat([prefix.hidden_PH.expand(count, -1, -1), output.last_hidden_state], dim=1), None)
