import numpy as np
import pytest

from search.doubles import Counting, ids
from trine.data.chunking import Chunking
from trine.errors import CollectionError, UsageError
from trine.search.collection import Collection
from trine.testing import HashingEncoder
from trine.types import Document


def test_only_what_changed_is_embedded_again(folder, documents):
    encoder = Counting()
    with Collection.create(folder, encoder=encoder, analyzer="bigram", index="exact") as collection:
        collection.add(documents)
        encoder.texts.clear()
        assert collection.add(documents).unchanged == 4
        assert encoder.texts == []
        first = documents[0]
        variants = [
            Document("cats", first.text + "!", first.title, first.metadata),
            Document("cats", first.text + "!", "Beasts", first.metadata),
            Document("cats", first.text + "!", "Beasts", {"lang": "en"}),
        ]
        for variant in variants:
            report = collection.add([*documents[1:], variant])
            assert (report.updated, report.unchanged) == (1, 3)
            assert collection.document("cats") == variant
        assert len(encoder.texts) == 3
        assert len(collection) == 4


def test_of_two_documents_with_one_id_the_later_counts(collection):
    report = collection.add([Document("a", "first"), Document("b", "x"), Document("a", "second")])
    assert report.added == 2
    assert collection.document("a").text == "second"
    collection.add([Document("a", "third"), Document("a", "second")], batch=1)
    assert collection.document("a").text == "second"
    assert ids(collection.search("first", retrievers=["bm25"])) == []


def test_an_update_leaves_nothing_of_the_old_text(collection):
    collection.add([Document("a", "old words here")])
    collection.add([Document("a", "새로운 글")])
    assert collection.search("old words", retrievers=["bm25"]) == []
    assert collection.search("old words", retrievers=["sparse"]) == []
    assert [passage.text for passage in collection.passages("a")] == ["새로운 글"]


def test_deleting(collection, documents):
    collection.add(documents)
    assert collection.delete(["cats", "나무", "unknown"]) == 2
    assert collection.delete(["cats"]) == 0
    assert collection.delete("고양이") == 1
    assert [document.id for document in collection.documents()] == ["trees"]
    assert ids(collection.search("Cats 고양이 나무")) == ["trees"]


def test_documents_come_back_as_they_were_given(collection, documents):
    collection.add(documents)
    assert [(d.id, d.text, d.title, dict(d.metadata)) for d in collection.documents()] == [
        (d.id, d.text, d.title, dict(d.metadata)) for d in documents
    ]
    assert collection.document("unknown") is None
    assert collection.passages("unknown") == []


def test_many_documents_come_in_pages(collection):
    collection.add([Document(str(number), f"text {number}") for number in range(150)])
    assert [document.id for document in collection.documents()] == [str(number) for number in range(150)]


def test_a_document_without_text_is_reported_and_its_old_text_removed(collection):
    collection.add([Document("a", "words"), Document("b", "more words")])
    report = collection.add([Document("a", " \n\t "), Document("c", "")])
    assert [(skipped.path, skipped.reason) for skipped in report.skipped] == [
        ("a", "it holds no text"),
        ("c", "it holds no text"),
    ]
    assert (report.removed, len(collection)) == (1, 1)


def test_a_title_alone_can_be_found(collection):
    collection.add([Document("a", "", title="겨울 여행"), Document("b", "여름")])
    (hit,) = collection.search("여행", retrievers=["bm25"])
    assert (hit.passage.document_id, hit.passage.text, hit.passage.title) == ("a", "", "겨울 여행")


