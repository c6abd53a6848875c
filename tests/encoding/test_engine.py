import gc
import weakref

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from models import tiny
from trine.encoding import engine as module
from trine.encoding.engine import TorchEngine, pad
from trine.errors import UsageError
from trine.models.config import (
    DenseConfig,
    EncoderConfig,
    Expansion,
    MultiVectorConfig,
    Normalize,
    SparseConfig,
    TextConfig,
)
from trine.models.encoder import Encoder
from trine.models.tokenization import Tokens
from trine.types import MODES, Embeddings


def agree(one, other, *, atol=1e-5):
    """Two embeddings of the same texts within a tolerance; a sparse weight below it may be missing on one side."""
    assert one.modes == other.modes
    np.testing.assert_allclose(one.dense, other.dense, rtol=0, atol=atol)
    np.testing.assert_array_equal(one.multi_vector.offsets, other.multi_vector.offsets)
    np.testing.assert_allclose(one.multi_vector.values, other.multi_vector.values, rtol=0, atol=atol)
    np.testing.assert_allclose(wide(one.sparse), wide(other.sparse), rtol=0, atol=atol)


def wide(rows):
    """Sparse rows as a full matrix."""
    full = np.zeros((len(rows), rows.width), np.float32)
    full[np.repeat(np.arange(len(rows)), np.diff(rows.offsets)), rows.ids] = rows.weights
    return full


@pytest.fixture(scope="module")
def alone(trio):
    """Each text of `tiny.TEXTS` embedded by itself, by backbone."""
    import functools

    @functools.cache
    def embed(name):
        return Embeddings.concatenate([trio(name).encode([text]) for text in tiny.TEXTS])

    return embed


# -- the same text, whatever stands beside it ------------------------------------------------------------------------


@pytest.mark.parametrize("batch_tokens", [1, 50, 300, 10**9, None])
@pytest.mark.parametrize("name", tiny.BACKBONES)
def test_alone_and_in_a_batch(trio, alone, name, batch_tokens):
    """From one text at a time to all in one batch, where the shortest is padded to the longest."""
    agree(trio(name).encode(tiny.TEXTS, batch_tokens=batch_tokens), alone(name))


@pytest.mark.parametrize("name", tiny.BACKBONES)
def test_at_any_padding(trio, alone, name):
    """Padding of every width, up to the longest input the model takes, on the batch itself."""
    encoder = trio(name)
    tokens = encoder.text(["검색 엔진은 index"], kind="passage")
    expected = encoder.encode(["검색 엔진은 index"])
    for width in range(int(tokens.lengths[0]), tiny.MAX_LENGTH + 1, 5):
        batch = pad(tokens, np.array([0]), kind="passage", device=encoder.device)
        extra = width - batch.ids_BL.shape[1]

        def wider(tensor, value, extra=extra):
            return torch.nn.functional.pad(tensor, (0, extra), value=value)

        padded = type(batch)(
            wider(batch.ids_BL, tokens.padding_id),
            wider(batch.mask_BL, False),
            wider(batch.attended_BL, False),
            batch.prompt_lengths_B,
            "passage",
        )
        with torch.inference_mode():
            output = encoder(padded, MODES)
        np.testing.assert_allclose(output.dense_BD, expected.dense, atol=1e-5)
        kept = output.vectors_BLd[0, 1 : tokens.lengths[0]]
        np.testing.assert_allclose(kept, expected.multi_vector.values, atol=1e-5)
        np.testing.assert_allclose(wide(encoder.sparse.rows(output.sparse)), wide(expected.sparse), atol=1e-5)


@settings(max_examples=25)
@given(data=st.data())
def test_any_selection_in_any_order(trio, alone, data):
    """Results come in input order, repetitions included, for any budget."""
    name = data.draw(st.sampled_from(tiny.BACKBONES))
    numbers = data.draw(st.lists(st.integers(0, len(tiny.TEXTS) - 1), max_size=12))
    budget = data.draw(st.integers(1, 500))
    found = trio(name).encode([tiny.TEXTS[number] for number in numbers], batch_tokens=budget)
    agree(found, alone(name).take(np.array(numbers, np.int64)))


