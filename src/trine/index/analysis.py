"""Text to the terms that BM25 counts."""

from __future__ import annotations

import importlib.util
import re
import unicodedata
from functools import lru_cache
from typing import Protocol

_HANGUL = "\u1100-\u11ff\ua960-\ua97c\uac00-\ud7a3\ud7b0-\ud7fb"
_UNSPACED = (
    "\u3005-\u3007\u3041-\u3096\u309d\u309e\u30a1-\u30fa\u30fc-\u30fe\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"
    "\U00020000-\U0003ffff"  # ideographs and kana
    "\u0e01-\u0e3a\u0e40-\u0e4e\u0e81-\u0ece\u1000-\u103f\u1050-\u109f\u1780-\u17d3"  # Thai, Lao, Burmese, Khmer
)
"""Scripts that put no space between words."""
_MARKS = (
    "\u0300-\u036f\u0483-\u0487\u0591-\u05bd\u05bf\u05c1\u05c2\u05c4\u05c5\u05c7\u0610-\u061a\u064b-\u065f\u0670"
    "\u06d6-\u06dc\u06df-\u06e4\u06e7\u06e8\u06ea-\u06ed\u0900-\u0903\u093a-\u094f\u0951-\u0957\u0962\u0963"
    "\u0981-\u0983\u09bc-\u09d7\u0a01-\u0a03\u0a3c-\u0a51\u0a70\u0a71\u0a81-\u0a83\u0abc-\u0acd\u0b01-\u0b03"
    "\u0b3c-\u0b57\u0b82\u0bbe-\u0bcd\u0bd7\u0c00-\u0c04\u0c3c-\u0c56\u0c81-\u0c83\u0cbc-\u0cd6\u0d00-\u0d03"
    "\u0d3b-\u0d4d\u0d57\u0d81-\u0d83\u0dca-\u0ddf"
)
"""Vowel signs and accents of scripts with spaces: parts of words that `\\w` leaves out."""
_EMOJI = "\u2600-\u27bf\U0001f300-\U0001faff"
_INVISIBLE = re.compile("[\u00ad\u200b-\u200f\u2060-\u2064\ufe00-\ufe0f\ufeff]")
"""Soft hyphens, joiners, variation selectors: they change no word."""
_SURROGATE = re.compile("[\ud800-\udfff]")

_WORD = rf"[^\W_{_HANGUL}{_UNSPACED}]+(?:[{_MARKS}]+[^\W_{_HANGUL}{_UNSPACED}]*)*"
_TOKEN = re.compile(
    rf"[{_HANGUL}]+|[{_UNSPACED}]+|[{_EMOJI}]"
    # A dot, hyphen, underscore or apostrophe inside, or a comma before three digits, does not end a word: v1.2,
    # snake_case, 1,000. C++ and C# keep their signs.
    rf"|{_WORD}(?:(?:[-._'\u2010\u2019]|(?<=\d),(?=\d\d\d(?!\d))){_WORD})*(?:(?<=[A-Za-z])(?:\+\+|\#)(?!\w))?"
)
_LETTER_RUNS = re.compile(rf"[{_HANGUL}{_UNSPACED}]")
_HANGUL_LETTER = re.compile(f"[{_HANGUL}]")
_SEPARATOR = re.compile("[-._'\u2010\u2019]")
_GLUE = re.compile("[-_'\u2010\u2019]")
_ASCII_PARTS = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|\d+")
_OTHER_PARTS = re.compile(r"\d+|\D+")
_LONGEST = 64
"""Longer words are cut: they are encoded data, not language."""


class Analyzer(Protocol):
    """Cuts text into the terms that BM25 counts; the same for queries and passages."""

    name: str
    """Its row in `trine.index.ANALYZERS`."""
    fingerprint: str
    """Changes whenever the terms could: counts made under another one do not match."""

    def terms(self, text: str) -> list[str]:
        """Terms in any order, each as often as it occurs."""
        ...


class BigramAnalyzer:
    """Words where a script has spaces, pairs of characters elsewhere and in Hangul; needs no dictionary.

    * Hangul: "검색했다" gives 검색, 색했, 했다, which finds a stem under any particle; one syllable stays as it is.
    * Ideographs, kana, Thai, Lao, Khmer, Burmese: pairs of characters.
    * Other words: lower case, English plurals and 's removed. A word with an inner dot, hyphen, underscore, capital
      or digit gives the whole and its parts: "snake_case" and "snakeCase" snakecase, snake, case; "v1.2" v1.2, v, 1, 2.
    * Emoji are terms of their own; other signs are not.

    Compatibility forms (full width, decomposed Hangul) and case make no difference. No stop words are left out. The
    parts of compound words gain .017 nDCG@10 on SciFact and cost .003 at most on four other sets.
    """

    name = "bigram"
    fingerprint = "bigram-1"

    def terms(self, text: str) -> list[str]:
        """Terms in the order of the text."""
        return [term for token in tokens(normalized(text)) for term in token_terms(token)]


def default_analyzer() -> str:
    """Name of the best analyzer that is installed: "kiwi" where kiwipiepy is, else "bigram"."""
    return "kiwi" if importlib.util.find_spec("kiwipiepy") else "bigram"


def normalized(text: str) -> str:
    """Compatibility composed (NFKC), without characters that show nothing; lone surrogates become spaces."""
    return unicodedata.normalize("NFKC", _INVISIBLE.sub("", _SURROGATE.sub(" ", text)))


def tokens(text: str) -> list[str]:
    """Runs of one kind in a normalized text: Hangul, a script without spaces, a word with its inner signs, an emoji."""
    return _TOKEN.findall(text)


def has_hangul(text: str) -> bool:
    """Whether there is a Hangul letter."""
    return _HANGUL_LETTER.search(text) is not None


def token_terms(token: str) -> tuple[str, ...]:
    """The terms of one token."""
    if len(token) <= _LONGEST:
        return _short_token_terms(token)
    return _bigrams(token) if _LETTER_RUNS.match(token) else (_folded(token[:_LONGEST]),)


@lru_cache(maxsize=1 << 16)
def _short_token_terms(token: str) -> tuple[str, ...]:
    return _bigrams(token) if _LETTER_RUNS.match(token) else _word_terms(token)


def _bigrams(run: str) -> tuple[str, ...]:
    return tuple(run[start : start + 2] for start in range(max(len(run) - 1, 1)))


def _word_terms(word: str) -> tuple[str, ...]:
    word = re.sub("['\u2019][sS]$", "", word).replace(",", "")
    split = _ASCII_PARTS if word.isascii() else _OTHER_PARTS
    parts = [part for piece in _SEPARATOR.split(word) for part in split.findall(piece)]
    whole = _singular(_folded(_GLUE.sub("", word)))
    folded = [_singular(_folded(part)) for part in parts]
    return (whole,) if folded in ([], [whole]) else (whole, *folded)


def _folded(word: str) -> str:
    return unicodedata.normalize("NFKC", word.casefold())


def _singular(word: str) -> str:
    """An English word without its plural ending: the S stemmer of Harman, "How Effective Is Suffixing?", 1991.

    On nDCG@10 it gains .003 on SciFact, .001 on SQuAD and .05 on Vaswani/NPL; it leaves short and non-ASCII words.
    """
    if len(word) < 4 or not word.endswith("s") or not word.isascii():
        return word
    if word.endswith("ies"):
        return word if word.endswith(("eies", "aies")) else word[:-3] + "y"
    if word.endswith("es"):
        return word if word.endswith(("aes", "ees", "oes")) else word[:-1]
    return word if word.endswith(("us", "ss")) else word[:-1]
