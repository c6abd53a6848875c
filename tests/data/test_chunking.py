import re
import unicodedata

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from trine.data.chunking import Chunking, chunk
from trine.data.graphemes import starts_grapheme
from trine.errors import UsageError
from trine.types import Document, Heading


def words(text):
    """A tokenizer: every run of letters, every other visible character."""
    return np.array([match.span() for match in re.finditer(r"\w+|[^\w\s]", text)], np.int64).reshape(-1, 2)


def characters(text):
    return np.array([(at, at + 1) for at, character in enumerate(text) if not character.isspace()]).reshape(-1, 2)


def utf8_bytes(text):
    """As byte-level BPE without merges: several tokens share one code point."""
    rows = [(at, at + 1) for at, character in enumerate(text) for _ in character.encode("utf-8", "surrogatepass")]
    return np.array(rows, np.int64).reshape(-1, 2)


def one_token(text):
    """As WordPiece on a word beyond its limit: everything is one unknown token."""
    return np.array([(0, len(text))], np.int64)


TOKENIZERS = [words, characters, utf8_bytes, one_token]


def passages(text, *, spans=words, title="", headings=(), **lengths):
    return chunk(Document("d", text, title, {}, headings), spans=spans, chunking=Chunking(**lengths))


def texts(found):
    return [passage.text for passage in found]


def headings_of(text):
    """Markdown-like headings, for tests."""
    return [
        Heading(match.start(), len(match.group(1)), match.group(2))
        for match in re.finditer(r"^(#+) (.+)$", text, re.MULTILINE)
    ]


def test_paragraphs_are_joined_up_to_the_budget():
    text = "하나 둘 셋\n\n넷 다섯 여섯\n\n일곱 여덟 아홉 열\n"
    found = passages(text, max_tokens=8)
    assert texts(found) == ["하나 둘 셋\n\n넷 다섯 여섯", "일곱 여덟 아홉 열"]
    assert [(passage.ordinal, passage.line, passage.start) for passage in found] == [(0, 1, 0), (1, 5, 17)]
    assert {passage.document_id for passage in found} == {"d"}


def test_a_long_paragraph_is_cut_at_korean_sentences():
    text = "연차휴가는 열다섯 날을 줍니다. 남은 날은 다음 해로 넘기지 않습니다. 자세한 것은 인사팀에 물어보세요."
    assert texts(passages(text, max_tokens=9)) == [
        "연차휴가는 열다섯 날을 줍니다.",
        "남은 날은 다음 해로 넘기지 않습니다.",
        "자세한 것은 인사팀에 물어보세요.",
    ]


def test_a_long_sentence_is_cut_at_a_line_then_a_space_then_a_token():
    lines = "a b c d e f\ng h i j k l"
    assert texts(passages(lines, max_tokens=8)) == ["a b c d e f", "g h i j k l"]
    assert texts(passages("a b c d e f g h i j", max_tokens=8)) == ["a b c d e f g h", "i j"]
    assert texts(passages("가나다라마바사아자차", spans=characters, max_tokens=8)) == ["가나다라마바사아", "자차"]


def test_a_word_is_not_torn_where_a_space_is_near():
    assert texts(passages("aaaa bb cccccc", spans=characters, max_tokens=10)) == ["aaaa bb", "cccccc"]


def test_a_line_folded_into_one_token_is_still_cut():
    found = passages("x" * 1000, spans=one_token, max_tokens=8)
    assert max(len(passage.text) for passage in found) < 9 * 32
    assert "".join(texts(found)) == "x" * 1000


def test_no_passage_crosses_a_heading_and_titles_carry_the_path():
    text = "머리말\n# 휴가\n일반\n## 연차\n열다섯 날\n## 병가\n예순 날\n# 급여\n매달\n"
    found = passages(text, title="규정", headings=headings_of(text))
    assert [(passage.title, passage.text, passage.line) for passage in found] == [
        ("규정", "머리말", 1),
        ("규정 > 휴가", "일반", 3),
        ("규정 > 휴가 > 연차", "열다섯 날", 5),
        ("규정 > 휴가 > 병가", "예순 날", 7),
        ("규정 > 급여", "매달", 9),
    ]


