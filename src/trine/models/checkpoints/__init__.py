"""On-disk layouts of encoders, one file each: `matches(folder)` and `read(folder, options)`."""

from __future__ import annotations

import contextlib
import importlib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trine.errors import CheckpointError, TrineError
from trine.models.checkpoints.base import Checkpoint, LoadOptions, declared_ends
from trine.tables import Row, unknown

if TYPE_CHECKING:
    from trine.models.encoder import Encoder

CHECKPOINTS = {
    "native": "trine.models.checkpoints.native",
    "colbert": "trine.models.checkpoints.colbert",
    "splade": "trine.models.checkpoints.splade",
    "bge_m3": "trine.models.checkpoints.bge_m3",
    "llm2vec": "trine.models.checkpoints.llm2vec",
    "sentence_transformers": "trine.models.checkpoints.sentence_transformers",
    "plain": "trine.models.checkpoints.plain",
}
"""In the order in which they are asked; `plain` takes whatever is left and wants to be told its pooling."""

EXPORTS = {
    "bge_m3": Row("trine.models.checkpoints.bge_m3:write"),
    "sentence_transformers": Row("trine.models.checkpoints.sentence_transformers:write"),
    "native": Row("trine.models.checkpoints.native:write"),
}

__all__ = ["CHECKPOINTS", "EXPORTS", "Checkpoint", "LoadOptions", "load", "read"]


def load(name: str | Path | None, options: LoadOptions, *, device: str, dtype: str) -> Encoder:
    """Find the files of `name`, read them by their layout and put the encoder together."""
    from trine.models.checkpoints.llm2vec import first_stage
    from trine.models.devices import choose_device, choose_dtype
    from trine.models.encoder import Encoder
    from trine.models.sources import DEFAULT, locate
    from trine.models.statistics import default_table, with_untrained_heads

    asked = name
    name, options = first_stage(name, options)
    folder, known_as = locate(name, revision=options.revision)
    checkpoint = read(folder, options, name=known_as)
    if known_as == DEFAULT:
        checkpoint = with_untrained_heads(checkpoint, default_table(), scripts=("LATIN",))
    known_as = known_as if name == asked else str(asked)
    where = choose_device(device)
    return Encoder.from_checkpoint(checkpoint, name=known_as, device=where, dtype=choose_dtype(dtype, where))


def read(folder: Path, options: LoadOptions, *, name: str = "") -> Checkpoint:
    """Read a folder by the layout asked for, else by the first that recognises its files."""
    from trine.models.checkpoints.llm2vec import known_layout
    from trine.models.profiles import known_profile

    if options.layout is not None and options.layout not in CHECKPOINTS:
        raise unknown(options.layout, CHECKPOINTS, kind="checkpoint layout")
    options = known_layout(known_profile(options, name), name)
    for layout, module in CHECKPOINTS.items():
        reader: Any = importlib.import_module(module)
        with _settings_errors(folder, layout):
            if options.layout != layout and (options.layout is not None or not reader.matches(folder)):
                continue
            checkpoint: Checkpoint = reader.read(folder, options)
            return _finished(checkpoint, options, layout)
    raise CheckpointError(f"{folder}: no model recognised; known layouts: {', '.join(CHECKPOINTS)}")


def _finished(checkpoint: Checkpoint, options: LoadOptions, layout: str) -> Checkpoint:
    import msgspec

    from trine.models.profiles import PROFILES, ends, finish
    from trine.models.sources import locate

    if layout != "native":
        text = declared_ends(checkpoint)
        if options.profile is not None and any(PROFILES[options.profile].ends):
            text = ends(options, text, tokenizer=checkpoint.tokenizer())
        checkpoint = replace(checkpoint, config=msgspec.structs.replace(checkpoint.config, text=text))
    config = finish(checkpoint.config, options)
    adapters = checkpoint.adapters
    if options.adapter is not None:
        adapters = (*adapters, locate(options.adapter)[0])
    config = msgspec.structs.replace(config, origin=config.origin or layout)
    return replace(checkpoint, config=config, adapters=adapters)


@contextlib.contextmanager
def _settings_errors(folder: Path, layout: str) -> Iterator[None]:
    """Turn what JSON of an unexpected shape raises into an error of the checkpoint."""
    try:
        yield
    except TrineError:
        raise
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise CheckpointError(
            f"{folder}: its settings are not as the layout {layout!r} has them: {type(error).__name__}: {error}"
        ) from error