def test_what_is_acknowledged_survives_a_failure(folder, encoder):
    failing = Counting()
    texts = ["one", "two", "three", "fail", "five"]
    acknowledged = []
    with Collection.create(folder, encoder=failing, analyzer="bigram", index="exact") as collection:
        with pytest.raises(RuntimeError, match="fell over"):
            collection.add(
                (Document(str(n), text) for n, text in enumerate(texts)),
                batch=2,
                on_ack=lambda ack: acknowledged.extend(ack.ids),
            )
        assert acknowledged == ["0", "1"]
        assert [document.id for document in collection.documents()] == ["0", "1"]
        with pytest.raises(KeyboardInterrupt):
            collection.add([Document("x", "interrupt")])
        assert collection.add([Document("2", "three")]).added == 1
        assert ids(collection.search("three", retrievers=["sparse"])) == ["2"]


def test_on_ack_tells_what_is_safe_and_the_totals(collection):
    acks = []
    documents = [Document("a", "x"), Document("b", " "), Document("c", "y"), Document("d", "z")]
    report = collection.add(documents, batch=2, on_ack=acks.append)
    assert [ack.ids for ack in acks] == [("a",), ("c", "d")]
    assert [ack.report.added for ack in acks] == [1, 3]
    assert report.added == 3
    with pytest.raises(UsageError, match="batch is 0"):
        collection.add(documents, batch=0)


def test_a_generator_is_read_as_it_is_needed(folder):
    encoder = Counting()
    alive = []

    def documents():
        for number in range(40):
            alive.append(number)
            yield Document(str(number), f"text {number}")

    with Collection.create(folder, encoder=encoder, analyzer="bigram", index="exact") as collection:
        collection.add(documents(), batch=8, on_ack=lambda ack: alive.append(len(collection)))
    assert alive == [n for start in range(0, 40, 8) for n in [*range(start, start + 8), start + 8]]
    assert encoder.batches == [8] * 5


def test_a_long_document_is_embedded_in_pieces_and_appears_whole(folder, encoder):
    counting = Counting()
    text = "\n\n".join(f"문단 {n} 입니다 그리고 더 많은 말" for n in range(100))
    with (
        Collection.create(folder, encoder=counting, analyzer="bigram", chunking=Chunking(8), index="exact") as made,
        Collection.open(folder, encoder=encoder, read_only=True) as reader,
    ):
        seen = []
        original = counting.encode

        def watching(texts, **options):
            if options["kind"] == "passage":
                seen.append(len(reader))
            return original(texts, **options)

        counting.encode = watching
        made.add([Document("long", text)], batch=16)
        assert len(made.passages("long")) == 100
        assert max(counting.batches) == 16
        assert set(seen) == {0}
        assert len(reader) == 1
        assert "".join(passage.text for passage in made.passages("long")) == text.replace("\n", "")


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_vectors_that_are_not_finite_are_refused(folder, bad):
    class Sick(HashingEncoder):
        def encode(self, texts, *, kind, modes=None, progress=False):
            embeddings = super().encode(texts, kind=kind, modes=modes)
            embeddings.multi_vector.values[0, 0] = bad
            return embeddings

    with Collection.create(folder, encoder=Sick(), analyzer="bigram", index="exact") as collection:
        with pytest.raises(CollectionError, match="not finite"):
            collection.add([Document("a", "words")])
        assert len(collection) == 0


def test_an_encoder_that_breaks_its_promise_is_refused(folder):
    class Lazy(HashingEncoder):
        def encode(self, texts, *, kind, modes=None, progress=False):
            return super().encode(texts[:1], kind=kind, modes=["dense"])

    with (
        Collection.create(folder, encoder=Lazy(), analyzer="bigram", index="exact") as collection,
        pytest.raises(CollectionError, match="the encoder promised"),
    ):
        collection.add([Document("a", "words"), Document("b", "words")])


def test_odd_text_is_stored_and_found(collection):
    odd = "e\u0301 \u1112\u1161\u11ab\u1100\u1173\u11af 👩‍👩‍👧 \x00 \ud800 \u202eRTL\u202c \ufeff끝"
    collection.add([Document("odd", odd), Document("id\udcff\x00", "다른 글")])
    assert collection.document("odd").text == odd.replace("\x00", "\ufffd").replace("\ud800", "\ufffd")
    assert ids(collection.search("한글", retrievers=["bm25"])) == ["odd"]
    assert collection.document("id\udcff\x00").text == "다른 글"
    assert collection.delete(["id\udcff\x00"]) == 1


