import os
import sqlite3
import subprocess
import sys
import tempfile
import textwrap
import threading
from pathlib import Path

import pytest

from search.doubles import ids
from trine.data.chunking import Chunking
from trine.errors import (
    CollectionCorrupt,
    CollectionError,
    CollectionLocked,
    CollectionNotFound,
    ModelMismatch,
    UnknownName,
    UsageError,
)
from trine.search.collection import Collection
from trine.search.fusion import RETRIEVERS
from trine.testing import HashingEncoder
from trine.types import Document, Hit

# Making and opening


def test_a_collection_is_made_used_closed_and_opened_again(folder, encoder, documents):
    with Collection.create(folder, encoder=encoder, analyzer="bigram") as made:
        report = made.add(documents)
        assert (report.added, report.updated, report.unchanged, report.passages) == (4, 0, 0, 4)
        before = made.search("고양이는 생선을")
    with Collection.open(folder, encoder=encoder) as opened:
        assert len(opened) == 4
        assert opened.search("고양이는 생선을") == before
        assert ids(before)[0] == "고양이"


def test_a_hit_says_everything(collection, documents):
    collection.add(documents)
    hit = collection.search("Cat", k=1)[0]
    assert isinstance(hit, Hit)
    assert hit.rank == 1
    assert hit.passage.text == documents[0].text
    assert hit.passage.title == "Animals"
    assert hit.passage.line == 1
    assert hit.metadata == {"lang": "en", "year": 2020}
    assert set(hit.scores) == set(RETRIEVERS)
    assert hit.terms == {f"#{HashingEncoder()._id('cat')}": 1.0}


