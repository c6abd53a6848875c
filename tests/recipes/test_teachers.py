"""A teacher's embeddings: of every text, once, found again by the text, and refused where the texts are others."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from trine.data.examples import ExampleList, text_key
from trine.errors import UsageError
from trine.objectives.base import Embedded, PairBatch
from trine.recipes.teachers import teacher_vectors
from trine.testing import HashingEncoder
from trine.types import Example

EXAMPLES = [
    Example("검색이란", ("검색 엔진은 문서를 찾는다", "찾는 일"), ("날씨가 맑다",)),
    Example("what is a pod", ("a pod holds containers 🙂",), ("cats eat fish", "날씨가 맑다")),
]


class Counting(HashingEncoder):
    """Counts what it is asked to embed; gives queries and passages other vectors, three times as long as a unit."""

    def __init__(self):
        super().__init__(dense=16)
        self.asked = []

    def encode(self, texts, *, kind, **options):
        self.asked += [(kind, text) for text in texts]
        found = super().encode([f"{kind} {text}" for text in texts], kind=kind, **options)
        return replace(found, dense=found.dense * 3)


@pytest.fixture
def source():
    return ExampleList(EXAMPLES, name="x")


def batch(queries, groups, rows=slice(None)):
    """A batch of texts by their keys; `rows` are those of this rank."""
    count = len(queries) * len(groups[0])
    return PairBatch(
        queries=Embedded(dense_ND=torch.zeros(len(queries), 2)),
        passages=Embedded(dense_ND=torch.zeros(count, 2)),
        group_size=len(groups[0]),
        rows=rows,
        query_keys_Q=torch.tensor([text_key(text) for text in queries]),
        passage_keys_P=torch.tensor([text_key(text) for group in groups for text in group]),
    )


def expected(texts, kind):
    return HashingEncoder(dense=16).encode([f"{kind} {text}" for text in texts], kind=kind, modes=["dense"]).dense


def test_every_text_of_a_batch_finds_its_unit_vector(source, tmp_path):
    vectors = teacher_vectors(Counting(), [source], folder=tmp_path)
    assert vectors.width == 16
    groups = [["a pod holds containers 🙂", "cats eat fish"], ["찾는 일", "날씨가 맑다"]]
    found = vectors.beside(batch(["what is a pod", "검색이란"], groups))
    assert found.teacher_queries_RE.numpy() == pytest.approx(expected(["what is a pod", "검색이란"], "query"), abs=2e-3)
    assert found.teacher_passages_RGE.shape == (2, 2, 16)
    for row, group in zip(found.teacher_passages_RGE.numpy(), groups, strict=True):
        assert row == pytest.approx(expected(group, "passage"), abs=2e-3)


def test_a_rank_gets_the_vectors_of_its_own_queries(source, tmp_path):
    vectors = teacher_vectors(Counting(), [source], folder=tmp_path)
    groups = [["찾는 일"], ["cats eat fish"]]
    found = vectors.beside(batch(["검색이란", "what is a pod"], groups, rows=slice(1, 2)))
    assert found.teacher_queries_RE.numpy() == pytest.approx(expected(["what is a pod"], "query"), abs=2e-3)
    assert found.teacher_passages_RGE.numpy()[:, 0] == pytest.approx(expected(["cats eat fish"], "passage"), abs=2e-3)


def test_every_text_is_embedded_once_and_by_one_run(source, tmp_path):
    teacher = Counting()
    teacher_vectors(teacher, [source, source], folder=tmp_path)
    texts = {text for one in EXAMPLES for text in (*one.positives, *one.negatives)}
    assert sorted(teacher.asked) == sorted(
        [*(("query", one.query) for one in EXAMPLES), *(("passage", text) for text in texts)]
    )
    teacher.asked.clear()
    teacher_vectors(teacher, [source, source], folder=tmp_path)
    assert teacher.asked == []


def test_a_side_that_was_cut_short_is_embedded_again(source, tmp_path):
    whole = teacher_vectors(Counting(), [source], folder=tmp_path)
    for path in tmp_path.glob("*-passage-keys.npy"):
        path.unlink()
    teacher = Counting()
    again = teacher_vectors(teacher, [source], folder=tmp_path)
    assert {kind for kind, _ in teacher.asked} == {"passage"}
    assert np.array_equal(again.vectors["passage"], whole.vectors["passage"])


def test_other_texts_and_other_teachers_get_vectors_of_their_own(source, tmp_path):
    teacher_vectors(Counting(), [source], folder=tmp_path)
    other, changed = Counting(), ExampleList(EXAMPLES[:1], name="x")
    other.fingerprint = "another"
    teacher_vectors(other, [source], folder=tmp_path)
    assert other.asked
    other.asked.clear()
    teacher_vectors(other, [changed], folder=tmp_path)
    assert {text for kind, text in other.asked if kind == "query"} == {"검색이란"}


def test_where_passages_are_the_queries_only_queries_are_embedded(source, tmp_path):
    teacher = Counting()
    vectors = teacher_vectors(teacher, [source], folder=tmp_path, same_text=True)
    assert {kind for kind, _ in teacher.asked} == {"query"}
    found = vectors.beside(batch(["검색이란"], [["검색이란"]]))
    assert torch.equal(found.teacher_passages_RGE[:, 0], found.teacher_queries_RE)


def test_a_text_that_the_teacher_never_saw_is_refused(source, tmp_path):
    vectors = teacher_vectors(Counting(), [source], folder=tmp_path)
    for unseen in ("다른 글", "", "zzz"):
        with pytest.raises(UsageError, match="has not seen a query"):
            vectors.beside(batch([unseen], [["찾는 일"]]))
    with pytest.raises(UsageError, match="no keys"):
        vectors.beside(replace(batch(["검색이란"], [["찾는 일"]]), query_keys_Q=None))


def test_a_teacher_without_dense_vectors_is_refused(source, tmp_path):
    teacher = Counting()
    teacher.dimensions = {"sparse": 4096}
    with pytest.raises(UsageError, match="dense embeddings; this one gives sparse"):
        teacher_vectors(teacher, [source], folder=tmp_path)
