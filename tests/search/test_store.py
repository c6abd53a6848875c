import numpy as np
import pytest

from trine.errors import CollectionError, CollectionNotFound, UsageError
from trine.search import database
from trine.search import store as store_module
from trine.search.filters import parse_filters
from trine.search.store import Generation, NewDocument, Store
from trine.types import Document, Embeddings, Heading, PackedRows, Passage, SparseRows

DIMENSIONS = {"dense": 3, "sparse": 50, "multi_vector": 2}


@pytest.fixture
def store(tmp_path):
    database.create(tmp_path / database.FILE, {store_module.ANALYZER: "bigram-1"})
    opened = Store(tmp_path, read_only=False)
    yield opened
    opened.close()


def passage(document_id, ordinal=0, text="text"):
    return Passage(document_id, ordinal, start=ordinal, end=ordinal + len(text), line=1, text=text, title="제목")


def vectors(count, seed=0):
    random = np.random.default_rng(seed)
    return Embeddings(
        dense=random.normal(size=(count, 3)).astype(np.float32),
        sparse=SparseRows.from_rows([{int(n): 0.5 + n for n in range(row % 3)} for row in range(count)], width=50),
        multi_vector=PackedRows.from_rows([random.normal(size=(row % 4, 2)) for row in range(count)], width=2),
    )


def put(transaction, document, parts=1, digest=b"d", source=None):
    number = transaction.put_document(NewDocument(document, source), digest)
    ids = transaction.put_passages(number, [passage(document.id, place) for place in range(parts)])
    transaction.put_embeddings(ids, vectors(parts))
    terms = transaction.term_ids(["고양이", "cat"])
    transaction.put_terms(ids, SparseRows.from_rows([{terms["cat"]: 2.0}] * parts, width=10))
    return ids


def test_what_goes_in_comes_out(store):
    document = Document(
        "문서", "본문 😀\n", "제목", {"lang": "ko", "n": 2**40, "f": 0.1, "x": None}, [Heading(0, 1, "본문")]
    )
    with store.transaction() as transaction:
        ids = put(transaction, document, parts=5)
    wanted = vectors(5)
    assert store.document("문서") == Document(
        document.id, document.text, document.title, document.metadata, (Heading(0, 1, "본문"),)
    )
    assert store.passages_of("문서") == {key: passage("문서", place) for place, key in enumerate(ids)}
    found = store.embeddings(np.array(ids), dimensions=DIMENSIONS)
    np.testing.assert_array_equal(found.dense, wanted.dense)
    np.testing.assert_array_equal(found.sparse.offsets, wanted.sparse.offsets)
    np.testing.assert_array_equal(found.sparse.ids, wanted.sparse.ids)
    np.testing.assert_array_equal(found.sparse.weights, wanted.sparse.weights)
    assert found.sparse.width == 50
    np.testing.assert_array_equal(found.multi_vector.offsets, wanted.multi_vector.offsets)
    np.testing.assert_array_equal(found.multi_vector.values, wanted.multi_vector.values.astype(np.float16))
    some = store.embeddings(np.array(ids[1:4:2]), dimensions={"sparse": 50})
    assert some.modes == ("sparse",)
    np.testing.assert_array_equal(some.sparse.row(1)[0], wanted.sparse.row(3)[0])
    counts = store.terms(np.array(ids[:2]))
    assert [dict(zip(*counts.row(row), strict=True)) for row in range(2)] == [{store.term_ids(["cat"])["cat"]: 2.0}] * 2
    stored = store.passages([ids[3], 999])
    assert stored == {ids[3]: (passage("문서", 3), {"lang": "ko", "n": 2**40, "f": 0.1, "x": None})}


def test_a_replaced_document_keeps_its_place_and_its_passages_get_new_ids(store):
    with store.transaction() as transaction:
        first = put(transaction, Document("a", "old", metadata={"x": 1}), parts=2)
        put(transaction, Document("b", "other"))
    with store.transaction() as transaction:
        second = put(transaction, Document("a", "new", metadata={"y": 2}), parts=1)
    assert min(second) > max(first)
    assert [document.id for document in store.documents().values()] == ["a", "b"]
    assert store.document("a").text == "new"
    assert store.metadata_keys() == ["y"]
    assert set(store.passage_ids().tolist()).isdisjoint(first)
    for table in ("dense", "sparse", "multi_vector", "terms"):
        rows = store._reader.rows(f"SELECT passage FROM {table} ORDER BY passage")
        assert [row[0] for row in rows] == store.passage_ids().tolist()


def test_ids_are_never_used_again(store):
    with store.transaction() as transaction:
        first = put(transaction, Document("a", "x"), parts=3)
    with store.transaction() as transaction:
        assert transaction.delete(["a", "unknown"]) == 1
    with store.transaction() as transaction:
        assert min(put(transaction, Document("a", "x"))) > max(first)


