import multiprocessing
import os
from functools import partial

import pytest
import torch

from encoding.bulk import samples
from trine.encoding.bulk import workers
from trine.encoding.bulk.plan import Limits, cut
from trine.encoding.bulk.reading import InputFile, Row
from trine.encoding.bulk.storage import from_bytes, sha256
from trine.encoding.bulk.workers import Alone, JobFailed, Several, Work, crew_of, devices_of, encode_shard, reason_of
from trine.errors import CheckpointError, DataError
from trine.models.encoder import Encoder
from trine.testing import HashingEncoder

FILE = InputFile("a.txt", "a.txt")


def shards(texts, size=2):
    return cut((Row(number, text, FILE, number) for number, text in enumerate(texts, 1)), Limits(size, 999))


def work(folder, **changes):
    settings = {"modes": ("dense",), "kind": "passage", "instruction": None, "precision": "float32"}
    return Work(folder=folder, **(settings | {"shard_format": "safetensors", "integer_ids": True} | changes))


def test_a_shard_is_a_pure_function_of_its_rows_and_the_model(tmp_path):
    encoder = HashingEncoder()
    (shard,) = shards(["한 글", "two words more"])
    done = encode_shard(encoder, shard, work=work(tmp_path), worker=3)
    raw = (tmp_path / "shard-000000.safetensors").read_bytes()
    assert (done.number, done.texts, done.first, done.last, done.worker) == (0, 2, "a.txt:1", "a.txt:2", 3)
    assert (done.bytes, done.sha256, done.characters) == (len(raw), sha256(raw), 17)
    assert done.tokens == 5
    found = from_bytes(raw, shard_format="safetensors", name="x")
    assert found.ids == (1, 2)
    expected = encoder.encode(["한 글", "two words more"], kind="passage", modes=["dense"])
    assert (found.embeddings.dense == expected.dense).all()
    encode_shard(encoder, shard, work=work(tmp_path))
    assert (tmp_path / "shard-000000.safetensors").read_bytes() == raw


def test_kind_and_instruction_reach_the_model(tmp_path):
    told = {}

    class Told(HashingEncoder):
        def encode(self, texts, **how):
            told.update(how)
            del how["instruction"]
            return super().encode(texts, **how)

    (shard,) = shards(["a"])
    encode_shard(Told(), shard, work=work(tmp_path, kind="query", instruction="find"))
    assert told == {"kind": "query", "modes": ["dense"], "instruction": "find"}


def test_tokens_are_counted_as_far_as_the_model_reads(tmp_path):
    encoder = HashingEncoder()
    encoder.max_length = 10
    (shard,) = shards(["word " * 100, "one"])
    assert encode_shard(encoder, shard, work=work(tmp_path)).tokens == 11


@pytest.mark.parametrize("count", [1, 2])
def test_every_shard_is_done_once(tmp_path, count):
    crew = crew_of(samples.hashing, ["cpu"] * count)
    try:
        assert isinstance(crew, Alone if count == 1 else Several)
        assert crew.facts.fingerprint == "hashing-8-64-4"
        assert crew.facts.dimensions == {"dense": 8, "sparse": 64, "multi_vector": 4}
        assert len(set(crew.processes)) == count
        done = list(crew.run(shards(["x"] * 9), work(tmp_path)))
        assert sorted(each.number for each in done) == [0, 1, 2, 3, 4]
        assert len(list(tmp_path.iterdir())) == 5
        assert list(crew.run(shards([]), work(tmp_path))) == []
    finally:
        crew.close()


@pytest.mark.parametrize("count", [1, 3])
def test_no_more_shards_are_drawn_than_there_are_workers_and_one(tmp_path, count):
    drawn = 0

    def counted():
        nonlocal drawn
        for shard in shards(["x"] * 40):
            drawn += 1
            yield shard

    crew = crew_of(samples.hashing, ["cpu"] * count)
    try:
        for finished, _ in enumerate(crew.run(counted(), work(tmp_path)), 1):
            assert drawn - finished <= count
        assert drawn == 20
    finally:
        crew.close()


@pytest.mark.parametrize("count", [1, 2])
def test_a_failing_shard_is_named_with_the_reason(tmp_path, count):
    crew = crew_of(samples.failing, ["cpu"] * count)
    try:
        texts = ["x"] * 5 + ["poison", "x", "x"]
        who = "cpu" if count == 1 else r"worker \d \(cpu\)"
        reason = rf"shard 2 \(a.txt:5 to a.txt:6\) failed on {who}: ValueError: cannot be embedded; finished shards"
        with pytest.raises(JobFailed, match=reason) as raised:
            list(crew.run(shards(texts), work(tmp_path)))
        assert "in encode" in str(raised.value.__cause__) or isinstance(raised.value.__cause__, ValueError)
    finally:
        crew.close()


def test_a_dying_worker_is_named_and_the_others_end(tmp_path):
    crew = Several(samples.dying, ["cpu", "cpu"])
    try:
        with pytest.raises(JobFailed, match=r"shard 0 .* died with exit code -9 \(killed; perhaps"):
            list(crew.run(shards(["poison"] + ["x"] * 20), work(tmp_path)))
    finally:
        crew.close()
    assert multiprocessing.active_children() == []


def test_a_model_that_cannot_be_loaded_keeps_its_kind_of_error(tmp_path):
    with pytest.raises(CheckpointError, match=r"is missing|no model|nothing"):
        Several(partial(Encoder.load, str(tmp_path)), ["cpu", "cpu"])
    with pytest.raises(JobFailed, match=r"worker 0 \(cpu\) could not load the model: ValueError: these weights"):
        Several(samples.stubborn, ["cpu", "cpu"])
    assert multiprocessing.active_children() == []


def test_a_device_for_each_worker(monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert devices_of("auto", None) == ("cuda:0", "cuda:1")
    assert devices_of("cuda", 3) == ("cuda:0", "cuda:1", "cuda:0")
    assert devices_of("cuda:1", None) == ("cuda:1",)
    assert devices_of("cpu", 2) == ("cpu", "cpu")
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    assert devices_of("auto", None) == ("auto",)
    assert devices_of("auto", 2) == ("auto", "auto")


def test_reasons_are_one_line_with_the_file():
    assert reason_of(DataError("told")) == "told"
    assert reason_of(OSError(28, "No space left on device", "x/y")) == "x/y: No space left on device"
    assert reason_of(OSError(28, "No space left on device")) == "No space left on device"
    assert reason_of(KeyError("a")) == "KeyError: 'a'"


def test_workers_share_the_cores(monkeypatch):
    monkeypatch.delenv("RAYON_NUM_THREADS", raising=False)
    workers._share_cores(2)
    assert os.environ["RAYON_NUM_THREADS"] == "2"
    workers._share_cores(5)
    assert os.environ["RAYON_NUM_THREADS"] == "2"
    monkeypatch.delenv("RAYON_NUM_THREADS")
