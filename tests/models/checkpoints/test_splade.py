"""SparseEncoder layouts against sentence-transformers."""

import json
import shutil

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from models import builders_multi as builders
from models import tiny
from trine import Encoder
from trine.errors import CheckpointError, UnknownName, UsageError
from trine.models.checkpoints import splade


def reference(folder, *, batch_size=7):
    """kind -> (N, V), from sentence-transformers."""
    from sentence_transformers import SparseEncoder

    model = SparseEncoder(str(folder), device="cpu")
    options = {"batch_size": batch_size, "convert_to_sparse_tensor": False}
    return {
        "query": model.encode_query(builders.TEXTS, **options).numpy(),
        "passage": model.encode_document(builders.TEXTS, **options).numpy(),
    }


def assert_same_weights(rows, expected):
    """Equal within 1e-5 of the weight, or of one where that is smaller."""
    np.testing.assert_allclose(builders.sparse_matrix(rows), expected, rtol=1e-5, atol=1e-5)


def assert_like_sentence_transformers(folder, *, batch_size=7, **options):
    encoder = Encoder.load(folder, device="cpu", **options)
    assert encoder.modes == ("sparse",)
    for kind, expected in reference(folder, batch_size=batch_size).items():
        rows = encoder.encode(builders.TEXTS, kind=kind).sparse
        assert_same_weights(rows, expected)
        assert all(np.all(np.diff(rows.row(number)[0]) > 0) for number in range(len(rows)))
    return encoder


# -- the same vectors ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", tiny.BACKBONES)
def test_every_backbone(name, tmp_path):
    assert_like_sentence_transformers(builders.splade(tmp_path, name))


@pytest.mark.parametrize(
    "options",
    [
        {"pooling": "sum"},
        {"activation": "log1p_relu"},
        {"pooling": "sum", "activation": "log1p_relu"},
        {"prompts": {"query": "질문: ", "document": "passage: "}},
        {"prompts": {"task": "일: "}, "default_prompt_name": "task"},
        {"max_length": 9},
    ],
    ids=["sum", "two logarithms", "both", "prompts", "default prompt", "short"],
)
def test_settings(options, tmp_path):
    assert_like_sentence_transformers(builders.splade(tmp_path, **options))


def test_the_form_of_version_5(tmp_path):
    encoder = assert_like_sentence_transformers(builders.old_splade(tmp_path))
    assert encoder.config.text.max_length == 24
    # A folder that does not name its type is known by its modules.
    builders.change_json(tmp_path / "config_sentence_transformers.json", model_type=None)
    assert Encoder.load(tmp_path, device="cpu").fingerprint == encoder.fingerprint


@pytest.mark.parametrize("name", ["bert", "distilbert", "modernbert", "xlm_roberta"])
def test_inference_free(name, tmp_path):
    # In a batch, sentence-transformers overwrites the weight of a [PAD] that is typed into a text with its padding's
    # zero; alone it does not, and nor does trine ever.
    encoder = assert_like_sentence_transformers(builders.inference_free(tmp_path, name), batch_size=1)
    assert encoder.sparse.source("query") == "static"


@pytest.mark.parametrize(
    "options",
    [
        {"query_length": 5},
        {"query_length": 10**30},
        {"pooling": "sum"},
        {"prompts": {"query": "질문: 질문 ", "document": "글 "}},
    ],
    ids=["short queries", "unlimited queries", "sum", "prompts"],
)
def test_inference_free_settings(options, tmp_path):
    assert_like_sentence_transformers(builders.inference_free(tmp_path, **options), batch_size=1)


def test_inference_free_in_the_form_of_version_5(tmp_path):
    encoder = assert_like_sentence_transformers(builders.old_inference_free(tmp_path), batch_size=1)
    assert (encoder.config.text.max_length, encoder.config.text.query_max_length) == (30, tiny.MAX_LENGTH)


def test_queries_of_an_inference_free_model_need_no_transformer(inference_free):
    encoder = Encoder.load(inference_free, device="cpu")
    encoder.backbone.forward = None
    vocabulary = encoder.tokenizer.get_vocab()
    table = encoder.sparse.table.detach().numpy()
    rows = encoder.encode(["? ! ? ?", ""], kind="query").sparse
    # Each word once, however often it occurs; no CLS and no SEP.
    wanted = sorted(vocabulary[word] for word in ("?", "!"))
    assert rows.row(0)[0].tolist() == wanted
    np.testing.assert_array_equal(rows.row(0)[1], table[wanted])
    assert len(rows.row(1)[0]) == 0


