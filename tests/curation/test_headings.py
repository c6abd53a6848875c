import pytest

from trine.curation.headings import GENERIC, is_generic, unnumbered


@pytest.mark.parametrize(
    "heading",
    ["Overview", "1. OVERVIEW:", "개요", "## 1.2. 개 요", "참고문헌", "자주 묻는 질문", "概要", "What's next"],
)
def test_headings_that_need_their_title(heading):
    assert is_generic(heading)


@pytest.mark.parametrize("heading", ["Overview of chaos engineering", "설치 오류 해결", "컨테이너", "examples.com"])
def test_headings_that_stand_alone(heading):
    assert not is_generic(heading)


@pytest.mark.parametrize(
    ("heading", "plain"),
    [
        ("1. 설치", "설치"),
        ("2.3) Set up", "Set up"),
        ("IV. Results", "Results"),
        ("가. 목적", "목적"),
        ("① 신청", "신청"),
        ("3 ways to fail", "3 ways to fail"),
        ("2.0 release", "2.0 release"),
        ("제3조 (정의)", "제3조 (정의)"),
        ("**굵은 제목**", "굵은 제목"),
        ("1.", "1."),
    ],
)
def test_numbering_goes_and_numbers_stay(heading, plain):
    assert unnumbered(heading) == plain


def test_the_list_has_no_empty_entry():
    assert "" not in GENERIC
    assert len(GENERIC) > 100
