"""ColBERT layouts against sentence-transformers; PyLate's own vectors are in tests/parity."""

import json
import shutil

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from models import builders_multi as builders
from models import tiny
from trine import Encoder
from trine.errors import CheckpointError, UsageError
from trine.models.checkpoints import colbert

PUNCTUATION = list("?!.,;:()[]{}")


def dense(in_features, out_features, *, activation=torch.nn.Identity, **options):
    """A projection of tokens, built when the case is."""

    def build():
        from sentence_transformers.base.modules import Dense

        return Dense(
            in_features, out_features, activation_function=activation(), module_input_name="token_embeddings", **options
        )

    return build


FIXED = {"strategy": "fixed", "length": 16}
NATIVE = {
    "plain": {},
    "prompts": {"prompts": {"query": "질문: ", "document": "passage: "}},
    "default prompt": {"prompts": {"task": "일: "}, "default_prompt_name": "task"},
    "lengths": {"transformer": {"query_length": 7, "document_length": 20}},
    "skiplist": {"mask": {"skiplist_words": [*PUNCTUATION, "없는낱말"]}},
    "skiplist of queries": {"mask": {"skiplist_words": PUNCTUATION, "skiplist_tasks": "query"}},
    "skiplist of both": {
        "mask": {"skiplist_words": [*PUNCTUATION, "[UNK]"], "skiplist_tasks": ["query", "document"]},
        "transformer": {"query_expansion": FIXED},
    },
    "expansion": {"transformer": {"query_expansion": FIXED, "document_length": 30}},
    "expansion below the query length": {"transformer": {"query_expansion": FIXED, "query_length": 20}},
    "expansion attended": {"transformer": {"query_expansion": {**FIXED, "attend": True}}},
    "expansion by a token": {"transformer": {"query_expansion": {**FIXED, "token": "?"}}},
    "expansion at least": {"transformer": {"query_expansion": {"strategy": "min", "length": 12}}},
    "expansion at least, cut": {
        "transformer": {"query_expansion": {"strategy": "min", "length": 12, "attend": True}, "query_length": 20}
    },
    "projections": {
        "layers": [dense(32, 24, activation=torch.nn.GELU), dense(24, 24, use_residual=True), dense(24, 5)]
    },
    "no projection": {"layers": []},
    "distilbert": {"name": "distilbert", "transformer": {"query_expansion": FIXED}},
    "modernbert": {"name": "modernbert", "transformer": {"query_expansion": FIXED}, "mask": {"skiplist_words": ["."]}},
    "xlm_roberta": {"name": "xlm_roberta", "transformer": {"query_expansion": FIXED}},
    "mpnet": {"name": "mpnet", "transformer": {"query_expansion": FIXED}},
}


def native(folder, options):
    layers = options.get("layers")
    return builders.multi_vector_encoder(
        folder, **{**options, "layers": None if layers is None else [build() for build in layers]}
    )


def reference(folder, texts):
    """kind -> one array a text, from sentence-transformers."""
    from sentence_transformers import MultiVectorEncoder

    model = MultiVectorEncoder(str(folder), device="cpu")
    return {
        "query": builders.numpy_list(model.encode_query(texts, batch_size=7)),
        "passage": builders.numpy_list(model.encode_document(texts, batch_size=7)),
    }


def assert_like_sentence_transformers(folder, *, texts=builders.TEXTS):
    encoder = Encoder.load(folder, device="cpu")
    assert encoder.modes == ("multi_vector",)
    for kind, expected in reference(folder, texts).items():
        builders.assert_same_vectors(encoder.encode(texts, kind=kind).multi_vector, expected)
    return encoder


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """One checkpoint of each layout, only to be read."""
    base = tmp_path_factory.mktemp("colbert")
    return {
        "native": native(
            base / "native",
            {**NATIVE["expansion"], "mask": {"skiplist_words": PUNCTUATION}, "prompts": {"query": "q "}},
        ),
        "pylate": builders.pylate(base / "pylate"),
        "stanford": builders.stanford(base / "stanford"),
    }