def test_a_title_repeated_as_heading_is_said_once():
    text = "# 규정\n\n## 연차\n본문"
    assert [passage.title for passage in passages(text, title=" 규정 ", headings=headings_of(text))] == ["규정 > 연차"]


def test_a_heading_with_nothing_below_it_is_its_own_passage():
    text = "# 위\n## 빈 절\n\n## 찬 절\n본문\n# 끝"
    found = passages(text, headings=headings_of(text))
    assert [(passage.title, passage.text) for passage in found] == [
        ("위", "## 빈 절"),
        ("위 > 찬 절", "본문"),
        ("", "# 끝"),
    ]


def test_an_underlined_heading_leaves_no_underline_behind():
    text = "제목\n=====\n본문\n\n둘째\n---\n더"
    found = passages(text, headings=[Heading(0, 1, "제목"), Heading(13, 2, "둘째")])
    assert [(passage.title, passage.text) for passage in found] == [("제목", "본문"), ("제목 > 둘째", "더")]


def test_a_heading_as_long_as_a_paragraph_is_text():
    text = "# " + "아주 긴 제목 " * 40
    found = passages(text, headings=headings_of(text))
    assert "".join("".join(texts(found)).split()) == "".join(text.split())
    assert {passage.title for passage in found} == {""}


@pytest.mark.parametrize("starts", [[5, 2], [3, 3], [0, 99], [-1]])
def test_headings_out_of_order_or_range_are_refused(starts):
    with pytest.raises(UsageError, match="ascend"):
        passages("열 글자가 조금 넘는 글", headings=[Heading(start, 1, "h") for start in starts])


@pytest.mark.parametrize("text", ["", "  \n\t\n", "\u3000"])
def test_an_empty_document_has_no_passages(text):
    assert passages(text) == []


def test_text_that_gives_no_tokens_is_kept():
    assert texts(passages("🙂", spans=lambda text: np.zeros((0, 2), np.int64))) == ["🙂"]


def test_overlap_repeats_whole_sentences():
    text = " ".join(f"{number}번 문장은 이렇게 끝난다." for number in range(1, 9))
    found = passages(text, max_tokens=20, overlap_tokens=6)
    assert texts(found)[:2] == [
        "1번 문장은 이렇게 끝난다. 2번 문장은 이렇게 끝난다. 3번 문장은 이렇게 끝난다. 4번 문장은 이렇게 끝난다.",
        "4번 문장은 이렇게 끝난다. 5번 문장은 이렇게 끝난다. 6번 문장은 이렇게 끝난다. 7번 문장은 이렇게 끝난다.",
    ]


def test_overlap_repeats_words_where_there_are_no_sentences():
    found = passages(" ".join("abcdefghijklmnop"), max_tokens=8, overlap_tokens=2)
    assert texts(found) == ["a b c d e f", "e f g h i j k l", "k l m n o p"]


def test_overlap_repeats_characters_where_there_are_no_spaces():
    found = passages("가나다라마바사아자차카타", spans=characters, max_tokens=8, overlap_tokens=2)
    assert texts(found) == ["가나다라마바", "마바사아자차카타"]


def test_overlap_never_reaches_across_a_heading():
    text = "하나 둘 셋 넷 다섯 여섯\n# 새 절\n일곱 여덟"
    assert texts(passages(text, max_tokens=8, overlap_tokens=4, headings=headings_of(text)))[-1] == "일곱 여덟"


@pytest.mark.parametrize(
    "lengths", [{"max_tokens": 7}, {"max_tokens": 20, "overlap_tokens": 11}, {"overlap_tokens": -1}]
)
def test_lengths_that_cannot_be_kept_are_refused(lengths):
    with pytest.raises(UsageError, match=str(next(reversed(lengths.values())))):
        Chunking(**lengths)


