import json
import shutil
import warnings

import numpy as np
import pytest

from trine.index.qdrant_edge import QdrantEdgeIndex
from trine.search import database
from trine.search.store import ANALYZER, NewDocument, Store
from trine.search.views import Bm25View, IndexView
from trine.types import Document, Passage, SparseRows

DIMENSIONS = {"dense": 32, "sparse": 4096}


class Setting:
    def __init__(self, folder, encoder):
        self.folder, self.encoder = folder, encoder
        database.create(folder / database.FILE, {ANALYZER: "bigram-1"})
        self.store = Store(folder, read_only=False)
        self.views = []

    def add(self, document_id, texts):
        embeddings = self.encoder.encode(texts, kind="passage")
        with self.store.transaction() as transaction:
            number = transaction.put_document(NewDocument(Document(document_id, " ".join(texts))), b"")
            parts = [Passage(document_id, place, 0, 1, 1, text) for place, text in enumerate(texts)]
            ids = transaction.put_passages(number, parts)
            transaction.put_embeddings(ids, embeddings)
            rows = [{term: 1.0 for term in transaction.term_ids(text.split()).values()} for text in texts]
            transaction.put_terms(ids, SparseRows.from_rows(rows, width=1000))
        return ids

    def delete(self, document_id):
        with self.store.transaction() as transaction:
            transaction.delete([document_id])

    def view(self, backend="qdrant-edge", dimensions=DIMENSIONS):
        self.views.append(IndexView(self.folder, self.store, backend=backend, dimensions=dimensions))
        return self.views[-1]

    def found(self, view, query, mode="sparse"):
        queries = self.encoder.encode([query], kind="query")
        with self.store.snapshot():
            return sorted(view.search(queries, mode=mode, k=10).ids.tolist())

    def close(self):
        for view in self.views:
            view.close()
        self.store.close()


@pytest.fixture
def setting(tmp_path, encoder):
    made = Setting(tmp_path, encoder)
    yield made
    made.close()


def is_on_disk(view):
    return view._shard is not None and isinstance(view._index, QdrantEdgeIndex)


@pytest.mark.parametrize("backend", ["qdrant-edge", "exact"])
def test_a_view_follows_the_store(setting, backend):
    view = setting.view(backend)
    assert setting.found(view, "사과") == []
    first = setting.add("a", ["사과 나무", "배"])
    assert setting.found(view, "사과") == first[:1]
    second = setting.add("a", ["사과 하나", "사과 둘"])
    assert setting.found(view, "사과") == second
    setting.add("b", ["없음"])
    setting.delete("a")
    assert setting.found(view, "사과") == []
    assert view._index.ids().tolist() == setting.store.passage_ids().tolist()


def test_a_shard_is_kept_and_brought_up_to_date(setting):
    setting.add("a", ["사과"])
    view = setting.view()
    setting.found(view, "사과")
    view.close()
    added = setting.add("b", ["사과 둘"])
    setting.delete("a")
    again = setting.view()
    assert setting.found(again, "사과") == added
    assert is_on_disk(again)


def test_the_second_to_come_searches_in_memory(setting):
    ids = setting.add("a", ["사과", "배"])
    first, second = setting.view(), setting.view()
    assert setting.found(first, "사과") == setting.found(second, "사과") == ids[:1]
    assert is_on_disk(first)
    assert not is_on_disk(second)
    first.close()
    third = setting.view()
    setting.found(third, "사과")
    assert is_on_disk(third)


def damage_by_rubbish(shard):
    for file in sorted(shard.rglob("*")):
        if file.is_file() and file.name != "lock":
            file.write_bytes(b"\x07rubbish" * 50)


def damage_by_truncation(shard):
    for file in shard.rglob("*.json"):
        file.write_bytes(file.read_bytes()[:5])


def damage_by_loss(shard):
    for folder in (shard / "shard").iterdir():
        shutil.rmtree(folder) if folder.is_dir() else folder.unlink()