@settings(max_examples=40)
@given(
    texts=st.lists(st.text(st.characters(exclude_categories=()), max_size=40), max_size=6),
    kind=st.sampled_from(["query", "passage"]),
)
def test_any_text_at_all(trio, texts, kind):
    """Whatever strings there are, lone surrogates and control characters among them."""
    encoder = trio("bert")
    found = encoder.encode(texts, kind=kind)
    assert len(found) == len(texts)
    assert np.isfinite(found.dense).all()
    assert np.isfinite(found.multi_vector.values).all()
    assert (found.sparse.weights > 0).all()
    for number, text in enumerate(texts):
        assert len(encoder.vector_spans(text, kind=kind)) == len(found.multi_vector.row(number))


@pytest.mark.parametrize("attend", [False, True])
def test_expanded_queries_are_invariant_too(attend):
    """Tokens that the others do not see lie between the text and the padding."""
    parts = tiny.build("bert")
    config = EncoderConfig(
        text=TextConfig(
            max_length=48, markers={"query": 7}, expansion=Expansion(length=10, token_id=4, attend=attend, fixed=False)
        ),
        dense=DenseConfig(pooling=("mean",), layers=(Normalize(),)),
        sparse=SparseConfig("static", len(parts.tokenizer)),
        multi_vector=MultiVectorConfig(layers=(Normalize(),)),
    )
    encoder = Encoder(config, backbone=module_backbone(parts), tokenizer=parts.tokenizer).eval()
    with torch.no_grad():
        encoder.sparse.table.fill_(1.0)
    together = encoder.encode(tiny.TEXTS, kind="query", batch_tokens=10**6)
    separate = Embeddings.concatenate([encoder.encode([text], kind="query") for text in tiny.TEXTS])
    agree(together, separate)
    assert np.diff(together.multi_vector.offsets).min() == 10
    masks = [4 in together.sparse.row(number)[0] for number in range(len(tiny.TEXTS))]
    assert any(masks) == attend  # unseen tokens weigh nothing


def module_backbone(parts):
    from trine.models.backbone import Backbone

    return Backbone(parts.model, masked_lm=False)


# -- empties and extremes --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("modes", [None, ["dense"], ["sparse"], ["multi_vector"], ["dense", "multi_vector"]])
def test_no_texts(trio, modes):
    found = trio("bert").encode([], modes=modes)
    assert found.modes == (tuple(modes) if modes else MODES)
    assert len(found) == 0
    if found.dense is not None:
        assert found.dense.shape == (0, 32)
    if found.sparse is not None:
        assert found.sparse.width == trio("bert").dimensions["sparse"]
        assert len(found.sparse.ids) == 0
    if found.multi_vector is not None:
        assert found.multi_vector.values.shape == (0, 16)
    some = trio("bert").encode(["a"], modes=modes)
    assert len(Embeddings.concatenate([found, some, found])) == 1


def test_types_of_the_arrays(trio):
    found = trio("bert").encode(tiny.TEXTS)
    assert found.dense.dtype == found.sparse.weights.dtype == found.multi_vector.values.dtype == np.float32
    assert found.sparse.ids.dtype == np.int32
    assert found.sparse.offsets.dtype == found.multi_vector.offsets.dtype == np.int64
    for number in range(len(found)):
        ids = found.sparse.row(number)[0]
        assert (np.diff(ids) > 0).all()  # ascending, none twice


def test_no_padded_rows_are_kept_alive(trio):
    """What is given back owns exactly its own memory, no view of a batch."""
    found = trio("bert").encode(tiny.TEXTS)
    for array in (found.dense, found.multi_vector.values):
        owner = array if array.base is None else array.base
        assert owner.nbytes == array.nbytes
    assert len(found.multi_vector.values) == found.multi_vector.offsets[-1]


@pytest.mark.parametrize("budget", [0, -5])
def test_budgets_below_one_are_refused(trio, budget):
    with pytest.raises(UsageError, match=f"batch_tokens must be at least 1, got {budget}"):
        TorchEngine(trio("bert"), batch_tokens=budget)


