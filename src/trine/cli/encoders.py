"""The one way by which commands get an encoder."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from trine.cli.output import Output

if TYPE_CHECKING:
    from trine.models.encoder import Encoder
    from trine.types import Mode, TextEncoder

DEFAULT_NAME = "default"
"""What to call the default model on the command line."""


def load_encoder(
    name: str | None,
    *,
    device: str = "auto",
    dtype: str = "auto",
    layout: str | None = None,
    profile: str | None = None,
    pooling: str | None = None,
) -> Encoder:
    """Load a model, without the bars and remarks of the libraries below.

    Args:
        name: a folder, a hub id with an optional ``@revision``, "default" or None for the default model.
        device: as in `trine.Encoder.load`, like all that follow.
        dtype: number format.
        layout: layout on disk.
        profile: what a bare checkpoint does not say of itself.
        pooling: pooling of a bare checkpoint.

    Raises:
        ModelNotFound: there is no such model.
        CheckpointError: it is there, and cannot be used.
    """
    how = {"layout": layout, "profile": profile, "pooling": pooling}
    return read_encoder(None if name == DEFAULT_NAME else name, device=device, dtype=dtype, **how)


def read_encoder(name: str | None, **how: Any) -> Encoder:
    """`trine.Encoder.load`, in silence; the only place where commands touch a model's files."""
    silence_libraries()
    from trine.models.encoder import Encoder

    return Encoder.load(name, **how)


def silence_libraries() -> None:
    """Keep transformers' loading bars and remarks off the terminal; errors still arrive as exceptions."""
    import transformers

    transformers.utils.logging.disable_progress_bar()
    transformers.utils.logging.set_verbosity_error()


def untrained_modes(encoder: TextEncoder) -> tuple[Mode, ...]:
    """Representations that were put together without training; other encoders than trine's own do not say."""
    modes: tuple[Mode, ...] = getattr(getattr(encoder, "config", None), "untrained", ())
    return modes


def model_name(encoder: TextEncoder) -> str:
    """What to call an encoder."""
    return str(getattr(encoder, "name", "") or encoder.fingerprint)


def warn_untrained(encoder: TextEncoder, output: Output) -> None:
    """Say which representations nobody trained."""
    modes = untrained_modes(encoder)
    if modes:
        output.warn(untrained_sentence(model_name(encoder), modes))


def untrained_sentence(name: str, modes: tuple[Mode, ...]) -> str:
    """What has to be said wherever such a model is shown."""
    plural = len(modes) > 1
    return (
        f"{' and '.join(modes)} of {name} {'were' if plural else 'was'} put together without training; "
        f"{'they show' if plural else 'it shows'} how such search works, not how well it can"
    )


def uncovered_sentence(name: str) -> str:
    """What has to be said where a text is in a script that the model never saw."""
    return f"{name} was not trained on texts in this script"