def test_a_single_empty_query_gives_an_empty_row(inference_free):
    encoder = Encoder.load(inference_free, device="cpu")
    for text in ("", "   "):
        rows = encoder.encode([text], kind="query").sparse
        assert (len(rows), len(rows.ids)) == (1, 0)


def test_a_vocabulary_padded_to_a_round_number(tmp_path):
    folder = builders.inference_free(tmp_path)
    document = folder / "document_0_Transformer"
    # ModernBERT has 50,368 rows for 50,280 words and some markers; here the tokenizer has fewer entries than the model.
    weight = load_file(folder / "query_0_SparseStaticEmbedding/model.safetensors")["weight"]
    size = int(json.loads((document / "config.json").read_text())["vocab_size"])
    save_file({"weight": weight[:-6].clone()}, folder / "query_0_SparseStaticEmbedding/model.safetensors")
    encoder = Encoder.load(folder, device="cpu")
    assert encoder.dimensions == {"sparse": size}
    np.testing.assert_array_equal(encoder.sparse.table.detach().numpy(), [*weight[:-6].numpy(), *[0] * 6])


@pytest.mark.parametrize("name", ["bert", "distilbert"])
def test_a_bare_masked_language_model_where_asked_for(name, tmp_path):
    folder = builders.backbone(name, masked_lm=True).save(tmp_path / "model")
    encoder = assert_like_sentence_transformers(folder, layout="splade")
    summed = Encoder.load(folder, layout="splade", pooling="sum", device="cpu").encode(builders.TEXTS).sparse
    tokens = encoder.text(builders.TEXTS, kind="passage").lengths
    most = builders.sparse_matrix(encoder.encode(builders.TEXTS).sparse)
    # The largest weight is at most the sum, and the sum at most that often the largest.
    total = builders.sparse_matrix(summed)
    assert np.all(total >= most - 1e-5)
    assert np.all(total <= most * tokens[:, None] + 1e-4)
    assert total.sum() > 2 * most.sum()


def test_a_bare_masked_language_model_is_not_taken_for_splade_unasked(tmp_path):
    folder = builders.backbone("bert", masked_lm=True).save(tmp_path / "model")
    assert not splade.matches(folder)
    with pytest.raises(CheckpointError, match="is a bare transformer"):
        Encoder.load(folder, device="cpu")


# -- what holds for every form ---------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def ordinary(tmp_path_factory):
    """Only to be read."""
    return builders.splade(tmp_path_factory.mktemp("splade"))


@pytest.fixture(scope="module")
def inference_free(tmp_path_factory):
    """Only to be read."""
    return builders.inference_free(tmp_path_factory.mktemp("inference_free"))


@pytest.mark.parametrize("form", ["ordinary", "inference_free"])
@pytest.mark.parametrize("kind", ["query", "passage"])
def test_batches_do_not_matter(form, kind, request):
    encoder = Encoder.load(request.getfixturevalue(form), device="cpu")
    builders.assert_batches_do_not_matter(encoder, builders.TEXTS, kind=kind, mode="sparse")


@pytest.mark.parametrize("form", ["ordinary", "inference_free"])
def test_trine_saves_it_whole(form, request, tmp_path):
    encoder = Encoder.load(request.getfixturevalue(form), device="cpu")
    again = Encoder.load(encoder.save(tmp_path / "copy"), device="cpu")
    assert again.config == encoder.config
    assert again.fingerprint == encoder.fingerprint
    for kind in ("query", "passage"):
        first, second = (model.encode(builders.TEXTS, kind=kind).sparse for model in (encoder, again))
        np.testing.assert_array_equal(first.ids, second.ids)
        np.testing.assert_array_equal(first.weights, second.weights)