def test_batches_keep_to_the_budget(trio, monkeypatch):
    """Padding included; one text alone may exceed it."""
    encoder, shapes = trio("bert"), []
    forward = encoder.backbone.forward

    def spy(ids, mask):
        shapes.append(tuple(ids.shape))
        return forward(ids, mask)

    monkeypatch.setattr(encoder.backbone, "forward", spy)
    encoder.encode(tiny.TEXTS, batch_tokens=60)
    assert sum(count for count, _ in shapes) == len(tiny.TEXTS)
    assert all(count * length <= 60 or count == 1 for count, length in shapes)
    assert [length for _, length in shapes] == sorted((length for _, length in shapes), reverse=True)
    tokens = encoder.text(tiny.TEXTS, kind="passage").lengths.sum()
    assert sum(count * length for count, length in shapes) < 1.3 * tokens  # little padding, since they are sorted


def test_the_budget_of_masked_lms_counts_their_logits(trio, monkeypatch):
    encoder = trio("bert")
    monkeypatch.setattr(type(encoder.config), "needs_masked_lm", property(lambda config: True))
    most = module.LOGITS_LIMIT // encoder.backbone.vocabulary_size
    assert TorchEngine(encoder, batch_tokens=10**9).budget.tokens == most


def test_several_windows_are_joined(trio, monkeypatch):
    expected = trio("bert").encode(tiny.TEXTS)
    monkeypatch.setattr(module, "WINDOW", 7)
    agree(trio("bert").encode(tiny.TEXTS), expected)
    assert len(trio("bert").encode([])) == 0
    assert len(trio("bert").encode(tiny.TEXTS[:7])) == 7


# -- streams ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("window", [1, 3, len(tiny.TEXTS) - 1, len(tiny.TEXTS), 1000])
def test_a_stream_equals_a_list(trio, window):
    expected = trio("mpnet").encode(tiny.TEXTS)
    parts = list(trio("mpnet").encode_stream(iter(tiny.TEXTS), window=window))
    assert [len(part) for part in parts[:-1]] == [window] * (len(parts) - 1)
    agree(Embeddings.concatenate(parts), expected)


def test_a_stream_of_nothing(trio):
    assert list(trio("bert").encode_stream(iter([]))) == []


def test_a_stream_reads_no_further_than_it_must(trio):
    """It works on endless input and holds one window of texts."""
    taken = []

    def endless():
        number = 0
        while True:
            taken.append(number)
            yield f"text {number}"
            number += 1

    stream = trio("bert").encode_stream(endless(), window=5, modes=["dense"])
    assert taken == []
    next(stream)
    assert len(taken) == 5
    next(stream)
    assert len(taken) == 10


def test_a_stream_lets_go_of_what_it_gave(trio):
    stream = trio("bert").encode_stream((f"text {number}" for number in range(10)), window=5, modes=["dense"])
    first = weakref.ref(next(stream).dense)
    next(stream)
    gc.collect()
    assert first() is None


def test_options_of_a_stream_are_checked_before_it_is_read(trio):
    encoder = trio("bert")
    with pytest.raises(UsageError, match="window must be at least 1, got 0"):
        encoder.encode_stream(["a"], window=0)
    with pytest.raises(UsageError, match="no mode called 'dens'"):
        encoder.encode_stream(["a"], modes=["dens"])
    with pytest.raises(UsageError, match="batch_tokens"):
        encoder.encode_stream(["a"], batch_tokens=0)


def test_kind_and_prompt_reach_a_stream(trio):
    found = next(trio("bert").encode_stream(["엔진"], prompt="검색 ", modes=["dense"]))
    np.testing.assert_array_equal(found.dense, trio("bert").encode(["검색 엔진"], modes=["dense"]).dense)


# -- out of memory ---------------------------------------------------------------------------------------------------


def out_of_memory(monkeypatch, encoder, where, limit):
    """Make one step fail as long as the batch has more than `limit` texts."""
    failures = []
    owner = {"backbone": encoder.backbone, "multi_vector": encoder.multi_vector}[where]
    forward = owner.forward

    def failing(states, *more):
        if len(states) > limit:
            failures.append(len(states))
            raise torch.OutOfMemoryError("CUDA out of memory")
        return forward(states, *more)

    monkeypatch.setattr(owner, "forward", failing)
    return failures


