"""Sentence boundaries by rule for Korean, English, Japanese and Chinese, without a model.

A boundary is claimed only on evidence; where it is lacking two sentences stay together, which costs retrieval less than
a sentence torn apart. Every scan is linear, or looks at a bounded window.
"""

from __future__ import annotations

import re
import unicodedata
from bisect import bisect_right
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from trine.data.graphemes import starts_grapheme

_QUOTES_CLOSING = "\"'”’»」』＂"
_CLOSING = _QUOTES_CLOSING + ")]}】》〉〕）］｝"
_OPENING = "\"'“‘«「『＂([{【《〈〔（［｛"
_FULL_WIDTH = "。！？｡．"

_CANDIDATE = re.compile(
    rf"(?P<stop>[.!?…‥{_FULL_WIDTH}]++)(?P<close>(?:[{re.escape(_CLOSING)}]|\[\d{{1,3}}\])*+)"
    r"|(?P<line>\n)"
    r"|(?P<soft>[다까요죠\u1161\u116d])(?=[^\S\n])"
)
_SPACE = re.compile(r"\s*+")
_BLANK_LINE = re.compile(r"[^\S\n]*+\n")
_INDENT = re.compile(r"[^\S\n]*+")
_LIST_ITEM = re.compile(
    r"(?:[-*+•·‣▪◦○●□■◇◆※▶►☞✓✔](?=\s)|[•·‣▪◦○●□■◇◆※▶►☞✓✔]|\d{1,3}[.)](?=\s)|[가나다라마바사아자차카타파하][.)](?=\s)"
    r"|[a-zA-Z]\)(?=\s)|\(\d{1,3}\)|\([가나다라마바사아자차카타파하]\)|[①-⑳]"
    r"|제\d{1,4}(?:장|절|조|항)(?:의\d{1,3})?[\s(]|#{1,6}\s|\|)"
)

_BEFORE_MORE = """
approx al ca capt cf col dept eq eqs est fig figs ft gen gov hon lt mr mrs ms dr mt prof rep rev sen sgt st univ ver
viz vs
"""
"""Abbreviations that a name, number or the rest of the clause follows."""
_BEFORE_NUMBER = """
app apr art aug ch chap dec ed ext feb jan jul jun mar no nos nov oct p par pp sec sep sept tel vol vols
"""
"""Abbreviations only before a digit; words of their own, or the end of a sentence, otherwise."""
_NEVER_LAST = frozenset(_BEFORE_MORE.split())
_LAST_UNLESS_NUMBER = frozenset(_BEFORE_NUMBER.split())
_INITIALISM = re.compile(r"(?:[A-Za-z]\.)+[A-Za-z]")
_NUMBERING = re.compile(r"\d+(?:\.\d+)*")
_LAST_TOKEN = re.compile(r"[^\s(\[{\"'“‘「『<（]*\Z")
_WINDOW = 24

_QUOTATIVE = re.compile(r"(?:이?라고|이?라며|이?라는|이?라면서|하고|하며|고|며|라던|란)(?![가-힣]{3})")
_JOINS_QUOTE = re.compile(r"[\u3041-\u309f]")
_IDEOGRAPHIC = re.compile(r"[\u3041-\u30ff\u3400-\u9fff\uac00-\ud7a3\u1100-\u1112]")
_HANGUL = re.compile(r"[\uac00-\ud7a3\u1100-\u1112]")

_POLITE = re.compile(r"(?:[어아해에예네세까군데래대지게나워려져와봐돼줘]요|.죠|^죠)\Z")
_PLAIN = re.compile(r"(?:[이같좋높낮깊맞]다|[있없었았였했겠됐갔왔됨함]음)\Z")
_FINAL_PIEUP = 17
_FINALS_BEFORE_DA = frozenset({4, 6, 17, 18, 20})
"""Final consonants ㄴ, ㄶ, ㅂ, ㅄ and ㅆ: 한다, 않다, 쉽다, 없다, 했다."""

_PAIRS = dict(zip("”’」』)]）》〉】", "“‘「『([（《〈【", strict=True))
"""Closing mark -> opening mark."""
_BRACKET = re.compile(r"[\"“”‘’「」『』()\[\]（）《》〈〉【】]|\n[^\S\n]*\n")
_LONGEST_ASIDE = 200
"""Quotations and brackets up to this many characters stay in one sentence; longer ones may be split inside."""
_DEEPEST_ASIDE = 8


def sentence_spans(text: str) -> NDArray[np.int64]:
    """(sentences, 2) start and end code point of each sentence, whitespace left out.

    The spans ascend, never overlap, cover every character that is not whitespace, and never cut what a reader sees as
    one character. A sentence ends at a stop (. ! ? … 。！？), at a blank line, before a list item, or without a stop
    after a Korean final ending: a formal or polite one (합니다, 해요) before a space, a plain one (했다, 있음) before a
    newline.
    """
    rows: list[tuple[int, int]] = []
    start = 0
    for end in (*_boundaries(text), len(text)):
        piece = text[start:end]
        kept = piece.strip()
        if kept:
            first = start + len(piece) - len(piece.lstrip())
            rows.append((first, first + len(kept)))
        start = end
    return np.array(rows, np.int64).reshape(-1, 2)


def _boundaries(text: str) -> Iterator[int]:
    asides = _asides(text)
    starts = [start for start, _ in asides]
    for match in _CANDIDATE.finditer(text):
        position = match.end()
        aside = bisect_right(starts, position - 1) - 1
        inside = aside >= 0 and position < asides[aside][1]
        if _is_boundary(text, match, inside) and starts_grapheme(text, position):
            yield position


