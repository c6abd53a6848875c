import gc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from encoding.bulk.samples import json_lines
from trine.encoding.bulk import plan
from trine.encoding.bulk.plan import Input, Limits, Settings, cut, survey
from trine.encoding.bulk.reading import InputFile, Row
from trine.errors import DataError, UnknownName, UsageError


def rows(texts, name="a"):
    file = InputFile(name, name)
    return [Row(number, text, file, number) for number, text in enumerate(texts, 1)]


def test_shards_end_where_a_limit_is_reached():
    shards = list(cut(rows(["aa", "bb", "c", "dddddd", "e", "f"]), Limits(texts=2, characters=5)))
    assert [shard.texts for shard in shards] == [("aa", "bb"), ("c",), ("dddddd",), ("e", "f")]
    assert [(shard.number, shard.first, shard.last) for shard in shards[:2]] == [(0, "a:1", "a:2"), (1, "a:3", "a:3")]
    assert shards[0].ids == (1, 2)
    assert shards[2].characters == 6


@given(st.lists(st.text(max_size=9)), st.integers(1, 5), st.integers(1, 20))
def test_shards_hold_all_rows_in_order_and_no_more_than_fit(texts, most, characters):
    shards = list(cut(rows(texts), Limits(most, characters)))
    assert [text for shard in shards for text in shard.texts] == texts
    assert [shard.number for shard in shards] == list(range(len(shards)))
    assert all(len(shard.texts) <= most for shard in shards)
    assert all(len(shard.texts) == 1 or shard.characters <= characters for shard in shards)


def test_a_shard_s_digest_tells_ids_texts_and_where_they_end():
    def digest(*pairs):
        file = InputFile("a", "a")
        (shard,) = cut([Row(key, text, file, 1) for key, text in pairs], Limits(9, 99))
        return shard.digest

    kinds = [[("a", "b")], [("ab", "")], [("", "ab")], [(5, "b")], [("5", "b")], [("a", "b"), ("a", "b")]]
    assert len({digest(*pairs) for pairs in kinds}) == len(kinds)
    assert digest(("a", "b")) == digest(("a", "b"))


def test_limits_shrink_where_every_token_has_a_vector():
    assert Limits.of(["dense", "sparse"], texts=None) == Limits(4096, 1 << 23)
    assert Limits.of(["multi_vector"], texts=None) == Limits(1024, 1 << 18)
    assert Limits.of(["multi_vector"], texts=5).texts == 5


def source(*paths, skip_errors=False):
    return Input(tuple(InputFile(path, path.name) for path in paths), "auto", skip_errors)


def test_a_survey_counts_every_file(tmp_path):
    first = json_lines(tmp_path / "a.jsonl", [{"id": 1, "text": "one"}, {"id": 2, "text": "둘"}])
    empty, same = (
        tmp_path / "b.txt",
        json_lines(tmp_path / "c.jsonl", [{"id": 1, "text": "one"}, {"id": 2, "text": "둘"}]),
    )
    empty.write_text("")
    seen = []
    found = survey(source(first, empty, same), Limits(3, 99), progress=seen.append)
    assert (found.texts, found.characters, len(found.digests), found.skipped) == (4, 8, 2, 0)
    assert [(file.name, file.texts) for file in found.files] == [("a.jsonl", 2), ("b.txt", 0), ("c.jsonl", 2)]
    assert found.files[0].sha256 == found.files[2].sha256 != found.files[1].sha256
    assert found.integer_ids
    assert seen[-1] == 4


@pytest.mark.parametrize("key", ["x", 1 << 63])
def test_ids_that_no_integer_column_holds(tmp_path, key):
    path = json_lines(tmp_path / "a.jsonl", [{"id": 1, "text": "a"}, {"id": key, "text": "b"}])
    assert not survey(source(path), Limits(3, 99)).integer_ids


def test_a_bad_line_is_an_error_or_is_counted(tmp_path, monkeypatch):
    monkeypatch.setattr(plan, "REASONS", 2)
    path = tmp_path / "a.jsonl"
    path.write_text('{"text": "a"}\n{}\n{}\n{}\n{"text": "b"}\n')
    with pytest.raises(DataError, match=r"a\.jsonl, line 2"):
        survey(source(path), Limits(3, 99))
    found = survey(source(path, skip_errors=True), Limits(3, 99))
    assert (found.texts, found.skipped) == (2, 3)
    assert [reason.partition(": ")[0] for reason in found.reasons] == ["a.jsonl:2", "a.jsonl:3"]


class Tracked(str):
    alive = most = 0

    def __new__(cls, value):
        cls.alive += 1
        cls.most = max(cls.most, cls.alive)
        return super().__new__(cls, value)

    def __del__(self):
        type(self).alive -= 1


def test_a_survey_holds_a_shard_at_a_time(tmp_path, monkeypatch):
    file = InputFile(tmp_path, "a")
    monkeypatch.setattr(plan, "read_file", lambda *_, **__: (Row(i, Tracked(f"text {i}"), file, i) for i in range(500)))
    Tracked.alive = Tracked.most = 0
    found = survey(Input((file,), "auto", False), Limits(10, 999))
    gc.collect()
    assert (found.texts, len(found.digests), Tracked.alive) == (500, 50, 0)
    assert Tracked.most <= 2 * 10 + 2


def test_settings_that_no_job_can_do():
    with pytest.raises(UnknownName, match="did you mean 'float16'"):
        Settings(precision="float15")
    with pytest.raises(UnknownName, match="did you mean 'parquet'"):
        Settings(shard_format="parket")
    with pytest.raises(UnknownName, match="did you mean 'lines'"):
        Settings(form="line")
    with pytest.raises(UsageError, match="at least 1, got 0"):
        Settings(shard_texts=0)
