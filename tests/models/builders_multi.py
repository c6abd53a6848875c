"""Tiny random SPLADE and ColBERT checkpoints in every layout, written by the reference library or, for the forms that
it no longer writes, by hand."""

import json
import string

import numpy as np
import transformers
from safetensors.torch import load_file, save_file

from models import tiny

WIDTH = 8
"""Dimensions of a multi-vector."""
UNUSED = ("[unused0]", "[unused1]")
PREFIXES = ("[Q] ", "[D] ")

TEXTS = [
    *tiny.TEXTS,
    "?!.,;:",
    "...",
    "문장, 부호! 그리고? (괄호) [대괄호] {중괄호}",
    "literal [MASK] [SEP] [CLS] [PAD] [UNK] in a text",
    "literal <mask> </s> <s> <pad> <unk> in a text",
    "[Q] written by hand, [unused0] too, [D] [unused1]",
]


# -- parts -----------------------------------------------------------------------------------------------------------


def backbone(name, *, masked_lm=False, max_length=tiny.MAX_LENGTH, words=(), added=()):
    """A tiny model whose vocabulary has ASCII punctuation, `words` as entries (BERT) and `added` as added tokens."""
    built = tiny.build(name, masked_lm=masked_lm, max_length=max_length)
    tokenizer, vocabulary = built.tokenizer, built.tokenizer.get_vocab()
    if name == "bert":
        for word in (*string.punctuation, *words):
            vocabulary.setdefault(word, len(vocabulary))
        tokenizer = transformers.BertTokenizer(vocab=vocabulary, model_max_length=max_length)
    else:
        tokenizer.add_tokens([sign for sign in string.punctuation if sign not in vocabulary])
    tokenizer.add_tokens(list(added))
    built.model.resize_token_embeddings(len(tokenizer), mean_resizing=False)
    tiny.randomise(built.model, seed=11)
    return tiny.Tiny(name, built.model, tokenizer)


def write_json(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content), encoding="utf-8")


def change_json(path, /, **changes):
    """Set keys of a JSON file; None takes the key away."""
    content = json.loads(path.read_text(encoding="utf-8")) | changes
    write_json(path, {key: value for key, value in content.items() if value is not None})


def write_modules(folder, *rows):
    """modules.json out of (path, class path)."""
    content = [{"idx": n, "name": str(n), "path": path, "type": kind} for n, (path, kind) in enumerate(rows)]
    write_json(folder / "modules.json", content)


# -- SPLADE ----------------------------------------------------------------------------------------------------------


def splade(folder, name="bert", *, pooling="max", activation="relu", max_length=tiny.MAX_LENGTH, **options):
    """As sentence-transformers 6 saves it."""
    from sentence_transformers import SparseEncoder
    from sentence_transformers.base.modules import Transformer
    from sentence_transformers.sparse_encoder.modules import SpladePooling

    source = backbone(name, masked_lm=True, max_length=max_length).save(folder / "source")
    parts = [Transformer(str(source), transformer_task="fill-mask"), SpladePooling(pooling, activation)]
    SparseEncoder(modules=parts, device="cpu", **options).save_pretrained(str(folder / "model"))
    return folder / "model"


def old_splade(folder, name="bert"):
    """As sentence-transformers 5.0 to 5.3 saved it."""
    backbone(name, masked_lm=True).save(folder)
    write_modules(
        folder,
        ("", "sentence_transformers.sparse_encoder.models.MLMTransformer"),
        ("1_SpladePooling", "sentence_transformers.sparse_encoder.models.SpladePooling"),
    )
    write_json(folder / "sentence_bert_config.json", {"max_seq_length": 24, "do_lower_case": False})
    write_json(
        folder / "1_SpladePooling/config.json",
        {"pooling_strategy": "max", "activation_function": "relu", "word_embedding_dimension": None},
    )
    write_json(
        folder / "config_sentence_transformers.json",
        {
            "model_type": "SparseEncoder",
            "prompts": {"query": "질문: ", "document": ""},
            "default_prompt_name": None,
            "similarity_fn_name": "dot",
        },
    )
    return folder


