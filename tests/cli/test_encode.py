import json

import numpy as np
import pytest
from safetensors import safe_open

from models import tiny
from trine.cli import encode as module
from trine.models.config import TextConfig
from trine.testing import HashingEncoder


def test_json_lines_hold_dense_and_sparse(run):
    result = run("encode", "-", stdin="안녕 세계\nhello world\n")
    rows = [json.loads(line) for line in result.stdout.splitlines()]
    assert [row["id"] for row in rows] == [1, 2]
    assert all(set(row) == {"id", "dense", "sparse"} for row in rows)
    expected = HashingEncoder().encode(["안녕 세계", "hello world"], kind="passage")
    np.testing.assert_array_equal(np.array([row["dense"] for row in rows], np.float32), expected.dense)
    ids, weights = expected.sparse.row(1)
    assert rows[1]["sparse"] == dict(zip(HashingEncoder().token_labels(ids), weights.tolist(), strict=True))


def test_multi_vectors_come_where_they_are_asked_for(run):
    row = json.loads(run("encode", "--mode", "multi-vector", stdin="a b c\n").stdout)
    assert set(row) == {"id", "multi_vector"}
    assert np.shape(row["multi_vector"]) == (3, 16)


def test_ids_of_json_objects_are_kept(run):
    result = run("encode", "--mode", "dense", stdin='{"id": "가", "text": "one"}\n{"_id": 5, "text": "two"}\n')
    assert [json.loads(line)["id"] for line in result.stdout.splitlines()] == ["가", 5]


def test_output_comes_window_by_window(run, monkeypatch):
    sizes = []
    original = HashingEncoder.encode

    def encode(self, texts, **how):
        sizes.append(len(texts))
        return original(self, texts, **how)

    monkeypatch.setattr(HashingEncoder, "encode", encode)
    monkeypatch.setattr(module, "WINDOW", 4)
    result = run("encode", "--mode", "dense", stdin="".join(f"text {number}\n" for number in range(10)))
    assert sizes == [4, 4, 2]
    assert len(result.stdout.splitlines()) == 10


@pytest.mark.parametrize("name", ["out.npz", "folder/out.safetensors"])
def test_files_hold_flat_arrays(run, home, name):
    result = run("encode", "-", "--out", name, stdin="a b\nc\n")
    assert result.exit_code == 0
    assert result.stdout == ""
    assert "wrote 2 texts" in result.stderr
    expected = HashingEncoder().encode(["a b", "c"], kind="passage")
    if name.endswith(".npz"):
        arrays = dict(np.load(home / name))
        assert arrays["ids"].tolist() == ["1", "2"]
    else:
        with safe_open(home / name, "numpy") as opened:
            arrays = {key: opened.get_tensor(key) for key in opened.keys()}  # noqa: SIM118 -- no iterator of its own
            assert json.loads(opened.metadata()["ids"]) == [1, 2]
    np.testing.assert_array_equal(arrays["dense"], expected.dense)
    np.testing.assert_array_equal(arrays["sparse.ids"], expected.sparse.ids)
    np.testing.assert_array_equal(arrays["sparse.offsets"], expected.sparse.offsets)
    np.testing.assert_array_equal(arrays["multi_vector.values"], expected.multi_vector.values)
    assert arrays["multi_vector.offsets"].tolist() == [0, 2, 3]
    assert arrays["sparse.width"].tolist() == [4096]


def test_no_texts_are_an_empty_file(run, home):
    assert run("encode", "-", "--out", "none.npz", stdin="").exit_code == 0
    assert dict(np.load(home / "none.npz"))["ids"].tolist() == []
    assert run("encode", "-", stdin="").stdout == ""


def test_another_suffix_is_refused_before_anything_is_read(run, loaded):
    result = run("encode", "-", "--out", "vectors.bin", stdin="a\n")
    assert result.exit_code == 2
    assert ".npz or .safetensors" in result.stderr
    assert loaded == []


def test_a_missing_file_is_not_found(run):
    assert run("encode", "none.txt").exit_code == 4


def test_a_broken_line_is_corrupt(run):
    result = run("encode", stdin='{"text": "a"}\nbroken\n')
    assert result.exit_code == 5
    assert "line 2" in result.stderr


def test_an_instruction_goes_through_the_model_s_template(run, monkeypatch):
    encoder = tiny.encoder("qwen3", text=TextConfig(max_length=48, instruction_prompt="Do {instruction}: "))
    monkeypatch.setattr(module, "load_encoder", lambda *names, **options: encoder)

    def dense(text, *more):
        return json.loads(run("encode", "--mode", "dense", *more, stdin=text).stdout)["dense"]

    told = dense("색인", "--instruction", "find")
    assert told == pytest.approx(dense("Do find: 색인"), abs=1e-5)
    assert told != pytest.approx(dense("색인"), abs=1e-3)
