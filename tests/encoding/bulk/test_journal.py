import json

import pytest

from trine.encoding.bulk.journal import Journal
from trine.errors import UsageError


def test_lines_are_added_with_their_time(tmp_path):
    for number in range(2):
        journal = Journal(tmp_path / "log.jsonl")
        journal.write("shard", shard=number, reason="왜 \udcff")
        journal.close()
    rows = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text("utf-8").splitlines()]
    assert [(row["event"], row["shard"]) for row in rows] == [("shard", 0), ("shard", 1)]
    assert all(row["time"][:2] == "20" for row in rows)


def test_one_process_at_a_time(tmp_path):
    journal = Journal(tmp_path / "log.jsonl")
    with pytest.raises(UsageError, match="another process is at work"):
        Journal(tmp_path / "log.jsonl")
    journal.close()
    Journal(tmp_path / "log.jsonl").close()