def inference_free(folder, name="bert", *, query_length=tiny.MAX_LENGTH, pooling="max", **options):
    """As sentence-transformers 6 saves it: a table for queries, a masked language model for documents."""
    import torch
    from sentence_transformers import SparseEncoder
    from sentence_transformers.base.modules import Router, Transformer
    from sentence_transformers.sparse_encoder.modules import SparseStaticEmbedding, SpladePooling

    source = backbone(name, masked_lm=True).save(folder / "source")
    document = Transformer(str(source), transformer_task="fill-mask")
    tokenizer = transformers.AutoTokenizer.from_pretrained(source, model_max_length=query_length)
    # Special tokens get weights too, and some weights are negative: neither may be lost or added.
    weight = torch.randn(len(tokenizer), generator=torch.Generator().manual_seed(5))
    router = Router.for_query_document(
        query_modules=[SparseStaticEmbedding(tokenizer, weight=weight)],
        document_modules=[document, SpladePooling(pooling, "log1p_relu")],
    )
    SparseEncoder(modules=[router], device="cpu", **options).save_pretrained(str(folder / "model"))
    return folder / "model"


def old_inference_free(folder):
    """The same in the words of sentence-transformers 5.0 to 5.3."""
    model = inference_free(folder)
    write_modules(model, ("", "sentence_transformers.models.Router"))
    (model / "document_0_Transformer").rename(model / "document_0_MLMTransformer")
    write_json(
        model / "document_0_MLMTransformer/sentence_bert_config.json", {"max_seq_length": 30, "do_lower_case": False}
    )
    own = "sentence_transformers.sparse_encoder.models."
    names = ("query_0_SparseStaticEmbedding", "document_0_MLMTransformer", "document_1_SpladePooling")
    write_json(
        model / "router_config.json",
        {
            "types": {name: own + name.rpartition("_")[2] for name in names},
            "structure": {"query": [names[0]], "document": [*names[1:]]},
            "parameters": {"default_route": "document", "allow_empty_key": True},
        },
    )
    return model


# -- ColBERT ---------------------------------------------------------------------------------------------------------


def multi_vector_encoder(folder, name="bert", *, layers=None, mask=None, added=(), transformer=None, **options):
    """As sentence-transformers 6 saves it."""
    import torch
    from sentence_transformers import MultiVectorEncoder
    from sentence_transformers.base.modules import Dense, Normalize, Transformer
    from sentence_transformers.multi_vector_encoder.modules import MultiVectorMask

    source = backbone(name, added=added).save(folder / "source")
    torch.manual_seed(3)
    if layers is None:
        layers = [
            Dense(
                tiny.HIDDEN,
                WIDTH,
                bias=False,
                activation_function=torch.nn.Identity(),
                module_input_name="token_embeddings",
            )
        ]
    parts = [Transformer(str(source), **(transformer or {})), *layers]
    parts += [MultiVectorMask(**(mask or {})), Normalize(module_input_name="token_embeddings")]
    MultiVectorEncoder(modules=parts, device="cpu", **options).save_pretrained(str(folder / "model"))
    return folder / "model"


