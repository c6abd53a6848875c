import os

import pytest

from trine.data.sources import Limits, Skipped
from trine.errors import UsageError
from trine.search.files import FileRun


@pytest.fixture
def root(tmp_path):
    folder = tmp_path / "문서"
    folder.mkdir()
    (folder / "a.txt").write_text("첫째 글", encoding="utf-8")
    (folder / "b.jsonl").write_text('{"id": "1", "text": "하나"}\n{"id": "2", "text": "둘"}\n', encoding="utf-8")
    (folder / "c.unknown").write_text("?", encoding="utf-8")
    return folder


def run(paths, limits=None):
    made = FileRun(paths, limits=limits, progress=None)
    return made, list(made.items())


def source(path):
    return os.fsencode(path)


def test_every_document_knows_its_file(root):
    files, items = run(root)
    assert [(item.document.id, item.source) for item in items] == [
        ("a.txt", source(root / "a.txt")),
        ("1", source(root / "b.jsonl")),
        ("2", source(root / "b.jsonl")),
    ]
    assert files.ignored == {".unknown": 1}


def test_progress_is_passed_on(root):
    calls = []
    files = FileRun([root], limits=None, progress=lambda done, found: calls.append((done, found)))
    list(files.items())
    assert calls == [(1, 2), (2, 2)]


def test_a_file_that_was_read_replaces_what_it_gave_before(root):
    files, _ = run(root)
    stored = [("a.txt", source(root / "a.txt")), ("old", source(root / "b.jsonl")), ("x", source(root / "c.txt"))]
    assert list(files.stale(stored, prune=False)) == ["old"]


def test_a_file_with_a_fault_keeps_what_it_gave_before(root):
    (root / "b.jsonl").write_text('{"id": "1", "text": "하나"}\n{broken\n', encoding="utf-8")
    (root / "a.txt").write_text("")
    files, items = run(root)
    assert [item.line for item in items if isinstance(item, Skipped)] == [None, 2]
    stored = [("a.txt", source(root / "a.txt")), ("2", source(root / "b.jsonl"))]
    assert list(files.stale(stored, prune=True)) == []


def test_prune_takes_what_is_gone_below_the_paths_given_and_nothing_else(root, tmp_path):
    stored = [
        ("gone", source(root / "gone.txt")),
        ("deep", source(root / "sub" / "gone.txt")),
        ("elsewhere", source(tmp_path / "gone.txt")),
        ("neighbour", source(str(root) + "2/gone.txt")),
        ("there", source(root / "c.unknown")),
        ("under a file", source(root / "a.txt" / "gone.txt")),
    ]
    files, _ = run(root)
    assert list(files.stale(stored, prune=False)) == []
    assert list(files.stale(stored, prune=True)) == ["gone", "deep", "under a file"]


def test_a_pattern_prunes_below_its_fixed_folder(root):
    files, _ = run(str(root / "*.txt"))
    stored = [("gone", source(root / "gone.txt")), ("1", source(root / "b.jsonl"))]
    assert list(files.stale(stored, prune=True)) == ["gone"]


def test_what_cannot_be_stored_is_skipped_with_its_file(root):
    (root / "b.jsonl").write_text('{"id": "1", "text": "하나", "": "no name"}\n', encoding="utf-8")
    _, items = run(root)
    assert items[1].path == str(root / "b.jsonl")
    assert "metadata keys" in items[1].reason


def test_limits_are_kept(root):
    _, items = run(root, limits=Limits(file_bytes=3))
    assert "limit of 3" in items[0].reason


def test_names_that_are_no_text_are_remembered_as_bytes(root):
    path = os.fsencode(root) + b"/\xb0\xa1.txt"
    with open(path, "w", encoding="utf-8") as file:
        file.write("가")
    _, items = run(root)
    assert path in [item.source for item in items]
    assert "가.txt" in [item.document.id for item in items]


def test_a_path_that_is_not_there_is_an_error(root):
    with pytest.raises(UsageError, match="no file or folder"):
        FileRun([root, root / "missing"], limits=None, progress=None)
