import numpy as np
import pytest

from encoding.bulk.samples import ROWS, content, hashing, json_lines, other, run
from trine.encoding.bulk import EncodedTexts, open_shards
from trine.errors import DataError, ModelMismatch, UsageError


@pytest.fixture
def folder(tmp_path):
    run(json_lines(tmp_path / "a.jsonl"), tmp_path / "out", shard_texts=3)
    return tmp_path / "out"


def test_shards_come_in_the_order_of_the_input_with_their_ids(folder):
    shards = open_shards(folder, encoder=hashing("cpu"))
    assert (len(shards), shards.texts, shards.modes) == (3, 7, ("dense", "sparse", "multi_vector"))
    parts = list(shards)
    assert all(isinstance(part, EncodedTexts) for part in parts)
    assert [key for part in parts for key in part.ids] == [row["id"] for row in ROWS]
    expected = hashing("cpu").encode([row["text"] for row in ROWS], kind="passage")
    np.testing.assert_array_equal(np.concatenate([part.embeddings.dense for part in parts]), expected.dense)


def test_a_shard_is_read_when_it_is_asked_for(folder):
    shards = open_shards(folder)
    first, second = iter(shards), folder / "shard-000001.safetensors"
    assert next(first).ids == ("가", "b", 3)
    second.unlink()
    with pytest.raises(DataError, match=r"shard-000001\.safetensors cannot be read"):
        next(first)
    with pytest.raises(IndexError, match="shard 3 of 3"):
        shards[3]


def test_a_changed_shard_is_not_believed(folder):
    path = folder / "shard-000002.safetensors"
    raw = bytearray(path.read_bytes())
    raw[-1] ^= 1
    path.write_bytes(raw)
    with pytest.raises(DataError, match="has changed since it was written"):
        open_shards(folder)[2]


def test_another_model_is_refused(folder):
    with pytest.raises(ModelMismatch, match="hashing-8-64-4.*hashing-6-64-4"):
        open_shards(folder, encoder=other("cpu"))
    assert open_shards(folder).fingerprint == "hashing-8-64-4"


def test_unfinished_jobs_and_other_folders_are_not_opened(folder, tmp_path):
    assert "manifest.json" in content(folder)
    (folder / "manifest.json").unlink()
    with pytest.raises(UsageError, match="an unfinished job: run the same"):
        open_shards(folder)
    with pytest.raises(UsageError, match="no bulk job"):
        open_shards(tmp_path)