def test_spans_are_asked_for_once_with_the_whole_text():
    asked = []

    def spans(text):
        asked.append(text)
        return words(text)

    text = "하나.\n\n" * 200
    assert len(passages(text, spans=spans, max_tokens=8)) > 10
    assert asked == [text]


def test_decomposed_korean_is_not_cut_inside_a_syllable():
    text = unicodedata.normalize("NFD", "값싼물건을많이샀다가후회했다" * 5)
    found = passages(text, spans=characters, max_tokens=8)
    assert "".join(texts(found)) == text
    assert all(starts_grapheme(text, passage.start) for passage in found)


FRAGMENTS = st.sampled_from(
    [
        "연차 휴가",
        "합니다. ",
        "했다\n",
        "\n\n",
        "\n",
        " ",
        "\t",
        "# 제목\n",
        "## 소제목\n",
        "\n===\n",
        "e\u0301\u0301",
        "👨\u200d👩",
    ]
    + [
        "🇰🇷",
        "\u1112\u1161\u11ab",
        "x" * 70,
        "- 항목\n",
        "1. 하나\n",
        "A sentence. ",
        "。",
        "...",
        "(",
        "”",
        "\u3000",
        "\ud800",
    ]
)
DOCUMENTS = st.lists(FRAGMENTS, max_size=60).map("".join)


@given(
    text=DOCUMENTS,
    spans=st.sampled_from(TOKENIZERS),
    max_tokens=st.integers(8, 40),
    overlap=st.sampled_from([0, 0, 1, 4]),
)
def test_offsets_order_budget_and_lines_hold_for_any_text(text, spans, max_tokens, overlap):
    tokens = spans(text)
    last_start = last_end = -1
    for number, passage in enumerate(
        passages(text, spans=spans, max_tokens=max_tokens, overlap_tokens=overlap, headings=headings_of(text))
    ):
        assert passage.text == text[passage.start : passage.end]
        assert passage.text == passage.text.strip() != ""
        assert passage.ordinal == number
        assert passage.line == text.count("\n", 0, passage.start) + 1
        assert passage.start > last_start
        assert passage.end > last_end
        inside = (tokens[:, 1] > passage.start) & (tokens[:, 0] < passage.end)
        assert inside.sum() <= max_tokens
        assert not any(passage.start < heading.start < passage.end for heading in headings_of(text))
        last_start, last_end = passage.start, passage.end


@given(text=DOCUMENTS, spans=st.sampled_from(TOKENIZERS), max_tokens=st.integers(8, 40))
def test_without_headings_every_visible_character_is_in_exactly_one_passage(text, spans, max_tokens):
    found = passages(text, spans=spans, max_tokens=max_tokens)
    assert "".join("".join(texts(found)).split()) == "".join(text.split())


@given(text=DOCUMENTS, max_tokens=st.integers(8, 40))
def test_with_headings_every_visible_character_is_in_a_passage_or_a_heading(text, max_tokens):
    headings = headings_of(text)
    covered = np.zeros(len(text) + 1, bool)
    for passage in passages(text, max_tokens=max_tokens, headings=headings):
        covered[passage.start : passage.end] = True
    for heading in headings:
        end = text.find("\n", heading.start)
        covered[heading.start : len(text) if end < 0 else end] = True
    left = "".join(character for at, character in enumerate(text) if not covered[at])
    assert not left.replace("=", "").replace("-", "").strip()


@given(text=DOCUMENTS, max_tokens=st.integers(8, 40))
def test_every_heading_is_found_in_a_title_or_a_text(text, max_tokens):
    headings = headings_of(text)
    found = passages(text, max_tokens=max_tokens, headings=headings)
    searchable = "\n".join(passage.content for passage in found)
    assert all(" ".join(heading.text.split()) in " ".join(searchable.split()) for heading in headings)
