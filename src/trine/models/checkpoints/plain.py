"""A bare transformers checkpoint: dense only, with the pooling that a profile or the caller states."""

from __future__ import annotations

from pathlib import Path
from typing import get_args

from trine.errors import CheckpointError
from trine.models.checkpoints.base import Checkpoint, LoadOptions, sequence_limit
from trine.models.config import DenseConfig, EncoderConfig, Normalize, Pooling, TextConfig
from trine.models.profiles import PROFILES
from trine.tables import unknown


def matches(folder: Path) -> bool:
    """Whether this is a transformers model at all."""
    return (folder / "config.json").is_file()


def read(folder: Path, options: LoadOptions) -> Checkpoint:
    """Take pooling from the options; a checkpoint that nobody describes is refused."""
    known: tuple[Pooling, ...] = get_args(Pooling)
    if options.pooling is not None:
        if options.pooling not in known:
            raise unknown(options.pooling, known, kind="pooling")
        pooling: Pooling = options.pooling
        normalize = True
    elif options.profile is not None:
        pooling, normalize = PROFILES[options.profile].pooling, PROFILES[options.profile].normalize
    else:
        raise CheckpointError(
            f"{folder} is a bare transformer and does not say how its token states become one vector. "
            f"Say profile= (one of {', '.join(PROFILES)}) or pooling= (one of {', '.join(known)})."
        )
    config = EncoderConfig(
        text=TextConfig(max_length=sequence_limit(folder, folder)),
        dense=DenseConfig(pooling=(pooling,), layers=(Normalize(),) if normalize else ()),
    )
    return Checkpoint(config, backbone=folder)
