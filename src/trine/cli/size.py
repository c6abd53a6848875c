"""`trine size`: how many bytes embeddings take at each precision, what it costs in quality, and what to choose."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated

import typer

from trine.cli.choices import chosen_modes
from trine.cli.encoders import load_encoder, model_name, untrained_modes, untrained_sentence
from trine.cli.index import require_paths
from trine.cli.options import Device, DType, Html, Json, Model, Modes, Quiet
from trine.cli.output import Output
from trine.errors import UsageError

_SIZE = re.compile(r"(\d+(?:\.\d+)?|\.\d+)\s*([kmgtp]?)(i?)b?", re.IGNORECASE)
_POWERS = " kmgtp"


def size(  # noqa: PLR0913 -- a command's parameters are its options
    corpus: Annotated[
        str,
        typer.Argument(
            metavar="CORPUS",
            help="A judged set as BEIR has it, or documents: a folder, file or pattern as for trine index.",
        ),
    ],
    budget: Annotated[
        str | None,
        typer.Option(metavar="SIZE", show_default=False, help="Most that all vectors may take: 2GB, 500MB, 1.5GiB."),
    ] = None,
    documents: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            min=1,
            show_default=False,
            help="How many documents totals and budget are for. As many as CORPUS has by default.",
        ),
    ] = None,
    loss: Annotated[
        float,
        typer.Option(metavar="X", min=0, help="nDCG@10 that the recommended setting may be behind the best that fits."),
    ] = 0.01,
    mode: Modes = None,
    sample: Annotated[int, typer.Option(metavar="N", min=1, help="Most documents to measure on.")] = 2000,
    queries: Annotated[int, typer.Option(metavar="N", min=1, help="Most queries to measure with.")] = 300,
    cache: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER", show_default=False, help="Keep embeddings here, so that they are computed once."
        ),
    ] = None,
    html: Html = None,
    model: Model = None,
    device: Device = "auto",
    dtype: DType = "auto",
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Measure what each precision of the embeddings takes and loses, and recommend the best that fits a budget.

    trine size scifact/ --budget 2GB --documents 10000000 --html size.html

    trine size docs/ --budget 500MB
    """
    output = Output(json=json, quiet=quiet)
    require_paths([corpus])
    limit = None if budget is None else parsed_size(budget)
    modes = chosen_modes(mode)
    encoder = load_encoder(model, device=device, dtype=dtype)

    from trine.evaluation.size import measure_sizes
    from trine.evaluation.size_corpus import read_corpus
    from trine.evaluation.size_report import html as html_of
    from trine.evaluation.size_report import table

    report = measure_sizes(
        read_corpus(corpus, encoder, documents=sample, queries=queries),
        encoder,
        documents=documents,
        budget=limit,
        loss=loss,
        modes=modes,
        cache=cache,
        progress=output.progress,
    )
    if html is not None:
        output.page(html, html_of(report))
    untrained = [each for each in untrained_modes(encoder) if modes is None or each in modes]
    if output.json:
        output.document({**report.to_dict(), "untrained": untrained})
    else:
        output.data(table(report).rstrip("\n"))
    if untrained:
        output.warn(untrained_sentence(model_name(encoder), tuple(untrained)))


def parsed_size(text: str) -> int:
    """Bytes of "2GB" (thousands), "1.5GiB" (1024s) or a plain number.

    Raises:
        UsageError: it cannot be read, or is below one byte.
    """
    match = _SIZE.fullmatch(text.strip())
    if match is None or (match[3] and not match[2]):
        raise UsageError(f"--budget {text!r} is no size; write 2GB, 500MB, 1.5GiB or a number of bytes")
    base = 1024 if match[3] else 1000
    found = int(float(match[1]) * base ** _POWERS.index(match[2].lower() or " "))
    if found < 1:
        raise UsageError(f"--budget {text!r} is less than a byte")
    return found
