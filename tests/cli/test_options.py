from pathlib import Path

from trine.cli.options import collection_path


def test_the_collection_is_the_one_named_else_the_environments_else_the_default(monkeypatch):
    assert collection_path(None) == Path(".trine")
    monkeypatch.setenv("TRINE_COLLECTION", "~/kept")
    assert collection_path(None) == Path.home() / "kept"
    assert collection_path("here") == Path("here")
