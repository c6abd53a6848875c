import gzip
import json
import lzma

import numpy as np
import pytest

from trine.data.examples import ExampleList, open_examples, read_examples, text_key
from trine.errors import DataError, UnknownName, UsageError
from trine.types import Example


def lines(path, *records):
    path.write_text("".join((r if isinstance(r, str) else json.dumps(r, ensure_ascii=False)) + "\n" for r in records))
    return path


GOOD = [{"query": f"질문 {n}", "pos": ["답" * (n + 1)], "neg": ["아니다"] * n} for n in range(5)]


def test_examples_are_reached_by_number_and_in_order(tmp_path):
    source = open_examples(lines(tmp_path / "자료.jsonl", GOOD[0], "", *GOOD[1:]))
    assert (source.name, source.format, len(source)) == ("자료", "flag_embedding", 5)
    assert source[3] == source[-2] == Example("질문 3", ("답답답답",), ("아니다",) * 3)
    assert list(source) == [source[n] for n in range(5)] == list(read_examples(source.path))
    assert source.where(1).endswith("자료.jsonl:3")
    with pytest.raises(IndexError):
        source[5]


def test_facts_are_those_of_the_texts(tmp_path):
    facts = open_examples(lines(tmp_path / "a.jsonl", *GOOD)).facts
    assert facts.lengths.tolist() == [[4, 1], [4, 3], [4, 3], [4, 4], [4, 5]]
    assert facts.negatives.tolist() == [0, 1, 2, 3, 4]
    assert facts.keys.tolist() == [[text_key(f"질문 {n}"), text_key("답" * (n + 1))] for n in range(5)]
    assert not facts.scored.any()


def test_keys_are_the_same_on_every_machine():
    # Python's own hash differs from run to run. The number is that of `b2sum -l 64`, read as little-endian.
    assert text_key("서울") == -396570857565659237
    assert text_key("\ud800") != text_key("\ud801")


@pytest.mark.parametrize(("suffix", "pack"), [(".gz", gzip.compress), (".xz", lzma.compress)])
def test_packed_files_hold_the_same_examples(tmp_path, suffix, pack):
    plain = open_examples(lines(tmp_path / "a.jsonl", *GOOD))
    (tmp_path / f"b.jsonl{suffix}").write_bytes(pack(plain.path.read_bytes()))
    packed = open_examples(tmp_path / f"b.jsonl{suffix}")
    assert list(packed) == list(plain)
    assert (packed.name, packed.fingerprint) == ("b", plain.fingerprint)


def test_the_fingerprint_follows_the_content(tmp_path):
    one = open_examples(lines(tmp_path / "a.jsonl", *GOOD))
    other = open_examples(lines(tmp_path / "b.jsonl", *GOOD[:4], GOOD[4] | {"query": "다른 질문"}))
    assert one.fingerprint != other.fingerprint


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ('{"query": "q", "pos": ["p"', r"a.jsonl:3: not valid JSON"),
        ("[]", r"a.jsonl:3: a JSON object is needed, this is a list"),
        ({"query": "", "pos": ["p"]}, r"a.jsonl:3: 'query' is empty"),
        ({"query": "q", "positives": ["p"]}, r"a.jsonl:3: no 'pos'; the columns are 'query', 'positives'"),
    ],
)
def test_a_bad_line_is_named_or_skipped_and_reported(tmp_path, bad, message):
    path = lines(tmp_path / "a.jsonl", *GOOD[:2], bad, *GOOD[2:])
    with pytest.raises(DataError, match=message):
        open_examples(path)
    with pytest.raises(DataError, match=message):
        list(read_examples(path))
    source = open_examples(path, on_error="skip")
    assert [example.query for example in source] == [record["query"] for record in GOOD]
    assert source.skipped_count == 1
    assert source.skipped[0].line == 3
    assert source.skipped[0].reason in message.replace("a.jsonl:3: ", "") or message.split(": ", 1)[1][:10] in str(
        source.skipped[0].reason
    )
    reported = []
    assert len(list(read_examples(path, on_skip=reported.append))) == 5
    assert [item.line for item in reported] == [3]


