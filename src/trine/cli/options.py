"""Options and arguments that several commands share, so that they read the same everywhere."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

DEFAULT_COLLECTION = ".trine"
"""In the current folder; TRINE_COLLECTION names another."""

MODEL_PANEL = "Model"
OUTPUT_PANEL = "Output"

Model = Annotated[
    str | None,
    typer.Option(
        "--model",
        "-m",
        metavar="NAME|FOLDER",
        rich_help_panel=MODEL_PANEL,
        show_default=False,
        help="Model: a folder, or an id on the hub such as BAAI/bge-m3, where @REVISION may follow. "
        "Without it: the default model of the extra 'demo', or the one that the collection was made with.",
    ),
]
Device = Annotated[
    str,
    typer.Option(
        metavar="NAME",
        envvar="TRINE_DEVICE",
        rich_help_panel=MODEL_PANEL,
        help="Where the model runs: auto, cpu, cuda, cuda:1, mps.",
    ),
]
DType = Annotated[
    str,
    typer.Option(
        "--dtype",
        metavar="NAME",
        envvar="TRINE_DTYPE",
        rich_help_panel=MODEL_PANEL,
        help="Number format of the weights: auto, float32, bfloat16, float16.",
    ),
]
Json = Annotated[bool, typer.Option("--json", rich_help_panel=OUTPUT_PANEL, help="Print JSON.")]
Quiet = Annotated[
    bool, typer.Option("--quiet", "-q", rich_help_panel=OUTPUT_PANEL, help="Print no notes and no progress.")
]
Html = Annotated[
    Path | None,
    typer.Option(
        "--html",
        metavar="FILE",
        rich_help_panel=OUTPUT_PANEL,
        show_default=False,
        help="Write a self-contained HTML page.",
    ),
]
Modes = Annotated[
    list[str] | None,
    typer.Option(
        "--mode",
        metavar="NAME",
        show_default=False,
        help="dense, sparse or multi_vector; give it several times for several. All by default.",
    ),
]
Retrievers = Annotated[
    list[str] | None,
    typer.Option(
        "--mode",
        metavar="NAME",
        show_default=False,
        help="Search by dense, sparse, multi_vector or bm25; give it several times for several. All by default.",
    ),
]
Weights = Annotated[
    str | None,
    typer.Option(
        metavar="SET",
        show_default=False,
        help="Weights of the sum: m3, m3-long, m3-library, or one per mode, as in dense=1,sparse=0.3,multi_vector=1.",
    ),
]
Analyzer = Annotated[
    str | None,
    typer.Option(
        metavar="NAME",
        show_default=False,
        help="How BM25 cuts text into terms: kiwi (Korean morphemes, extra 'korean') or bigram. "
        "The best one installed by default.",
    ),
]


def collection_path(given: str | None) -> Path:
    """The collection to use: the one named, else TRINE_COLLECTION, else `.trine` in the current folder."""
    return Path(given or os.environ.get("TRINE_COLLECTION") or DEFAULT_COLLECTION).expanduser()
