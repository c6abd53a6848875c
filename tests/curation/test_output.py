import errno
import json
import math
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pytest

from trine.curation import output
from trine.curation.duplicates import NearDuplicates
from trine.curation.output import plain, report_path, write_examples, write_json
from trine.errors import UsageError
from trine.types import Example

FULL = Example(
    query="질문\u2028은?",
    positives=("첫째", "둘째\n줄"),
    negatives=("아니다",),
    positive_scores=(1.5, -2.0),
    negative_scores=(np.float32(0.25),),
    query_prompt="query: ",
    passage_prompt="passage: ",
    lang="ko",
)


def lines(path):
    return [json.loads(line) for line in path.read_bytes().split(b"\n")[:-1]]


def test_examples_in_flagembeddings_convention(tmp_path):
    path = tmp_path / "train.jsonl"
    assert write_examples([FULL, Example("q", ("p",))], path) == 2
    assert lines(path) == [
        {
            "query": "질문\u2028은?",
            "pos": ["첫째", "둘째\n줄"],
            "neg": ["아니다"],
            "pos_scores": [1.5, -2.0],
            "neg_scores": [0.25],
            "query_prompt": "query: ",
            "passage_prompt": "passage: ",
            "lang": "ko",
        },
        {"query": "q", "pos": ["p"], "neg": []},
    ]
    assert "질문" in path.read_text(encoding="utf-8")
    assert list(tmp_path.iterdir()) == [path]


def test_the_reader_of_training_files_reads_them_back(tmp_path):
    from trine.data.example_formats import Asked, FlagEmbedding

    path = tmp_path / "train.jsonl"
    examples = [FULL, Example("q", ("p",), ("n", "m"), lang="en-ko")]
    write_examples(examples, path)
    read = FlagEmbedding(Asked(path))
    assert [read(record) for record in lines(path)] == examples


def test_a_lone_surrogate_comes_back_as_it_was(tmp_path):
    path = tmp_path / "train.jsonl"
    write_examples([Example("\ud83d 반쪽", ("p",))], path)
    assert lines(path)[0]["query"] == "\ud83d 반쪽"


def test_the_report_lies_beside_the_file(tmp_path):
    path = tmp_path / "train.jsonl"
    report = {"seed": np.int64(3), "settings": NearDuplicates(), "kinds": {"b", "a"}, "from": Path("docs")}
    write_examples([FULL], path, report=report)
    found = json.loads(report_path(path).read_text(encoding="utf-8"))
    assert report_path(path).name == "train.jsonl.report.json"
    assert (found["trine"], found["file"], found["examples"], found["seed"]) == (version("trine"), "train.jsonl", 1, 3)
    assert found["settings"] == {"similarity": 0.8, "characters": 5, "hashes": 128, "seed": 0}
    assert found["kinds"] == ["a", "b"]
    assert found["from"] == "docs"


def test_an_earlier_file_survives_a_failure(tmp_path):
    path = tmp_path / "train.jsonl"
    write_examples([FULL], path)
    before = path.read_bytes()
    for bad, message in (
        (Example("q", ()), "example 1 .'q'. has no positive"),
        (Example("q", ("p",), positive_scores=(1.0, 2.0)), "1 positives and 2 positive_scores"),
        (Example("q", ("p",), ("n",), negative_scores=(1.0, 2.0)), "1 negatives and 2 negative_scores"),
        (Example("q", ("p",), positive_scores=(math.nan,)), "cannot hold nan"),
    ):
        with pytest.raises(UsageError, match=message):
            write_examples([FULL, bad], path)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_a_full_disk_names_the_file_and_leaves_the_earlier_one(tmp_path, monkeypatch):
    path = tmp_path / "train.jsonl"
    path.write_text("earlier", encoding="utf-8")

    def full(number):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(output.os, "fsync", full)
    with pytest.raises(OSError, match=r"No space left on device: .*train.jsonl"):
        write_examples([FULL], path)
    assert path.read_text(encoding="utf-8") == "earlier"
    assert list(tmp_path.iterdir()) == [path]


def test_a_missing_folder_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="absent"):
        write_json(tmp_path / "absent" / "report.json", {})


def test_what_json_cannot_hold_is_refused():
    assert plain({1: (np.array([1, 2]), None, True, 1.5)}) == {"1": [[1, 2], None, True, 1.5]}
    with pytest.raises(UsageError, match="cannot hold inf"):
        plain([math.inf])
    with pytest.raises(UsageError, match="cannot hold a bytes"):
        plain({"a": b"x"})