# -- the same vectors ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("case", NATIVE)
def test_multi_vector_encoder_of_sentence_transformers(case, tmp_path):
    assert_like_sentence_transformers(native(tmp_path, NATIVE[case]))


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"attend_to_expansion_tokens": True},
        {"do_query_expansion": False},
        {"skiplist_words": ["?", "없는낱말"]},
        {"prompts": {"query": "질문: ", "document": "글 "}},
        {"added": ()},
        {"added": (), "prompts": {"query": "질문: ", "document": "글 "}},
    ],
    ids=["plain", "attended", "no expansion", "unknown word", "prompts", "text prefix", "text prefix and prompts"],
)
def test_pylate_where_sentence_transformers_agrees_with_it(settings, tmp_path):
    encoder = assert_like_sentence_transformers(builders.pylate(tmp_path / "model", **settings))
    assert set(encoder.config.text.markers) == (set() if "added" in settings else {"query", "passage"})


@pytest.mark.parametrize(
    "metadata",
    [{}, {"attend_to_mask_tokens": True, "query_maxlen": 9}, {"mask_punctuation": False}, {"pickled": True}],
    ids=["plain", "attended", "punctuation", "pickled"],
)
def test_stanford(metadata, tmp_path):
    # The last text has a marker typed into it, which sentence-transformers takes for the marker itself.
    assert_like_sentence_transformers(builders.stanford(tmp_path / "model", **metadata), texts=builders.TEXTS[:-1])


def test_stanford_defaults_stand_for_what_is_left_out(tmp_path):
    names = ("query_token_id", "doc_token_id", "query_maxlen", "doc_maxlen", "attend_to_mask_tokens", "dim")
    folder = builders.stanford(tmp_path / "model", mask_punctuation=None, **dict.fromkeys(names, "left out"))
    config = Encoder.load(folder, device="cpu").config
    vocabulary = Encoder.load(folder, device="cpu").tokenizer.get_vocab()
    assert (config.text.query_max_length, config.text.passage_max_length) == (32, 220)
    assert config.text.markers == {"query": vocabulary["[unused0]"], "passage": vocabulary["[unused1]"]}
    assert config.text.expansion.token_id == vocabulary["[MASK]"]
    assert not config.text.expansion.attend
    assert len(config.multi_vector.dropped_passage_ids) == 32


def test_a_marker_typed_into_a_text_is_text(saved):
    encoder = Encoder.load(saved["stanford"], device="cpu")
    marker = encoder.config.text.markers["passage"]
    tokens = encoder.text(["[unused1] a"], kind="passage")
    assert list(tokens.ids[:2]) == [encoder.tokenizer.cls_token_id, marker]
    assert marker not in tokens.ids[2:]


def test_tokens_of_a_query(saved):
    encoder = Encoder.load(saved["stanford"], device="cpu")
    tokens = encoder.text(["search"], kind="query")
    labels = encoder.token_labels(tokens.ids)
    content = labels[2 : labels.index("[SEP]")]
    assert "".join(content).replace("##", "") == "search"
    assert labels == ["[CLS]", "[unused0]", *content, "[SEP]"] + ["[MASK]"] * (13 - len(content))
    assert tokens.attended.tolist() == [label != "[MASK]" for label in labels]


# -- what holds for every layout -------------------------------------------------------------------------------------


@pytest.mark.parametrize("layout", ["native", "pylate", "stanford"])
@pytest.mark.parametrize("kind", ["query", "passage"])
def test_batches_do_not_matter(layout, kind, saved):
    encoder = Encoder.load(saved[layout], device="cpu")
    builders.assert_batches_do_not_matter(encoder, builders.TEXTS, kind=kind, mode="multi_vector")


@pytest.mark.parametrize("layout", ["native", "pylate", "stanford"])
@pytest.mark.parametrize("kind", ["query", "passage"])
def test_there_is_a_span_for_every_vector(layout, kind, saved):
    encoder = Encoder.load(saved[layout], device="cpu")
    rows = encoder.encode(builders.TEXTS, kind=kind).multi_vector
    for number, text in enumerate(builders.TEXTS):
        spans = encoder.vector_spans(text, kind=kind)
        assert len(spans) == len(rows.row(number))
        assert all(text[start:end].strip() for start, end in spans if start >= 0)


@pytest.mark.parametrize("text", ["  \n 검색 engine ", "검색 engine"])
def test_spans_hold_where_white_space_is_left_out(text, tmp_path):
    encoder = Encoder.load(builders.pylate(tmp_path / "model", "modernbert"), device="cpu")
    spans = [(start, end) for start, end in encoder.vector_spans(text, kind="passage") if start >= 0]
    assert spans[0][0] == text.index("검")
    assert "".join(text[start:end] for start, end in spans if end == spans[-1][1]).endswith("e")


