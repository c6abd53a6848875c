import pytest

from trine.curation.sections import bare, pieces, sections, without_first_lines, word_spans
from trine.curation.texts import canonical
from trine.data.ingest.markdown import find_headings
from trine.errors import UsageError
from trine.types import Document, Heading

TEXT = """앞말이 있다.

# 설치

## 리눅스

apt로 설치한다.

## 윈도
내려받아 실행한다.

Usage
=====
Run it.
"""


def document(text, **fields):
    return Document("d.md", text, headings=find_headings(text), **fields)


def test_sections_follow_the_headings():
    found = [(part.path, part.level, part.text) for part in sections(document(TEXT))]
    assert found == [
        ((), 0, "앞말이 있다."),
        (("설치",), 1, ""),
        (("설치", "리눅스"), 2, "apt로 설치한다."),
        (("설치", "윈도"), 2, "내려받아 실행한다."),
        (("Usage",), 1, "Run it."),
    ]


def test_a_text_without_headings_is_one_section():
    assert [part.text for part in sections(Document("d", " just text \n"))] == ["just text"]
    assert sections(Document("d", "  \n")) == []


def test_a_heading_may_end_the_text():
    assert [part.text for part in sections(document("# A\n\ntext\n\n## B"))] == ["text", ""]


@pytest.mark.parametrize("starts", [(3, 1), (2, 2), (0, 99), (-1, 2)])
def test_headings_that_do_not_fit_the_text_are_refused(starts):
    headings = [Heading(start, 1, "x") for start in starts]
    with pytest.raises(UsageError, match="'d.md'.*must ascend"):
        sections(Document("d.md", "some text", headings=headings))


def test_pieces_hold_the_whole_text_within_the_budget():
    text = " ".join(f"문장 번호 {number}은 여기서 끝난다." for number in range(60))
    cut = pieces(text, max_tokens=40)
    assert len(cut) > 5
    assert " ".join(cut) == text
    assert all(len(word_spans(piece)) <= 40 for piece in cut)


def test_words_signs_and_pairs_of_hangul_count():
    text = "검색엔진, fast-search!"
    assert [text[start:end] for start, end in word_spans(text)] == ["검색", "엔진", ",", "fast", "-", "search", "!"]


def test_markup_goes_from_around_a_line():
    assert bare("## **설치 방법:** ") == "설치 방법"
    assert bare("C# and F") == "C# and F"


def test_lines_that_repeat_the_query_go_from_the_start_only():
    text = "**설치 방법**\n\n# Guide\n설치 방법\n은 이렇다.\n설치 방법"
    assert without_first_lines(text, ["설치 방법", "guide"], spelling=canonical) == "은 이렇다.\n설치 방법"
    assert without_first_lines("설치 방법", ["설치 방법"], spelling=canonical) == ""
    assert without_first_lines("---\ntext", [""], spelling=canonical) == "---\ntext"
