"""Reading and writing model files safely: no pickled code, no half-written folders."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trine.errors import CheckpointError, UsageError

if TYPE_CHECKING:
    from torch import Tensor


def read_json(path: Path, *, default: Any = None) -> Any:
    """The content of a JSON file; `default` where there is no such file and a default is given."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        if default is not None:
            return default
        raise CheckpointError(f"{path} is missing; the model folder is incomplete") from None
    except (ValueError, OSError) as error:
        raise CheckpointError(f"{path} cannot be read: {error}") from error


def write_json(path: Path, content: Any) -> None:
    """Write readable JSON."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, ensure_ascii=False, indent=2) + "\n", encoding="utf-8")


def read_tensors(*candidates: Path) -> dict[str, Tensor]:
    """Tensors of the first file that exists: safetensors, or torch's format without its pickled code.

    Raises:
        CheckpointError: none exists, or it holds anything but tensors.
    """
    path = next((path for path in candidates if path.is_file()), None)
    if path is None:
        raise CheckpointError(
            f"head weights are missing: {' or '.join(str(path) for path in candidates)}; "
            "without them the head would be random"
        )
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            tensors: dict[str, Tensor] = load_file(path)
            return tensors
        import torch

        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a broken file can raise anything, from OSError to UnpicklingError
        raise CheckpointError(f"{path} cannot be read safely as tensors: {error}") from error
    if not isinstance(content, dict) or not all(isinstance(value, torch.Tensor) for value in content.values()):
        raise CheckpointError(f"{path} should hold named tensors, but holds {type(content).__name__}")
    return content


@contextlib.contextmanager
def fresh_folder(target: Path) -> Iterator[Path]:
    """A folder to write into that becomes `target` when the block ends well, and vanishes otherwise.

    Raises:
        UsageError: `target` exists and is not an empty folder.
    """
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise UsageError(f"{target} exists and is not empty; choose another folder or remove it")
    target.parent.mkdir(parents=True, exist_ok=True)
    work = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
    try:
        yield work
        work.chmod(0o755)
        if target.exists():
            target.rmdir()
        os.replace(work, target)
    except BaseException:
        shutil.rmtree(work, ignore_errors=True)
        raise


def save_backbone(model: Any, folder: Path) -> None:
    """Write config.json and model.safetensors of a transformers model.

    Raises:
        UsageError: it has adapters whose weights stand apart from its own.
    """
    if any(".lora_A." in name for name, _ in model.named_parameters()):
        raise UsageError(
            "the model has adapters that are not merged; call trine.models.adapters.merge_adapters(encoder) first"
        )
    folder.mkdir(parents=True, exist_ok=True)
    with quiet_transformers():
        model.save_pretrained(folder)


@contextlib.contextmanager
def quiet_transformers() -> Iterator[None]:
    """Hold back transformers' progress bars and load reports; what they say is raised as an error where it matters."""
    from transformers import logging

    verbosity, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if bars:
            logging.enable_progress_bar()
