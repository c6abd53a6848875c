import os
import unicodedata

import pytest

from trine.data.listing import _matched, list_files
from trine.errors import UsageError


@pytest.fixture
def tree(tmp_path, monkeypatch):
    """A working directory with a folder `docs`."""
    monkeypatch.chdir(tmp_path)
    for name in ("docs/b.txt", "docs/a.md", "docs/guide/z.txt", "docs/guide/deep/y.MD", "docs/x.bin", "docs/noext"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name)
    return tmp_path


def names(*paths):
    return [file.name for file in list_files(paths).files]


def test_a_folder_in_order_with_ids_relative_to_it(tree):
    assert names("docs") == ["a.md", "b.txt", "guide/deep/y.MD", "guide/z.txt"]
    assert names(tree / "docs") == names("docs") == names("./docs/") == names("docs/../docs")


def test_unknown_types_inside_folders_are_counted(tree):
    listing = list_files(["docs"])
    assert dict(listing.ignored) == {".bin": 1, "": 1}
    assert listing.skipped == []


def test_an_unknown_type_named_explicitly_is_a_reason_with_a_suggestion(tree):
    (tree / "a.pdff").touch()
    listing = list_files(["docs/x.bin", "a.pdff"])
    assert [(skipped.path, "no document type" in skipped.reason) for skipped in listing.skipped] == [
        ("docs/x.bin", True),
        ("a.pdff", True),
    ]
    assert "did you mean '.pdf'?" in listing.skipped[1].reason


def test_a_single_file_is_known_by_its_name(tree):
    assert names("docs/guide/z.txt") == ["z.txt"]


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("docs/**/*.txt", ["b.txt", "guide/z.txt"]),
        ("docs/*.txt", ["b.txt"]),
        ("docs/**", ["a.md", "b.txt", "guide/deep/y.MD", "guide/z.txt"]),
        ("docs/guide/?.txt", ["z.txt"]),
        ("docs/[ab].*", ["a.md", "b.txt"]),
        ("docs/*/deep/*", ["guide/deep/y.MD"]),
        ("*/a.md", ["docs/a.md"]),
        ("**/z.txt", ["docs/guide/z.txt"]),
    ],
)
def test_patterns(tree, pattern, expected):
    assert names(pattern) == expected


def test_a_file_whose_name_looks_like_a_pattern(tree):
    (tree / "notes[1].md").write_text("x")
    assert names("notes[1].md") == ["notes[1].md"]


@pytest.mark.parametrize("path", ["missing.txt", "missing/folder", "docs/**/*.hwp", "missing/*.md", "\0"])
def test_a_path_that_finds_nothing_is_a_usage_error(tree, path):
    with pytest.raises(UsageError):
        list_files([path])


def test_hidden_and_lock_files_are_left_out_unless_named(tree):
    for name in ("docs/.git/config.txt", "docs/.hidden.txt", "docs/~$open.docx"):
        (tree / name).parent.mkdir(exist_ok=True)
        (tree / name).write_text("x")
    assert names("docs") == ["a.md", "b.txt", "guide/deep/y.MD", "guide/z.txt"]
    assert names("docs/.git", "docs/.hidden.txt") == ["config.txt", ".hidden.txt"]


def test_a_folder_with_a_files_suffix_is_a_folder(tree):
    (tree / "docs/x.pdf").mkdir()
    (tree / "docs/x.pdf/in.txt").write_text("x")
    assert "x.pdf/in.txt" in names("docs")
    assert names("docs/x.pdf") == ["in.txt"]


def test_symbolic_links_are_followed_inside_and_loops_end(tree):
    (tree / "docs/guide/up").symlink_to("..")
    (tree / "docs/self").symlink_to(".")
    (tree / "docs/again.txt").symlink_to("b.txt")
    assert names("docs") == ["a.md", "again.txt", "guide/deep/y.MD", "guide/z.txt"]


