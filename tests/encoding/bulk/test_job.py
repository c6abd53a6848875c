import errno
import gzip
import json
import os

import numpy as np
import pytest

from encoding.bulk import samples
from encoding.bulk.samples import ROWS, content, json_lines, numbered, run
from trine.encoding.bulk import open_shards, storage
from trine.encoding.bulk import plan as planning
from trine.encoding.bulk.reading import Row
from trine.encoding.bulk.workers import JobFailed
from trine.errors import DataError, MissingExtra, UsageError
from trine.testing import HashingEncoder


def events(folder):
    return [json.loads(line) for line in (folder / "log.jsonl").read_text("utf-8").splitlines()]


def encoded_shards(folder):
    return [row["shard"] for row in events(folder) if row["event"] == "shard"]


def test_a_job_from_a_folder_of_every_kind(tmp_path):
    source = tmp_path / "in"
    source.mkdir()
    json_lines(source / "a.jsonl")
    (source / "b.txt.gz").write_bytes(gzip.compress("한 줄\n\n두 줄\n".encode()))
    (source / "c.md").write_text("not read")
    report = run(source, tmp_path / "out", shard_texts=4)
    assert (report.texts, report.shards, report.encoded, report.skipped, report.ignored) == (9, 3, 3, 0, {".md": 1})
    ids = [key for part in open_shards(tmp_path / "out") for key in part.ids]
    assert ids == [row["id"] for row in ROWS] + ["b.txt.gz:1", "b.txt.gz:3"]


def test_parquet_in_and_out(tmp_path):
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    table = pyarrow.table({"id": list(range(7)), "text": [row["text"] for row in ROWS]})
    parquet.write_table(table, tmp_path / "a.parquet")
    run(tmp_path / "a.parquet", tmp_path / "out", shard_texts=3, shard_format="parquet", precision="float16")
    shards = open_shards(tmp_path / "out")
    assert [key for part in shards for key in part.ids] == list(range(7))
    assert shards[0].embeddings.dense.dtype == np.float16
    assert parquet.read_table([*(tmp_path / "out").glob("*.parquet")]).num_rows == 7
    (tmp_path / "out" / "manifest.json").unlink()
    assert (
        run(
            tmp_path / "a.parquet", tmp_path / "out", shard_texts=3, shard_format="parquet", precision="float16"
        ).encoded
        == 0
    )


def test_parquet_shards_need_their_extra_before_anything_is_written(tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "pyarrow", None)
    with pytest.raises(MissingExtra):
        run(json_lines(tmp_path / "a.jsonl"), tmp_path / "out", shard_format="parquet")
    assert not (tmp_path / "out").exists()


def test_a_finished_job_is_not_done_again(tmp_path):
    source = json_lines(tmp_path / "a.jsonl")
    run(source, tmp_path / "out", shard_texts=3)
    before = content(tmp_path / "out")
    assert run(source, tmp_path / "out", shard_texts=3).encoded == 0
    assert content(tmp_path / "out") == before


@pytest.mark.parametrize("workers", [1, 2])
def test_a_stopped_job_encodes_what_is_missing_or_broken(tmp_path, workers):
    source, folder = numbered(tmp_path / "a.jsonl", 40), tmp_path / "out"
    run(source, folder, shard_texts=5)
    before = content(folder)
    (folder / "manifest.json").unlink()
    (folder / "shard-000002.safetensors").unlink()
    (folder / "shard-000005.safetensors").write_bytes(before["shard-000005.safetensors"][:-7])
    # Another shard's ids are not these rows'.
    (folder / "shard-000006.safetensors").write_bytes(before["shard-000000.safetensors"])
    (folder / ".00ff.partial").write_bytes(b"left by a kill")
    (folder / "log.jsonl").unlink()
    assert run(source, folder, shard_texts=5, workers=workers).encoded == 3
    assert sorted(encoded_shards(folder)) == [2, 5, 6]
    assert content(folder) == before


def test_a_file_lost_after_the_end_is_made_again(tmp_path):
    source, folder = numbered(tmp_path / "a.jsonl", 20), tmp_path / "out"
    run(source, folder, shard_texts=5)
    before = content(folder)
    (folder / "shard-000001.safetensors").unlink()
    assert run(source, folder, shard_texts=5).encoded == 1
    assert content(folder) == before