def damage_by_a_file_in_its_place(shard):
    shutil.rmtree(shard)
    shard.write_text("a file")


@pytest.mark.parametrize(
    "damage", [damage_by_rubbish, damage_by_truncation, damage_by_loss, damage_by_a_file_in_its_place]
)
def test_a_damaged_shard_is_made_anew(setting, damage):
    ids = setting.add("a", ["사과", "배"])
    view = setting.view()
    setting.found(view, "사과")
    view.close()
    damage(setting.folder / "qdrant-edge")
    again = setting.view()
    assert setting.found(again, "사과") == ids[:1]
    assert is_on_disk(again)
    assert again._index.ids().tolist() == ids


def test_a_shard_of_another_collection_is_made_anew(setting, tmp_path, encoder):
    (tmp_path / "other").mkdir()
    other = Setting(tmp_path / "other", encoder)
    other.add("x", ["전혀 다른 글", "또 다른 글"])
    foreign = other.view()
    other.found(foreign, "글")
    other.close()
    ids = setting.add("a", ["사과", "배"])
    for name in ("qdrant-edge", "qdrant-edge.json"):
        source = tmp_path / "other" / name
        shutil.copytree(source, tmp_path / name) if source.is_dir() else shutil.copy(source, tmp_path / name)
    view = setting.view()
    assert setting.found(view, "사과") == ids[:1]
    assert setting.found(view, "글") == []
    assert is_on_disk(view)


def test_a_store_from_a_backup_does_not_trust_a_newer_shard(setting):
    setting.add("a", ["사과"])
    setting.store.close()
    shutil.copy(setting.folder / database.FILE, setting.folder / "backup")
    setting.store = Store(setting.folder, read_only=False)
    setting.add("b", ["배"])
    view = setting.view()
    setting.found(view, "배")
    view.close()
    setting.store.close()
    shutil.copy(setting.folder / "backup", setting.folder / database.FILE)
    setting.store = Store(setting.folder, read_only=False)
    same_id = setting.add("c", ["포도"])
    again = setting.view()
    assert setting.found(again, "포도") == same_id
    assert setting.found(again, "배") == []


def test_a_stamp_that_cannot_be_read_is_none(setting):
    ids = setting.add("a", ["사과"])
    for stamp in ("", "[]", '{"generation": 3, "dimensions": {}}', json.dumps({"dimensions": DIMENSIONS})):
        (setting.folder / "qdrant-edge.json").write_text(stamp)
        view = setting.view()
        assert setting.found(view, "사과") == ids
        view.close()


class Broken:
    """Fails like a shard whose damage shows only while it is used; a panic in Rust is no `Exception`."""

    class Panic(BaseException):
        pass

    def __init__(self, failures):
        self.failures = failures

    def open(self, path, *, dimensions):
        index = QdrantEdgeIndex.open(path, dimensions=dimensions)
        if self.failures:
            self.failures -= 1

            def search(*arguments, **options):
                raise self.Panic("index out of bounds")

            index.search = search
        return index


def test_a_shard_that_panics_in_a_search_is_made_anew(setting, monkeypatch):
    ids = setting.add("a", ["사과"])
    broken = Broken(failures=1)
    monkeypatch.setattr("trine.search.views.resolve", lambda table, name, kind: broken)
    view = setting.view()
    assert setting.found(view, "사과") == ids
    assert is_on_disk(view)


def test_a_shard_that_keeps_failing_is_done_without_and_said_so(setting, monkeypatch):
    from trine.index.exact import ExactIndex

    ids = setting.add("a", ["사과"])
    broken = Broken(failures=9)
    monkeypatch.setattr(
        "trine.search.views.resolve", lambda table, name, kind: ExactIndex if name == "exact" else broken
    )
    view = setting.view()
    with pytest.warns(UserWarning, match="cannot be kept.*index out of bounds"):
        assert setting.found(view, "사과") == ids
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert setting.found(view, "사과") == ids


