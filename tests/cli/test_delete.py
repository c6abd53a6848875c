import json


def test_documents_are_deleted(run, collection):
    result = run("delete", "cats.txt", "--json")
    assert result.exit_code == 0
    assert json.loads(result.stdout) == {"collection": ".trine", "deleted": 1, "missing": [], "documents": 2}
    assert "cats.txt" not in run("search", "fish").stdout


def test_some_unknown_ids_are_a_part_and_only_unknown_ones_not_found(run, collection):
    result = run("delete", "파드.md", "dogs.txt")
    assert result.exit_code == 3
    assert "1 deleted; it holds 2 documents" in result.stdout
    assert "no document called 'dogs.txt'" in result.stderr
    result = run("delete", "dogs.txt")
    assert result.exit_code == 4
    assert "nothing was deleted" in result.stderr


def test_without_a_collection_nothing_is_made(run, home):
    assert run("delete", "a", "--from", "none").exit_code == 4
    assert list(home.iterdir()) == []
