import json

import numpy as np
import pytest

from trine.errors import DataError, UsageError
from trine.evaluation.size_corpus import content, read_corpus
from trine.testing import HashingEncoder
from trine.types import Document

ENCODER = HashingEncoder()


def judged_set(folder, *, documents=30, queries=8, qrels=True):
    folder.mkdir(exist_ok=True)
    corpus = [{"_id": f"d{number}", "title": "제목", "text": f"텍스트 {number} 🙂"} for number in range(documents)]
    asked = [{"_id": f"q{number}", "text": f"질문 {number}"} for number in range(queries)]
    for name, rows in (("corpus", corpus), ("queries", asked)):
        lines = [json.dumps(row, ensure_ascii=False) for row in rows]
        (folder / f"{name}.jsonl").write_text("\n".join(lines), "utf-8")
    if qrels:
        lines = [f"q{number}\td{number}\t1" for number in range(queries)]
        (folder / "qrels.tsv").write_text("\n".join(["query-id\tcorpus-id\tscore", *lines]))
    return folder


def test_a_small_judged_set_is_taken_whole(tmp_path):
    found = read_corpus(judged_set(tmp_path / "set"), ENCODER)
    assert (len(found.data.corpus), len(found.data.queries), found.whole, found.queries) == (30, 8, 30, "judged")
    assert content(found.data.corpus[0]) == "제목\n텍스트 0 🙂"


def test_a_sample_keeps_what_its_queries_judge(tmp_path):
    found = read_corpus(judged_set(tmp_path / "set"), ENCODER, documents=10, queries=5)
    held = {document.id for document in found.data.corpus}
    assert (len(held), len(found.data.queries), found.whole) == (10, 5, 30)
    assert set(found.data.qrels) == {query.id for query in found.data.queries}
    assert {document for judged in found.data.qrels.values() for document in judged} <= held
    least = read_corpus(judged_set(tmp_path / "set"), ENCODER, documents=1, queries=5)
    assert len(least.data.corpus) == 5


def test_the_seed_decides_the_sample(tmp_path):
    folder = judged_set(tmp_path / "set")
    ids = [
        [document.id for document in read_corpus(folder, ENCODER, documents=12, queries=3, seed=seed).data.corpus]
        for seed in (1, 1, 2)
    ]
    assert ids[0] == ids[1] != ids[2]


def test_a_set_without_judgements_keeps_its_queries(tmp_path):
    found = read_corpus(judged_set(tmp_path / "set", qrels=False), ENCODER, queries=4)
    assert (found.queries, found.data.qrels, len(found.data.queries)) == ("given", {}, 4)


def test_documents_alone_are_cut_and_their_sentences_ask(tmp_path):
    (tmp_path / "one.md").write_text("# 제목\n\n" + "이 문장은 검색에 쓰일 만큼 충분히 길다. " * 80, "utf-8")
    (tmp_path / "two.txt").write_text("짧다", "utf-8")
    found = read_corpus(tmp_path, ENCODER)
    assert found.queries == "sentences"
    assert found.whole == len(found.data.corpus) > 3
    assert {document.id.partition("#")[0] for document in found.data.corpus} == {"one.md", "two.txt"}
    by_id = {document.id: document.text for document in found.data.corpus}
    assert all(query.text in by_id[query.id] for query in found.data.queries)
    assert "짧다" in {query.text for query in found.data.queries}
    assert {query.text for query in found.data.queries if len(query.text) > 5} == {
        "이 문장은 검색에 쓰일 만큼 충분히 길다."
    }


def test_the_whole_is_estimated_from_the_sample(tmp_path):
    for number in range(40):
        (tmp_path / f"{number}.txt").write_text(f"document number {number} says something", "utf-8")
    found = read_corpus(tmp_path, ENCODER, documents=10, queries=3)
    assert (len(found.data.corpus), len(found.data.queries), found.whole) == (10, 3, 40)
    kept = {int(document.id.partition(".")[0]) for document in found.data.corpus}
    assert max(kept) >= 20, "the reservoir keeps later documents too"


def test_what_cannot_be_measured_is_refused(tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "blank.txt").write_text("  \n")
    with pytest.raises(DataError, match="no document with text"):
        read_corpus(tmp_path / "empty", ENCODER)
    with pytest.raises(UsageError, match="both are at least 1"):
        read_corpus(tmp_path, ENCODER, documents=0)
    folder = judged_set(tmp_path / "set")
    (folder / "qrels.tsv").write_text("query-id\tcorpus-id\tscore\nother\td1\t1\n")
    with pytest.raises(UsageError, match="nothing to measure"):
        read_corpus(folder, ENCODER)
    (folder / "corpus.jsonl").write_text("broken\n")
    with pytest.raises(DataError, match=r"corpus\.jsonl:1"):
        read_corpus(folder, ENCODER)


def test_content_is_what_the_collection_embeds():
    assert content(Document("d", "text")) == "text"
    assert np.array_equal([content(Document("d", "e\u0301", "제목"))], ["제목\ne\u0301"])
