import pytest

from trine.data.ingest.html import read
from trine.data.sources import Limits
from trine.errors import DocumentError

PAGE = """<!doctype html><html><head><title>휴가 규정 안내</title><style>p {color: red}</style></head><body>
<nav><a href="/">처음</a> <a href="/about">소개</a></nav>
<main><h1>휴가 <em>규정</em></h1><p>이 문서는 휴가에 대해<br>설명합니다.</p>
<h2>연차</h2><p>연차는 <b>15일</b>입니다.</p>
<ul><li>첫째</li><li><p>둘째</p><ul><li>안쪽</li></ul></li></ul>
<table><tr><th>구분</th><th>일수</th></tr><tr><td>1년차</td><td>15</td></tr></table>
<pre><code>def f():
    return 1</code></pre></main>
<script>var x = "숨은 글"</script><footer>저작권</footer></body></html>"""


def read_one(path, data):
    path.write_bytes(data if isinstance(data, bytes) else data.encode())
    (document,) = read(path, name="a.html", limits=Limits())
    return document


def test_main_text_headings_lists_tables_and_code(tmp_path):
    document = read_one(tmp_path / "a.html", PAGE)
    assert document.title == "휴가 규정 안내"
    assert document.text == (
        "휴가 규정\n\n이 문서는 휴가에 대해\n설명합니다.\n\n연차\n\n연차는 15일입니다.\n\n- 첫째\n- 둘째\n- 안쪽\n\n"
        "구분 | 일수\n1년차 | 15\n\ndef f():\n    return 1\n\n"
    )
    assert [(heading.level, heading.text) for heading in document.headings] == [(1, "휴가 규정"), (2, "연차")]
    assert all(document.text[heading.start :].startswith(heading.text) for heading in document.headings)


@pytest.mark.parametrize("hidden", ["처음", "소개", "숨은 글", "저작권", "color"])
def test_navigation_scripts_and_styles_are_left_out(tmp_path, hidden):
    assert hidden not in read_one(tmp_path / "a.html", PAGE).text


def test_a_page_that_is_only_a_table_is_kept_whole(tmp_path):
    rows = "".join(f"<tr><td>{number}번</td><td>값 {number}</td></tr>" for number in range(30))
    text = read_one(tmp_path / "a.html", f"<table>{rows}</table>").text
    assert [line for line in text.split("\n") if line][-1] == "29번 | 값 29"
    assert text.count("|") == 30


def test_layout_tables_keep_their_blocks_apart(tmp_path):
    source = "<table><tr><td><h2>제목</h2><p>왼쪽 글입니다.</p></td><td><p>오른쪽 글입니다.</p></td></tr></table>"
    document = read_one(tmp_path / "a.html", source)
    assert "|" not in document.text
    assert [heading.text for heading in document.headings] == ["제목"]


@pytest.mark.parametrize(
    "declaration",
    ['<meta charset="euc-kr">', '<meta http-equiv=Content-Type content="text/html; charset=ks_c_5601-1987">', ""],
)
def test_korean_charsets(tmp_path, declaration):
    source = f"<html><head>{declaration}</head><body><p>똠방각하의 휴가 규정입니다.</p></body></html>"
    assert read_one(tmp_path / "a.html", source.encode("cp949")).text == "똠방각하의 휴가 규정입니다.\n\n"


def test_an_xml_declaration_does_not_stop_it(tmp_path):
    source = '<?xml version="1.0" encoding="utf-8"?>\n<html xmlns="http://www.w3.org/1999/xhtml"><body><p>본문</p></body></html>'
    assert read_one(tmp_path / "a.xhtml", source).text == "본문\n\n"


def test_a_fragment_without_html_or_body(tmp_path):
    assert read_one(tmp_path / "a.html", "<p>한 문단</p>").text == "한 문단\n\n"


@pytest.mark.parametrize(
    "source", ["<html><body></body></html>", "<!-- only a comment -->", "<div>" * 100_000 + "깊은 글"]
)
def test_a_page_without_text_says_so(tmp_path, source):
    with pytest.raises(DocumentError):
        read_one(tmp_path / "a.html", source)


def test_invisible_elements_are_left_out(tmp_path):
    source = '<p>보이는 글</p><p hidden>숨긴 글</p><p style="display: none">지운 글</p>'
    assert read_one(tmp_path / "a.html", source).text == "보이는 글\n\n"