def _is_boundary(text: str, match: re.Match[str], inside: bool) -> bool:
    if match.lastgroup == "line":
        return _ends_at_newline(text, match.start(), inside)
    if inside:
        return False
    if match.lastgroup == "soft":
        return _ends_softly(text, match.end())
    return _ends_at_stop(text, match)


def _asides(text: str) -> list[tuple[int, int]]:
    """Outermost short quotations and brackets as (opening, one past closing), ascending."""
    found: list[tuple[int, int]] = []
    waiting: list[tuple[str, int]] = []
    for match in _BRACKET.finditer(text):
        mark, position = match.group(), match.start()
        if mark[0] == "\n":
            waiting.clear()
            continue
        opening = _PAIRS.get(mark, mark)
        depth = next((d for d in range(len(waiting) - 1, -1, -1) if waiting[d][0] == opening), -1)
        if depth < 0 or (mark not in _PAIRS and mark != '"'):
            if mark not in _PAIRS:
                waiting = [*waiting[-_DEEPEST_ASIDE + 1 :], (mark, position)]
            continue
        start = waiting[depth][1]
        del waiting[depth:]
        if position - start <= _LONGEST_ASIDE:
            while found and found[-1][0] > start:
                found.pop()
            found.append((start, position + 1))
    return found


def _ends_at_newline(text: str, position: int, inside: bool) -> bool:
    if _BLANK_LINE.match(text, position + 1):
        return True
    indent = _INDENT.match(text, position + 1)
    if indent and _LIST_ITEM.match(_composed(text, indent.end(), indent.end() + _WINDOW)):
        return True
    return not inside and _is_final(_word_before(text, position))


def _ends_softly(text: str, position: int) -> bool:
    """A formal or polite ending with no stop after it, then a space and more Korean: '…했습니다 그리고'."""
    following = _SPACE.match(text, position)
    return (
        following is not None
        and _HANGUL.match(text, following.end()) is not None
        and not _is_quotative(text, following.end())
        and _is_polite(_word_before(text, position))
    )


def _ends_at_stop(text: str, match: re.Match[str]) -> bool:
    stops, closers = match.group("stop"), match.group("close")
    gap = _SPACE.match(text, match.end())
    following = gap.end() if gap else match.end()
    if following >= len(text):
        return True
    if stops[-1] in _FULL_WIDTH:
        attached = closers and (_JOINS_QUOTE.match(text, following) or following == match.end())
        return not attached and text[following] not in "、，,…"
    if following == match.end():
        return _ends_without_space(text, match, following)
    if closers and closers[-1] in _QUOTES_CLOSING and _is_quotative(text, following):
        return False
    first = text[following : following + 3].lstrip(_OPENING)[:1]
    if first.islower():
        return False
    return "!" in stops or "?" in stops or _ends_at_dot(text, match, first)


def _ends_without_space(text: str, match: re.Match[str], following: int) -> bool:
    """A stop directly before the next word: '했다.그리고', '뭐?정말'; a particle after a closing quote goes on."""
    stops = match.group("stop")
    if match.group("close") or not _IDEOGRAPHIC.match(text, following) or _is_quotative(text, following):
        return False
    return "?" in stops or "!" in stops or _is_final(_word_before(text, match.start()))


def _ends_at_dot(text: str, match: re.Match[str], first: str) -> bool:
    """Whether a full stop or ellipsis before a space ends the sentence; `first` is the next sentence's first letter."""
    position = match.start()
    if match.group("stop") != ".":
        return not _HANGUL.match(first) or _is_final(_word_before(text, position))
    found = _LAST_TOKEN.search(text[max(position - _WINDOW, 0) : position])
    start = position - (len(found.group()) if found else 0)
    word = _composed(text, start, position)
    if _NUMBERING.fullmatch(word):
        return not (first.isdigit() or _IDEOGRAPHIC.match(first) or _starts_line(text, start))
    if len(word) == 1 and word.isalpha():
        return not (word.isascii() or _starts_line(text, start))
    return not _is_abbreviation(word, first)


def _is_abbreviation(word: str, first: str) -> bool:
    lowered = word.lower()
    if lowered in ("a.m", "p.m"):
        return False
    if lowered in _LAST_UNLESS_NUMBER:
        return first.isdigit()
    return lowered in _NEVER_LAST or _INITIALISM.fullmatch(word) is not None


def _starts_line(text: str, position: int) -> bool:
    while position > 0 and text[position - 1] in " \t\u3000":
        position -= 1
    return position == 0 or text[position - 1] == "\n"


def _word_before(text: str, position: int) -> str:
    words = _composed(text, max(position - _WINDOW, 0), position).split()
    return words[-1] if words else ""


def _composed(text: str, start: int, end: int) -> str:
    """A short piece in NFC, so that decomposed Korean (as macOS writes it) compares alike."""
    return unicodedata.normalize("NFC", text[start:end])


def _is_quotative(text: str, position: int) -> bool:
    return _QUOTATIVE.match(_composed(text, position, position + _WINDOW)) is not None


def _is_final(word: str) -> bool:
    """Whether a Korean word closes a sentence, judged by its ending alone."""
    if _is_polite(word) or _PLAIN.search(word):
        return True
    return len(word) > 1 and word[-1] == "다" and _final_consonant(word[-2]) in _FINALS_BEFORE_DA


def _is_polite(word: str) -> bool:
    """합니다, 입니까, 해요, 그렇죠; not 하니까, which joins clauses."""
    if len(word) > 2 and word[-2:] in ("니다", "니까"):
        return _final_consonant(word[-3]) == _FINAL_PIEUP
    return _POLITE.search(word) is not None


def _final_consonant(syllable: str) -> int:
    """Number of a Hangul syllable's final consonant in Unicode order, 0 without one, -1 for anything else."""
    return (ord(syllable) - 0xAC00) % 28 if "가" <= syllable <= "힣" else -1
