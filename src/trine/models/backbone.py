"""The transformer under the heads: any encoder that transformers' Auto classes know, by public names only.

Shapes: B texts, L tokens, H hidden size, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from trine.errors import CheckpointError
from trine.models.files import quiet_transformers


@dataclass(frozen=True, slots=True)
class States:
    """What a backbone makes of a batch."""

    hidden_BLH: Tensor
    logits_BLV: Tensor | None
    """Masked-language-model logits, where the backbone has that head."""


class Backbone(nn.Module):
    """A transformers model that returns its last hidden states."""

    def __init__(self, model: Any, *, masked_lm: bool) -> None:
        super().__init__()
        self.model = model
        self.masked_lm = masked_lm

    @property
    def hidden_size(self) -> int:
        """H"""
        return int(self.model.config.hidden_size)

    @property
    def vocabulary_size(self) -> int:
        """V"""
        return int(self.model.config.vocab_size)

    def forward(self, ids_BL: Tensor, mask_BL: Tensor) -> States:
        """Run the transformer; `mask_BL` is true for tokens that may be attended to."""
        output = self.model(
            input_ids=ids_BL, attention_mask=mask_BL.long(), output_hidden_states=self.masked_lm, return_dict=True
        )
        if self.masked_lm:
            return States(output.hidden_states[-1], output.logits)
        return States(output.last_hidden_state, None)

    @staticmethod
    def load(folder: Path, *, masked_lm: bool, dtype: torch.dtype, ignored: tuple[str, ...] = ()) -> Backbone:
        """Read weights and configuration from `folder`.

        Args:
            folder: holds config.json and the weights.
            masked_lm: whether the masked-language-model head is wanted too.
            dtype: of the weights.
            ignored: prefixes of weight names in the file that belong to no backbone (a projection stored beside it).

        Raises:
            CheckpointError: the files cannot be read, bring code of their own, or lack a weight.
        """
        import transformers

        factory = transformers.AutoModelForMaskedLM if masked_lm else transformers.AutoModel
        try:
            with quiet_transformers():
                model, report = factory.from_pretrained(
                    folder,
                    dtype=dtype,
                    output_loading_info=True,
                    ignore_mismatched_sizes=True,  # so that the report names them; they are refused below
                    trust_remote_code=False,
                )
        except Exception as error:  # a broken file can raise anything, from OSError to SafetensorError
            raise CheckpointError(f"{folder}: the backbone cannot be loaded: {error}") from error
        _refuse_random(folder, report, ignored)
        if any(key.startswith("pooler.") for key in report["missing_keys"]):
            model.pooler = None  # it would be random, and so would the fingerprint
        return Backbone(model, masked_lm=masked_lm).eval()


def _refuse_random(folder: Path, report: Mapping[str, Any], ignored: tuple[str, ...]) -> None:
    """Raise where a weight that matters did not come from the file."""
    wrong = [f"{key} is {tuple(found)}, should be {tuple(wanted)}" for key, found, wanted in report["mismatched_keys"]]
    if wrong:
        raise CheckpointError(
            f"{folder}: {len(wrong)} weights have shapes other than config.json says ({'; '.join(sorted(wrong)[:3])})"
        )
    # The pooler is BERT's next-sentence head; embeddings never pass through it.
    missing = [key for key in report["missing_keys"] if not key.startswith(("pooler.", *ignored))]
    if missing:
        shown = ", ".join(sorted(missing)[:5])
        raise CheckpointError(
            f"{folder}: {len(missing)} weights are missing ({shown} ...); they would be random. "
            "The download may be incomplete, or config.json describes another architecture."
        )
