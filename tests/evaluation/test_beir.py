import gzip
import lzma
import os

import ir_measures
import pytest

from trine.errors import DataError
from trine.evaluation.beir import read_beir, read_qrels, read_run, write_run
from trine.evaluation.metrics import ranked
from trine.types import Query

CORPUS = '{"_id": "d1", "title": "제목", "text": "본문"}\n{"_id": 2, "text": "no title", "year": 2024, "tags": ["x"]}\n'
QUERIES = '{"_id": "q1", "text": "질문"}\n{"_id": "q2", "text": "unjudged"}\n'
QRELS = "query-id\tcorpus-id\tscore\nq1\td1\t1\nq1\t2\t0\n"


@pytest.fixture
def folder(tmp_path):
    root = tmp_path / "평가"
    (root / "qrels").mkdir(parents=True)
    (root / "corpus.jsonl").write_text(CORPUS, "utf-8")
    (root / "queries.jsonl").write_text(QUERIES, "utf-8")
    (root / "qrels" / "test.tsv").write_text(QRELS, "utf-8")
    return root


def test_reads_the_three_files(folder):
    data = read_beir(folder)
    assert data.name == "평가"
    assert [(document.id, document.title, document.text) for document in data.corpus] == [
        ("d1", "제목", "본문"),
        ("2", "", "no title"),
    ]
    assert data.corpus[1].metadata == {"year": 2024}
    assert data.queries == [Query("q1", "질문"), Query("q2", "unjudged")]
    assert data.judged == [Query("q1", "질문")]
    assert data.qrels == {"q1": {"d1": 1, "2": 0}}
    assert data.missing_queries == []
    assert data.missing_documents == []


def test_a_metadata_object_is_flattened_to_its_single_values(folder):
    row = '{"_id": "d", "title": null, "text": "", "metadata": {"url": "u", "list": [1]}, "score": 1.5, "none": null}'
    (folder / "corpus.jsonl").write_text(row)
    (document,) = read_beir(folder).corpus
    assert (document.title, document.text) == ("", "")
    assert document.metadata == {"url": "u", "score": 1.5, "none": None}


def test_an_empty_metadata_object_leaves_nothing(folder):
    (folder / "corpus.jsonl").write_text('{"_id": "d", "text": "t", "metadata": {}}')
    assert read_beir(folder).corpus[0].metadata == {}


def test_what_the_judgements_name_and_the_files_lack_is_kept_and_reported(folder):
    (folder / "qrels" / "test.tsv").write_text(QRELS + "q1\tgone\t2\nq9\tlost\t1\nq9\td1\t1\n")
    data = read_beir(folder)
    assert data.missing_queries == ["q9"]
    assert data.missing_documents == ["gone", "lost"]
    assert data.qrels["q9"] == {"lost": 1, "d1": 1}
    assert data.judged == [Query("q1", "질문")]


@pytest.mark.parametrize(
    "text",
    [
        "query-id\tcorpus-id\tscore\nq\td\t1\n",
        "query-id corpus-id score\nq d 1\n",
        "qid\tdocid\tRelevance\r\nq\td\t1\r\n",
        "q\td\t1\n",
        "q d 1",
        "q 0 d 1\n",
        "q\t0\td\t1\n",
        "\ufeffquery-id\tcorpus-id\tscore\n\nq\td\t1.0\n",
    ],
)
def test_layouts_of_judgements(tmp_path, text):
    path = tmp_path / "qrels.tsv"
    path.write_bytes(text.encode())
    assert read_qrels(path) == {"q": {"d": 1}}


def test_ids_with_spaces_survive_between_tabs(tmp_path):
    path = tmp_path / "qrels.tsv"
    path.write_text("질문 하나\t문서 1.md\t2\nq\td\t-1\n", "utf-8")
    assert read_qrels(path) == {"질문 하나": {"문서 1.md": 2}, "q": {"d": -1}}