def pylate(folder, name="bert", *, dense=None, added=PREFIXES, max_length=tiny.MAX_LENGTH, **settings):
    """As PyLate saves it: prefixes are added tokens, masking and normalisation are implied."""
    backbone(name, added=added, max_length=max_length).save(folder)
    dense = [{"in_features": tiny.HIDDEN, "out_features": WIDTH}] if dense is None else dense
    rows = [("", "sentence_transformers.models.Transformer")]
    for number, changes in enumerate(dense, start=1):
        config = {"bias": False, "activation_function": "torch.nn.modules.linear.Identity", "use_residual": False}
        config |= changes
        state = tiny.random_linear(config["out_features"], config["in_features"], seed=number)
        tensors = {f"linear.{key}": value for key, value in state.items() if key == "weight" or config["bias"]}
        if config["use_residual"] and config["in_features"] != config["out_features"]:
            shortcut = tiny.random_linear(config["out_features"], config["in_features"], seed=number + 50)
            tensors["residual.weight"] = shortcut["weight"]
        write_json(folder / f"{number}_Dense/config.json", config)
        save_file(tensors, folder / f"{number}_Dense/model.safetensors")
        rows.append((f"{number}_Dense", "pylate.models.Dense.Dense"))
    write_modules(folder, *rows)
    # The length that is left here is that of the last call before saving, which trine must not take.
    write_json(folder / "sentence_bert_config.json", {"max_seq_length": 9, "do_lower_case": False})
    content = {
        "model_type": "ColBERT",
        "prompts": {"query": "", "document": ""},
        "default_prompt_name": None,
        "similarity_fn_name": "MaxSim",
        "query_prefix": PREFIXES[0],
        "document_prefix": PREFIXES[1],
        "query_length": 16,
        "document_length": 40,
        "attend_to_expansion_tokens": False,
        "skiplist_words": list(string.punctuation),
        "do_query_expansion": True,
    } | settings
    write_json(
        folder / "config_sentence_transformers.json",
        {key: value for key, value in content.items() if value != "left out"},
    )
    return folder


def stanford(folder, name="bert", *, pickled=False, **metadata):
    """As Stanford's ColBERT saves it: the projection among the weights, settings in artifact.metadata."""
    import torch

    backbone(name, words=UNUSED).save(folder)
    prefix = "bert." if name == "bert" else ""
    tensors = {prefix + key: tensor for key, tensor in load_file(folder / "model.safetensors").items()}
    tensors["linear.weight"] = tiny.random_linear(WIDTH, tiny.HIDDEN, seed=1)["weight"]
    if pickled:
        (folder / "model.safetensors").unlink()
        torch.save(tensors, folder / "pytorch_model.bin")
    else:
        save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    change_json(folder / "config.json", architectures=["HF_ColBERT"])
    content = {
        "query_token_id": UNUSED[0],
        "doc_token_id": UNUSED[1],
        "query_token": "[Q]",
        "doc_token": "[D]",
        "query_maxlen": 16,
        "doc_maxlen": 40,
        "attend_to_mask_tokens": False,
        "mask_punctuation": True,
        "dim": WIDTH,
        "similarity": "cosine",
    } | metadata
    write_json(folder / "artifact.metadata", {key: value for key, value in content.items() if value != "left out"})
    return folder


# -- comparing -------------------------------------------------------------------------------------------------------


def sparse_matrix(rows):
    """(N, V) out of `SparseRows`."""
    matrix = np.zeros((len(rows), rows.width), np.float32)
    for number in range(len(rows)):
        ids, weights = rows.row(number)
        matrix[number, ids] = weights
    return matrix


def assert_same_vectors(packed, expected):
    """`PackedRows` against one array a text: as many rows, in the same order, within 1e-5."""
    assert len(packed) == len(expected)
    for number, wanted in enumerate(expected):
        found = packed.row(number)
        assert found.shape == wanted.shape, f"text {number}: {found.shape} instead of {wanted.shape}"
        np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-5, err_msg=f"text {number}")


def assert_batches_do_not_matter(encoder, texts, *, kind, mode):
    """The same embeddings alone, all together and in small batches."""
    together = encoder.encode(texts, kind=kind, modes=[mode])
    small = encoder.encode(texts, kind=kind, modes=[mode], batch_tokens=100)
    alone = [encoder.encode([text], kind=kind, modes=[mode]) for text in texts]
    for number in range(len(texts)):
        for other in (small.take(np.array([number])), alone[number]):
            if mode == "multi_vector":
                assert_same_vectors(other.multi_vector, [together.multi_vector.row(number)])
            else:
                expected = sparse_matrix(together.sparse.take(np.array([number])))
                np.testing.assert_allclose(sparse_matrix(other.sparse), expected, rtol=0, atol=1e-5)


def numpy_list(tensors):
    """Arrays out of tensors."""
    return [tensor.detach().cpu().float().numpy() for tensor in tensors]
