"""`trine score`: how well passages answer a query."""

from __future__ import annotations

from typing import Annotated

import typer

from trine.cli.choices import parsed_weights
from trine.cli.encoders import load_encoder, model_name, untrained_modes, warn_untrained
from trine.cli.options import Device, DType, Json, Model, Quiet, Weights
from trine.cli.output import Output, console
from trine.cli.show_hits import printable
from trine.cli.texts import STDIN, read_texts
from trine.errors import UsageError


def score(
    query: Annotated[str, typer.Argument(metavar="QUERY", help="A query.")],
    passages: Annotated[
        list[str],
        typer.Argument(metavar="PASSAGE...", help="One or more texts; '-' reads one per line from standard input."),
    ],
    weights: Weights = None,
    model: Model = None,
    device: Device = "auto",
    dtype: DType = "auto",
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Score passages for a query by every representation, and by their weighted sum (m3 weights unless said otherwise).

    trine score 'what is a pod?' 'A pod holds containers.' 'A cat sleeps.'
    """
    output = Output(json=json, quiet=quiet)
    texts = [text for _, text in read_texts(STDIN)] if passages == [STDIN] else passages
    if not texts:
        raise UsageError("no passages on standard input")
    parsed = parsed_weights(weights)
    encoder = load_encoder(model, device=device, dtype=dtype)
    from trine.scoring import score as score_all
    from trine.types import MODES

    scores = score_all(
        encoder.encode([query], kind="query"),
        encoder.encode(texts, kind="passage"),
        weights=parsed or "m3",  # type: ignore[arg-type]
    )
    modes = [mode for mode in MODES if getattr(scores, mode) is not None]
    rows = [
        {**{mode: float(getattr(scores, mode)[0, at]) for mode in modes}, "weighted": float(scores.fused[0, at])}
        for at in range(len(texts))
    ]
    if output.json:
        passages_out = [{"text": text, **row} for text, row in zip(texts, rows, strict=True)]
        facts = {"query": query, "model": model_name(encoder), "untrained": list(untrained_modes(encoder))}
        output.document({**facts, "weights": parsed or "m3", "passages": passages_out})
    else:
        from rich.table import Table

        table = Table(box=None, pad_edge=False, header_style="dim")
        for name in (*modes, "weighted"):
            table.add_column(name, justify="right", no_wrap=True)
        table.add_column("passage", ratio=1)
        for text, row in zip(texts, rows, strict=True):
            table.add_row(*(f"{value:.4f}" for value in row.values()), printable(" ".join(text.split())))
        console().print(table)
    warn_untrained(encoder, output)
