"""In what order a model thinks and fills in the form: three ways, and a control.

A schema that is filled in before any thought can cost quality ("Let Me Speak Freely?", arXiv 2408.02442;
disputed since), and the order of the fields is then the order of the thought. All modes have the same core of the
prompt and the same parser.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from trine.curation.synthesis.templates import filled

REASONS = ("observation", "phenomenon", "conclusion")
REFUSAL = "refusal"
WORDS = 60
"""Of thought, at most: long enough to plan three texts (concise chain of thought, arXiv 2407.19825)."""


@dataclass(frozen=True, slots=True)
class Mode:
    """How one example is asked for."""

    name: str
    thinks: bool = False
    """A first call thinks in free text; the object comes in a second call of the same conversation."""
    reasons: str = ""
    """Fields for thought in the object: "first" or "last"; "" for none."""

    def fields(self, payload: tuple[str, ...]) -> tuple[str, ...]:
        """The keys of the object, in order."""
        asked = (REFUSAL, *payload)
        if self.reasons == "first":
            return (*REASONS, *asked)
        return (*asked, *reversed(REASONS)) if self.reasons else asked

    def last_turn(self, payload: tuple[str, ...], *, language: str) -> str:
        """What asks for the object."""
        keys = ", ".join(f'"{name}"' for name in self.fields(payload))
        answer = filled("answer", language, {"keys": keys})
        if not self.reasons:
            return answer
        return filled("reasoning", language, {"words": str(WORDS)}) + "\n\n" + answer

    def first_turn(self, core: str, payload: tuple[str, ...], *, language: str) -> str:
        """The core with what ends the first message."""
        end = (
            filled("think", language, {"words": str(WORDS)})
            if self.thinks
            else self.last_turn(payload, language=language)
        )
        return f"{core}\n\n{end}"


MODES: Mapping[str, Mode] = MappingProxyType(
    {
        mode.name: mode
        for mode in (
            Mode("json_schema"),
            Mode("free_then_json", thinks=True),
            Mode("json_with_reasoning_field", reasons="first"),
            Mode("json_with_reasoning_field_last", reasons="last"),
        )
    }
)
"""Name -> mode; the last is the control of the one before: the same fields in the reverse order."""
DEFAULT_MODE = "json_with_reasoning_field"
"""Thought first, and one call for each example."""