@pytest.mark.parametrize("layout", ["native", "pylate", "stanford"])
def test_trine_saves_it_whole(layout, saved, tmp_path):
    encoder = Encoder.load(saved[layout], device="cpu")
    again = Encoder.load(encoder.save(tmp_path / "copy"), device="cpu")
    assert again.config == encoder.config
    assert again.fingerprint == encoder.fingerprint
    for kind in ("query", "passage"):
        first, second = (model.encode(builders.TEXTS, kind=kind).multi_vector for model in (encoder, again))
        np.testing.assert_array_equal(first.values, second.values)


def test_no_text_gives_no_vectors(saved):
    rows = Encoder.load(saved["pylate"], device="cpu").encode([], kind="query").multi_vector
    assert (len(rows), rows.values.shape) == (0, (0, builders.WIDTH))


# -- recognising -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "config", "modules", "expected"),
    [
        ({"model_type": "MultiVectorEncoder"}, {}, True, True),
        ({"model_type": "ColBERT"}, {}, True, True),
        ({}, {"architectures": ["HF_ColBERT"]}, False, True),
        ({"model_type": "SentenceTransformer"}, {"architectures": ["HF_ColBERT"]}, True, False),
        ({"model_type": "SparseEncoder"}, {}, True, False),
        ({}, {"architectures": ["HF_ColBERT"]}, True, False),
        ({}, {"architectures": ["BertModel"]}, False, False),
        ({}, {"architectures": None}, False, False),
    ],
)
def test_a_folder_is_known_by_what_it_calls_itself(settings, config, modules, expected, tmp_path):
    builders.write_json(tmp_path / "config_sentence_transformers.json", settings)
    builders.write_json(tmp_path / "config.json", config)
    if modules:
        builders.write_modules(tmp_path)
    assert colbert.matches(tmp_path) is expected


def test_an_empty_folder_is_no_colbert(tmp_path):
    assert not colbert.matches(tmp_path)


def test_another_folder_is_not_read_as_one(tmp_path):
    tiny.build("bert").save(tmp_path)
    with pytest.raises(CheckpointError, match="is no ColBERT checkpoint"):
        Encoder.load(tmp_path, layout="colbert", device="cpu")


def test_pooling_has_no_effect(saved):
    with pytest.raises(UsageError, match="pooling='mean' has no effect"):
        Encoder.load(saved["pylate"], pooling="mean", device="cpu")


# -- broken checkpoints ----------------------------------------------------------------------------------------------

BERT = "sentence_bert_config.json"
FIRST = "1_Dense/config.json"
MASK = "2_MultiVectorMask/config.json"
LAST = "3_Normalize/config.json"


def change(name, **changes):
    return lambda folder: builders.change_json(folder / name, **changes)


def rewrite(name, **changes):
    """Change tensors of a safetensors file: a function of the old tensor, or None to leave it out."""

    def apply(folder):
        tensors = load_file(folder / name)
        for key, new in changes.items():
            key = key.replace("__", ".")
            if new is None:
                del tensors[key]
            else:
                tensors[key] = new(tensors[key]).contiguous()
        save_file(tensors, folder / name, metadata={"format": "pt"})

    return apply


def change_module(number, **changes):
    def apply(folder):
        rows = json.loads((folder / "modules.json").read_text())
        rows[number] |= changes
        builders.write_json(folder / "modules.json", rows)

    return apply


def without_module(number):
    def apply(folder):
        rows = json.loads((folder / "modules.json").read_text())
        del rows[number]
        builders.write_json(folder / "modules.json", rows)

    return apply


def nan(tensor):
    return tensor * float("nan")


