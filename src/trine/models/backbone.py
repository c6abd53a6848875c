"""The transformer under the heads: any encoder or decoder of transformers' Auto classes, by public names only.

Shapes: B texts, L tokens, H hidden size, V vocabulary.
"""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Iterator, Mapping
from contextvars import ContextVar
from dataclasses import dataclass
from functools import cached_property
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple, get_args

import torch
from torch import Tensor, nn

from trine.errors import CheckpointError, UsageError
from trine.models.config import Attention
from trine.models.files import quiet_transformers
from trine.tables import unknown

AFTER_PROJECTION = ("final_logit_softcapping", "logit_scale", "logits_scaling")
"""What Gemma 2, Cohere and Granite do to logits behind the output projection, by their configurations' names."""


@dataclass(frozen=True, slots=True)
class Prediction:
    """Masked-language-model logits before they are computed: a text of 8192 tokens would have gigabytes of them."""

    states_BLH: Tensor
    """What the output projection sees; the logits themselves where `weight_VH` is None."""
    weight_VH: Tensor | None
    bias_V: Tensor | None = None

    @property
    def logits(self) -> Tensor:
        """(B, L, V), all at once."""
        if self.weight_VH is None:
            return self.states_BLH
        return nn.functional.linear(self.states_BLH, self.weight_VH, self.bias_V)


@dataclass(frozen=True, slots=True)
class States:
    """What a backbone makes of a batch."""

    hidden_BLH: Tensor
    prediction: Prediction | None
    """Of the masked-language-model head, where the backbone has one."""

    @property
    def logits_BLV(self) -> Tensor | None:
        """The head's logits, all at once."""
        return None if self.prediction is None else self.prediction.logits


@dataclass(frozen=True, slots=True)
class LearnedPositions:
    """A table of position embeddings."""

    embedding: nn.Embedding
    first: int
    """Row of a text's first token: 0 in BERT, the padding id + 1 in RoBERTa's family."""

    @property
    def length(self) -> int:
        """Tokens that have a position."""
        return self.embedding.num_embeddings - self.first


class Backbone(nn.Module):
    """A transformers model that returns its last hidden states."""

    def __init__(self, model: Any, *, masked_lm: bool, attention: Attention = "native") -> None:
        """Wrap a model.

        Args:
            model: gives states only, or states and logits where `masked_lm`. Its configuration is changed where
                `attention` asks for it.
            masked_lm: whether the model has a language-model head: a masked one, or a decoder's next-token head.
            attention: "native" leaves it as config.json says; "bidirectional" and "causal" set it, and prove it.

        Raises:
            UsageError: the model cannot be made to attend so.
        """
        super().__init__()
        if attention not in get_args(Attention):
            raise unknown(attention, get_args(Attention), kind="attention")
        self.model = model
        self.masked_lm = masked_lm
        self.attention = attention
        projection: Any = model.get_output_embeddings() if masked_lm else None
        # A head that is more than a linear layer at its end gives its logits whole.
        self._splits = False
        if isinstance(projection, nn.Linear) and projection.out_features == self.vocabulary_size:
            self._splits = not any(getattr(model.config, name, None) for name in AFTER_PROJECTION)
        if self._splits:
            projection.register_forward_pre_hook(_catch)
        self._options: dict[str, Any] = {"return_dict": True}
        if "use_cache" in inspect.signature(model.forward).parameters:
            self._options["use_cache"] = False  # keys and values that nobody reads
        if attention != "native":
            _attend(model, attention, self._options)

    @property
    def hidden_size(self) -> int:
        """H"""
        return int(self.model.config.hidden_size)

    @property
    def vocabulary_size(self) -> int:
        """V"""
        return int(self.model.config.vocab_size)

    @property
    def keeps_cache(self) -> bool:
        """Whether it can keep the keys and values of a text's beginning, and go on from them."""
        return "use_cache" in self._options and "past_key_values" in inspect.signature(self.model.forward).parameters

    @cached_property
    def sees_ahead(self) -> bool:
        """Whether a token's state depends on tokens behind it; found by trying."""
        return _sees_ahead(self.model, self._options) != {False}

    def forward(self, ids_BL: Tensor, mask_BL: Tensor) -> States:
        """Run the transformer; `mask_BL` is true for tokens that may be attended to."""
        with _catching(self._splits) as caught:
            output = self.model(
                input_ids=ids_BL,
                attention_mask=mask_BL.long(),
                output_hidden_states=self.masked_lm,
                **self._options,
            )
        if not self.masked_lm:
            return States(output.last_hidden_state, None)
        return States(output.hidden_states[-1], self._prediction(caught, output.logits))

    def predict(self, hidden_BLH: Tensor) -> Prediction:
        """Send states of another origin through the masked-language-model head; for training, not for several threads.

        Raises:
            UsageError: the backbone has no such head, or one that cannot be told from its output projection.
        """
        if not self._splits:
            raise UsageError(
                f"{type(self.model).__name__} has no masked-language-model head that ends in a linear layer of "
                f"{self.vocabulary_size} outputs; load the backbone with masked_lm=True"
            )
        prefix = self.model.base_model_prefix
        trunk = getattr(self.model, prefix)
        setattr(self.model, prefix, _Given(hidden_BLH))
        try:
            with _catching(True) as caught:
                self.model(input_ids=torch.zeros_like(hidden_BLH[..., 0], dtype=torch.long))
        finally:
            setattr(self.model, prefix, trunk)
        return self._prediction(caught, None)

    def _prediction(self, caught: list[Tensor], logits_BLV: Tensor | None) -> Prediction:
        if not self._splits:
            assert logits_BLV is not None
            return Prediction(logits_BLV, None)
        projection = self.model.get_output_embeddings()
        return Prediction(caught[0], projection.weight, projection.bias)

    def embedded(self, ids_BL: Tensor) -> Tensor:
        """(B, L, E) what the first layer sees: token embeddings with whatever the model adds to them."""
        whole = getattr(self.model.base_model, "embeddings", None)
        result: Tensor = self.model.get_input_embeddings()(ids_BL) if whole is None else whole(input_ids=ids_BL)
        return result

    @property
    def positions(self) -> LearnedPositions | None:
        """The table of position embeddings; None where positions are rotary or relative."""
        table = getattr(getattr(self.model.base_model, "embeddings", None), "position_embeddings", None)
        if not isinstance(table, nn.Embedding):
            return None
        return LearnedPositions(table, 0 if table.padding_idx is None else table.padding_idx + 1)

    @staticmethod
    def load(
        folder: Path,
        *,
        masked_lm: bool,
        dtype: torch.dtype,
        ignored: tuple[str, ...] = (),
        attention: Attention = "native",
    ) -> Backbone:
        """Read weights and configuration from `folder`.

        Args:
            folder: holds config.json and the weights, in one file or in shards.
            masked_lm: whether the language-model head is wanted too: the masked one where the architecture has one,
                else the next-token head of a decoder.
            dtype: of the weights.
            attention: as in `Backbone`.
            ignored: prefixes of weight names in the file that belong to no backbone (a projection stored beside it).

        Raises:
            CheckpointError: the files cannot be read, bring code of their own, or lack a weight.
        """
        import transformers

        try:
            with quiet_transformers():
                config = transformers.AutoConfig.from_pretrained(folder, trust_remote_code=False)
                factory = auto_class(config, masked_lm=masked_lm)
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
        return Backbone(model, masked_lm=masked_lm, attention=attention).eval()


