"""Prompts as files: `prompts/<language>/<name>.md`, with the values that go into them in braces."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import cache
from importlib.resources import files

from trine.errors import UsageError

PROMPT_LANGUAGES = ("en", "ko")
_PLACEHOLDER = re.compile(r"\{([a-z_]+)\}")


@cache
def template(name: str, language: str) -> str:
    """The text of a template file."""
    file = files("trine.curation.synthesis") / "prompts" / language / f"{name}.md"
    return file.read_text(encoding="utf-8").strip()


def placeholders(name: str, language: str) -> frozenset[str]:
    """The values that a template asks for."""
    return frozenset(_PLACEHOLDER.findall(template(name, language)))


def filled(name: str, language: str, values: Mapping[str, str]) -> str:
    """A template with its values; braces inside a value stay as they are.

    Raises:
        UsageError: a value is missing.
    """
    missing = sorted(placeholders(name, language) - set(values))
    if missing:
        raise UsageError(f"the prompt {language}/{name}.md asks for {', '.join(missing)}, which nobody gave")
    return _PLACEHOLDER.sub(lambda match: values[match[1]], template(name, language))