BROKEN = {
    "native": [
        (lambda folder: (folder / "1_Dense/model.safetensors").unlink(), "head weights are missing"),
        (rewrite("1_Dense/model.safetensors", linear__weight=lambda old: old[:5]), "the configuration says"),
        (rewrite("1_Dense/model.safetensors", linear__weight=nan), "NaN"),
        (change(FIRST, bias=True), "missing: .*linear.bias"),
        (change(FIRST, in_features=16), "wants 16 dimensions, but the layers before it give 32"),
        (change(FIRST, activation_function="builtins.eval"), "unknown activation"),
        (change(FIRST, module_input_name="sentence_embedding"), "turns sentence_embedding into token_embeddings"),
        (change(FIRST, module_output_name="sentence_embedding"), "turns token_embeddings into sentence_embedding"),
        (change(LAST, module_input_name=None, module_output_name=None), "turns sentence_embedding"),
        (change_module(1, type="sentence_transformers.sentence_transformer.modules.pooling.Pooling"), "kind Pooling"),
        (change_module(1, type="mine.Dense"), "code of the checkpoint's own"),
        (change_module(1, path="../1_Dense"), "leads out of the checkpoint"),
        (without_module(0), "not a Transformer"),
        (without_module(2), "no MultiVectorMask follows"),
        (change_module(1, type="x.multi_vector_mask.MultiVectorMask"), "code of the checkpoint's own"),
        (change(MASK, keep_only_token_ids=[3]), "keep_only_token_ids"),
        (change(MASK, skiplist_words="?!"), "Expected .*array"),
        (change(BERT, transformer_task="fill-mask"), "transformer_task is 'fill-mask'"),
        (change(BERT, processing_kwargs={"text": {"max_length": 3}}), "processing_kwargs"),
        (
            change(BERT, modality_config={"text": {"method": "forward", "method_output_name": ["hidden_states", 1]}}),
            "hands on the output",
        ),
        (change(BERT, query_length=8), "query_length 8 is below the 16 tokens"),
        (change(BERT, query_expansion={"strategy": "fixed"}), "missing required field `length`"),
        (change(BERT, query_expansion={"strategy": "fixd", "length": 9}), "Invalid enum value 'fixd'"),
        (change(BERT, query_expansion={**FIXED, "length": 0}), ">= 1"),
        (change(BERT, query_expansion={**FIXED, "atend": True}), "unknown field `atend`"),
        (change(BERT, query_expansion={**FIXED, "token": "없음"}), "'없음' is not in the tokenizer's vocabulary"),
        (change("tokenizer_config.json", padding_side="left"), "the tokenizer pads on the left"),
    ],
    "pylate": [
        (without_module(1), "lists no Dense module"),
        (lambda folder: (folder / "1_Dense/model.safetensors").unlink(), "head weights are missing"),
        (change(FIRST, in_features=16), "wants 16 dimensions, but the layers before it give 32"),
        (change("config_sentence_transformers.json", query_length="32"), "Expected `int"),
        (change("config_sentence_transformers.json", document_length=0), ">= 1"),
    ],
    "stanford": [
        (lambda folder: (folder / "artifact.metadata").unlink(), "artifact.metadata is missing"),
        (lambda folder: (folder / "artifact.metadata").write_text("{"), "artifact.metadata cannot be read"),
        (lambda folder: (folder / "model.safetensors").unlink(), "head weights are missing"),
        (rewrite("model.safetensors", linear__weight=None), "no linear.weight"),
        (rewrite("model.safetensors", linear__weight=lambda old: old[:5]), r"shape \(5, 32\).* says 8"),
        (
            rewrite("model.safetensors", linear__weight=lambda old: old[:, :7]),
            "wants 7 dimensions, but the layers before it give 32",
        ),
        (rewrite("model.safetensors", bert__embeddings__word_embeddings__weight=None), "would be random"),
        (change("artifact.metadata", query_token_id="[Q]"), r"query marker '\[Q\]' is not in the tokenizer"),
        (change("artifact.metadata", doc_maxlen="long"), "Expected `int"),
    ],
}


@pytest.mark.parametrize(
    ("layout", "damage", "message"),
    [(layout, *row) for layout, rows in BROKEN.items() for row in rows],
    ids=[f"{layout}-{row[1]}" for layout, rows in BROKEN.items() for row in rows],
)
def test_a_broken_checkpoint_is_refused(layout, damage, message, saved, tmp_path):
    folder = shutil.copytree(saved[layout], tmp_path / "model")
    damage(folder)
    with pytest.raises(CheckpointError, match=message):
        Encoder.load(folder, device="cpu")


def test_a_tokenizer_without_mask_and_end_cannot_expand(saved, tmp_path):
    folder = shutil.copytree(saved["stanford"], tmp_path / "model")
    path = folder / "tokenizer_config.json"
    builders.write_json(path, {**json.loads(path.read_text()), "mask_token": None})
    with pytest.raises(CheckpointError, match="neither a mask nor an end token"):
        Encoder.load(folder, device="cpu")