def test_judgements_may_lie_beside_the_corpus(folder):
    os.rename(folder / "qrels" / "test.tsv", folder / "qrels.tsv")
    assert read_beir(folder).qrels == {"q1": {"d1": 1, "2": 0}}
    with pytest.raises(DataError, match=r"split 'dev'; looked for qrels/dev.tsv .*qrels.tsv is there"):
        read_beir(folder, split="dev")


def test_a_missing_split_names_those_there(folder):
    (folder / "qrels" / "train.tsv.gz").write_bytes(gzip.compress(QRELS.encode()))
    with pytest.raises(DataError, match="splits there: test, train"):
        read_beir(folder, split="dev")
    assert read_beir(folder, split="train").split == "train"


def test_compressed_files_are_read(folder):
    for name, packing, pack in [("corpus.jsonl", "gz", gzip.compress), ("queries.jsonl", "xz", lzma.compress)]:
        (folder / f"{name}.{packing}").write_bytes(pack((folder / name).read_bytes()))
        (folder / name).unlink()
    (folder / "qrels" / "test.tsv.xz").write_bytes(lzma.compress((folder / "qrels" / "test.tsv").read_bytes()))
    (folder / "qrels" / "test.tsv").unlink()
    data = read_beir(folder)
    assert (len(data.corpus), len(data.queries), data.qrels["q1"]["d1"]) == (2, 2, 1)


@pytest.mark.parametrize(("packing", "pack"), [("gz", gzip.compress), ("xz", lzma.compress)])
def test_a_torn_compressed_file_is_a_data_error(folder, packing, pack):
    (folder / "corpus.jsonl").unlink()
    (folder / f"corpus.jsonl.{packing}").write_bytes(pack((CORPUS * 999).encode())[:-20])
    with pytest.raises(DataError, match=rf"corpus.jsonl.{packing}"):
        read_beir(folder)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"id": "a", "text": "b"}', "no _id; the keys are 'id', 'text'"),
        ('{"_id": "", "text": "b"}', "_id is ''"),
        ('{"_id": true, "text": "b"}', "_id is True"),
        ('{"_id": 1.5, "text": "b"}', "_id is 1.5"),
        ('{"_id": "a"}', "text must be a text; the keys are '_id'"),
        ('{"_id": "a", "text": 3}', "text must be a text; it is 3"),
        ('{"_id": "a", "text": "b", "title": []}', r"title must be a text; it is \[\]"),
        ('{"_id": "d1", "text": "b"}', "_id 'd1' is already that of line 1"),
        ("[1]", "a JSON object is needed, this is a list"),
        ('{"_id": "a", ', "not a JSON object"),
        ("[" * 100_000, "not a JSON object"),
    ],
)
def test_a_bad_line_is_named(folder, line, message):
    (folder / "corpus.jsonl").write_text(CORPUS + "\n" + line + "\n", "utf-8")
    with pytest.raises(DataError, match=rf"corpus.jsonl:4: {message}"):
        read_beir(folder)


def test_bytes_that_are_not_utf8_are_named(folder):
    (folder / "queries.jsonl").write_bytes(QUERIES.encode() + '{"_id": "x", "text": "질문"}'.encode("cp949"))
    with pytest.raises(DataError, match="queries.jsonl:3: not UTF-8"):
        read_beir(folder)


def test_unicode_line_separators_do_not_end_a_line(folder):
    (folder / "corpus.jsonl").write_text('{"_id": "d1", "text": "a\u2028b\u0085c\\u000bd"}\n', "utf-8")
    assert read_beir(folder).corpus[0].text == "a\u2028b\u0085c\x0bd"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("q d\n", ":1: 2 columns"),
        ("q\td\t1\nq\td2\n", ":2: 2 columns filled; the lines before have 3"),
        ("q\td\t1\n\td2\t1\n", ":2: 2 columns filled"),
        ("q\td\tx\n", ":1: 'x' is not a finite number"),
        ("q\td\t0.5\n", ":1: grade '0.5' is not a whole number"),
        ("q\td\tnan\n", ":1: 'nan' is not a finite number"),
        ("corpus-id\tquery-id\tscore\nd\tq\t1\n", ":1: header .* the first column must be the query's id"),
        ("q\td\t1\nq\td\t1\nq\td\t2\n", ":3: query 'q', document 'd' has grade 2 here and 1 before"),
        ("query-id\tcorpus-id\tscore\n", ": no judgements in it"),
        ("", ": no judgements in it"),
    ],
)
def test_bad_judgements_are_named(tmp_path, text, message):
    path = tmp_path / "qrels.tsv"
    path.write_text(text)
    with pytest.raises(DataError, match=message):
        read_qrels(path)


