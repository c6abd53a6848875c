import json

import pytest

from trine.encoding.bulk.manifest import begin, complete, described, finish, read_json, require_usable, write_json
from trine.encoding.bulk.plan import FileFacts, Limits, Settings, Survey
from trine.encoding.bulk.workers import Done, ModelFacts, Work
from trine.errors import DataError, UsageError

FACTS = ModelFacts("folder/model", "f00d", "float32", {"dense": 8, "sparse": 64}, ())
FOUND = Survey((FileFacts("a.jsonl", 3, "aa"),), (b"1", b"2"), 3, 30, True, 1, ("a.jsonl:2: broken",))
LIMITS = Limits(2, 99)


def job(facts=FACTS, found=FOUND, limits=LIMITS, modes=("dense",), **settings):
    return described(facts, Settings(**settings), limits, modes, found)


def work(folder):
    return Work(folder, "passage", ("dense",), None, "float32", "safetensors", True)


def test_the_first_run_says_what_the_job_is_and_the_next_agrees(tmp_path):
    assert begin(tmp_path, job()) == job()
    held = begin(tmp_path, job(facts=ModelFacts("moved/model", "f00d", "float32", FACTS.dimensions, ())))
    assert held["model"]["name"] == "folder/model"


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"facts": ModelFacts("m", "beef", "float32", FACTS.dimensions, ())}, "model fingerprint was f00d, now beef"),
        ({"facts": ModelFacts("m", "f00d", "bfloat16", FACTS.dimensions, ())}, "dtype was float32, now bfloat16"),
        ({"kind": "query"}, "settings kind was passage, now query"),
        ({"instruction": "찾아라"}, "settings instruction was none, now 찾아라"),
        ({"precision": "float16"}, "precision was float32, now float16"),
        ({"shard_format": "parquet"}, "shard_format was safetensors, now parquet"),
        ({"limits": Limits(3, 99)}, "shard_texts was 2, now 3"),
        ({"modes": ("dense", "sparse")}, r"modes was \['dense'\], now \['dense', 'sparse'\]"),
        ({"found": Survey((FileFacts("a.jsonl", 3, "bb"),), (b"1", b"2"), 3, 30, True, 1, ())}, "a.jsonl holds other"),
        ({"found": Survey((FileFacts("a.jsonl", 4, "bb"),), (b"1",), 4, 30, True, 1, ())}, "texts was 3, now 4"),
        ({"found": Survey((), (), 0, 0, True, 1, ())}, "a.jsonl was texts 3, now none"),
        ({"found": Survey(FOUND.files, FOUND.digests, 3, 30, True, 2, ())}, "input skipped was 1, now 2"),
    ],
)
def test_another_job_in_the_same_folder_is_refused_with_what_differs(tmp_path, change, told):
    begin(tmp_path, job())
    with pytest.raises(UsageError, match=rf"was begun as another job: .*{told}.*Choose another --out"):
        begin(tmp_path, job(**change))


def test_the_manifest_says_what_is_there(tmp_path):
    rows = [Done(1, 1, 5, "a:3", "a:4", 6, "cc", 9, 1.5, 1), Done(0, 2, 5, "a:1", "a:2", 4, "dd")]
    assert not complete(tmp_path, job())
    finish(tmp_path, job(), rows, work(tmp_path))
    manifest = read_json(tmp_path / "manifest.json")
    assert manifest["input"]["reasons"] == ["a.jsonl:2: broken"]
    assert manifest["shards"][1] == {
        "file": "shard-000001.safetensors",
        "texts": 1,
        "bytes": 6,
        "sha256": "cc",
        "first": "a:3",
        "last": "a:4",
    }
    assert "seconds" not in json.dumps(manifest)
    (tmp_path / "shard-000000.safetensors").write_bytes(b"1234")
    (tmp_path / "shard-000001.safetensors").write_bytes(b"123456")
    assert complete(tmp_path, job())
    (tmp_path / "shard-000001.safetensors").write_bytes(b"12345")
    assert not complete(tmp_path, job())
    assert not (tmp_path / "manifest.json").exists()


def test_places_where_no_job_can_write(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match="is a file"):
        require_usable(tmp_path / "file")
    with pytest.raises(UsageError, match="holds file, and no bulk job"):
        require_usable(tmp_path)
    (tmp_path / "file").rename(tmp_path / ".hidden")
    (tmp_path / "log.jsonl").write_text("")
    require_usable(tmp_path)
    require_usable(tmp_path / "none")
    write_json(tmp_path / "job.json", job())
    (tmp_path / "shard").write_text("")
    require_usable(tmp_path)


def test_a_job_that_cannot_be_read(tmp_path):
    path = tmp_path / "job.json"
    for text, told in [("{", "cannot be read"), ("[]", "layout 'list'"), ('{"layout": "old"}', "layout 'old'")]:
        path.write_text(text)
        with pytest.raises(DataError, match=told):
            begin(tmp_path, job())
