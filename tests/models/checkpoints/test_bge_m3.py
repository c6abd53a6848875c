"""BGE-M3's layout against the formulas of its paper (arXiv 2402.03216, section 3.2), computed here on their own."""

import json

import numpy as np
import pytest
import torch
import transformers

from models import layouts, tiny
from trine import Encoder
from trine.errors import CheckpointError, UsageError
from trine.models.config import DenseConfig, TextConfig

WIDTH = 8


@pytest.fixture(scope="module")
def heads():
    return {
        "sparse": tiny.random_linear(1, tiny.HIDDEN, seed=11),
        "colbert": tiny.random_linear(WIDTH, tiny.HIDDEN, seed=12),
    }


@pytest.fixture(scope="module")
def folder(plain, heads, tmp_path_factory):
    return layouts.bge_m3(plain("xlm_roberta"), tmp_path_factory.mktemp("m3") / "model", **heads)


@pytest.fixture(scope="module")
def encoder(folder):
    return Encoder.load(folder, device="cpu")


@pytest.fixture
def copy(plain, heads, tmp_path):
    """A fresh folder to break."""
    return layouts.bge_m3(plain("xlm_roberta"), tmp_path / "copy", **heads)


def by_the_paper(folder, heads, text):
    """Dense vector, weights by id, and vectors of one text, unbatched and unpadded.

    e = norm(H[0]); w_t = max over positions of token t of ReLU(W_lex H_i + b), without <s>, </s>, <pad> and <unk>;
    E = norm(W_mul H[1:] + b), </s> included.
    """
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    model = transformers.AutoModel.from_pretrained(folder).eval()
    ids = tokenizer(text, truncation=True, max_length=tiny.MAX_LENGTH)["input_ids"]
    with torch.no_grad():
        states = model(input_ids=torch.tensor([ids]), attention_mask=torch.ones(1, len(ids))).last_hidden_state[0]
    states = states.double().numpy()
    lexical, multi = ({key: value.double().numpy() for key, value in heads[name].items()} for name in heads)
    terms = {}
    for number, state in zip(ids, states, strict=True):
        weight = float(lexical["weight"][0] @ state + lexical["bias"][0])
        if number not in (0, 1, 2, 3) and weight > 0:
            terms[number] = max(weight, terms.get(number, 0.0))
    vectors = states[1:] @ multi["weight"].T + multi["bias"]
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    return states[0] / np.linalg.norm(states[0]), terms, vectors


def test_all_three_outputs_follow_the_paper(folder, heads, encoder):
    found = encoder.encode(tiny.TEXTS)
    assert found.modes == ("dense", "sparse", "multi_vector")
    for number, text in enumerate(tiny.TEXTS):
        dense, terms, vectors = by_the_paper(folder, heads, text)
        np.testing.assert_allclose(found.dense[number], dense, atol=1e-5)
        ids, weights = found.sparse.row(number)
        assert list(ids) == sorted(terms)
        np.testing.assert_allclose(weights, [terms[key] for key in sorted(terms)], atol=1e-5)
        np.testing.assert_allclose(found.multi_vector.row(number), vectors, atol=1e-5)


def test_configuration(encoder):
    assert encoder.config.origin == "bge_m3"
    assert encoder.config.dense == DenseConfig(pooling=("cls",), layers=encoder.config.dense.layers)
    assert encoder.config.sparse.dropped_ids == (0, 1, 2, 3)
    assert encoder.config.multi_vector.drop_first
    assert dict(encoder.dimensions) == {
        "dense": tiny.HIDDEN,
        "sparse": encoder.backbone.vocabulary_size,
        "multi_vector": WIDTH,
    }


def test_the_mask_token_keeps_its_weight(encoder):
    """FlagEmbedding drops <s>, </s>, <pad> and <unk>, and no other special token."""
    assert encoder.tokenizer.mask_token_id not in encoder.config.sparse.dropped_ids


def test_the_end_token_keeps_its_vector(encoder):
    assert len(encoder.encode([""]).multi_vector.row(0)) == 1
    assert len(encoder.encode([""]).sparse.row(0)[0]) == 0


