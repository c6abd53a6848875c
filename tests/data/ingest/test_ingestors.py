"""Every reader on a small file, through the table, as the worker and the main process call it."""

import inspect

import docx
import pytest

from data import samples
from trine.data.ingest import INGESTORS
from trine.data.sources import Limits
from trine.tables import resolve
from trine.types import Document

SENTENCE = "연차휴가는 15일입니다."
PLAIN = {
    ".txt": SENTENCE,
    ".jsonl": '{"text": "연차휴가는 15일입니다."}',
    ".csv": f"id,text\n1,{SENTENCE}",
    ".tsv": f"id\ttext\n1\t{SENTENCE}",
    ".md": f"# 휴가\n\n{SENTENCE}",
    ".html": f"<html><body><h1>휴가</h1><p>{SENTENCE}</p></body></html>",
}
ALIASES = {".ndjson": ".jsonl", ".markdown": ".md", ".htm": ".html", ".xhtml": ".html", ".hwp": ".hwpx"}


def write(path, suffix):
    if suffix in PLAIN:
        path.write_text(PLAIN[suffix], encoding="utf-8")
    elif suffix == ".pdf":
        path.write_bytes(samples.pdf_bytes(["Annual leave is 15 days."]))
    elif suffix == ".docx":
        document = docx.Document()
        document.add_paragraph(SENTENCE)
        document.save(str(path))
    else:
        samples.write_hwpx(path, [SENTENCE])


@pytest.mark.parametrize("suffix", INGESTORS)
def test_every_type_gives_a_document_that_holds_its_sentence(tmp_path, suffix):
    path = tmp_path / f"file{suffix}"
    write(path, ALIASES.get(suffix, suffix))
    read = resolve(INGESTORS, suffix, kind="document type")
    documents = list(read(path, name="folder/file", limits=Limits()))
    assert [type(document) for document in documents] == [Document]
    assert ("15 days" if suffix == ".pdf" else SENTENCE) in documents[0].text
    assert documents[0].id in ("folder/file", "1", "folder/file#1")


@pytest.mark.parametrize("suffix", INGESTORS)
def test_every_reader_has_the_same_signature(suffix):
    read = resolve(INGESTORS, suffix, kind="document type")
    assert list(inspect.signature(read).parameters) == ["path", "name", "limits"]


@pytest.mark.parametrize("suffix", INGESTORS)
def test_headings_start_their_own_line(tmp_path, suffix):
    path = tmp_path / f"file{suffix}"
    write(path, ALIASES.get(suffix, suffix))
    (document,) = resolve(INGESTORS, suffix, kind="document type")(path, name="n", limits=Limits())
    for heading in document.headings:
        line = document.text[heading.start :].split("\n")[0]
        assert heading.text in line
        assert heading.start == 0 or document.text[heading.start - 1] == "\n"