def test_scratch_files_go_before_the_work_and_after_it(tmp_path):
    """They fill a disk that is perhaps full already; processes that are ended leave some, too."""
    source, folder = numbered(tmp_path / "a.jsonl", 20), tmp_path / "out"
    folder.mkdir()
    (folder / ".0000.partial").write_bytes(b"left by a kill")
    seen = []

    def leave(state):
        seen.append({path.name for path in folder.glob(".*")})
        (folder / ".ffff.partial").write_bytes(b"left by an ended worker")
        if state.shards == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(source, folder, shard_texts=5, progress=leave)
    assert seen[0] == set()
    assert not list(folder.glob(".*"))


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"load": samples.other}, "model fingerprint was hashing-8-64-4, now hashing-6-64-4"),
        ({"precision": "float16"}, "precision was float32, now float16"),
        ({"modes": ("dense",)}, "modes was"),
        ({"source": "b"}, "a.jsonl holds other ids or texts"),
    ],
)
def test_another_job_in_the_folder_is_refused_and_changes_nothing(tmp_path, change, told):
    source = numbered(tmp_path / "a.jsonl", 20)
    run(source, tmp_path / "out", shard_texts=5)
    before = content(tmp_path / "out")
    if change.pop("source", None):
        source.write_text(source.read_text("utf-8").replace("number 7 ", "number 8 "), "utf-8")
    with pytest.raises(UsageError, match=told):
        run(source, tmp_path / "out", **({"shard_texts": 5} | change))
    assert content(tmp_path / "out") == before


def test_a_corrupt_line_is_found_before_anything_is_encoded(tmp_path):
    source = numbered(tmp_path / "a.jsonl", 20)
    with source.open("a") as stream:
        stream.write("{broken\n")
    with pytest.raises(DataError, match=r"a\.jsonl, line 21: not valid JSON"):
        run(source, tmp_path / "out", shard_texts=5)
    assert content(tmp_path / "out") == {}
    report = run(source, tmp_path / "out", shard_texts=5, skip_errors=True)
    assert (report.texts, report.skipped) == (20, 1)
    assert report.reasons[0].startswith("a.jsonl:21: not valid JSON")
    assert open_shards(tmp_path / "out").manifest["input"]["skipped"] == 1


@pytest.mark.parametrize("change", ["other", "shorter", "longer"])
def test_input_that_changes_while_the_job_runs_is_noticed(tmp_path, change):
    source, folder = numbered(tmp_path / "a.jsonl", 20), tmp_path / "out"
    good = source.read_text("utf-8")
    texts = {"other": good.replace("number 17 ", "number 1 "), "shorter": "\n".join(good.splitlines()[:15]) + "\n"}
    texts["longer"] = good + good

    def meddle(state):
        if state.stage == "encoding" and not state.shards:
            source.write_text(texts[change], "utf-8")

    with pytest.raises(DataError, match=r"the input has (changed|lost texts) since this run began"):
        run(source, folder, shard_texts=5, progress=meddle)
    source.write_text(good, "utf-8")
    run(source, folder, shard_texts=5)
    run(source, tmp_path / "whole", shard_texts=5)
    assert content(folder) == content(tmp_path / "whole")


@pytest.mark.parametrize("workers", [1, 2])
def test_a_failing_worker_fails_the_job_and_the_finished_shards_stay(tmp_path, workers):
    source, folder = numbered(tmp_path / "a.jsonl", 40, poison=33), tmp_path / "out"
    with pytest.raises(JobFailed, match=r"shard 6 \(a\.jsonl:31 to a\.jsonl:35\).*cannot be embedded"):
        run(source, folder, shard_texts=5, load=samples.failing, workers=workers)
    held = set(content(folder))
    assert "shard-000004.safetensors" in held
    assert held.isdisjoint({"manifest.json", "shard-000006.safetensors"})
    assert not [name for name in held if name.startswith(".")]
    stop = events(folder)[-1]
    assert stop["event"] == "stopped"
    assert "ValueError: cannot be embedded" in stop["traceback"]
    report = run(source, folder, shard_texts=5)
    assert report.encoded == 8 - len([name for name in held if name.startswith("shard-")])
    run(source, tmp_path / "whole", shard_texts=5)
    assert content(folder) == content(tmp_path / "whole")


def test_a_full_disk_is_told_and_the_job_goes_on_later(tmp_path, monkeypatch):
    source, folder = numbered(tmp_path / "a.jsonl", 40), tmp_path / "out"
    sync, calls = storage.os.fsync, []

    def fills_up(descriptor):
        calls.append(descriptor)
        if len(calls) > 8:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        sync(descriptor)

    monkeypatch.setattr(storage.os, "fsync", fills_up)
    with pytest.raises(
        JobFailed, match=r"shard-000003\.safetensors: No space left on device; finished shards are kept"
    ):
        run(source, folder, shard_texts=5)
    assert not list(folder.glob(".*"))
    monkeypatch.setattr(storage.os, "fsync", sync)
    assert run(source, folder, shard_texts=5).encoded == 5
    run(source, tmp_path / "whole", shard_texts=5)
    assert content(folder) == content(tmp_path / "whole")


