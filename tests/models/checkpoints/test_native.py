import json
import shutil

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from models import layouts, tiny
from trine import Encoder
from trine.errors import CheckpointError, UsageError


@pytest.fixture(scope="module")
def saved(trio, tmp_path_factory):
    return trio("xlm_roberta").save(tmp_path_factory.mktemp("native") / "model")


@pytest.fixture
def copy(saved, tmp_path):
    return shutil.copytree(saved, tmp_path / "copy")


def load(folder, **options):
    return Encoder.load(folder, device="cpu", **options)


@pytest.mark.parametrize("name", tiny.BACKBONES)
def test_round_trip(trio, tmp_path, name):
    """All three embeddings bit by bit, the configuration and the fingerprint."""
    before = trio(name)
    after = load(before.save(tmp_path / "model"))
    assert after.config.text == before.config.text
    assert after.config.origin == "native"
    assert after.fingerprint == before.fingerprint
    one, other = before.encode(tiny.TEXTS), after.encode(tiny.TEXTS)
    np.testing.assert_array_equal(one.dense, other.dense)
    for part in ("offsets", "ids", "weights"):
        np.testing.assert_array_equal(getattr(one.sparse, part), getattr(other.sparse, part))
    np.testing.assert_array_equal(one.multi_vector.values, other.multi_vector.values)
    np.testing.assert_array_equal(one.multi_vector.offsets, other.multi_vector.offsets)
    again = load(after.save(tmp_path / "again"))
    assert again.fingerprint == before.fingerprint
    assert again.config == after.config


def test_no_pickle_is_written(saved):
    kinds = {path.suffix for path in saved.rglob("*") if path.is_file()}
    assert kinds == {".json", ".safetensors"}
    assert set(load_file(saved / "heads.safetensors")) == {
        "sparse.linear.weight",
        "sparse.linear.bias",
        "multi_vector.layers.0.linear.weight",
        "multi_vector.layers.0.linear.bias",
    }


def test_every_part_of_the_configuration_survives(plain, tmp_path):
    source = layouts.old_sentence_transformers(
        plain("bert"),
        tmp_path / "source",
        poolings=("mean", "cls"),
        include_prompt=False,
        layers=({"kind": "Normalize"},),
        transformer={"max_seq_length": 20, "do_lower_case": True, "query_length": 7},
        model={"prompts": {"query": "질문: "}, "default_prompt_name": "query", "truncate_dim": 9},
    )
    before = load(source)
    after = load(before.save(tmp_path / "native"))
    assert after.config.text == before.config.text
    assert after.config.dense == before.config.dense
    assert after.config.origin == "sentence_transformers"  # where it came from first
    for kind in ("query", "passage"):
        np.testing.assert_array_equal(
            after.encode(tiny.TEXTS, kind=kind).dense, before.encode(tiny.TEXTS, kind=kind).dense
        )


def test_a_model_without_head_weights_has_no_file_for_them(plain, tmp_path):
    folder = load(plain("bert"), pooling="mean").save(tmp_path / "model")
    assert not (folder / "heads.safetensors").exists()
    assert load(folder).modes == ("dense",)


def test_weights_of_lower_precision_come_back_as_they_were(saved, tmp_path):
    half = load(saved, dtype="bfloat16")
    again = load(half.save(tmp_path / "half"), dtype="bfloat16")
    np.testing.assert_array_equal(half.encode(tiny.TEXTS).dense, again.encode(tiny.TEXTS).dense)
    assert again.fingerprint == half.fingerprint


# -- the fingerprint -------------------------------------------------------------------------------------------------


def test_every_weight_tensor_is_in_the_fingerprint(copy):
    first = load(copy).fingerprint
    for file in ("model.safetensors", "heads.safetensors"):
        original = load_file(copy / file)
        for key in sorted(original):
            changed = original | {key: original[key] + 1}
            save_file(changed, copy / file, metadata={"format": "pt"})
            assert load(copy).fingerprint != first, key
        save_file(original, copy / file, metadata={"format": "pt"})
    assert load(copy).fingerprint == first


def test_one_value_of_a_small_tensor_is_in_the_fingerprint(copy):
    first = load(copy).fingerprint
    tensors = load_file(copy / "heads.safetensors")
    tensors["multi_vector.layers.0.linear.bias"][5] *= 1.1
    save_file(tensors, copy / "heads.safetensors")
    assert load(copy).fingerprint != first


@pytest.mark.parametrize(
    "change",
    [
        lambda text: text.update(max_length=40),
        lambda text: text.update(prompts={"query": "q: "}),
        lambda text: text.update(lower_case=True),
    ],
)
def test_the_configuration_is_in_the_fingerprint(copy, change):
    first = load(copy).fingerprint
    content = json.loads((copy / "trine.json").read_text())
    change(content["text"])
    layouts.write(copy / "trine.json", content)
    assert load(copy).fingerprint != first