def test_spans_of_a_static_query_cover_its_words(inference_free):
    encoder = Encoder.load(inference_free, device="cpu")
    text = "검색 engine, 검색"
    spans = encoder.sparse_spans(text, kind="query")
    assert "".join(text[start:end] for _, start, end in spans) == text.replace(" ", "")
    ids = encoder.encode([text], kind="query").sparse.row(0)[0]
    assert {number for number, _, _ in spans} == set(ids.tolist())


# -- recognising -----------------------------------------------------------------------------------------------------

OWN = "sentence_transformers.sparse_encoder.models."


@pytest.mark.parametrize(
    ("model_type", "kinds", "expected"),
    [
        ("SparseEncoder", ["sentence_transformers.models.Transformer"], True),
        ("SentenceTransformer", [OWN + "MLMTransformer", OWN + "SpladePooling"], False),
        ("MultiVectorEncoder", ["sentence_transformers.models.Transformer"], False),
        (None, ["sentence_transformers.models.Transformer", OWN + "SpladePooling"], True),
        (None, [OWN + "MLMTransformer"], True),
        (None, ["sentence_transformers.models.Transformer", "sentence_transformers.models.Pooling"], False),
        (None, None, False),
    ],
)
def test_a_folder_is_known_by_what_it_calls_itself(model_type, kinds, expected, tmp_path):
    builders.write_json(tmp_path / "config_sentence_transformers.json", {"model_type": model_type, "prompts": {}})
    if kinds is not None:
        builders.write_modules(tmp_path, *((str(number), kind) for number, kind in enumerate(kinds)))
    assert splade.matches(tmp_path) is expected


@pytest.mark.parametrize(("kind", "expected"), [(OWN + "SparseStaticEmbedding", True), ("x.Pooling", False)])
def test_an_unnamed_router_is_known_by_its_routes(kind, expected, tmp_path):
    builders.write_modules(tmp_path, ("", "sentence_transformers.models.Router"))
    builders.write_json(tmp_path / "router_config.json", {"types": {"query_0": kind}, "structure": {}})
    assert splade.matches(tmp_path) is expected


# -- broken checkpoints ----------------------------------------------------------------------------------------------

BERT = "sentence_bert_config.json"
POOLING = "1_SpladePooling/config.json"
SETTINGS = "config_sentence_transformers.json"
STATIC = "query_0_SparseStaticEmbedding"
TABLE = f"{STATIC}/model.safetensors"
ROUTER = "router_config.json"


def change(name, **changes):
    return lambda folder: builders.change_json(folder / name, **changes)


def modules(*kinds):
    return lambda folder: builders.write_modules(
        folder, *(("" if number == 0 else f"1_{kind}", OWN + kind) for number, kind in enumerate(kinds))
    )


def table(**tensors):
    return lambda folder: save_file(tensors, folder / TABLE)


def without_decoder(folder):
    tensors = load_file(folder / "model.safetensors")
    kept = {key: tensor for key, tensor in tensors.items() if "transform.dense" not in key}
    save_file(kept, folder / "model.safetensors", metadata={"format": "pt"})


def routes(**structure):
    def apply(folder):
        config = json.loads((folder / ROUTER).read_text())
        builders.write_json(folder / ROUTER, config | {"structure": config["structure"] | structure})

    return apply


def unlike_tokenizer(folder):
    path = folder / STATIC / "tokenizer.json"
    content = json.loads(path.read_text())
    vocabulary = content["model"]["vocab"]
    vocabulary["?"], vocabulary["!"] = vocabulary["!"], vocabulary["?"]
    builders.write_json(path, content)