def auto_class(config: Any, *, masked_lm: bool) -> Any:
    """The Auto class of transformers for a configuration: without head, with the masked-LM or the next-token head."""
    import transformers

    if not masked_lm:
        return transformers.AutoModel
    if type(config) in transformers.MODEL_FOR_MASKED_LM_MAPPING:
        return transformers.AutoModelForMaskedLM
    return transformers.AutoModelForCausalLM


def _attend(model: Any, attention: Attention, options: Mapping[str, Any]) -> None:
    """Set the switch that transformers 5.2 and later read from any decoder's configuration, and see what it does.

    It is saved with the model. That it is set proves nothing: earlier versions and some architectures overlook it, and
    SDPA falls back to a causal mask of its own where it is given none.
    """
    causal = attention == "causal"
    model.config.is_causal = causal
    if _sees_ahead(model, options) != {not causal}:
        raise UsageError(
            f"{type(model).__name__} does not become {attention} in transformers {version('transformers')}: changing a "
            f"text's last token {'moves' if causal else 'does not move'} the states before it; use attention='native' "
            "(decoders can be switched from transformers 5.2 on)"
        )


def _sees_ahead(model: Any, options: Mapping[str, Any]) -> set[bool]:
    """Whether a token's state depends on tokens behind it: seen without padding, and with.

    Five tokens, so that a sliding window of a few tokens still holds the last one.
    """
    width, device = int(model.config.vocab_size), next(model.parameters()).device
    ids_BL = torch.arange(10, device=device).reshape(2, 5).remainder(width)
    ids_BL[1, :4] = ids_BL[0, :4]
    training = model.training
    found = set()
    model.eval()
    for padding in (0, 1):
        padded_BL = nn.functional.pad(ids_BL, (0, padding), value=0)
        mask_BL = nn.functional.pad(torch.ones_like(ids_BL), (0, padding))
        with torch.no_grad():
            output = model(input_ids=padded_BL, attention_mask=mask_BL, output_hidden_states=True, **options)
        first, second = output.hidden_states[-1][:, :4].float()
        # Rounding differs where experts get other tokens together; attention moves states by far more.
        found.add(bool(((first - second).abs().amax(-1) > 1e-4 * first.abs().amax(-1)).any()))
    model.train(training)
    return found


class _Output(NamedTuple):
    """As much of a transformer's output as a head reads, by place or by name."""

    last_hidden_state: Tensor
    hidden_states: None = None
    attentions: None = None
    past_key_values: None = None


class _Given(nn.Module):
    """Stands in for the transformer when its output is known."""

    def __init__(self, hidden_BLH: Tensor) -> None:
        super().__init__()
        self.output = _Output(hidden_BLH)

    def forward(self, *arguments: object, **options: object) -> _Output:
        return self.output


_CAUGHT: ContextVar[list[Tensor] | None] = ContextVar("caught", default=None)
"""Where the output projection's input goes; each thread has its own."""


@contextlib.contextmanager
def _catching(wanted: bool) -> Iterator[list[Tensor]]:
    caught: list[Tensor] = []
    token = _CAUGHT.set(caught if wanted else None)
    try:
        yield caught
    finally:
        _CAUGHT.reset(token)


def _catch(projection: nn.Module, arguments: tuple[Tensor, ...]) -> tuple[Tensor, ...] | None:
    """Keep the output projection's input, and leave it no token to work on."""
    caught = _CAUGHT.get()
    if caught is None:
        return None
    if not caught:
        caught.append(arguments[0])
    return (arguments[0][..., :0, :],)


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
