import json
import threading

import pytest

from trine.curation.llm import Reply
from trine.curation.synthesis.journal import Journal
from trine.errors import DataError, UsageError

ONE = Reply('{"질문": "왜\\n?"}', "stop", input_tokens=10, output_tokens=4, seconds=0.5)
TWO = Reply("lone \ud800 surrogate", "length", refusal="no", input_tokens=1, output_tokens=2, counted=False)


def test_replies_come_back_as_they_were(tmp_path):
    journal = Journal(tmp_path / "deep" / "out")
    journal.add("a", ONE)
    journal.add("b", TWO)
    assert (journal.get("a"), journal.get("b"), journal.get("c")) == (ONE, TWO, None)
    journal.close()
    again = Journal(tmp_path / "deep" / "out")
    assert len(again) == 2
    assert "a" in again
    assert (again.get("a"), again.get("b")) == (ONE, TWO)
    assert (again.input_tokens, again.output_tokens) == (11, 6)
    again.close()


def test_a_reply_is_on_disk_before_anything_else(tmp_path):
    journal = Journal(tmp_path)
    journal.add("a", ONE)
    assert json.loads(journal.path.read_text("utf-8").splitlines()[1])["text"] == ONE.text
    journal.close()


@pytest.mark.parametrize("cut", [1, 5, 40])
def test_a_last_line_that_was_cut_short_is_dropped(tmp_path, cut):
    journal = Journal(tmp_path)
    journal.add("a", ONE)
    journal.add("b", ONE)
    journal.close()
    journal.path.write_bytes(journal.path.read_bytes()[:-cut])
    again = Journal(tmp_path)
    assert again.path.read_bytes().endswith(b"\n")
    assert again.get("a") == ONE
    assert again.get("b") is None
    assert again.input_tokens == 10
    again.add("b", TWO)
    again.close()
    third = Journal(tmp_path)
    assert (third.get("a"), third.get("b")) == (ONE, TWO)
    third.close()


def test_a_first_line_that_was_cut_short_is_written_again(tmp_path):
    (tmp_path / "journal.jsonl").write_bytes(b'{"trine": "synth')
    journal = Journal(tmp_path)
    journal.add("a", ONE)
    journal.close()
    again = Journal(tmp_path)
    assert again.get("a") == ONE
    again.close()


@pytest.mark.parametrize("line", ["no json", "[]", '{"key": "x", "words": 1}', '{"text": "x"}'])
def test_other_damage_names_file_and_line_and_loses_nothing(tmp_path, line):
    journal = Journal(tmp_path)
    journal.add("a", ONE)
    journal.close()
    whole = journal.path.read_bytes()
    journal.path.write_bytes(whole + line.encode() + b"\n" + whole.splitlines(keepends=True)[1])
    damaged = journal.path.read_bytes()
    for _ in range(2):  # the lock is free again
        with pytest.raises(DataError, match=r"journal\.jsonl:3"):
            Journal(tmp_path)
    assert journal.path.read_bytes() == damaged


@pytest.mark.parametrize("content", ['{"query": "an examples file"}\n', "x" * 100])
def test_another_file_of_that_name_is_left_alone(tmp_path, content):
    (tmp_path / "journal.jsonl").write_text(content)
    with pytest.raises(DataError, match=r"journal\.jsonl:1"):
        Journal(tmp_path)
    assert (tmp_path / "journal.jsonl").read_text() == content


def test_one_run_at_a_time(tmp_path):
    journal = Journal(tmp_path)
    with pytest.raises(UsageError, match="another run"):
        Journal(tmp_path)
    journal.close()
    Journal(tmp_path).close()


def test_threads_do_not_mix_lines(tmp_path):
    journal = Journal(tmp_path)
    writers = [
        threading.Thread(target=lambda n=n: [journal.add(f"{n}-{k}", Reply(f"{n}" * 500, "stop")) for k in range(10)])
        for n in range(8)
    ]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    journal.close()
    again = Journal(tmp_path)
    assert len(again) == 80
    assert again.get("7-9").text == "7" * 500
    again.close()
