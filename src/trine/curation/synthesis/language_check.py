"""Whether a text is in the language that was asked for: by its letters, and for Latin ones by English's small words."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter

from trine.curation.synthesis.languages import LANGUAGES, Language
from trine.curation.texts import DENSE_WEIGHT, length_of
from trine.models.scripts import script

_LONG = 80
"""From so many Latin characters on (`length_of`), a text is held to more: a query may be little but names."""
_LEAST, _LEAST_SHORT = 0.4, 0.15
"""Least share of the letters in the language's own scripts. The 88 Korean files of demo/documents, code and all, have
0.47 and more, a syllable counting two; short queries have less ("Kubernetes HPA 설정": 0.24)."""
_DENSE = frozenset(("HANGUL", "CJK", "HIRAGANA", "KATAKANA", "KATAKANA-HIRAGANA"))
_KANA = ("HIRAGANA", "KATAKANA", "KATAKANA-HIRAGANA")
_MOST_KANA = 0.1
"""Share of kana from which a text with ideographs is Japanese."""
_WORD = re.compile(r"[^\W\d_]+")
_ONLY_ENGLISH = frozenset(
    ("the", "and", "with", "this", "that", "which", "from", "your", "their", "would", "should", "there", "because")
)
_ENGLISH = _ONLY_ENGLISH | {
    "of",
    "to",
    "in",
    "is",
    "a",
    "an",
    "for",
    "it",
    "you",
    "i",
    "on",
    "my",
    "how",
    "what",
    "are",
    "be",
}
_SURE = 0.035
"""Share of words that only English has from which a text is English; the 86 English files of demo/documents have 0.039
to 0.153."""
_ENOUGH_WORDS = 25
_SURE_OF = {"HANGUL": "ko", "THAI": "th", "GREEK": "el", "HEBREW": "he", "GEORGIAN": "ka", "ARMENIAN": "hy"}


def is_in(text: str, language: Language) -> bool:
    """Whether a text can be in a language; text without letters can be in any.

    Languages that share their letters are not told apart, but for English among those in Latin letters and for Chinese
    and Japanese.
    """
    counts = _letters(text)
    total = sum(counts.values())
    if not total:
        return True
    least = _LEAST if length_of(text) >= _LONG else _LEAST_SHORT
    if sum(counts[name] for name in language.scripts) < least * total:
        return False
    kana = sum(counts[name] for name in _KANA)
    if language.code == "zh":
        return kana < _MOST_KANA * total
    if language.code == "ja":
        return kana >= _MOST_KANA * total or length_of(text) < _LONG
    return _is_english_where_it_should(text, language) if "LATIN" in language.scripts else True


def guessed(text: str) -> Language | None:
    """The language of a text where its letters, or English's small words, are proof enough; else None."""
    counts = _letters(text)
    if not counts:
        return None
    kana, (name, count) = sum(counts[part] for part in _KANA), counts.most_common(1)[0]
    if counts["HANGUL"] >= _LEAST * sum(counts.values()):
        return LANGUAGES["ko"]
    if name in (*_KANA, "CJK"):
        return LANGUAGES["ja" if kana >= _MOST_KANA * sum(counts.values()) else "zh"]
    if name == "LATIN":
        return LANGUAGES["en"] if _english_share(text) >= _SURE else None
    return LANGUAGES[_SURE_OF[name]] if name in _SURE_OF and count > sum(counts.values()) / 2 else None


def _letters(text: str) -> Counter[str]:
    """Letters by writing system; one of Hangul, kana or ideographs counts `DENSE_WEIGHT`."""
    counts = Counter(script(letter) for letter in unicodedata.normalize("NFKC", text) if letter.isalpha())
    return Counter({name: count * (DENSE_WEIGHT if name in _DENSE else 1) for name, count in counts.items()})


def _is_english_where_it_should(text: str, language: Language) -> bool:
    words = _WORD.findall(text.lower())
    if language.code == "en":
        return len(words) < _ENOUGH_WORDS or not _ENGLISH.isdisjoint(words)
    return _english_share(text) < _SURE or len(words) < _ENOUGH_WORDS


def _english_share(text: str) -> float:
    words = _WORD.findall(text.lower())
    return sum(word in _ONLY_ENGLISH for word in words) / len(words) if words else 0.0
