"""`trine convert`: a model from one layout on disk to another."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from trine.cli.choices import one_of
from trine.cli.encoders import load_encoder, model_name, warn_untrained
from trine.cli.options import MODEL_PANEL, DType, Json, Quiet
from trine.cli.output import Output


def convert(  # noqa: PLR0913 -- a command's parameters are its options
    model: Annotated[str, typer.Argument(metavar="MODEL", help="A folder, or an id on the hub.")],
    out: Annotated[Path, typer.Argument(metavar="OUT", help="A new or empty folder.")],
    layout: Annotated[
        str, typer.Option(metavar="NAME", help="Layout to write: native, bge_m3 or sentence_transformers.")
    ] = "native",
    read_as: Annotated[
        str | None,
        typer.Option(
            "--read-as",
            metavar="LAYOUT",
            show_default=False,
            rich_help_panel=MODEL_PANEL,
            help="Layout of MODEL, where its files fit several: native, colbert, splade, bge_m3, "
            "sentence_transformers, plain.",
        ),
    ] = None,
    profile: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            show_default=False,
            rich_help_panel=MODEL_PANEL,
            help="Family of a bare transformer: e5, bge-en, bge-zh, bge-m3, minilm.",
        ),
    ] = None,
    pooling: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            show_default=False,
            rich_help_panel=MODEL_PANEL,
            help="Pooling of a bare transformer: cls, mean, max, last_token, ...",
        ),
    ] = None,
    max_length: Annotated[
        int | None,
        typer.Option(
            "--max-length",
            metavar="TOKENS",
            show_default=False,
            help="Give the model positions for texts of that length; it should then be trained on long texts.",
        ),
    ] = None,
    mcls: Annotated[
        int | None,
        typer.Option(
            metavar="TOKENS",
            show_default=False,
            help="Put a CLS after every so many tokens and average them: long texts for a model that pools CLS and was "
            "trained on short ones.",
        ),
    ] = None,
    dtype: DType = "auto",
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Write a model in another layout, with the same vectors.

    A bare transformer, which does not say how its tokens become one vector, is told so here once; what is written
    says it.

    trine convert intfloat/multilingual-e5-small ./e5 --layout sentence_transformers
    """
    output = Output(json=json, quiet=quiet)
    from trine.models.checkpoints import EXPORTS
    from trine.models.long_text import extend_positions, with_mcls

    chosen = one_of(layout, EXPORTS, kind="export layout")
    encoder = load_encoder(model, device="cpu", dtype=dtype, layout=read_as, profile=profile, pooling=pooling)
    if max_length is not None:
        encoder = extend_positions(encoder, max_length)
    if mcls is not None:
        encoder = with_mcls(encoder, every=mcls)
    folder = encoder.export(out.expanduser(), layout=chosen)
    files = sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())
    if output.json:
        size = sum((folder / name).stat().st_size for name in files)
        facts = {"model": model_name(encoder), "folder": str(folder), "layout": chosen, "modes": list(encoder.modes)}
        output.document({**facts, "untrained": list(encoder.config.untrained), "files": files, "bytes": size})
    else:
        output.data(f"{model_name(encoder)} -> {folder} ({chosen}: {', '.join(encoder.modes)})")
    warn_untrained(encoder, output)
