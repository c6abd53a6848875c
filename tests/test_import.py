import subprocess
import sys

import pytest

import trine

HEAVY = ("numpy", "torch", "transformers", "tokenizers", "safetensors", "msgspec", "rich", "typer", "qdrant_edge")


def loaded_after(code):
    """Which of the heavy packages a fresh interpreter holds after `code`."""
    script = f"{code}\nimport sys\nprint(*[name for name in {HEAVY!r} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stderr == ""
    return set(done.stdout.split())


def test_the_package_alone_loads_nothing():
    assert loaded_after("import trine; dir(trine); trine.__version__") == set()


def test_errors_and_tables_load_nothing():
    assert loaded_after("import trine.errors, trine.tables") == set()


def test_the_floor_needs_numpy_and_no_torch():
    assert loaded_after("from trine import Embeddings, score, Passage; import trine.testing") == {"numpy"}


@pytest.mark.parametrize("room", ["trine.index", "trine.index.exact", "trine.data", "trine.data.chunking"])
def test_rooms_without_torch(room):
    assert "torch" not in loaded_after(f"import {room}")
    assert "transformers" not in loaded_after(f"import {room}")


def test_names_resolve_on_first_use():
    for name in ("Document", "Embeddings", "Encoder", "Hit", "Passage", "Query", "TrineError", "score"):
        assert getattr(trine, name).__name__ == name
        assert name in dir(trine)
    assert trine.Encoder is trine.Encoder


def test_every_public_name_has_a_home():
    assert sorted(trine._HOMES) == sorted(trine.__all__)


def test_unknown_names_say_what_there_is():
    with pytest.raises(AttributeError, match="module 'trine' has no attribute 'Encodr'; it has Collection, Document"):
        getattr(trine, "Encodr")  # noqa: B009
