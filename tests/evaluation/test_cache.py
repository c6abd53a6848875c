import os

import numpy as np
import pytest

from trine.evaluation.cache import encode_cached
from trine.testing import HashingEncoder
from trine.types import MODES, Embeddings

TEXTS = ["가나다 라마", "", "one two two", "😀 각"]


class Counting(HashingEncoder):
    calls = 0

    def encode(self, texts, **options):
        self.calls += 1
        return super().encode(texts, **options)


def same(left: Embeddings, right: Embeddings) -> bool:
    pairs = [(left.dense, right.dense)]
    pairs += [(getattr(left.sparse, name), getattr(right.sparse, name)) for name in ("offsets", "ids", "weights")]
    pairs += [(getattr(left.multi_vector, name), getattr(right.multi_vector, name)) for name in ("values", "offsets")]
    alike = all(np.array_equal(one, other) and one.dtype == other.dtype for one, other in pairs)
    return alike and left.sparse.width == right.sparse.width


def test_the_second_time_is_read_and_identical(tmp_path):
    encoder = Counting()
    first = encode_cached(encoder, TEXTS, kind="passage", modes=MODES, folder=tmp_path / "new" / "cache")
    again = encode_cached(encoder, TEXTS, kind="passage", modes=MODES, folder=tmp_path / "new" / "cache")
    assert encoder.calls == 1
    assert same(first, again)
    assert same(first, encoder.encode(TEXTS, kind="passage"))
    assert len(os.listdir(tmp_path / "new" / "cache")) == 1


@pytest.mark.parametrize(
    "change",
    [
        {"texts": [*TEXTS[:-1], "😀 갂"]},
        {"texts": TEXTS[::-1]},
        {"texts": ["가나다 라마", "", "one two two😀 각", ""]},
        {"kind": "query"},
        {"modes": ("dense",)},
        {"encoder": Counting(dense=8)},
    ],
)
def test_whatever_changes_the_vectors_changes_the_file(tmp_path, change):
    encode_cached(Counting(), TEXTS, kind="passage", modes=MODES, folder=tmp_path)
    call = {"encoder": Counting(), "texts": TEXTS, "kind": "passage", "modes": MODES, **change}
    encoder, texts = call.pop("encoder"), call.pop("texts")
    encode_cached(encoder, texts, folder=tmp_path, **call)
    assert encoder.calls == 1
    assert len(os.listdir(tmp_path)) == 2


def test_only_the_modes_asked_for_come_back(tmp_path):
    for _ in range(2):
        found = encode_cached(Counting(), TEXTS, kind="query", modes=("multi_vector",), folder=tmp_path)
        assert found.modes == ("multi_vector",)


@pytest.mark.parametrize("keep", [0, 4, 100])
def test_a_torn_file_is_made_anew(tmp_path, keep):
    encoder = Counting()
    first = encode_cached(encoder, TEXTS, kind="passage", modes=MODES, folder=tmp_path)
    (path,) = tmp_path.iterdir()
    path.write_bytes(path.read_bytes()[:keep])
    assert same(first, encode_cached(encoder, TEXTS, kind="passage", modes=MODES, folder=tmp_path))
    assert same(first, encode_cached(encoder, TEXTS, kind="passage", modes=MODES, folder=tmp_path))
    assert encoder.calls == 2


def test_a_write_that_fails_leaves_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr("trine.evaluation.files.os.replace", lambda *_: (_ for _ in ()).throw(OSError("disk full")))
    with pytest.raises(OSError, match="disk full"):
        encode_cached(Counting(), TEXTS, kind="passage", modes=MODES, folder=tmp_path)
    assert os.listdir(tmp_path) == []


def test_without_a_folder_nothing_is_kept(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    encoder = Counting()
    for _ in range(2):
        encode_cached(encoder, TEXTS, kind="passage", modes=MODES, folder=None)
    assert encoder.calls == 2
    assert os.listdir(tmp_path) == []
