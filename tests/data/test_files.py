import contextlib
import os
import random
import tempfile
from pathlib import Path

import docx
import pytest

from data.samples import pdf_bytes, write_bomb, write_hwpx
from trine.data import Limits, Skipped, read_documents
from trine.errors import UsageError
from trine.types import Document


def read(*paths, **options):
    """Documents by id, and reasons by file name."""
    items = list(read_documents(paths, **options))
    documents = {item.id: item for item in items if isinstance(item, Document)}
    return documents, {Path(item.path).name: item.reason for item in items if isinstance(item, Skipped)}


def test_every_type_in_one_folder(tmp_path):
    (tmp_path / "cp949.txt").write_bytes("연차휴가는 15일입니다.\r\n".encode("cp949"))
    (tmp_path / "글.md").write_text("---\ntype: 공지\npath: x\n---\n# 제목\n본문", encoding="utf-8")
    (tmp_path / "page.HTML").write_text("<title>쪽</title><p>본문</p>", encoding="utf-8")
    (tmp_path / "two.pdf").write_bytes(pdf_bytes(["one", "two"], title="Two"))
    (tmp_path / "rows.jsonl").write_text(
        '{"id": "r1", "text": "하나", "type": "faq"}\n{"text": "둘"}', encoding="utf-8"
    )
    (tmp_path / "rows.csv").write_text("id,text\nr1,겹침\nr2,셋\n", encoding="utf-8")
    write_hwpx(tmp_path / "a.hwpx", ["한글 문서"])
    word = docx.Document()
    word.add_paragraph("워드 문서")
    word.save(str(tmp_path / "b.docx"))
    documents, reasons = read(tmp_path)
    assert sorted(documents) == sorted(
        ["cp949.txt", "글.md", "page.HTML", "two.pdf", "r1", "rows.jsonl#2", "r2", "a.hwpx", "b.docx"]
    )
    assert documents["cp949.txt"].text == "연차휴가는 15일입니다.\n"
    assert documents["two.pdf"].metadata == {"type": "pdf", "path": "two.pdf"}
    assert documents["page.HTML"].metadata["type"] == "html"
    assert documents["글.md"].metadata == {"type": "공지", "path": "글.md"}
    assert documents["r2"].metadata == {"type": "csv", "path": "rows.csv"}
    assert documents["r1"].text == "겹침"
    assert reasons == {"rows.jsonl": "repeats the id 'r1' of an earlier document"}


def test_hostile_files_are_reported_and_the_rest_is_read(tmp_path):
    (tmp_path / "0-first.txt").write_text("첫째", encoding="utf-8")
    (tmp_path / "z-last.txt").write_text("끝", encoding="utf-8")
    noise = random.Random(1).randbytes(5000)
    hostile = {
        "empty.txt": b"",
        "blank.txt": b" \n ",
        "noise.txt": noise,
        "noise.jsonl": noise,
        "noise.csv": noise,
        "noise.docx": noise,
        "noise.hwp": noise,
        "zip.hwpx": b"PK\x03\x04" + noise,
        "noise.pdf": b"%PDF-1.7\n" + noise,
        "cut.pdf": pdf_bytes(["text"])[:300],
        "secret.pdf": pdf_bytes(["text"], encrypted=True),
        "deep.html": b"<div>" * 200_000 + b"x",
        "broken.jsonl": b"{]\n" * 500,
    }
    for name, data in hostile.items():
        (tmp_path / name).write_bytes(data)
    write_bomb(tmp_path / "bomb.docx", "word/document.xml", megabytes=40)
    write_bomb(tmp_path / "bomb.hwpx", "Contents/section0.xml", megabytes=40)
    os.mkfifo(tmp_path / "pipe.txt")
    os.mkfifo(tmp_path / "pipe.pdf")
    (tmp_path / "gone.md").symlink_to("nowhere")
    (tmp_path / "folder.pdf").mkdir()
    documents, reasons = read(tmp_path, limits=Limits(seconds=20))
    assert list(documents) == ["0-first.txt", "z-last.txt"]
    assert set(reasons) == {*hostile, "bomb.docx", "bomb.hwpx", "pipe.txt", "pipe.pdf", "gone.md"}
    assert reasons["blank.txt"] == "holds no text"
    assert reasons["broken.jsonl"] == "and 400 more rows that cannot be used"
    assert all(reason and "Traceback" not in reason for reason in reasons.values())


