"""Questions and their answers in running text: FAQ headings, "Q:/A:" and "질문/답변" blocks, bold questions."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator

from trine.curation.sections import bare

_MARK = re.compile(r"[?？⁇]+[\s\"'”’」』)\]）*_]*$")
_ENGLISH = re.compile(
    r"(?:what|why|how|when|where|which|who)(?:'s|\s+(?:is|are|was|were|do|does|did|can|could|should|would|will|to))\b",
    re.IGNORECASE,
)
_JAPANESE = re.compile(r"(?:です|ます|ません|でしょう|ました)か$")
_CHINESE = re.compile(r"[吗嗎]$")
_ASKING = re.compile("무엇|무슨|뭐|뭘|어떻게|어떤|어느|어디|언제|누구|누가|왜|몇|얼마")
_FINAL_NIEUN, _FINAL_RIEUL, _FINAL_PIEUP = 4, 8, 17

_EMPHASIS = r"(?:[-*+>]\s+)?(?:\*\*|__)?\s*"
_CLOSE = r"\s*(?:\*\*|__)?\s*[.:：)．]\s*(?:\*\*|__)?\s*"
_QUESTION_LABEL = re.compile(
    rf"{_EMPHASIS}(?:Q|Question|질문|질의|문|問|问)\s*\d{{0,3}}{_CLOSE}(?P<rest>.*)", re.IGNORECASE
)
_ANSWER_LABEL = re.compile(rf"{_EMPHASIS}(?:A|Answer|답변|답|응답|答)\s*\d{{0,3}}{_CLOSE}(?P<rest>.*)", re.IGNORECASE)
_BOLD_LINE = re.compile(r"(?:\*\*|__)(?P<rest>[^*_]+)(?:\*\*|__)\s*[:：]?\s*")


def is_question(text: str) -> bool:
    """Whether a heading or sentence asks: by its question mark, or by an ending that only questions have.

    Korean endings: 습니까, 할까(요), 하나요, 인가요; 는가, 은가, 인가 and 는지 only beside a question word, since
    인가 is also a noun (authorisation). 하니까 gives a reason and does not ask. English without a mark: "What is",
    "How to".
    """
    line = bare(unicodedata.normalize("NFC", text)).strip()
    if _MARK.search(line):
        return True
    return bool(_ENGLISH.match(line) or _JAPANESE.search(line) or _CHINESE.search(line)) or _asks_in_korean(line)


def question_answers(text: str) -> Iterator[tuple[str, str]]:
    """(question, answer) of each labelled or bold question in a section.

    "Q:" begins a question and "A:" its answer, which runs up to the next question. A question on a bold line of its
    own, or a labelled one that ends like a question, needs no "A:".
    """
    question: list[str] = []
    answer: list[str] | None = None
    for line in text.split("\n"):
        asked = _asked(line)
        if asked is not None:
            yield from _complete(question, answer)
            question, answer = [asked], None
        elif question and answer is None and (label := _ANSWER_LABEL.match(line.strip())):
            answer = [label["rest"]]
        elif answer is not None:
            answer.append(line)
        elif question:
            question.append(line)
    yield from _complete(question, answer)


def _asked(line: str) -> str | None:
    stripped = line.strip()
    label = _QUESTION_LABEL.match(stripped)
    if label:
        return label["rest"]
    bold = _BOLD_LINE.fullmatch(stripped)
    return bold["rest"] if bold and is_question(bold["rest"]) else None


def _complete(question: list[str], answer: list[str] | None) -> Iterator[tuple[str, str]]:
    if not question:
        return
    if answer is None:
        # No label: the question is its first line, or the one below a label that stands alone.
        lines = [line for line in question if line.strip()]
        if not lines or not is_question(lines[0]):
            return
        question, answer = lines[:1], question[question.index(lines[0]) + 1 :]
    asked, answered = " ".join(bare(line) for line in question).strip(), "\n".join(answer).strip()
    if asked and answered:
        yield asked, answered


def _asks_in_korean(line: str) -> bool:
    line = line.rstrip(" .!…")
    if line.endswith(("나요", "까요")):
        return line.endswith("나요") or _final(line, 3) == _FINAL_RIEUL
    if line.endswith("가요"):
        return _final(line, 3) == _FINAL_NIEUN
    if line.endswith("니까"):
        return _final(line, 3) == _FINAL_PIEUP
    if line.endswith("까"):
        return _final(line, 2) == _FINAL_RIEUL
    return line.endswith(("는가", "은가", "인가", "던가", "는지")) and _ASKING.search(line) is not None


def _final(line: str, back: int) -> int:
    """Number of the final consonant of the syllable `back` places from the end; 0 for none."""
    if len(line) < back or not "가" <= line[-back] <= "힣":
        return 0
    return (ord(line[-back]) - ord("가")) % 28
