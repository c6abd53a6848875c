import docx
import pytest
from docx.oxml import parse_xml
from docx.oxml.ns import nsdecls

from data.samples import write_bomb
from trine.data.ingest.docx import read
from trine.data.sources import Limits
from trine.errors import DocumentError


def read_back(document, path):
    document.save(str(path))
    (result,) = read(path, name="a.docx", limits=Limits())
    return result


def insert(document, xml):
    document.element.body.insert(len(document.element.body) - 1, parse_xml(xml))


def test_headings_paragraphs_and_tables_in_order(tmp_path):
    document = docx.Document()
    document.add_heading("연차", 1)
    document.add_paragraph("연차는 15일이다.\n둘째 줄\t칸")
    table = document.add_table(2, 2)
    for number, text in enumerate(["구분", "일\n수", "1년차", "15"]):
        table.cell(number // 2, number % 2).text = text
    document.add_heading("병가", 2)
    document.add_paragraph("예순 날")
    result = read_back(document, tmp_path / "a.docx")
    assert result.text == "연차\n\n연차는 15일이다.\n둘째 줄\t칸\n\n구분 | 일 수\n1년차 | 15\n\n병가\n\n예순 날\n\n"
    assert [(heading.level, heading.text) for heading in result.headings] == [(1, "연차"), (2, "병가")]
    assert all(result.text[heading.start :].startswith(heading.text) for heading in result.headings)
    assert result.title == "연차"


def test_title_comes_from_properties_or_the_title_style(tmp_path):
    document = docx.Document()
    document.add_heading("취업 규칙", 0)
    document.add_heading("총칙", 1)
    assert read_back(document, tmp_path / "a.docx").title == "취업 규칙"
    document.core_properties.title = "속성의 제목"
    assert read_back(document, tmp_path / "b.docx").title == "속성의 제목"


def test_outline_levels_and_korean_style_names_are_headings(tmp_path):
    document = docx.Document()
    style = document.styles.add_style("제목 2", docx.enum.style.WD_STYLE_TYPE.PARAGRAPH)
    document.add_paragraph("한글 스타일", style=style)
    paragraph = document.add_paragraph("개요 수준")
    paragraph._p.get_or_add_pPr().append(parse_xml(f'<w:outlineLvl {nsdecls("w")} w:val="2"/>'))
    document.add_paragraph("본문")
    headings = read_back(document, tmp_path / "a.docx").headings
    assert [(heading.level, heading.text) for heading in headings] == [(2, "한글 스타일"), (3, "개요 수준")]


def test_content_controls_insertions_and_text_boxes_are_read_deletions_are_not(tmp_path):
    document = docx.Document()
    w = nsdecls("w")
    insert(document, f"<w:sdt {w}><w:sdtContent><w:p><w:r><w:t>양식 칸</w:t></w:r></w:p></w:sdtContent></w:sdt>")
    insert(
        document,
        f"<w:p {w}><w:ins w:id='1'><w:r><w:t>넣은 글</w:t></w:r></w:ins>"
        "<w:del w:id='2'><w:r><w:delText>지운 글</w:delText></w:r></w:del>"
        "<w:moveFrom w:id='3'><w:r><w:t>옮긴 글</w:t></w:r></w:moveFrom></w:p>",
    )
    box = "<w:txbxContent><w:p><w:r><w:t>글상자</w:t></w:r></w:p></w:txbxContent>"
    insert(
        document,
        f'<w:p {w} xmlns:mc="http://schemas.openxmlformats.org/markup-compatibility/2006"><w:r><mc:AlternateContent>'
        f"<mc:Choice>{box}</mc:Choice><mc:Fallback>{box}</mc:Fallback></mc:AlternateContent></w:r></w:p>",
    )
    assert read_back(document, tmp_path / "a.docx").text == "양식 칸\n\n넣은 글\n\n글상자\n\n"


def test_nested_tables_stay_in_their_cell(tmp_path):
    document = docx.Document()
    cell = document.add_table(1, 2).cell(0, 0)
    cell.paragraphs[0].text = "바깥"
    cell.add_table(1, 1).cell(0, 0).text = "안"
    assert read_back(document, tmp_path / "a.docx").text == "바깥 안 |\n\n"


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"\xd0\xcf\x11\xe0" + b"\0" * 600, "encrypted"),
        (b"PK\x03\x04 broken", "broken zip"),
        (b"plain text", "broken zip"),
    ],
)
def test_files_that_cannot_be_read_say_why(tmp_path, data, reason):
    path = tmp_path / "a.docx"
    path.write_bytes(data)
    with pytest.raises(DocumentError, match=reason):
        list(read(path, name="a.docx", limits=Limits()))


def test_a_zip_bomb_is_refused_before_it_is_opened(tmp_path):
    write_bomb(tmp_path / "a.docx", "word/document.xml", megabytes=40)
    with pytest.raises(DocumentError, match="inflate"):
        list(read(tmp_path / "a.docx", name="a.docx", limits=Limits()))
