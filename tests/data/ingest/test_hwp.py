import pytest

from data.samples import write_bomb, write_hwpx
from trine.data.ingest.hwp import _plain, read
from trine.data.sources import Limits
from trine.errors import DocumentError


def read_one(path):
    (document,) = read(path, name="a.hwpx", limits=Limits())
    return document


def test_paragraphs_headings_and_tables(tmp_path):
    path = tmp_path / "a.hwpx"
    write_hwpx(
        path,
        ["제1장 총칙", "이 규정은 연차휴가의 사용에 관한 사항을 정한다.", "# 샵 1. *별* a_b [괄호](x) <꺾쇠> 값|값"],
        table=[["구분", "일수"], ["1년차", "15일"]],
    )
    document = read_one(path)
    assert document.text.split("\n\n")[:-1] == [
        "제1장 총칙",
        "이 규정은 연차휴가의 사용에 관한 사항을 정한다.",
        "# 샵 1. *별* a_b [괄호](x) <꺾쇠> 값|값",
        "구분 | 일수\n1년차 | 15일",
    ]
    assert [heading.text for heading in document.headings] == ["제1장 총칙"]
    assert document.headings[0].start == 0


@pytest.mark.parametrize(
    ("markdown", "text"),
    [
        ("**굵은** *기운* ~~지운~~ 글", "굵은 기운 지운 글"),
        (r"\*별\* a\_b \# 1\. \\ \<t\>", r"*별* a_b # 1. \ <t>"),
        ("[링크](https://a.kr/b_c) 글", "링크 글"),
        ("앞 ![그림](assets/a.png) 뒤", "앞  뒤"),
        (r"| 가\|나 | 다 |", "가|나 | 다"),
        ("줄 끝  ", "줄 끝"),
    ],
)
def test_the_markup_that_unhwp_adds_is_taken_off_again(markdown, text):
    assert _plain(markdown) == text


@pytest.mark.parametrize(
    "data", [b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + b"\0" * 3000, b"PK\x03\x04" + b"\0" * 3000, b"hello" * 1000]
)
def test_broken_files_say_so_without_the_path(tmp_path, data):
    path = tmp_path / "a.hwp"
    path.write_bytes(data)
    with pytest.raises(DocumentError, match="broken") as raised:
        read_one(path)
    assert str(tmp_path) not in str(raised.value)


def test_a_zip_bomb_is_refused_before_it_is_opened(tmp_path):
    write_bomb(tmp_path / "a.hwpx", "Contents/section0.xml", megabytes=40)
    with pytest.raises(DocumentError, match="inflate"):
        read_one(tmp_path / "a.hwpx")
