import json

import numpy as np
import pytest

from trine.cli import encoders
from trine.models.encoder import Encoder

TEXTS = ["검색 엔진은 문서를 찾아 순위를 매긴다.", "Hello world"]


@pytest.fixture
def converted(monkeypatch, loaded, trio):
    """A tiny encoder in place of whatever is converted, and how it was asked for."""
    asked = []

    def read_encoder(name, **how):
        asked.append({"name": name, **how})
        return trio("xlm_roberta")

    monkeypatch.setattr(encoders, "read_encoder", read_encoder)
    return asked


@pytest.mark.parametrize("layout", ["native", "sentence-transformers"])
def test_what_is_written_gives_the_same_vectors(run, converted, trio, home, layout):
    result = run("convert", "any", "out", "--layout", layout, "--json")
    assert result.exit_code == 0, result.output
    facts = json.loads(result.stdout)
    assert facts["layout"] == layout.replace("-", "_")
    assert "config.json" in facts["files"]
    assert facts["bytes"] > 0
    found = Encoder.load(home / "out", device="cpu")
    expected = trio("xlm_roberta").encode(TEXTS, modes=["dense"])
    np.testing.assert_allclose(found.encode(TEXTS, modes=["dense"]).dense, expected.dense, atol=1e-6)
    assert set(found.modes) == ({"dense", "sparse", "multi_vector"} if layout == "native" else {"dense"})


def test_what_a_bare_checkpoint_lacks_is_handed_on(run, converted):
    run("convert", "any", "out", "--read-as", "plain", "--profile", "e5", "--dtype", "float32")
    assert converted[0]["layout"] == "plain"
    assert converted[0]["profile"] == "e5"
    assert converted[0]["pooling"] is None


def test_a_folder_that_holds_something_is_refused(run, converted, home):
    (home / "out").mkdir()
    (home / "out" / "mine.txt").write_text("keep me")
    assert run("convert", "any", "out").exit_code == 2
    assert [path.name for path in (home / "out").iterdir()] == ["mine.txt"]


def test_long_texts(run, converted, trio, home, monkeypatch):
    import msgspec

    source = trio("xlm_roberta")
    dense = msgspec.structs.replace(source.config.dense, pooling=("cls",))
    heads = {"sparse": None, "multi_vector": None}
    config = msgspec.structs.replace(source.config, dense=dense, **heads)
    pooled = Encoder(config, backbone=source.backbone, tokenizer=source.tokenizer)
    monkeypatch.setattr(encoders, "read_encoder", lambda name, **how: pooled)
    result = run("convert", "any", "out", "--max-length", "200", "--mcls", "20")
    assert result.exit_code == 0, result.output
    found = Encoder.load(home / "out", device="cpu")
    assert found.max_length == 200
    assert found.config.text.cls_every == 20
    long = " ".join(TEXTS * 12)
    one, other = found.encode([long, long + " 끝"], modes=["dense"]).dense
    assert not np.allclose(one, other)
    expected = pooled.encode(TEXTS, modes=["dense"]).dense
    np.testing.assert_allclose(found.encode(TEXTS, modes=["dense"]).dense, expected, atol=1e-5)


def test_positions_that_the_model_has_already(run, converted):
    result = run("convert", "any", "out", "--max-length", "10")
    assert result.exit_code == 2
    assert "nothing to extend" in result.stderr
