import os
import signal
import subprocess
import sys
import textwrap

import pytest

from data.samples import pdf_bytes
from trine.data.sandbox import Sandbox, without_surrogates
from trine.data.sources import Limits
from trine.errors import DocumentError


@pytest.fixture
def sandbox():
    with Sandbox(Limits()) as running:
        yield running


@pytest.fixture
def good(tmp_path):
    path = tmp_path / "good.pdf"
    path.write_bytes(pdf_bytes(["A good page."]))
    return path


def read(sandbox, path):
    return sandbox.read(path, name=path.name, suffix=path.suffix)


def install_parser(tmp_path, monkeypatch, body):
    """Put a PDF library that misbehaves in front of the real one, for the worker only (this process has it loaded)."""
    folder = tmp_path / "fake"
    folder.mkdir()
    source = "import os, sys, time\nclass PdfiumError(Exception): pass\ndef PdfDocument(path):\n"
    (folder / "pypdfium2.py").write_text(source + textwrap.indent(textwrap.dedent(body), "    "))
    monkeypatch.syspath_prepend(folder)


def test_documents_come_back_whole(sandbox, tmp_path):
    path = tmp_path / "글.md"
    path.write_text("---\nkey: 값\n---\n# 제목\n\n본문 👨\u200d👩\u200d👧 글", encoding="utf-8")
    (document,) = read(sandbox, path)
    assert document.id == "글.md"
    assert document.text.endswith("# 제목\n\n본문 👨\u200d👩\u200d👧 글")
    assert document.metadata == {"key": "값"}
    assert [(heading.level, heading.text) for heading in document.headings] == [(1, "제목")]


def test_one_worker_serves_many_files_and_a_broken_one_between(sandbox, good, tmp_path):
    broken = tmp_path / "broken.pdf"
    broken.write_bytes(b"%PDF-1.4 nothing")
    assert read(sandbox, good)[0].text == "A good page."
    worker = sandbox._worker.pid
    with pytest.raises(DocumentError, match="broken PDF"):
        read(sandbox, broken)
    assert read(sandbox, good)[0].text == "A good page."
    assert sandbox._worker.pid == worker


def test_a_crash_costs_one_file(good, tmp_path, monkeypatch):
    install_parser(tmp_path, monkeypatch, "os.kill(os.getpid(), 11)")
    page = tmp_path / "page.html"
    page.write_text("<p>다음 파일</p>", encoding="utf-8")
    with Sandbox(Limits()) as sandbox:
        with pytest.raises(DocumentError, match="SIGSEGV"):
            read(sandbox, good)
        assert read(sandbox, page)[0].text == "다음 파일\n\n"


def test_a_parser_that_exits_costs_one_file(good, tmp_path, monkeypatch):
    install_parser(tmp_path, monkeypatch, "os._exit(3)")
    with Sandbox(Limits()) as sandbox, pytest.raises(DocumentError, match="exit code 3"):
        read(sandbox, good)


def test_a_hang_ends_at_the_time_limit(good, tmp_path, monkeypatch):
    install_parser(tmp_path, monkeypatch, "time.sleep(600)")
    page = tmp_path / "page.md"
    page.write_text("다음 파일", encoding="utf-8")
    with Sandbox(Limits(seconds=3)) as sandbox:
        with pytest.raises(DocumentError, match="limit of 3 seconds"):
            read(sandbox, good)
        assert read(sandbox, page)[0].text == "다음 파일"


@pytest.mark.skipif(sys.platform != "linux", reason="other systems do not enforce RLIMIT_AS")
def test_a_parser_that_wants_too_much_memory_is_stopped(good, tmp_path, monkeypatch):
    install_parser(tmp_path, monkeypatch, "bytearray(3 * 2**30)")
    with Sandbox(Limits(memory_bytes=2**30)) as sandbox, pytest.raises(DocumentError, match="1073741824 bytes"):
        read(sandbox, good)


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ("raise KeyError('왜')", "KeyError"),
        ("def again(): again()\nagain()", "nested too deeply"),
        ("raise ValueError('x' * 10_000)", "ValueError"),
        ("raise ValueError('\\ud800')", "ValueError"),
    ],
)
def test_whatever_a_parser_raises_becomes_a_short_reason(good, tmp_path, monkeypatch, body, reason):
    install_parser(tmp_path, monkeypatch, body)
    with Sandbox(Limits()) as sandbox, pytest.raises(DocumentError, match=reason) as raised:
        read(sandbox, good)
    assert len(str(raised.value)) <= 300


