"""What only a process of its own can show: signals, pipes, and what the interpreter says at its end."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = [sys.executable, str(Path(__file__).with_name("fake_trine.py"))]


def start(*arguments, **options):
    return subprocess.Popen([*PROGRAM, *map(str, arguments)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, **options)


@pytest.mark.skipif(os.name == "nt", reason="signals")
def test_ctrl_c_while_indexing(home):
    (home / "docs").mkdir()
    for number in range(40):
        (home / "docs" / f"{number:02}.txt").write_text("sleep" if number == 35 else f"document {number}")
    process = start("index", "docs", "--analyzer", "bigram")
    assert process.stderr.readline() == b"sleeping\n"
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=30)
    assert process.returncode == 130
    assert errors.decode() == (
        "error: interrupted; 32 documents are safely indexed, run the same command again to go on\n"
    )


@pytest.mark.skipif(os.name == "nt", reason="pipes")
def test_a_reader_that_leaves_early_is_no_error(home):
    (home / "many.txt").write_text("some words to embed\n" * 3000)
    process = start("encode", "many.txt")
    assert json.loads(process.stdout.readline())["id"] == 1
    process.stdout.close()
    with process.stderr as errors:
        assert errors.read() == b""
    assert process.wait(timeout=30) == 0


def test_json_is_utf8_whatever_the_locale(home):
    environment = {**os.environ, "PYTHONIOENCODING": "cp949"}
    process = start("score", "파드", "파드 🙂", "--json", env=environment)
    output, errors = process.communicate(timeout=30)
    assert process.returncode == 0, errors.decode()
    assert json.loads(output.decode("utf-8"))["passages"][0]["text"] == "파드 🙂"


@pytest.mark.skipif(os.name == "nt", reason="arguments are Unicode there")
def test_an_argument_that_is_no_text_is_still_strict_json(home):
    process = start("score", b"bytes \xff\xfe".decode(errors="surrogateescape"), "a", "--json")
    output, errors = process.communicate(timeout=30)
    assert process.returncode == 0, errors.decode()
    assert json.loads(output.decode("utf-8"))["query"] == "bytes \udcff\udcfe"


def test_launchers_start_the_program_as_a_module():
    found = subprocess.run([sys.executable, "-m", "trine", "--version"], capture_output=True, text=True, timeout=60)
    assert found.stdout.startswith("trine ")
