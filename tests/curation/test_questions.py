import unicodedata

import pytest

from trine.curation.questions import is_question, question_answers


@pytest.mark.parametrize(
    "text",
    [
        "어떻게 설치하나요?",
        "왜 느릴까",
        "환불은 언제 됩니까",
        "로그인이 안 되나요",
        "이것은 무엇인가요",
        "어디에 저장할까요",
        "캐시는 무엇인가",
        "어떻게 지우는지",
        unicodedata.normalize("NFD", "환불은 언제 됩니까"),
        "**Why is it slow?**",
        "What is BM25",
        "How to install",
        "(정말요？)",
        "これは何ですか",
        "你好吗",
    ],
)
def test_questions(text):
    assert is_question(text)


@pytest.mark.parametrize(
    "text",
    [
        "인증 및 인가",
        "대중가요",
        "비가 오니까",
        "설치하는지 확인",
        "How it works",
        "What we do",
        "도끼",
        "",
        "까",
        "질문과 답변",
    ],
)
def test_statements(text):
    assert not is_question(text)


def test_labelled_questions_and_answers():
    text = """머리말이다.

Q: 환불이 되나요?
구매 후 며칠까지요?
A: 7일 안에 됩니다.

영업일 기준입니다.
Q2. Can I pay by card
A2. Yes.
"""
    assert list(question_answers(text)) == [
        ("환불이 되나요? 구매 후 며칠까지요?", "7일 안에 됩니다.\n\n영업일 기준입니다."),
        ("Can I pay by card", "Yes."),
    ]


def test_korean_labels_lists_and_bold():
    text = "- **질문:** 배송은 얼마나 걸리나요\n- **답변:** 이틀 걸립니다.\n질문) 반품은?\n답) 됩니다."
    assert list(question_answers(text)) == [
        ("배송은 얼마나 걸리나요", "이틀 걸립니다."),
        ("반품은?", "됩니다."),
    ]


def test_bold_questions_need_no_answer_label():
    text = "**왜 느린가요?**\n\n디스크 때문이다.\n\n**주의**\n\n**Can I stop it?**\nYes, at once."
    assert list(question_answers(text)) == [
        ("왜 느린가요?", "디스크 때문이다.\n\n**주의**"),
        ("Can I stop it?", "Yes, at once."),
    ]


def test_a_label_may_stand_alone_on_its_line():
    assert list(question_answers("Q.\n\n왜 그런가요?\nA.\n\n그냥.")) == [("왜 그런가요?", "그냥.")]
    assert list(question_answers("Q: 왜 그런가요?\n\n그냥 그렇다.")) == [("왜 그런가요?", "그냥 그렇다.")]


@pytest.mark.parametrize(
    "text",
    [
        "A: an answer to nothing",
        "Q: 이것은 질문이 아니다\n그냥 글이다",
        "Q: 왜?",
        "Q:",
        "",
        "A. 첫째 항목\nB. 둘째 항목",
    ],
)
def test_halves_are_left_alone(text):
    assert list(question_answers(text)) == []
