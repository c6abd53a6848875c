"""Where a text may be cut without splitting what a reader sees as one character."""

from __future__ import annotations

import unicodedata

_ZERO_WIDTH_JOINER = "\u200d"
_LONGEST_FLAG_RUN = 64


def starts_grapheme(text: str, position: int) -> bool:
    """Whether a cut before `position` leaves every user-perceived character whole.

    Covers what documents hold (UAX #29, rules GB6 to GB13, simplified): combining marks, variation selectors,
    conjoining Hangul jamo (NFD), emoji modifiers, joiners and tags, and flags.
    """
    if position <= 0 or position >= len(text):
        return True
    before, here = text[position - 1], text[position]
    if here.isascii():
        return not (before == "\r" and here == "\n")
    if before == _ZERO_WIDTH_JOINER:
        return here.isspace()
    if _is_flag_letter(here):
        return not _is_flag_letter(before) or _flag_letters_before(text, position) % 2 == 0
    return not (_extends(here) or _continues_syllable(before, here))


def grapheme_cut(text: str, position: int, *, after: int) -> int:
    """The last cut in (`after`, `position`] that keeps characters whole; `position` itself if there is none."""
    cut = position
    while cut > after and not starts_grapheme(text, cut):
        cut -= 1
    return cut if cut > after else position


def _extends(character: str) -> bool:
    return (
        character == _ZERO_WIDTH_JOINER
        or unicodedata.category(character) in ("Mn", "Mc", "Me")
        or "\U0001f3fb" <= character <= "\U0001f3ff"
        or "\U000e0020" <= character <= "\U000e007f"
    )


def _continues_syllable(before: str, here: str) -> bool:
    """Whether conjoining jamo or a whole Hangul syllable runs on: leading consonants, vowels, final consonants."""
    if "\u1160" <= here <= "\u11ff" or "\ud7b0" <= here <= "\ud7fb":
        return "\u1100" <= before <= "\u11ff" or "\uac00" <= before <= "\ud7fb" or "\ua960" <= before <= "\ua97c"
    return "\u1100" <= here <= "\u115f" and "\u1100" <= before <= "\u115f"


def _is_flag_letter(character: str) -> bool:
    return "\U0001f1e6" <= character <= "\U0001f1ff"


def _flag_letters_before(text: str, position: int) -> int:
    start = position
    while start > 0 and position - start < _LONGEST_FLAG_RUN and _is_flag_letter(text[start - 1]):
        start -= 1
    return position - start