@pytest.mark.parametrize("where", ["backbone", "multi_vector"])
def test_batches_are_halved_until_they_fit(trio, alone, monkeypatch, where):
    encoder = trio("bert")
    failures = out_of_memory(monkeypatch, encoder, where, limit=3)
    agree(encoder.encode(tiny.TEXTS, batch_tokens=10**6), alone("bert"))
    assert failures


def test_failure_while_results_are_stored_counts_no_text_twice(trio, alone, monkeypatch):
    encoder, raised = trio("bert"), []
    store = module._Result._take_vectors

    def failing(result, rows, *more):
        if len(rows) > 3:
            raised.append(len(rows))
            raise torch.OutOfMemoryError("CUDA out of memory")
        return store(result, rows, *more)

    monkeypatch.setattr(module._Result, "_take_vectors", failing)
    agree(encoder.encode(tiny.TEXTS, batch_tokens=10**6), alone("bert"))
    assert raised


def test_one_text_that_does_not_fit_is_an_error(trio, monkeypatch):
    out_of_memory(monkeypatch, trio("bert"), "backbone", limit=0)
    with pytest.raises(torch.OutOfMemoryError):
        trio("bert").encode(["a", "b"])


def test_other_errors_are_not_swallowed(trio, monkeypatch):
    def broken(*inputs):
        raise RuntimeError("another failure")

    monkeypatch.setattr(trio("bert").backbone, "forward", broken)
    with pytest.raises(RuntimeError, match="another failure"):
        trio("bert").encode(["a", "b"])


# -- padding ---------------------------------------------------------------------------------------------------------


def test_pad_worked_by_hand(trio):
    encoder = trio("xlm_roberta")
    tokens = encoder.text(["검색", "검색 엔진은", ""], kind="query")
    batch = pad(tokens, np.array([2, 1]), kind="query", device=torch.device("cpu"))
    first, second = encoder.tokenizer.convert_tokens_to_ids(["▁검색", "▁엔진은"])
    assert batch.ids_BL.tolist() == [[0, 2, 1, 1], [0, first, second, 2]]
    assert batch.mask_BL.tolist() == [[True, True, False, False], [True] * 4]
    assert batch.attended_BL.tolist() == batch.mask_BL.tolist()
    assert batch.ids_BL.dtype == torch.int64
    assert batch.kind == "query"


def test_a_prompt_that_all_texts_share_is_computed_once(monkeypatch):
    encoder = tiny.encoder("qwen3")
    texts = ["검색", "한국어 임베딩 벡터", "an index", "x"] * 3
    counted = []
    encoder.backbone.model.get_input_embeddings().register_forward_hook(
        lambda module, arguments, output: counted.append(arguments[0].numel())
    )

    def computed(prompt):
        counted.clear()
        return encoder.encode(texts, prompt=prompt), sum(counted)

    prompt = "retrieve the index: "
    found, shared = computed(prompt)
    _, alone = computed("")
    monkeypatch.setattr(module, "LEAST_PREFIX", 1000)
    whole, every = computed(prompt)
    length = len(encoder.tokenizer(prompt)["input_ids"])
    assert every >= alone + (length - 1) * len(texts)
    # The prompt once; the last of its tokens may have become one with a text's first.
    assert shared <= alone + 2 * length + 2 * len(texts)
    agree(found, whole)


@pytest.mark.parametrize(
    ("rows", "length"),
    [
        ([[1, 2, 3, 4, 5, 6], [1, 2, 3, 4, 5, 9]], 5),
        ([[1, 2, 3, 4, 5, 6], [1, 2, 3, 4, 5, 6]], 5),  # a token must be left
        ([[1, 2, 3, 4, 5, 6, 7], [1, 2, 3, 4, 5, 6]], 5),
        ([[1, 2, 3, 4, 5, 6], [1, 2, 9, 4, 5, 6]], 2),
        ([[1, 2, 3, 4, 5, 6], [1, 2, 3, 4]], 0),  # not worth it
        ([[1, 2, 3, 4, 5, 6]], 0),
        ([], 0),
    ],
)
def test_the_tokens_that_texts_share(rows, length):
    offsets = np.cumsum([0, *map(len, rows)])
    ids = np.array([number for row in rows for number in row], np.int32)
    tokens = Tokens(ids, offsets, np.ones(len(ids), np.bool_), np.zeros(len(rows), np.int64), 0)
    assert module.shared_length(tokens) == length