def test_what_the_caller_did_wrong_is_no_damage(setting):
    from trine.errors import UsageError

    ids = setting.add("a", ["사과"])
    view = setting.view()
    with pytest.raises(UsageError, match="not multi_vector"):
        setting.found(view, "사과", mode="multi_vector")
    assert setting.found(view, "사과") == ids
    assert is_on_disk(view)


def test_multi_vectors_are_held_only_where_there_is_no_dense(setting):
    ids = setting.add("a", ["사과", "배"])
    assert setting.view(dimensions={**DIMENSIONS, "multi_vector": 16}).modes == ("dense", "sparse")
    alone = setting.view(dimensions={"sparse": 4096, "multi_vector": 16})
    assert alone.modes == ("sparse", "multi_vector")
    assert setting.found(alone, "사과", mode="multi_vector") == ids
    assert not is_on_disk(alone)


def test_optimize_needs_the_shard(setting):
    from trine.errors import CollectionError

    ids = setting.add("a", ["사과", "배"])
    first, second = setting.view(), setting.view()
    with setting.store.snapshot():
        first.optimize()
        with pytest.raises(CollectionError, match="another process holds it"):
            second.optimize()
    assert setting.found(first, "사과") == ids[:1]


def bm25_found(setting, view, word):
    with setting.store.snapshot():
        numbers = setting.store.term_ids([word])
        query = SparseRows.from_rows([{number: 1.0 for number in numbers.values()}], width=1000)
        return view.synchronised().search(query, k=10).ids.tolist()


def test_the_bm25_view_follows_the_store_and_the_analyser(setting):
    view = Bm25View(setting.store)
    first = setting.add("a", ["사과 나무", "배"])
    assert bm25_found(setting, view, "사과") == first[:1]
    second = setting.add("a", ["배", "사과", "사과"])
    assert bm25_found(setting, view, "사과") == second[1:]
    assert view.synchronised().ids().tolist() == second

    with setting.store.transaction() as transaction:

        def count(contents):
            term = transaction.term_ids(["새말"])["새말"]
            return SparseRows.from_rows([{term: 1.0} for _ in contents], width=term + 1)

        transaction.replace_terms(count, fingerprint="bigram-2")
    assert bm25_found(setting, view, "사과") == []
    assert bm25_found(setting, view, "새말") == second
    assert setting.store.analyzer_fingerprint() == "bigram-2"


def test_a_view_that_is_too_far_behind_compares_all_ids(setting, monkeypatch):
    view = setting.view("exact")
    setting.add("a", ["사과"])
    setting.found(view, "사과")
    setting.delete("a")
    ids = setting.add("b", ["사과 둘"])
    monkeypatch.setattr(Store, "changes", lambda *arguments, **options: None)
    assert setting.found(view, "사과") == ids
    np.testing.assert_array_equal(view._index.ids(), ids)


def test_a_view_that_follows_reads_only_what_is_new(setting, monkeypatch):
    view = setting.view("exact")
    setting.add("a", ["사과", "배"])
    setting.found(view, "사과")
    read = []
    original = Store.embeddings
    monkeypatch.setattr(
        Store, "embeddings", lambda self, ids, **options: read.extend(ids) or original(self, ids, **options)
    )
    added = setting.add("b", ["사과 둘"])
    setting.found(view, "사과")
    setting.found(view, "사과")
    assert read == added
    view.close()
    again = setting.view("exact")
    assert len(setting.found(again, "사과")) == 2


def test_a_shard_that_someone_else_has_open_is_left_alone(setting):
    ids = setting.add("a", ["사과"])
    view = setting.view()
    setting.found(view, "사과")
    view.close()
    other = QdrantEdgeIndex.open(str(setting.folder / "qdrant-edge"), dimensions=DIMENSIONS)
    again = setting.view()
    assert setting.found(again, "사과") == ids
    assert not is_on_disk(again)
    assert other.ids().tolist() == ids
    other.close()
    third = setting.view()
    setting.found(third, "사과")
    assert is_on_disk(third)