def test_create_wants_an_empty_folder(folder, encoder, documents, tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(CollectionError, match=r"not empty \(it holds notes.txt"):
        Collection.create(tmp_path, encoder=encoder)
    with pytest.raises(CollectionError, match="is a file"):
        Collection.create(tmp_path / "notes.txt", encoder=encoder)
    Collection.create(folder, encoder=encoder, analyzer="bigram").close()
    with pytest.raises(CollectionError, match="exist_ok=True"):
        Collection.create(folder, encoder=encoder)


def test_create_may_open_what_is_there_with_the_same_settings(folder, encoder, documents):
    options = {"encoder": encoder, "analyzer": "bigram", "chunking": Chunking(64), "index": "exact", "exist_ok": True}
    with Collection.create(folder, **options) as made:
        made.add(documents)
    with Collection.create(folder, **options) as again:
        assert len(again) == 4
    with Collection.create(folder, encoder=encoder, exist_ok=True) as again:
        assert again.settings.chunking == Chunking(64)
    with pytest.raises(UsageError, match="made with chunking="):
        Collection.create(folder, encoder=encoder, chunking=Chunking(32), exist_ok=True)
    with pytest.raises(ModelMismatch):
        Collection.create(folder, encoder=HashingEncoder(dense=8), exist_ok=True)
    with Collection.open(folder):
        pass


def test_a_creation_that_was_killed_can_be_repeated(folder, encoder):
    folder.mkdir()
    (folder / "lock").write_text("123")
    (folder / "collection.sqlite").write_bytes(b"")
    with Collection.create(folder, encoder=encoder, analyzer="bigram", exist_ok=True) as made:
        assert len(made) == 0


def test_unknown_names_are_refused_before_anything_is_made(folder, encoder):
    with pytest.raises(UnknownName, match="did you mean 'bigram'"):
        Collection.create(folder, encoder=encoder, analyzer="bigrams")
    with pytest.raises(UnknownName, match="did you mean 'qdrant-edge'"):
        Collection.create(folder, encoder=encoder, index="qdrant")
    assert not folder.exists()


def test_what_is_no_collection_cannot_be_opened(tmp_path, encoder):
    for read_only in (True, False):
        with pytest.raises(CollectionNotFound):
            Collection.open(tmp_path, encoder=encoder, read_only=read_only)
        with pytest.raises(CollectionNotFound):
            Collection.open(tmp_path / "nowhere", encoder=encoder, read_only=read_only)
    assert list(tmp_path.iterdir()) == []


def test_another_model_is_refused_and_the_lock_released(folder, collection):
    collection.close()
    with pytest.raises(ModelMismatch, match="hashing-8-4096-16"):
        Collection.open(folder, encoder=HashingEncoder(dense=8))
    Collection.open(folder).close()


def test_one_writer_at_a_time(folder, collection, encoder):
    with pytest.raises(CollectionLocked, match="this very process"):
        Collection.open(folder, encoder=encoder)
    collection.close()
    Collection.open(folder, encoder=encoder).close()


def test_a_closed_collection_says_so(collection, documents):
    collection.close()
    collection.close()
    for use in (
        lambda: collection.add(documents),
        lambda: collection.search("x"),
        lambda: collection.delete(["a"]),
        lambda: len(collection),
        collection.info,
        collection.prepare,
    ):
        with pytest.raises(CollectionError, match="was closed"):
            use()


def test_info_needs_no_model(folder, collection, documents):
    collection.add(documents)
    collection.close()
    with Collection.open(folder, read_only=True) as opened:
        info = opened.info()
        assert (info.documents, info.passages) == (4, 4)
        assert info.bytes >= os.path.getsize(folder / "collection.sqlite")
        assert info.dimensions == {"dense": 32, "sparse": 4096, "multi_vector": 16}
        assert info.retrievers == RETRIEVERS
        assert info.metadata_keys == ("draft", "lang", "note", "year")
        assert (info.analyzer, info.index, info.encoder) == ("bigram", "exact", None)
        assert opened.search("고양이", retrievers=["bm25"])
        assert bool(opened)


def test_an_empty_collection_is_searched_without_a_fuss(collection):
    assert collection.search("고양이") == []
    assert collection.search("고양이", filters="lang=ko") == []
    assert list(collection.documents()) == []
    assert collection


# Readers


def test_a_reader_sees_what_is_added_and_can_change_nothing(folder, collection, documents, encoder):
    with Collection.open(folder, encoder=encoder, read_only=True) as reader:
        assert reader.search("Cats") == []
        collection.add(documents)
        assert ids(reader.search("Cats"))[0] == "cats"
        collection.delete(["cats"])
        assert "cats" not in ids(reader.search("Cats"))
        for change in (lambda: reader.add(documents), lambda: reader.delete(["trees"]), reader.reanalyze):
            with pytest.raises(CollectionError, match="read_only=True"):
                change()


SEARCHER = """
    import sys
    from trine.search.collection import Collection
    from trine.testing import HashingEncoder
    reader = Collection.open(sys.argv[1], encoder=HashingEncoder(), read_only=True)
    for line in sys.stdin:
        for query in ("shared", "unique"):
            for retrievers in (None, ["dense"], ["sparse"], ["bm25"]):
                for hit in reader.search(query, k=5, retrievers=retrievers):
                    assert hit.passage.text and hit.scores
        hits = reader.search("shared", retrievers=["bm25"], k=1000)
        print(len({hit.passage.document_id for hit in hits}), len(hits), len(reader), flush=True)
"""


def test_three_processes_search_while_one_writes(folder, encoder):
    with Collection.create(folder, encoder=encoder, analyzer="bigram") as collection:
        command = [sys.executable, "-c", textwrap.dedent(SEARCHER), str(folder)]
        readers = [
            subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for _ in range(3)
        ]
        try:
            for number in range(12):
                collection.add([Document(f"d{number}-{n}", f"shared unique{number} {n}") for n in range(3)])
                for reader in readers:
                    reader.stdin.write("\n")
                    reader.stdin.flush()
            counts = {reader: [reader.stdout.readline().split() for _ in range(12)] for reader in readers}
            for seen in counts.values():
                # Whole batches only, never fewer than before, and all of them in the end.
                assert all(int(found) == int(hits) for found, hits, _ in seen)
                numbers = [int(found) for found, _, _ in seen]
                assert all(number % 3 == 0 for number in numbers)
                assert numbers == sorted(numbers)
                assert numbers[-1] == 36
            assert len(collection.search("shared", k=100, retrievers=["bm25"])) == 36
        finally:
            for reader in readers:
                reader.stdin.close()
                reader.wait(30)
                reader.stdout.close()


def test_threads_share_a_handle(folder, encoder):
    with Collection.create(folder, encoder=encoder, analyzer="bigram", index="exact") as collection:
        failures = []
        done = threading.Event()

        def search():
            while not done.is_set():
                try:
                    found = collection.search("shared", retrievers=["bm25", "dense"], k=100)
                    assert len(found) % 4 == 0
                except BaseException as error:
                    failures.append(error)
                    return

        threads = [threading.Thread(target=search) for _ in range(3)]
        for thread in threads:
            thread.start()
        for number in range(10):
            collection.add([Document(f"{number}-{n}", f"shared {n}") for n in range(4)])
        done.set()
        for thread in threads:
            thread.join()
        assert failures == []
        assert len(collection.search("shared", retrievers=["bm25"], k=100)) == 40


# The analyser


def test_terms_of_another_analyser_are_counted_anew_on_request(folder, encoder, documents):
    with Collection.create(folder, encoder=encoder, analyzer="bigram", index="exact") as collection:
        collection.add(documents)
    connection = sqlite3.connect(folder / "collection.sqlite")
    connection.execute("UPDATE config SET value = '\"bigram-0\"' WHERE key = 'analyzer_fingerprint'")
    connection.commit()
    connection.close()
    with Collection.open(folder, encoder=encoder) as collection:
        with pytest.raises(ModelMismatch, match="bigram-0"):
            collection.search("나무는", retrievers=["bm25"])
        with pytest.raises(ModelMismatch, match="bigram-0"):
            collection.add(documents)
        assert ids(collection.search("나무는", retrievers=["dense"]))[0] == "나무"
        collection.reanalyze()
        assert ids(collection.search("나무는", retrievers=["bm25"])) == ["나무"]
        assert collection.add(documents).unchanged == 4


def test_a_folder_that_cannot_be_written_can_be_searched(encoder, documents):
    script = """
        import os, sys
        import trine.index.exact
        from trine.search.collection import Collection
        from trine.testing import HashingEncoder
        # Root may write everywhere, and nobody may not even import.
        if os.getuid() == 0:
            os.setgid(65534)
            os.setuid(65534)
        with Collection.open(sys.argv[1], encoder=HashingEncoder(), read_only=True) as reader:
            print(reader.search("나무는")[0].passage.document_id)
        try:
            Collection.open(sys.argv[1], encoder=HashingEncoder())
        except Exception as error:
            print(error)
    """
    with tempfile.TemporaryDirectory() as parent:
        folder = Path(parent) / "collection"
        with Collection.create(folder, encoder=encoder, analyzer="bigram") as collection:
            collection.add(documents)
        os.chmod(parent, 0o755)
        os.chmod(folder, 0o555)
        before = sorted(os.listdir(folder))
        command = [sys.executable, "-c", textwrap.dedent(script), str(folder)]
        lines = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
        assert lines[0] == "나무"
        assert "cannot be written" in lines[1]
        assert "read_only=True" in lines[1]
        assert sorted(os.listdir(folder)) == before
        os.chmod(folder, 0o755)


def test_a_damaged_store_is_reported_on_opening(folder, collection, documents, encoder):
    collection.add(documents)
    collection.close()
    file = folder / "collection.sqlite"
    whole = file.read_bytes()
    file.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(CollectionCorrupt, match="truncated"):
        Collection.open(folder, encoder=encoder)
    file.write_bytes(b"rubbish" * 1000)
    with pytest.raises(CollectionError, match="not a database"):
        Collection.open(folder, encoder=encoder)
    file.write_bytes(whole)
    with Collection.open(folder, encoder=encoder) as opened:
        assert len(opened) == 4


class OnlyLatin(HashingEncoder):
    """Knows no other script, and would rank other texts by accident."""

    def covers(self, text):
        return text.isascii()


def test_a_query_in_a_script_the_model_never_saw_is_left_to_bm25(tmp_path):
    with Collection.create(tmp_path / "c", encoder=OnlyLatin(), analyzer="bigram") as collection:
        collection.add([Document("ko", "서비스 메시는 트래픽을 다룬다"), Document("en", "a service mesh")])
        korean, english = collection.search_many(["서비스 메시", "service mesh"], k=1)
        assert (korean[0].passage.document_id, set(korean[0].scores)) == ("ko", {"bm25"})
        assert (english[0].passage.document_id, set(english[0].scores)) == ("en", set(RETRIEVERS))
        named = collection.search("서비스 메시", retrievers=["dense", "bm25"])
        assert set(named[0].scores) == {"dense", "bm25"}


def test_passages_leave_room_for_titles_in_a_model_that_reads_little(tmp_path):
    short = HashingEncoder()
    short.max_length = 64
    with Collection.create(tmp_path / "short", encoder=short) as collection:
        assert collection.settings.chunking.max_tokens == 48
    with Collection.create(tmp_path / "long", encoder=HashingEncoder()) as collection:
        assert collection.settings.chunking.max_tokens == 256