BROKEN = {
    "ordinary": [
        (without_decoder, "would be random"),
        (change(BERT, transformer_task="feature-extraction"), "transformer_task is 'feature-extraction'"),
        (change(BERT, transformer_task=None), "transformer_task is 'feature-extraction'"),
        (change(BERT, processing_kwargs={"common": {"padding": "max_length"}}), "processing_kwargs"),
        (change(POOLING, pooling_strategy="mean"), "unknown pooling_strategy 'mean'; known: max, sum"),
        (change(POOLING, activation_function="gelu"), "unknown activation_function 'gelu'; known: relu, log1p_relu"),
        (lambda folder: (folder / POOLING).unlink(), "1_SpladePooling/config.json is missing"),
        (change(SETTINGS, max_active_dims=64), "max_active_dims 64"),
        (modules("Transformer"), r"found \['Transformer'\]"),
        (modules("Transformer", "Pooling"), r"found \['Transformer', 'Pooling'\]"),
        (modules("Transformer", "Pooling", "SparseAutoEncoder"), "SparseAutoEncoder"),
        (modules("Transformer", "SpladePooling", "Normalize"), "expected a Transformer and a SpladePooling"),
    ],
    "inference_free": [
        (lambda folder: (folder / TABLE).unlink(), "head weights are missing"),
        (table(weights=torch.ones(3)), "expected one weight for each of"),
        (table(weight=torch.ones(3, 2)), "expected one weight for each of"),
        (table(weight=torch.ones(100_000)), "expected one weight for each of"),
        (table(weight=torch.tensor([1.0, float("inf")])), "NaN or infinite"),
        (change(f"{STATIC}/config.json", path="idf.json"), "the query weights are in 'idf.json'"),
        (unlike_tokenizer, "differ in model"),
        (lambda folder: (folder / STATIC / "tokenizer.json").unlink(), "tokenizer.json is missing"),
        (routes(image=[]), r"found the routes \['document', 'image', 'query'\]"),
        (
            routes(query=["document_0_Transformer", "document_1_SpladePooling"]),
            "supported is one SparseStaticEmbedding",
        ),
        (routes(document=[STATIC]), r"found \['SparseStaticEmbedding'\]"),
        (routes(document=["document_0_Transformer", "gone"]), r"no types are given for \['gone'\]"),
        (change(ROUTER, parameters={"route_mappings": {"('query', 'text')": "query"}}), "no route_mappings"),
        (change(ROUTER, types={"../x": OWN + "SparseStaticEmbedding"}), "leads out of the checkpoint"),
        (change(ROUTER, types={"x": "mine.SparseStaticEmbedding"}), "code of the checkpoint's own"),
        (change(ROUTER, types=None), "expected types and structure"),
        (modules("Router", "Normalize"), "expected a Transformer and a SpladePooling"),
    ],
}


@pytest.mark.parametrize(
    ("form", "damage", "message"),
    [(form, *row) for form, rows in BROKEN.items() for row in rows],
    ids=[f"{form}-{number}" for form, rows in BROKEN.items() for number in range(len(rows))],
)
def test_a_broken_checkpoint_is_refused(form, damage, message, request, tmp_path):
    folder = shutil.copytree(request.getfixturevalue(form), tmp_path / "model")
    damage(folder)
    with pytest.raises(CheckpointError, match=message):
        Encoder.load(folder, device="cpu")


def test_a_sparse_autoencoder_as_saved_is_refused(tmp_path):
    from sentence_transformers import SparseEncoder
    from sentence_transformers.base.modules import Transformer
    from sentence_transformers.sentence_transformer.modules import Pooling
    from sentence_transformers.sparse_encoder.modules import SparseAutoEncoder

    source = builders.backbone("bert").save(tmp_path / "source")
    parts = [Transformer(str(source)), Pooling(tiny.HIDDEN, "mean"), SparseAutoEncoder(tiny.HIDDEN, hidden_dim=64)]
    SparseEncoder(modules=parts, device="cpu").save_pretrained(str(tmp_path / "model"))
    with pytest.raises(CheckpointError, match="sparsifies a dense embedding"):
        Encoder.load(tmp_path / "model", device="cpu")


def test_pooling_has_no_effect_where_the_folder_tells_it(ordinary):
    with pytest.raises(UsageError, match="pooling='sum' has no effect"):
        Encoder.load(ordinary, pooling="sum", device="cpu")


def test_a_bare_folder_knows_two_poolings(tmp_path):
    folder = builders.backbone("bert", masked_lm=True).save(tmp_path / "model")
    with pytest.raises(UnknownName, match="no SPLADE pooling called 'mean'"):
        Encoder.load(folder, layout="splade", pooling="mean", device="cpu")


def test_a_model_without_a_masked_language_head_is_no_splade(tmp_path):
    tiny.build("bert").save(tmp_path)
    with pytest.raises(CheckpointError, match=r"architectures \['BertModel'\], none of them for masked"):
        Encoder.load(tmp_path, layout="splade", device="cpu")
