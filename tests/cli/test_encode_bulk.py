import io
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from trine.cli import encode_bulk as module
from trine.cli.encode_bulk import duration, sentence
from trine.cli.output import Output
from trine.encoding.bulk import open_shards
from trine.encoding.bulk.progress import Progress
from trine.testing import HashingEncoder


@pytest.fixture
def corpus(home):
    path = home / "corpus.jsonl"
    rows = [{"id": f"글{number}", "text": f"문서 number {number}"} for number in range(25)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_a_folder_gets_shards_and_a_manifest(run, home, corpus):
    result = run("encode", corpus, "--out", "vectors", "--shard-texts", 10)
    assert result.exit_code == 0, result.output
    assert result.stdout == ""
    assert "wrote 25 texts in 3 shards to vectors" in result.stderr
    shards = open_shards(home / "vectors", encoder=HashingEncoder())
    assert [len(part.ids) for part in shards] == [10, 10, 5]
    expected = HashingEncoder().encode(["문서 number 24"], kind="passage")
    np.testing.assert_array_equal(shards[2].embeddings.dense[-1:], expected.dense)
    again = run("encode", corpus, "--out", "vectors", "--shard-texts", 10)
    assert "vectors was complete: 25 texts in 3 shards" in again.stderr


def test_options_reach_the_job(run, home, corpus):
    more = ("--precision", "float16", "--mode", "dense", "--kind", "query", "--format", "lines")
    assert run("encode", corpus, "-o", "v.1/", *more).exit_code == 0
    shards = open_shards(home / "v.1")
    assert shards.modes == ("dense",)
    assert shards[0].embeddings.dense.dtype == np.float16
    assert shards[0].ids == tuple(range(1, 26))
    settings = shards.manifest["settings"]
    assert (settings["kind"], settings["shard_texts"], settings["instruction"]) == ("query", 4096, None)


def test_parquet_shards(run, home, corpus):
    pytest.importorskip("pyarrow")
    assert run("encode", corpus, "-o", "v", "--shard-format", "parquet").exit_code == 0
    assert open_shards(home / "v")[0].ids[0] == "글0"


def test_another_job_in_the_folder_is_wrong_usage(run, corpus):
    run("encode", corpus, "-o", "v")
    result = run("encode", corpus, "-o", "v", "--precision", "float16")
    assert result.exit_code == 2
    assert "settings precision was float32, now float16" in result.stderr
    assert run("encode", corpus, "-o", "v", "--model", "other").exit_code == 2


def test_lines_left_out_are_a_job_done_in_part(run, home, corpus):
    with corpus.open("a") as stream:
        stream.write("broken\n" * 25)
    result = run("encode", corpus, "-o", "v")
    assert result.exit_code == 5
    assert "corpus.jsonl, line 26: not valid JSON" in result.stderr
    result = run("encode", corpus, "-o", "v", "--skip-errors")
    assert result.exit_code == 3
    assert "skipped corpus.jsonl:26: not valid JSON" in result.stderr
    assert "and 5 more" in result.stderr
    assert open_shards(home / "v").texts == 25


def test_other_files_are_counted_and_untrained_modes_told(run, home, corpus):
    (home / "notes.md").write_text("x")
    result = run("encode", ".", "-o", "v", "--model", "untrained")
    assert result.exit_code == 0
    assert "left out files of other types: 1 .md" in result.stderr
    assert "sparse and multi_vector of untrained were put together without training" in result.stderr
    assert "untrained were" not in run("encode", ".", "-o", "w", "--model", "untrained", "--mode", "dense").stderr


@pytest.mark.parametrize(
    ("arguments", "code", "told"),
    [
        (("-", "-o", "v"), 2, "give a file or a folder"),
        (("none", "-o", "v"), 4, "no such file or folder: none"),
        (("corpus.jsonl", "-o", "v", "--precision", "float61"), 2, "did you mean 'float16'"),
        (("corpus.jsonl", "-o", "v", "--shard-format", "parket"), 2, "did you mean 'parquet'"),
        (("corpus.jsonl", "-o", "corpus.jsonl/"), 2, "is the input itself"),
        (("corpus.jsonl", "-o", "v.npz", "--workers", "2"), 2, "--workers has an effect in bulk jobs only"),
        (("corpus.jsonl", "--skip-errors"), 2, "--skip-errors has an effect in bulk jobs only"),
        (("corpus.jsonl", "-o", "v.bin"), 2, "must end in .npz or .safetensors, a folder's with '/'"),
    ],
)
def test_what_cannot_be_done_is_said_before_a_model_is_loaded(run, loaded, corpus, arguments, code, told):
    result = run("encode", *arguments)
    assert result.exit_code == code
    assert told in result.stderr
    assert loaded == []


@pytest.mark.skipif(os.name == "nt", reason="signals")
def test_ctrl_c_says_how_to_go_on(home):
    program = Path(__file__).with_name("fake_trine.py")
    lines = [f"text {number}" for number in range(20)]
    lines[7] = "sleep"
    (home / "a.txt").write_text("\n".join(lines))
    command = [sys.executable, str(program), "encode", "a.txt", "-o", "v", "--shard-texts", "3"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stderr.readline() == b"sleeping\n"
    process.send_signal(signal.SIGINT)
    output, errors = process.communicate(timeout=30)
    assert process.returncode == 130
    assert output == b""
    assert errors.decode() == ("error: interrupted; 2 of 7 shards are done in v, run the same command again to go on\n")
    assert sorted(path.name for path in (home / "v").iterdir()) == [
        "job.json",
        "log.jsonl",
        "shard-000000.safetensors",
        "shard-000001.safetensors",
    ]


@pytest.mark.skipif(os.name == "nt", reason="signals")
def test_ctrl_c_ends_the_workers_too(home):
    """The whole group of processes is interrupted, as a terminal does it."""
    script = home / "job.py"
    script.write_text(
        "import sys\n"
        f"sys.path.insert(0, {str(Path(__file__).parents[1])!r})\n"
        "from functools import partial\n"
        "from cli.sleepers import load\n"
        "from trine.cli import encode\n"
        "from trine.cli.main import main\n"
        "encode.load_encoder = load\n"
        "if __name__ == '__main__':\n"
        "    main()\n"
    )
    (home / "a.txt").write_text("sleep\n" * 9)
    command = [sys.executable, str(script), "encode", "a.txt", "-o", "v", "--shard-texts", "3", "--workers", "2"]
    process = subprocess.Popen(
        [*command, "--device", "cpu"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True
    )
    assert process.stderr.readline() == b"sleeping\n"
    os.killpg(process.pid, signal.SIGINT)
    _, errors = process.communicate(timeout=30)
    told = errors.decode().replace("sleeping\n", "")
    assert told == "error: interrupted; 0 of 3 shards are done in v, run the same command again to go on\n"
    assert process.returncode == 130


def test_how_it_goes_in_words():
    assert sentence(Progress("reading", 1234)) == "reading: 1,234 texts"
    state = Progress("encoding", 2000, 10000, 2, 10, 21000.4, 3900)
    assert sentence(state) == "encoding: 2,000 of 10,000 texts, about 21,000 tokens/s, 1 h 05 min left"
    assert [duration(seconds) for seconds in (0.4, 99, 100, 3540, 3599, 172000, 200000)] == [
        "0 s",
        "99 s",
        "2 min",
        "59 min",
        "1 h 00 min",
        "47 h 47 min",
        "2 d 7 h",
    ]


def test_where_no_terminal_is_a_note_comes_now_and_then(capsys, monkeypatch):
    now = 0.0
    tell = module._noting(Output(), clock=lambda: now)
    tell(Progress("reading", 1))
    assert capsys.readouterr().err == ""
    now = 61.0
    tell(Progress("reading", 2))
    tell(Progress("reading", 3))
    assert capsys.readouterr().err == "reading: 2 texts\n"
    now = 130.0
    module._noting(Output(quiet=True), clock=lambda: now)(Progress("reading", 4))
    assert capsys.readouterr().err == ""


def test_a_terminal_shows_a_bar(run, corpus, monkeypatch):
    from rich.console import Console

    seen = []
    monkeypatch.setattr(Output, "progress", property(lambda self: True))
    monkeypatch.setattr(module, "error_console", lambda: Console(file=io.StringIO(), force_terminal=True))
    monkeypatch.setattr(module, "sentence", lambda state: seen.append(state) or "told")
    assert run("encode", corpus, "-o", "v", "--shard-texts", 10).exit_code == 0
    assert [state.shards for state in seen if state.stage == "encoding"] == [0, 1, 2, 3]