def test_a_disk_that_is_full_before_the_job_begins(tmp_path, monkeypatch):
    def full(descriptor):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(storage.os, "fsync", full)
    with pytest.raises(JobFailed, match=r"job\.json: No space left on device"):
        run(json_lines(tmp_path / "a.jsonl"), tmp_path / "out")


def test_an_interrupt_keeps_what_is_done(tmp_path):
    source, folder = numbered(tmp_path / "a.jsonl", 40), tmp_path / "out"

    def interrupt(state):
        if state.shards == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(source, folder, shard_texts=5, progress=interrupt)
    assert run(source, folder, shard_texts=5).encoded == 5
    assert encoded_shards(folder) == list(range(8))


def test_progress_tells_what_is_read_and_what_is_done(tmp_path):
    told = []
    run(numbered(tmp_path / "a.jsonl", 12), tmp_path / "out", shard_texts=5, progress=told.append)
    assert [state.texts for state in told if state.stage == "reading"] == [6, 11, 12]
    assert [(state.texts, state.shards) for state in told if state.stage == "encoding"] == [
        (0, 0),
        (5, 1),
        (10, 2),
        (12, 3),
    ]
    assert told[-1].seconds_left == 0
    assert told[-1].tokens_per_second > 0


def test_only_a_window_of_rows_is_in_hand(tmp_path, monkeypatch):
    read, most = [0], [0]

    def endless(file, *, form):
        read[0] = 0
        for number in range(3000):
            read[0] += 1
            yield Row(number, f"text {number}", file, number + 1)

    class Watching(HashingEncoder):
        done = 0

        def encode(self, texts, **how):
            most[0] = max(most[0], read[0] - self.done)
            self.done += len(texts)
            return super().encode(texts, **how)

    monkeypatch.setattr(planning, "read_file", endless)
    (tmp_path / "a.txt").write_text("x")
    report = run(tmp_path / "a.txt", tmp_path / "out", load=lambda device: Watching(), shard_texts=20)
    assert report.shards == 150
    # A shard is known to be full when the row after it has been read.
    assert most[0] == 21


def test_shard_boundaries_and_workers_change_no_vector(tmp_path):
    """With float32 on the CPU: within 1e-6 for other boundaries, bitwise for the same ones."""
    source = json_lines(tmp_path / "a.jsonl", ROWS * 3)
    for name, size, workers in (("a", 5, 1), ("b", 5, 2), ("c", 16, 1)):
        run(source, tmp_path / name, load=samples.tiny_bert, shard_texts=size, workers=workers)
    assert content(tmp_path / "a") == content(tmp_path / "b")
    left, right = (
        storage.Embeddings.concatenate([part.embeddings for part in open_shards(tmp_path / name)]) for name in "ac"
    )
    np.testing.assert_allclose(left.dense, right.dense, rtol=0, atol=1e-6)
    np.testing.assert_array_equal(left.sparse.ids, right.sparse.ids)
    np.testing.assert_allclose(left.sparse.weights, right.sparse.weights, rtol=0, atol=1e-6)
    np.testing.assert_allclose(left.multi_vector.values, right.multi_vector.values, rtol=0, atol=1e-6)


def test_no_texts_are_no_shards(tmp_path):
    (tmp_path / "a.jsonl").write_text("\n\n")
    report = run(tmp_path / "a.jsonl", tmp_path / "out")
    assert (report.texts, report.shards) == (0, 0)
    assert list(open_shards(tmp_path / "out")) == []


def test_modes_that_the_model_does_not_give(tmp_path):
    source = json_lines(tmp_path / "a.jsonl")
    with pytest.raises(UsageError, match="gives no colour embeddings; it gives dense, sparse, multi_vector"):
        run(source, tmp_path / "out", modes=("colour",))
    run(source, tmp_path / "out", modes=("sparse", "dense"))
    assert open_shards(tmp_path / "out").modes == ("dense", "sparse")


def test_what_comes_out_is_never_what_goes_in(tmp_path):
    json_lines(tmp_path / "a.jsonl")
    with pytest.raises(UsageError, match="is the input itself"):
        run(tmp_path, tmp_path)
    for _ in range(2):
        report = run(tmp_path, tmp_path / "out")
        assert report.texts == len(ROWS)


def test_two_runs_at_once_are_refused(tmp_path):
    source = numbered(tmp_path / "a.jsonl", 20)

    def again(state):
        if state.shards == 1:
            with pytest.raises(UsageError, match="another process is at work"):
                run(source, tmp_path / "out", shard_texts=5)

    assert run(source, tmp_path / "out", shard_texts=5, progress=again).encoded == 4
