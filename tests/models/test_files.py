import json
import os
import stat

import pytest
import torch
from safetensors.torch import save_file

from trine.errors import CheckpointError, UsageError
from trine.models.files import fresh_folder, quiet_transformers, read_json, read_tensors, write_json


def test_json_round_trip_keeps_korean_readable(tmp_path):
    write_json(tmp_path / "new" / "a.json", {"질문": [1, None, "값"]})
    assert "질문" in (tmp_path / "new" / "a.json").read_text(encoding="utf-8")
    assert read_json(tmp_path / "new" / "a.json") == {"질문": [1, None, "값"]}


def test_missing_json(tmp_path):
    assert read_json(tmp_path / "a.json", default={}) == {}
    with pytest.raises(CheckpointError, match="a.json is missing; the model folder is incomplete"):
        read_json(tmp_path / "a.json")


@pytest.mark.parametrize("content", [b"{", b"", b"\xff\xfe\x00"])
def test_broken_json_is_an_error_even_with_a_default(tmp_path, content):
    (tmp_path / "a.json").write_bytes(content)
    with pytest.raises(CheckpointError, match="a.json cannot be read"):
        read_json(tmp_path / "a.json", default={})


def test_a_folder_in_place_of_json(tmp_path):
    (tmp_path / "a.json").mkdir()
    with pytest.raises(CheckpointError, match="cannot be read"):
        read_json(tmp_path / "a.json")


def test_the_first_file_of_tensors_is_read(tmp_path):
    save_file({"x": torch.ones(1)}, tmp_path / "a.safetensors")
    torch.save({"x": torch.zeros(1)}, tmp_path / "a.pt")
    assert read_tensors(tmp_path / "a.safetensors", tmp_path / "a.pt")["x"].item() == 1
    assert read_tensors(tmp_path / "none.safetensors", tmp_path / "a.pt")["x"].item() == 0
    with pytest.raises(CheckpointError, match="none.pt; without them the head would be random"):
        read_tensors(tmp_path / "none.pt")


@pytest.mark.parametrize("content", [[torch.ones(1)], {"x": 1}, {"x": [torch.ones(1)]}, torch.ones(2)])
def test_anything_but_named_tensors_is_refused(tmp_path, content):
    torch.save(content, tmp_path / "a.pt")
    with pytest.raises(CheckpointError, match="should hold named tensors"):
        read_tensors(tmp_path / "a.pt")


def test_broken_safetensors(tmp_path):
    (tmp_path / "a.safetensors").write_bytes(b"\xff" * 20)
    with pytest.raises(CheckpointError, match="cannot be read safely"):
        read_tensors(tmp_path / "a.safetensors")


# -- folders that appear whole or not at all -------------------------------------------------------------------------


def test_a_folder_appears_when_it_is_complete(tmp_path):
    target = tmp_path / "deep" / "model"
    with fresh_folder(target) as work:
        (work / "a").write_text("1")
        assert not target.exists()
        assert work.parent == target.parent  # the same file system, so that the last step is one rename
    assert [path.name for path in target.iterdir()] == ["a"]
    assert [path.name for path in target.parent.iterdir()] == ["model"]
    assert stat.S_IMODE(os.stat(target).st_mode) == 0o755


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, SystemExit])
def test_a_failure_leaves_nothing(tmp_path, error):
    with pytest.raises(error), fresh_folder(tmp_path / "model") as work:  # noqa: PT012
        (work / "half").write_text("1")
        raise error("stop")
    assert list(tmp_path.iterdir()) == []


def test_a_failure_leaves_an_empty_target_as_it_was(tmp_path):
    (tmp_path / "model").mkdir()
    with pytest.raises(ValueError, match="stop"), fresh_folder(tmp_path / "model"):
        raise ValueError("stop")
    assert [path.name for path in tmp_path.iterdir()] == ["model"]
    assert list((tmp_path / "model").iterdir()) == []


def test_targets_that_hold_something_are_refused(tmp_path):
    (tmp_path / "file").write_text("x")
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / ".hidden").write_text("x")
    for name in ("file", "folder"):
        with pytest.raises(UsageError, match="exists and is not empty"), fresh_folder(tmp_path / name):
            pytest.fail("the block must not run")
    assert {path.name for path in tmp_path.iterdir()} == {"file", "folder"}


def test_a_target_filled_meanwhile_is_not_overwritten(tmp_path):
    target = tmp_path / "model"
    with pytest.raises(OSError, match="not empty|exists"), fresh_folder(target) as work:  # noqa: PT012
        (work / "mine").write_text("1")
        target.mkdir()
        (target / "theirs").write_text("2")
    assert [path.name for path in tmp_path.rglob("*")] == ["model", "theirs"]


def test_quiet_gives_back_the_settings_after_a_failure():
    from transformers import logging

    before = logging.get_verbosity(), logging.is_progress_bar_enabled()
    with pytest.raises(ValueError, match="stop"), quiet_transformers():  # noqa: PT012
        assert not logging.is_progress_bar_enabled()
        raise ValueError("stop")
    assert (logging.get_verbosity(), logging.is_progress_bar_enabled()) == before


def test_written_json_is_plain_json(tmp_path):
    write_json(tmp_path / "a.json", {"a": 1.5})
    assert json.loads((tmp_path / "a.json").read_bytes()) == {"a": 1.5}