def test_skipping_counts_by_reason_and_goes_on_past_a_bad_first_line(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_bytes(b"{bad\n\xb0\xa1\n" + b'{"query": "", "pos": ["p"]}\n' * 150 + b'{"query": "q", "pos": ["p"]}\n')
    source = open_examples(path, on_error="skip")
    assert list(source) == [Example("q", ("p",))]
    assert source.skipped_reasons["'query' is empty"] == 150
    assert source.skipped_count == 152
    assert len(source.skipped) == 100
    with pytest.raises(DataError, match="no example that can be used; line 1: not valid JSON"):
        open_examples(lines(tmp_path / "b.jsonl", "{bad"), on_error="skip")


def test_broken_bytes_name_their_line(tmp_path):
    path = tmp_path / "a.csv"
    path.write_bytes("질문,답\n가,나\n".encode() + "다,라\n".encode("cp949"))
    with pytest.raises(DataError, match=r"a.csv:3: not UTF-8"):
        open_examples(path)
    assert list(open_examples(path, on_error="skip")) == [Example("가", ("나",))]


def test_sources_that_hold_nothing_are_refused(tmp_path):
    (tmp_path / "a.csv").write_text("query,positive\n")
    with pytest.raises(DataError, match="no example that can be used"):
        open_examples(tmp_path / "a.csv")
    (tmp_path / "a.jsonl").write_text("")
    with pytest.raises(DataError, match="is empty"):
        open_examples(tmp_path / "a.jsonl")
    with pytest.raises(DataError, match="does not exist"):
        open_examples(tmp_path / "nothing")
    with pytest.raises(DataError, match="no examples in it"):
        ExampleList([], name="none")


def test_options_without_effect_are_refused(tmp_path):
    path = lines(tmp_path / "a.jsonl", *GOOD)
    with pytest.raises(UnknownName, match="did you mean 'flag_embedding'"):
        open_examples(path, format="flagembedding")
    with pytest.raises(UnknownName, match="did you mean 'skip'"):
        open_examples(path, on_error="skipp")
    with pytest.raises(UsageError, match="no effect on format 'flag_embedding'"):
        open_examples(path, format="flag_embedding", columns=["query"])
    with pytest.raises(UsageError, match="a list of names"):
        open_examples(path, columns="query")
    with pytest.raises(UsageError, match="no effect on a file"):
        open_examples(path, split="dev")
    with pytest.raises(UsageError, match="'beir' is a folder"):
        open_examples(path, format="beir")
    with pytest.raises(DataError, match=r"is no BEIR folder.*it holds a.jsonl"):
        open_examples(tmp_path)


def test_columns_of_a_csv_file_are_chosen(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text('번호,질문,답\n1,"가,나",다\n')
    with pytest.raises(DataError, match=r"a.csv:2: the format cannot be told from the columns '번호', '질문', '답'"):
        open_examples(path)
    assert list(open_examples(path, columns=["질문", "답"])) == [Example("가,나", ("다",))]


def test_plain_text_is_read_line_by_line(tmp_path):
    source = open_examples(lines(tmp_path / "a.txt", "첫 줄", " ", "둘째 줄 😀"))
    assert [example.query for example in source] == ["첫 줄", "둘째 줄 😀"]
    assert source.format == "text"


def test_a_file_that_changes_underneath_is_noticed(tmp_path):
    path = lines(tmp_path / "a.jsonl", *GOOD)
    source = open_examples(path)
    size = path.stat().st_size
    with path.open("r+b") as stream:
        stream.truncate(size - 10)
    with pytest.raises(DataError, match=r"a.jsonl:5: not valid JSON.*it was whole when it was opened"):
        source[4]
    assert source[0].query == "질문 0"


def test_examples_in_memory_have_the_same_facts(tmp_path):
    source = open_examples(lines(tmp_path / "a.jsonl", *GOOD))
    memory = ExampleList(list(source), name="mem")
    assert [memory[n] for n in range(len(memory))] == list(memory) == list(source)
    assert np.array_equal(memory.facts.lengths, source.facts.lengths)
    assert memory.where(2) == "mem[2]"
    assert memory.fingerprint == ExampleList(list(source), name="other").fingerprint
    assert memory.fingerprint != ExampleList(list(source)[:4], name="mem").fingerprint