def test_the_vocabulary_is_in_the_fingerprint(copy):
    first = load(copy).fingerprint
    content = json.loads((copy / "tokenizer.json").read_text())
    pieces = content["model"]["vocab"]
    pieces[40][0], pieces[41][0] = pieces[41][0], pieces[40][0]
    layouts.write(copy / "tokenizer.json", content)
    assert load(copy).fingerprint != first


def test_where_a_model_came_from_is_not_in_the_fingerprint(copy):
    first = load(copy).fingerprint
    layouts.change(copy / "trine.json", origin="somewhere")
    assert load(copy).config.origin == "somewhere"
    assert load(copy).fingerprint == first


def test_the_fingerprint_is_the_same_in_every_dtype(saved):
    assert len({load(saved, dtype=dtype).fingerprint for dtype in ("float32", "bfloat16", "float16")}) == 1


def test_weights_that_no_embedding_passes_do_not_make_it_random(plain):
    """A masked-LM checkpoint brings no pooler, which would be made up anew at every load."""
    for name in ("bert", "xlm_roberta", "mpnet"):
        folder = plain(name, masked_lm=True)
        assert load(folder, pooling="mean").fingerprint == load(folder, pooling="mean").fingerprint


# -- the strict schema -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda c: c.update(surprise=1), "unknown field `surprise`"),
        (lambda c: c["text"].update(max_lenght=40), "unknown field `max_lenght` - at `\\$.text`"),
        (lambda c: c["text"].update(max_length="40"), "got `str` - at `\\$.text.max_length`"),
        (lambda c: c["dense"].update(pooling=["median"]), "'median' - at `\\$.dense.pooling"),
        (lambda c: c["dense"].update(layers=[{"kind": "attention"}]), "'attention' - at `\\$.dense.layers"),
        (lambda c: c["sparse"].update(source="bm25"), "'bm25' - at `\\$.sparse.source`"),
        (lambda c: c["sparse"].pop("width"), "missing required field `width` - at `\\$.sparse`"),
        (lambda c: c.pop("text"), "missing required field `text`"),
        (lambda c: c.update(format=2), "2 - at `\\$.format`"),
    ],
)
def test_a_configuration_that_is_not_understood_names_the_field(copy, change, words):
    content = json.loads((copy / "trine.json").read_text())
    change(content)
    layouts.write(copy / "trine.json", content)
    with pytest.raises(CheckpointError, match=words) as caught:
        load(copy)
    assert "trine.json" in str(caught.value)


def test_a_configuration_that_is_no_json(copy):
    (copy / "trine.json").write_text("{")
    with pytest.raises(CheckpointError, match="trine.json"):
        load(copy)


def test_a_configuration_without_heads(copy):
    layouts.change(copy / "trine.json", dense=None, sparse=None, multi_vector=None)
    with pytest.raises(CheckpointError, match="at least one of the heads"):
        load(copy)


def test_missing_head_weights_are_an_error(copy):
    (copy / "heads.safetensors").unlink()
    with pytest.raises(CheckpointError, match="missing: .*sparse.linear.bias"):
        load(copy)


def test_surplus_head_weights_are_an_error(copy):
    tensors = load_file(copy / "heads.safetensors") | {"sparse.other": torch.ones(2)}
    save_file(tensors, copy / "heads.safetensors")
    with pytest.raises(CheckpointError, match="unknown: \\['sparse.other'\\]"):
        load(copy)


def test_layers_that_do_not_fit_each_other(copy):
    content = json.loads((copy / "trine.json").read_text())
    content["multi_vector"]["layers"][0]["in_features"] = 31
    layouts.write(copy / "trine.json", content)
    with pytest.raises(CheckpointError, match="wants 31 dimensions, but the layers before it give 32"):
        load(copy)


# -- saving ----------------------------------------------------------------------------------------------------------


def test_an_existing_folder_is_not_overwritten(trio, tmp_path):
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "precious.txt").write_text("내 자료")
    with pytest.raises(UsageError, match="is not empty"):
        trio("bert").save(tmp_path / "model")
    assert [path.name for path in (tmp_path / "model").iterdir()] == ["precious.txt"]


def test_an_empty_folder_is_filled(trio, tmp_path):
    (tmp_path / "model").mkdir()
    assert load(trio("bert").save(tmp_path / "model")).modes == trio("bert").modes


def test_a_failure_half_way_leaves_nothing(trio, tmp_path, monkeypatch):
    encoder = trio("bert")

    def full(folder):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(encoder.tokenizer, "save_pretrained", full)
    with pytest.raises(OSError, match="No space left"):
        encoder.save(tmp_path / "model")
    assert list(tmp_path.iterdir()) == []


def test_export_under_its_own_name(trio, tmp_path):
    folder = trio("bert").export(tmp_path / "model", layout="native")
    assert load(folder).fingerprint == trio("bert").fingerprint


def test_nothing_is_printed(trio, tmp_path, capfd):
    load(trio("bert").save(tmp_path / "model"))
    assert capfd.readouterr() == ("", "")
