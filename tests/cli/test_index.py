import json

import pytest

from cli.doubles import NamedEncoder
from trine.cli import encoders
from trine.search.collection import Collection


def test_documents_are_indexed_and_reported(run, docs):
    result = run("index", docs, "--to", "kept", "--json")
    report = json.loads(result.stdout)
    assert result.exit_code == 0
    assert report["collection"] == "kept"
    assert report["model"] == "hashing"
    assert (report["added"], report["unchanged"], report["documents"], report["skipped"]) == (3, 0, 3, [])
    assert report["passages"] == report["total_passages"] == 4


def test_a_second_run_embeds_nothing_and_takes_the_recorded_model(run, docs, collection, loaded):
    result = run("index", docs)
    assert "3 unchanged; 0 passages embedded" in result.stdout
    assert loaded == [None, "hashing"]


def test_a_pattern_and_a_file_can_be_given(run, docs):
    assert json.loads(run("index", "docs/*.txt", docs / "pod.md", "--json").stdout)["added"] == 2


def test_what_cannot_be_read_is_skipped_with_its_reason(run, docs):
    (docs / "empty.md").write_text("")
    (docs / "image.png").write_bytes(b"\x89PNG")
    result = run("index", docs)
    assert result.exit_code == 3
    assert "3 added" in result.stdout
    assert f"note: skipped {docs / 'empty.md'}: " in result.stderr
    assert "1 .png" in result.stderr


def test_a_missing_path_is_not_found_before_anything_is_made(run, home):
    result = run("index", "nowhere")
    assert result.exit_code == 4
    assert result.stderr == "error: no such file or folder: nowhere\n"
    assert list(home.iterdir()) == []


def test_an_interruption_says_what_is_safe_and_the_next_run_goes_on(run, home, monkeypatch):
    (home / "many").mkdir()
    for number in range(80):
        (home / "many" / f"{number:02}.txt").write_text(f"document number{number}")

    class Interrupted(NamedEncoder):
        def encode(self, texts, **how):
            if any("number40" in text for text in texts):
                raise KeyboardInterrupt
            return super().encode(texts, **how)

    monkeypatch.setattr(encoders, "read_encoder", lambda name, **how: Interrupted())
    result = run("index", "many", "--analyzer", "bigram")
    assert result.exit_code == 130
    assert "interrupted; 32 documents are safely indexed, run the same command again to go on" in result.stderr
    monkeypatch.setattr(encoders, "read_encoder", lambda name, **how: NamedEncoder())
    report = json.loads(run("index", "many", "--json").stdout)
    assert (report["added"], report["unchanged"], report["documents"]) == (48, 32, 80)


def test_prune_deletes_what_is_gone(run, docs, collection):
    (docs / "cats.txt").unlink()
    assert json.loads(run("index", docs, "--json").stdout)["documents"] == 3
    assert json.loads(run("index", docs, "--prune", "--json").stdout)["documents"] == 2


def test_chunking_is_fixed_when_the_collection_is_made(run, docs):
    run("index", docs, "--chunk-tokens", "16", "--overlap", "4")
    with Collection.open(".trine", read_only=True) as collection:
        assert (collection.settings.chunking.max_tokens, collection.settings.chunking.overlap_tokens) == (16, 4)
    assert run("index", docs, "--chunk-tokens", "16").exit_code == 0
    assert run("index", docs, "--overlap", "4").exit_code == 0
    result = run("index", docs, "--chunk-tokens", "32")
    assert result.exit_code == 2
    assert "16" in result.stderr


def test_an_overlap_alone_makes_no_collection(run, docs, home):
    result = run("index", docs, "--overlap", "4")
    assert result.exit_code == 2
    assert "--chunk-tokens" in result.stderr
    assert not (home / ".trine").exists()


def test_another_model_is_refused(run, docs, collection):
    result = run("index", docs, "--model", "other")
    assert result.exit_code == 2
    assert "fingerprint" in result.stderr


def test_a_model_folder_is_remembered_by_its_full_path(run, docs, home, loaded):
    (home / "model").mkdir()
    run("index", docs, "--model", "model")
    assert loaded == [str(home / "model")]


def test_a_locked_collection_is_a_failure(run, docs, collection):
    with Collection.open(collection, encoder=NamedEncoder()):
        result = run("index", docs)
    assert result.exit_code == 1
    assert result.stderr.startswith("error: ")


def test_an_unknown_model_is_not_found(run, docs):
    assert run("index", docs, "--model", "nowhere").exit_code == 4


@pytest.mark.parametrize("quiet", [[], ["--quiet"]])
def test_untrained_modes_are_said_even_when_quiet(run, docs, quiet):
    result = run("index", docs, "--model", "untrained", *quiet)
    assert "sparse and multi_vector of untrained were put together without training" in result.stderr