def test_files_come_and_go(collection, tmp_path):
    root = tmp_path / "files"
    root.mkdir()
    (root / "a.txt").write_text("사과 이야기", encoding="utf-8")
    (root / "b.txt").write_text("배 이야기", encoding="utf-8")
    (root / "rows.jsonl").write_text('{"id": "1", "text": "포도"}\n{"id": "2", "text": "감"}\n', encoding="utf-8")
    (root / "empty.txt").write_text("")
    (root / "other.bin").write_bytes(b"\0")
    report = collection.add_files(root)
    assert (report.added, report.removed, dict(report.ignored)) == (4, 0, {".bin": 1})
    assert [skipped.path for skipped in report.skipped] == [str(root / "empty.txt")]
    assert collection.search("사과", retrievers=["bm25"])[0].metadata == {"path": "a.txt", "type": "txt"}

    assert collection.add_files([root]).unchanged == 4
    (root / "rows.jsonl").write_text('{"id": "1", "text": "포도"}\n', encoding="utf-8")
    (root / "b.txt").unlink()
    report = collection.add_files(root)
    assert (report.unchanged, report.removed) == (2, 1)
    assert {document.id for document in collection.documents()} == {"a.txt", "b.txt", "1"}
    collection.add([Document("mine", "내 글")])
    report = collection.add_files(root, prune=True)
    assert report.removed == 1
    assert {document.id for document in collection.documents()} == {"a.txt", "1", "mine"}


def test_a_folder_that_moved_is_not_embedded_again(folder, tmp_path):
    encoder = Counting()
    root = tmp_path / "files"
    root.mkdir()
    (root / "a.txt").write_text("사과", encoding="utf-8")
    with Collection.create(folder, encoder=encoder, analyzer="bigram", index="exact") as collection:
        collection.add_files(root)
        root.rename(tmp_path / "moved")
        encoder.texts.clear()
        report = collection.add_files(tmp_path / "moved", prune=True)
        assert (report.unchanged, report.removed, encoder.texts) == (1, 0, [])
        (tmp_path / "moved" / "a.txt").unlink()
        assert collection.add_files(tmp_path / "moved", prune=True).removed == 1


def test_ids_that_change_with_the_paths_given_leave_no_duplicates(collection, tmp_path):
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "readme.txt").write_text(f"this is {name}")
    collection.add_files(tmp_path / "one")
    collection.add_files([tmp_path / "one", tmp_path / "two"])
    assert sorted(document.id for document in collection.documents()) == ["one/readme.txt", "two/readme.txt"]


def test_an_id_that_belongs_to_another_file_is_not_taken_over(collection, tmp_path):
    """Two folders indexed one after the other may hold files of one name; neither may vanish."""
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "README.txt").write_text(f"사과 {name}", encoding="utf-8")
    assert collection.add_files(tmp_path / "one").added == 1
    report = collection.add_files(tmp_path / "two")
    assert (report.added, report.updated) == (0, 0)
    (skipped,) = report.skipped
    assert skipped.path == str(tmp_path / "two" / "README.txt")
    assert str(tmp_path / "one" / "README.txt") in skipped.reason
    assert collection.document("README.txt").text == "사과 one"

    (tmp_path / "one" / "README.txt").rename(tmp_path / "one" / "moved.txt")
    assert collection.add_files(tmp_path / "two").updated == 1
    assert collection.document("README.txt").text == "사과 two"


def test_a_copy_with_the_same_content_leaves_the_document_to_its_first_file(collection, tmp_path):
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "a.txt").write_text("사과")
    collection.add_files(tmp_path / "one")
    assert collection.add_files(tmp_path / "two").unchanged == 1
    (tmp_path / "one" / "a.txt").write_text("배")
    assert collection.add_files(tmp_path / "one").updated == 1
