import pytest

from data.samples import pdf_bytes
from trine.data.ingest.pdf import read
from trine.data.sources import Limits
from trine.errors import DocumentError


def read_one(path, data, **limits):
    path.write_bytes(data)
    (document,) = read(path, name="a.pdf", limits=Limits(**limits))
    return document


def test_pages_begin_with_a_heading_that_names_them(tmp_path):
    document = read_one(tmp_path / "a.pdf", pdf_bytes(["First page.\nSecond line.", "", "Third page."], title="Report"))
    assert document.title == "Report"
    assert document.text == "p. 1\nFirst page.\nSecond line.\n\np. 3\nThird page.\n\n"
    assert [(heading.start, heading.text) for heading in document.headings] == [(0, "p. 1"), (31, "p. 3")]


def test_a_broken_page_costs_that_page(tmp_path):
    data = pdf_bytes(["First page.", "Lost page.", "Third page."]).replace(
        b"[4 0 R 6 0 R 8 0 R]", b"[4 0 R 3 0 R 8 0 R]"
    )
    document = read_one(tmp_path / "a.pdf", data)
    assert document.text == "p. 1\nFirst page.\n\np. 3\nThird page.\n\n"
    assert document.metadata == {"unreadable_pages": 1}


def test_a_single_page_needs_no_heading(tmp_path):
    document = read_one(tmp_path / "a.pdf", pdf_bytes(["Only page."]))
    assert document.text == "Only page."
    assert list(document.headings) == []


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (pdf_bytes(["secret"], encrypted=True), "encrypted"),
        (pdf_bytes(["", ""]), "OCR"),
        (pdf_bytes(["text"])[:200], "broken"),
        (b"%PDF-1.7\n" + b"\0" * 500, "broken"),
        (b"not a pdf at all", "broken"),
    ],
)
def test_files_that_cannot_be_read_say_why(tmp_path, data, reason):
    with pytest.raises(DocumentError, match=reason):
        read_one(tmp_path / "a.pdf", data)


def test_too_much_text_is_refused(tmp_path):
    with pytest.raises(DocumentError, match="limit of 20"):
        read_one(tmp_path / "a.pdf", pdf_bytes(["twelve chars", "twelve chars"]), characters=20)
