"""trine's own layout.

```
trine.json                      the strict configuration
config.json, model.safetensors  the backbone, as transformers writes it
heads.safetensors               all head weights, where a head has any
tokenizer.json, ...             the tokenizer
```
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from trine.models.checkpoints.base import HEADS, Checkpoint, LoadOptions, refuse_pooling
from trine.models.config import EncoderConfig
from trine.models.files import fresh_folder, read_tensors, save_backbone

if TYPE_CHECKING:
    from trine.models.encoder import Encoder

CONFIG = "trine.json"
WEIGHTS = "heads.safetensors"


def matches(folder: Path) -> bool:
    """Whether trine wrote this folder."""
    return (folder / CONFIG).is_file()


def read(folder: Path, options: LoadOptions) -> Checkpoint:
    """Read configuration and head weights."""
    refuse_pooling(options, folder)
    config = EncoderConfig.read(folder / CONFIG)
    weights = read_tensors(folder / WEIGHTS) if (folder / WEIGHTS).is_file() else {}
    return Checkpoint(config, backbone=folder, head_weights=weights)


def write(encoder: Encoder, folder: Path) -> Path:
    """Write an encoder; the folder appears only when it is complete."""
    from safetensors.torch import save_file

    weights = {
        key: tensor.detach().cpu().contiguous().clone()
        for key, tensor in encoder.state_dict().items()
        if key.startswith(HEADS)
    }
    with fresh_folder(folder) as work:
        save_backbone(encoder.backbone.model, work)
        encoder.tokenizer.save_pretrained(work)
        if weights:
            save_file(weights, work / WEIGHTS)
        (work / CONFIG).write_bytes(encoder.config.to_json())
    return folder