def test_a_parser_that_prints_does_not_garble_the_answer(good, tmp_path, monkeypatch):
    install_parser(tmp_path, monkeypatch, "print('noise')\nos.write(1, b'{}\\n')\nraise PdfiumError('refused')")
    with Sandbox(Limits()) as sandbox, pytest.raises(DocumentError, match="refused"):
        read(sandbox, good)


def test_a_missing_package_names_the_extra(good, tmp_path, monkeypatch):
    folder = tmp_path / "fake"
    folder.mkdir()
    (folder / "pypdfium2.py").write_text("raise ModuleNotFoundError('No module named pypdfium2')")
    monkeypatch.syspath_prepend(folder)
    with Sandbox(Limits()) as sandbox, pytest.raises(DocumentError, match=r"pip install 'trine\[documents\]'"):
        read(sandbox, good)


def test_more_text_than_the_limit_is_refused(tmp_path):
    path = tmp_path / "a.md"
    path.write_text("가" * 200, encoding="utf-8")
    with Sandbox(Limits(characters=100)) as sandbox, pytest.raises(DocumentError, match="limit of 100"):
        read(sandbox, path)


def test_the_worker_ends_with_the_sandbox(good):
    with Sandbox(Limits()) as sandbox:
        read(sandbox, good)
        worker = sandbox._worker
    assert worker.poll() is not None
    sandbox.close()


def test_modules_lying_in_the_working_directory_are_never_run(good, tmp_path, monkeypatch):
    hostile = tmp_path / "hostile"
    hostile.mkdir()
    for name in ("pypdfium2", "msgspec", "resource", "html"):
        (hostile / f"{name}.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')")
    monkeypatch.chdir(hostile)
    monkeypatch.syspath_prepend("")
    with Sandbox(Limits()) as sandbox:
        assert read(sandbox, good)[0].text == "A good page."
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("launch", [["-c"], ["-"]])
def test_it_works_without_a_main_guard_in_the_users_code(good, launch):
    code = (
        f"from trine.data import read_documents\nprint([document.text for document in read_documents({str(good)!r})])\n"
    )
    command = [sys.executable, *launch, *([code] if launch == ["-c"] else [])]
    done = subprocess.run(command, input=code, capture_output=True, text=True, timeout=120, check=False)
    assert (done.stdout, done.stderr) == ("['A good page.']\n", "")


@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
def test_a_killed_parent_leaves_no_worker_behind(good):
    code = (
        "import os\nfrom pathlib import Path\n"
        "from trine.data.sandbox import Sandbox\nfrom trine.data.sources import Limits\n"
        f"sandbox = Sandbox(Limits())\nsandbox.read(Path({str(good)!r}), name='a', suffix='.pdf')\n"
        "print(sandbox._worker.pid, flush=True)\nos.kill(os.getpid(), 9)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, timeout=120, check=False)
    worker = int(done.stdout)
    for _ in range(500):
        try:
            os.kill(worker, 0)
        except ProcessLookupError:
            return
        if _state(worker) == "Z":
            return
        signal.sigtimedwait([], 0.02)
    pytest.fail(f"worker {worker} is still running")


def _state(process):
    with open(f"/proc/{process}/stat") as stream:
        return stream.read().rsplit(")", 1)[1].split()[0]


def test_without_surrogates_keeps_every_offset():
    assert without_surrogates("가\ud800나\udfff") == "가\ufffd나\ufffd"
    assert without_surrogates("그대로 🙂") == "그대로 🙂"
