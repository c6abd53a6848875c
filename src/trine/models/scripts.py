"""Which writing systems a text is in, to know whether a model has ever seen the like."""

from __future__ import annotations

import unicodedata
from collections.abc import Collection

TOLERATED = 1 / 3
"""Share of foreign letters up to which a text still counts as known: a name or a term in another script."""


def script(character: str) -> str:
    """First word of the character's Unicode name: "LATIN", "HANGUL", "CJK", "CYRILLIC"; empty where it has none."""
    return unicodedata.name(character, "").partition(" ")[0]


def covered(text: str, scripts: Collection[str]) -> bool:
    """Whether at most a third of the letters of `text` are outside `scripts`; no scripts named means all."""
    if not scripts:
        return True
    letters = [character for character in text if character.isalpha()]
    foreign = sum(script(character) not in scripts for character in letters)
    return foreign <= TOLERATED * len(letters)