@pytest.mark.parametrize("with_modules", [True, False])
@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
def test_variants_give_the_same(plain, heads, encoder, tmp_path, suffix, with_modules):
    """FlagEmbedding drops modules.json when it saves after training; pooling is CLS all the same."""
    folder = layouts.bge_m3(plain("xlm_roberta"), tmp_path / "model", suffix=suffix, with_modules=with_modules, **heads)
    other = Encoder.load(folder, device="cpu")
    found, expected = other.encode(tiny.TEXTS), encoder.encode(tiny.TEXTS)
    np.testing.assert_array_equal(found.dense, expected.dense)
    np.testing.assert_array_equal(found.sparse.weights, expected.sparse.weights)
    np.testing.assert_array_equal(found.multi_vector.values, expected.multi_vector.values)
    assert other.max_length == tiny.MAX_LENGTH
    assert other.fingerprint == encoder.fingerprint


def test_heads_stored_in_half_precision(plain, heads, tmp_path):
    halved = {stem: {key: value.half() for key, value in part.items()} for stem, part in heads.items()}
    widened = {stem: {key: value.float() for key, value in part.items()} for stem, part in halved.items()}
    first, second = (
        Encoder.load(layouts.bge_m3(plain("xlm_roberta"), tmp_path / name, **tensors), device="cpu")
        for name, tensors in (("half", halved), ("float", widened))
    )
    assert first.dtype == torch.float32
    np.testing.assert_array_equal(
        first.encode(tiny.TEXTS).multi_vector.values, second.encode(tiny.TEXTS).multi_vector.values
    )


def test_safetensors_win_over_a_pickle_beside_them(copy, heads):
    other = tiny.random_linear(1, tiny.HIDDEN, seed=99)
    from safetensors.torch import save_file

    save_file(other, copy / "sparse_linear.safetensors")
    encoder = Encoder.load(copy, device="cpu")
    torch.testing.assert_close(encoder.state_dict()["sparse.linear.weight"], other["weight"])


# -- broken folders --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("stem", ["sparse_linear", "colbert_linear"])
def test_a_missing_head_is_an_error_and_never_random(copy, stem):
    (copy / f"{stem}.pt").unlink()
    with pytest.raises(CheckpointError, match=f"missing.*{stem}.safetensors or .*{stem}.pt"):
        Encoder.load(copy, device="cpu")


@pytest.mark.parametrize(
    ("stem", "shape", "words"),
    [
        ("colbert_linear", (WIDTH, tiny.HIDDEN + 1), "wants 33 dimensions, but the layers before it give 32"),
        ("colbert_linear", (WIDTH,), "should be \\(d, hidden size\\)"),
        ("sparse_linear", (2, tiny.HIDDEN), "sparse.linear.weight has shape \\(2, 32\\), .* \\(1, 32\\)"),
        ("sparse_linear", (1, tiny.HIDDEN - 1), "sparse.linear.weight has shape \\(1, 31\\), .* \\(1, 32\\)"),
    ],
)
def test_heads_of_a_wrong_shape(copy, stem, shape, words):
    tensors = torch.load(copy / f"{stem}.pt", weights_only=True)
    torch.save(tensors | {"weight": torch.ones(shape)}, copy / f"{stem}.pt")
    with pytest.raises(CheckpointError, match=words):
        Encoder.load(copy, device="cpu")


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_heads_with_values_that_are_no_numbers(copy, heads, value):
    broken = heads["colbert"]["weight"].clone()
    broken[3, 4] = value
    torch.save(heads["colbert"] | {"weight": broken}, copy / "colbert_linear.pt")
    with pytest.raises(CheckpointError, match="multi_vector.layers.0.linear.weight holds NaN or infinite"):
        Encoder.load(copy, device="cpu")


def test_missing_and_surplus_tensors(copy, heads):
    torch.save({"weight": heads["sparse"]["weight"]}, copy / "sparse_linear.pt")
    with pytest.raises(CheckpointError, match="expected weight and bias, found \\['weight'\\]"):
        Encoder.load(copy, device="cpu")
    torch.save(heads["sparse"] | {"scale": torch.ones(1)}, copy / "sparse_linear.pt")
    with pytest.raises(CheckpointError, match="expected weight and bias"):
        Encoder.load(copy, device="cpu")