def test_an_exception_undoes_the_whole_transaction(store):
    before = store.generation()

    def interrupted():
        with store.transaction() as transaction:
            put(transaction, Document("a", "x"))
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert store.generation() == before
    assert (store.document_count(), store.passage_count(), store.vocabulary_size()) == (0, 0, 0)
    with store.transaction() as transaction:
        put(transaction, Document("a", "x"))
    assert store.document_count() == 1


def test_a_transaction_without_changes_is_no_new_generation(store):
    before = store.generation()
    with store.transaction() as transaction:
        transaction.known(["a"])
        transaction.delete(["a"])
    assert store.generation() == before


def test_changes_are_what_an_index_must_follow(store):
    start = store.generation()
    with store.transaction() as transaction:
        first = put(transaction, Document("a", "x"), parts=2)
    middle = store.generation()
    with store.transaction() as transaction:
        second = put(transaction, Document("b", "x"))
        transaction.delete(["a"])
    changes = store.changes(start, last_id=0)
    assert (changes.added.tolist(), changes.removed.tolist()) == (second, first)
    changes = store.changes(middle, last_id=first[-1])
    assert (changes.added.tolist(), changes.removed.tolist()) == (second, first)
    assert store.changes(store.generation(), last_id=second[-1]).added.tolist() == []
    assert store.changes(Generation(middle.number, middle.token + 1), last_id=0) is None


def test_the_log_of_changes_is_kept_short(store, tmp_path, monkeypatch):
    start = store.generation()
    for text in "abcdef":
        with store.transaction() as transaction:
            put(transaction, Document("a", text))
    monkeypatch.setattr(store_module, "KEPT_GENERATIONS", 3)
    store.close()
    store.__init__(tmp_path, read_only=False)
    assert store.changes(start, last_id=0) is None
    assert store._reader.rows("SELECT count(*) FROM commits")[0][0] == 3
    assert len(store.passage_ids()) == 1


def test_filters_choose_passages_and_unknown_keys_are_named(store):
    assert store.matching(parse_filters({"lang": "ko"})).tolist() == []
    with store.transaction() as transaction:
        korean = put(transaction, Document("a", "x", metadata={"lang": "ko", "year": 2020}), parts=2)
        english = put(transaction, Document("b", "x", metadata={"lang": "en"}))
        bare = put(transaction, Document("c", "x"))
    assert store.matching(parse_filters({"lang": "ko"})).tolist() == korean
    assert store.matching(parse_filters("lang!=ko")).tolist() == english + bare
    assert store.matching(parse_filters("lang=fr")).tolist() == []
    assert store.matching(()).tolist() == korean + english + bare
    with pytest.raises(UsageError, match="'lnag'; did you mean 'lang'"):
        store.matching(parse_filters("lnag=ko"))


def test_documents_come_in_pages(store):
    with store.transaction() as transaction:
        for name in "abc":
            put(transaction, Document(name, name))
    first = store.documents(limit=2)
    assert [document.id for document in first.values()] == ["a", "b"]
    assert [document.id for document in store.documents(after=max(first), limit=2).values()] == ["c"]


def test_files_are_remembered(store):
    with store.transaction() as transaction:
        put(transaction, Document("a", "x"), source=b"/tmp/\xff.txt")
        put(transaction, Document("b", "x"))
    with store.transaction() as transaction:
        assert transaction.sources() == [("a", b"/tmp/\xff.txt")]
        assert transaction.known(["a", "b", "c"]) == {"a": (b"d", b"/tmp/\xff.txt"), "b": (b"d", None)}
        transaction.set_source("a", None)
        assert transaction.sources() == []


def test_terms_get_ids_once(store):
    with store.transaction() as transaction:
        first = transaction.term_ids(["고양이", "cat", "x"])
        second = transaction.term_ids(["cat", "dog"])
    assert second["cat"] == first["cat"]
    assert len({*first.values(), *second.values()}) == 4
    assert store.term_ids(["dog", "unknown"]) == {"dog": second["dog"]}
    assert store.term_labels([second["dog"], first["고양이"]]) == ["dog", "고양이"]
    assert store.vocabulary_size() == max(second["dog"], *first.values()) + 1


def test_a_read_only_store_cannot_be_written(store, tmp_path):
    reader = Store(tmp_path, read_only=True)
    with pytest.raises(CollectionError, match="read_only=True"), reader.transaction():
        pass
    reader.close()


def test_lost_vectors_are_damage_and_not_ignored(store):
    with store.transaction() as transaction:
        ids = put(transaction, Document("a", "x"), parts=2)
        transaction._connection.execute("DELETE FROM dense WHERE passage = ?", (ids[0],))
    with pytest.raises(CollectionError, match="1 of 2 passages: it is damaged"):
        store.embeddings(np.array(ids), dimensions=DIMENSIONS)


def test_no_store_is_said_so(tmp_path):
    with pytest.raises(CollectionNotFound, match="no collection at"):
        Store(tmp_path, read_only=True)
    with pytest.raises(CollectionNotFound):
        Store(tmp_path / "nowhere", read_only=False)