@contextlib.contextmanager
def ordinary_user():
    """Root may read everything; become nobody for a moment."""
    if os.geteuid() == 0:
        os.seteuid(65534)
        try:
            yield
        finally:
            os.seteuid(0)
    else:
        yield


def test_files_and_folders_without_permission():
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o755)
        (folder / "closed.txt").write_text("x")
        (folder / "closed").mkdir()
        (folder / "open.txt").write_text("열림", encoding="utf-8")
        (folder / "closed.txt").chmod(0)
        (folder / "closed").chmod(0)
        try:
            with ordinary_user():
                documents, reasons = read(folder)
        finally:
            (folder / "closed").chmod(0o755)
    assert list(documents) == ["open.txt"]
    assert reasons == {
        "closed": "cannot be listed: Permission denied",
        "closed.txt": "cannot be read: Permission denied",
    }


def test_files_that_vanish_or_change_after_the_listing(tmp_path):
    for name in ("a.txt", "b.txt", "c.pdf", "d.txt"):
        (tmp_path / name).write_text("글", encoding="utf-8")
    reader = read_documents(tmp_path)
    assert next(reader).id == "a.txt"
    (tmp_path / "b.txt").unlink()
    (tmp_path / "c.pdf").unlink()
    (tmp_path / "d.txt").unlink()
    os.mkfifo(tmp_path / "d.txt")
    assert [item.reason for item in reader] == [
        "cannot be read: No such file or directory",
        "cannot be read: No such file or directory",
        "is not a regular file",
    ]


def test_touching_or_moving_a_file_changes_nothing_in_its_document(tmp_path):
    for folder in ("one", "two"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "a.md").write_text("# 제목\n본문", encoding="utf-8")
        os.utime(tmp_path / folder / "a.md", (1, 1 if folder == "one" else 999_999_999))
    (one,), (two,) = (list(read_documents(tmp_path / folder)) for folder in ("one", "two"))
    assert one == two


def test_progress_total_and_ignored(tmp_path):
    for name in ("a.txt", "b.txt", "c.bin"):
        (tmp_path / name).write_text("글", encoding="utf-8")
    seen = []
    reader = read_documents(tmp_path, progress=lambda done, total: seen.append((done, total)))
    assert reader.total == 2
    assert reader.ignored == {".bin": 1}
    assert len(list(reader)) == 2
    assert seen == [(1, 2), (2, 2)]


def test_a_missing_path_is_an_error_before_anything_is_read(tmp_path):
    with pytest.raises(UsageError, match=r"nowhere\.txt"):
        read_documents([tmp_path, tmp_path / "nowhere.txt"])


def test_closing_early_ends_the_worker(tmp_path):
    for number in range(3):
        (tmp_path / f"{number}.md").write_text("글", encoding="utf-8")
    reader = read_documents(str(tmp_path))
    assert next(reader).id == "0.md"
    reader.close()
    assert list(reader) == []


def test_a_document_beyond_the_limit_of_characters(tmp_path):
    (tmp_path / "long.txt").write_text("가" * 11, encoding="utf-8")
    (tmp_path / "short.txt").write_text("가" * 10, encoding="utf-8")
    documents, reasons = read(tmp_path, limits=Limits(characters=10))
    assert list(documents) == ["short.txt"]
    assert reasons == {"long.txt": "holds 11 characters, over 10"}


def test_long_titles_and_line_breaks_in_them_are_tamed(tmp_path):
    (tmp_path / "a.jsonl").write_text('{"text": "x", "title": "한\\n줄 %s"}' % ("길" * 500), encoding="utf-8")
    (document,) = read_documents(tmp_path)
    assert document.title.startswith("한 줄 길")
    assert len(document.title) == 300
