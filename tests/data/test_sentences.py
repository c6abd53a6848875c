import unicodedata

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from trine.data.graphemes import starts_grapheme
from trine.data.sentences import sentence_spans

CASES = {
    "Korean stops": ["연차휴가는 15일입니다.", " 이월은 안 됩니다!", " 문의하시겠습니까?", " 네."],
    "formal endings without stops": ["오늘 회의는 취소됐습니다", " 다음 주에 다시 잡겠습니다", " 감사합니다"],
    "polite endings without stops": ["정말 좋네요", " 그래서 또 갔어요", " 다음에 또 가죠"],
    "a connective is no ending": ["비가 오니까 우산을 챙겼고 바다 근처에서 필요 없는 것을 샀다."],
    "plain endings before newlines": ["첫 줄은 이렇게 끝난다", "\n둘째 줄은 여기 있음", "\n셋째 줄은\n바뀐 줄이다."],
    "quotation with a particle": ["그는 “내일 갈게요. 꼭.”라고 말했다.", " 나는 웃었다."],
    "quotation and a space": ["그는 “내일 갈게요.” 라고 말했다.", " 나는 “그래.” 하고 웃었다."],
    "dates and decimals": ["2024. 5. 3. 금요일에 3.5점을 받았다.", " 버전은 1.10이다."],
    "no space after the stop": ["회의를 했다.", "그리고 갔다.", " 주소는 https://a.kr/b.c?d=1 이다."],
    "ellipsis": ["음... 글쎄요.", " 그건… 좀 어렵다…", " 다음에 보자."],
    "brackets": ["(참고. 괄호 안의 문장. 끝) 밖의 문장이다.", " 끝났다."],
    "numbered list": [
        "1. 목적",
        "\n가. 이 규정은 휴가를 정한다.",
        "\n나. 범위",
        "\n- 정규직",
        "\n- 계약직",
        "\n① 첫째",
        "\n(2) 둘째",
    ],
    "articles of a law": ["제1조(목적) 이 법은 목적으로 한다.", "\n제2조의2(정의) 뜻은 다음과 같다."],
    "table rows": ["| 구분 | 일수 |", "\n| 1년차 | 15일 |"],
    "English": ["Dr. Smith met Mr. J. K. Lee in Washington, D.C. on Jan. 5, e.g. at noon.", " Was it over?", " Yes!"],
    "abbreviation or word": ["No.", " See No. 5 and Fig. 3. of vol. 2, pp. 10.", " It ended at 5 p.m.", " They left."],
    "English numbers": ["It cost 3.14 dollars...", " Then it fell in 1990.", " Five left."],
    "lower case goes on": ["Yahoo! is a company and www.a.com. is not."],
    "English quotation": ['She said "No. I won\'t. Ever." and left.', " He nodded."],
    "citation mark": ["일상의 중심이었다.[79]", " 그리스인들은 썼다.[8][9]", " 끝."],
    "Japanese": ["彼は「はい。そうです。」と言った。", "今日は雨です。", "行きますか？", "はい！"],
    "Chinese": ["你好。", "我是学生！", "你呢？", "“很好。”他说。", "（注。）完。"],
    "emoji": ["좋아요!", " 👨\u200d👩\u200d👧 가족이다.", " 👍🏽"],
    "blank line": ["제목 없는 글", "\n\n다음 문단"],
}
NFD_SAFE = [name for name in CASES if name not in ("Japanese", "Chinese")]


@pytest.mark.parametrize("name", CASES)
def test_sentences(name):
    pieces = CASES[name]
    text = "".join(pieces)
    assert [text[start:end] for start, end in sentence_spans(text)] == [piece.strip() for piece in pieces]


@pytest.mark.parametrize("name", NFD_SAFE)
def test_decomposed_text_gives_the_same_sentences(name):
    text = unicodedata.normalize("NFD", "".join(CASES[name]))
    found = [unicodedata.normalize("NFC", text[start:end]) for start, end in sentence_spans(text)]
    assert found == [unicodedata.normalize("NFC", piece.strip()) for piece in CASES[name]]


@pytest.mark.parametrize("text", ["", " ", "\n\n\t", "\u3000"])
def test_nothing_but_space_has_no_sentence(text):
    spans = sentence_spans(text)
    assert spans.shape == (0, 2)
    assert spans.dtype == np.int64


def test_a_long_quotation_may_be_split_inside():
    text = "“" + "아주 긴 인용문이다. " * 40 + "”"
    assert len(sentence_spans(text)) > 30


def test_a_stop_with_a_mark_on_it_is_not_torn_off():
    text = "끝。\ufe0f다음。\u0301셋。넷"
    assert [text[start:end] for start, end in sentence_spans(text)] == ["끝。\ufe0f다음。\u0301셋。", "넷"]


def test_an_unclosed_bracket_does_not_swallow_the_text():
    text = "(닫지 않은 괄호다. 다음 문장이다. 그 다음이다."
    assert len(sentence_spans(text)) == 3


PIECES = st.sampled_from(
    [
        "합니다",
        "했다",
        "요",
        ". ",
        "。",
        "?",
        "!",
        "…",
        "\n",
        "\n\n",
        " ",
        "“",
        "”",
        "(",
        ")",
        '"',
        "1.",
        "가.",
        "- ",
        "e\u0301",
    ]
    + [
        "A",
        "b",
        "Dr.",
        "라고",
        "👨\u200d👩",
        "\u200d",
        "\u1112\u1161\u11ab",
        "\u1161",
        "🇰🇷",
        "\u0301",
        "\ufe0f",
        "\ud800",
        "\0",
        "|",
        "「",
        "」",
        "と",
    ]
)


@given(st.lists(PIECES, max_size=40).map("".join) | st.text(max_size=80))
def test_spans_cover_all_text_in_order_and_cut_no_character(text):
    covered = 0
    for start, end in sentence_spans(text).tolist():
        assert covered <= start < end
        assert not text[covered:start].strip()
        assert not text[start].isspace()
        assert not text[end - 1].isspace()
        assert starts_grapheme(text, start) or text[start - 1].isspace()
        covered = end
    assert not text[covered:].strip()