class Trap:
    """Runs code where it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), "w")


@pytest.mark.parametrize("wrapped", [True, False])
def test_pickled_code_is_not_run(copy, heads, tmp_path, wrapped):
    trap = Trap(tmp_path / "executed")
    torch.save(heads["sparse"] | {"extra": trap} if wrapped else trap, copy / "sparse_linear.pt")
    with pytest.raises(CheckpointError, match="cannot be read safely"):
        Encoder.load(copy, device="cpu")
    assert not (tmp_path / "executed").exists()


@pytest.mark.parametrize("content", [b"", b"not a pickle", b"PK\x03\x04broken"])
def test_files_that_are_no_tensors(copy, content):
    (copy / "colbert_linear.pt").write_bytes(content)
    with pytest.raises(CheckpointError, match="cannot be read safely"):
        Encoder.load(copy, device="cpu")


def test_tensors_that_are_not_named(copy):
    torch.save(torch.ones(3), copy / "sparse_linear.pt")
    with pytest.raises(CheckpointError, match="should hold named tensors, but holds Tensor"):
        Encoder.load(copy, device="cpu")


def test_configuration_without_a_vocabulary(copy):
    layouts.change(copy / "config.json", vocab_size=None)
    with pytest.raises(CheckpointError, match="bge_m3.*vocab_size"):
        Encoder.load(copy, device="cpu")


def test_pooling_cannot_be_told(copy):
    with pytest.raises(UsageError, match="pooling='mean' has no effect"):
        Encoder.load(copy, device="cpu", pooling="mean")


def test_layers_of_modules_json_come_with_their_weights(plain, heads, tmp_path):
    weights = {f"linear.{key}": value for key, value in tiny.random_linear(6, tiny.HIDDEN, seed=3).items()}
    layer = {"kind": "Dense", "config": {"in_features": tiny.HIDDEN, "out_features": 6}, "weights": weights}
    dense_only = layouts.old_sentence_transformers(plain("xlm_roberta"), tmp_path / "dense", layers=(layer,))
    expected = Encoder.load(dense_only, device="cpu").encode(tiny.TEXTS).dense
    for stem, name in (("sparse_linear", "sparse"), ("colbert_linear", "colbert")):
        torch.save(heads[name], dense_only / f"{stem}.pt")
    encoder = Encoder.load(dense_only, device="cpu")
    assert encoder.modes == ("dense", "sparse", "multi_vector")
    np.testing.assert_array_equal(encoder.encode(tiny.TEXTS, modes=["dense"]).dense, expected)


# -- writing ---------------------------------------------------------------------------------------------------------


def test_what_is_written_reads_back_the_same(encoder, tmp_path):
    folder = encoder.export(tmp_path / "exported", layout="bge_m3")
    names = {path.name for path in folder.iterdir()}
    assert {"sparse_linear.pt", "colbert_linear.pt", "modules.json", "1_Pooling", "tokenizer.json"} <= names
    assert json.loads((folder / "1_Pooling" / "config.json").read_text())["pooling_mode_cls_token"] is True
    again = Encoder.load(folder, device="cpu")
    assert again.fingerprint == encoder.fingerprint
    found, expected = again.encode(tiny.TEXTS), encoder.encode(tiny.TEXTS)
    np.testing.assert_array_equal(found.dense, expected.dense)
    np.testing.assert_array_equal(found.sparse.weights, expected.sparse.weights)
    np.testing.assert_array_equal(found.multi_vector.values, expected.multi_vector.values)


def test_written_heads_hold_tensors_and_no_code(encoder, tmp_path):
    folder = encoder.export(tmp_path / "exported", layout="bge_m3")
    for stem in ("sparse_linear", "colbert_linear"):
        assert set(torch.load(folder / f"{stem}.pt", weights_only=True)) == {"weight", "bias"}


def test_what_the_layout_cannot_say_is_refused(trio, encoder, plain, tmp_path):
    import msgspec

    def changed(**fields):
        other = Encoder.load(encoder.save(tmp_path / f"native-{len(list(tmp_path.iterdir()))}"), device="cpu")
        other.config = msgspec.structs.replace(other.config, **fields)
        other.text.config = other.config.text
        return other

    config = encoder.config
    replace = msgspec.structs.replace
    cases = {
        "a dense head of the CLS state": changed(dense=replace(config.dense, pooling=("mean",))),
        "no prompts": changed(text=replace(config.text, prompts={"query": "query: "})),
        "a token_linear sparse head": changed(sparse=replace(config.sparse, dropped_ids=(0,))),
        "multi-vectors for all tokens but the first": changed(
            multi_vector=replace(config.multi_vector, dropped_passage_ids=(5,))
        ),
        "a multi-vector head of one projection": changed(multi_vector=None),
        "one length": changed(text=TextConfig(max_length=48, query_max_length=8)),
    }
    for words, other in cases.items():
        with pytest.raises(UsageError, match=words):
            other.export(tmp_path / "exported", layout="bge_m3")
        assert not (tmp_path / "exported").exists()
    with pytest.raises(UsageError, match="a token_linear sparse head"):
        Encoder.load(plain("bert"), pooling="cls", device="cpu").export(tmp_path / "exported", layout="bge_m3")