@pytest.mark.parametrize("name", ["corpus.jsonl", "queries.jsonl"])
def test_a_missing_or_empty_file_says_what_was_looked_for(folder, name):
    (folder / name).write_text("\n\n")
    with pytest.raises(DataError, match=f"{name}: no rows"):
        read_beir(folder)
    (folder / name).unlink()
    with pytest.raises(DataError, match=rf"no {name} \(nor {name}.gz, {name}.xz\); it holds "):
        read_beir(folder)


def test_a_folder_that_is_none_says_what_it_is(tmp_path):
    with pytest.raises(DataError, match="does not exist"):
        read_beir(tmp_path / "nowhere")
    (tmp_path / "scifact.tar.xz").write_bytes(b"")
    with pytest.raises(DataError, match="is an archive: unpack it"):
        read_beir(tmp_path / "scifact.tar.xz")
    (tmp_path / "note.txt").write_bytes(b"")
    with pytest.raises(DataError, match="is a file"):
        read_beir(tmp_path / "note.txt")


def test_a_run_survives_the_disk_to_the_last_bit(tmp_path):
    path = tmp_path / "dense.trec"
    run = {"질문": {"가": 0.1, "b": 1 / 3, "c": -1e-45, "d": 1e30, "e": 0.1 + 1e-12}, "q2": {"x": 0.0}}
    write_run(path, run, "trine-dense")
    assert read_run(path) == run
    lines = path.read_text("utf-8").splitlines()
    assert lines[0] == "질문 Q0 d 1 1e+30 trine-dense"
    assert [line.split()[2] for line in lines if line.startswith("질문")] == ranked(run["질문"])
    theirs = {}
    for entry in ir_measures.read_trec_run(str(path)):
        theirs.setdefault(entry.query_id, {})[entry.doc_id] = entry.score
    assert theirs == run
    assert os.listdir(tmp_path) == ["dense.trec"]


@pytest.mark.parametrize("bad", ["two words", "", "no\u00a0break", "line\nend"])
def test_an_id_that_a_run_cannot_carry_is_refused_before_anything_is_written(tmp_path, bad):
    path = tmp_path / "run.trec"
    path.write_text("as before")
    for run, tag in [({"q": {bad: 1.0}}, "t"), ({bad: {"d": 1.0}}, "t"), ({"q": {"d": 1.0}}, bad)]:
        with pytest.raises(DataError, match="white space"):
            write_run(path, run, tag)
    assert path.read_text() == "as before"
    assert os.listdir(tmp_path) == ["run.trec"]


def test_a_write_that_fails_leaves_the_old_run(tmp_path):
    path = tmp_path / "run.trec"
    write_run(path, {"q": {"d": 1.0}}, "old")
    with pytest.raises(ValueError, match="score nan"):
        write_run(path, {"q": {"d": 1.0}, "r": {"d": float("nan")}}, "new")
    assert read_run(path) == {"q": {"d": 1.0}}
    assert os.listdir(tmp_path) == ["run.trec"]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("q Q0 d 1 0.5", "5 columns"),
        ("q Q0 d 1 high tag", "'high' is not a finite number"),
        ("q Q0 a 1 0.5 tag", "document 'a' is there twice for query 'q'"),
    ],
)
def test_a_bad_run_line_is_named(tmp_path, line, message):
    path = tmp_path / "run.trec"
    path.write_text(f"q Q0 a 1 1.0 tag\n{line}\n")
    with pytest.raises(DataError, match=f"run.trec:2: {message}"):
        read_run(path)