def test_symbolic_links_out_of_the_folder_are_reported_not_followed(tree):
    (tree / "secret").mkdir()
    (tree / "secret/key.txt").write_text("x")
    (tree / "docs/out").symlink_to(tree / "secret")
    (tree / "docs/out.txt").symlink_to(tree / "secret/key.txt")
    listing = list_files(["docs"])
    assert [skipped.path for skipped in listing.skipped] == ["docs/out", "docs/out.txt"]
    assert all("symbolic link" in skipped.reason for skipped in listing.skipped)
    assert names("docs/out") == ["key.txt"]


def test_a_dangling_link_is_left_for_the_reader_to_report(tree):
    (tree / "docs/gone.txt").symlink_to("nowhere.txt")
    assert "gone.txt" in names("docs")
    assert names("docs/gone.txt") == ["gone.txt"]


def test_each_file_is_listed_once(tree):
    assert names("docs/b.txt", "docs", "docs", "docs/**/*.txt") == ["b.txt", "a.md", "guide/deep/y.MD", "guide/z.txt"]


def test_clashing_folders_get_their_names_in_front(tree):
    for name in ("left/docs/a.md", "left/docs/only.txt", "other/new.txt"):
        (tree / name).parent.mkdir(parents=True, exist_ok=True)
        (tree / name).write_text(name)
    assert names("left/docs", "other") == ["a.md", "only.txt", "new.txt"]
    root = tree.name
    assert names("docs/guide", "left/docs") == ["deep/y.MD", "z.txt", "a.md", "only.txt"]
    assert names("left/docs", "docs", "other") == [
        "left/docs/a.md",
        "left/docs/only.txt",
        f"{root}/docs/a.md",
        f"{root}/docs/b.txt",
        f"{root}/docs/guide/deep/y.MD",
        f"{root}/docs/guide/z.txt",
        "new.txt",
    ]


def test_clashing_files_get_their_folders_in_front(tree):
    (tree / "docs/guide/a.md").write_text("x")
    assert names("docs/a.md", "docs/guide/a.md", "docs/b.txt") == ["docs/a.md", "guide/a.md", "docs/b.txt"]


def test_decomposed_names_give_composed_ids_and_match_composed_patterns(tree):
    decomposed = unicodedata.normalize("NFD", "휴가 규정.txt")
    (tree / "docs" / decomposed).write_text("x")
    assert "휴가 규정.txt" in names("docs")
    assert names("docs/휴가*.txt") == ["휴가 규정.txt"]


def test_names_that_are_not_utf8_are_read_as_korean(tree):
    raw = os.fsencode(tree / "docs") + b"/" + "연차.txt".encode("cp949")
    try:
        os.close(os.open(raw, os.O_CREAT | os.O_WRONLY))
    except OSError:
        pytest.skip("this file system takes only UTF-8 names")
    assert "연차.txt" in names("docs")
    assert names("docs/연*.txt") == ["연차.txt"]


def test_a_very_deep_folder(tree):
    deep = tree / "docs"
    for _ in range(150):
        deep = deep / "d"
    deep.mkdir(parents=True)
    (deep / "bottom.txt").write_text("x")
    assert "d/" * 150 + "bottom.txt" in names("docs")


@pytest.mark.parametrize(
    ("path", "pattern", "expected"),
    [
        ("a/b/c.md", "**/c.md", True),
        ("c.md", "**/c.md", True),
        ("a/b/c.md", "a/**/**/c.md", True),
        ("a/b/c.md", "a/*/c.md", True),
        ("a/b/c.md", "a/*.md", False),
        ("a/b/c.md", "**", True),
        ("a/b/c.md", "a/b", False),
        ("a/b/c.md", "*/**/b/**/*.md", True),
        ("/".join("a" * 60), "/".join(["**", "a"] * 20 + ["b"]), False),
    ],
)
def test_double_stars_stand_for_any_number_of_folders(path, pattern, expected):
    parts = pattern.split("/")
    assert (len(parts) in _matched(path.split("/"), parts)) is expected
