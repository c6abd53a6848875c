"""`trine evaluate`: how well a model or a collection finds what was judged relevant."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from trine.cli.encoders import load_encoder, model_name, untrained_modes, untrained_sentence
from trine.cli.exits import NotFound
from trine.cli.opening import require_collection, searchable
from trine.cli.options import Analyzer, Device, DType, Html, Json, Model, Quiet
from trine.cli.output import Output
from trine.errors import UsageError

if TYPE_CHECKING:
    from trine.evaluation.results import Report
    from trine.search.collection import Collection
    from trine.types import TextEncoder


def evaluate(  # noqa: PLR0913 -- a command's parameters are its options
    folder: Annotated[
        Path,
        typer.Argument(
            metavar="FOLDER", help="corpus.jsonl, queries.jsonl and qrels/test.tsv (or qrels.tsv), as BEIR has them."
        ),
    ],
    collection: Annotated[
        str | None,
        typer.Option(
            "--collection",
            "-c",
            metavar="COLLECTION",
            show_default=False,
            help="Evaluate this collection as it is, by its document ids, instead of FOLDER's corpus.",
        ),
    ] = None,
    system: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME",
            show_default=False,
            help="What to compare, several times for several: dense, bm25, all:m3, dense+bm25:rrf. "
            "The usual ones by default.",
        ),
    ] = None,
    metric: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME", show_default=False, help="ndcg@10, recall@100, mrr@10, ...; several times for several."
        ),
    ] = None,
    depth: Annotated[int, typer.Option(metavar="N", min=1, help="Results per query.")] = 100,
    runs: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER", show_default=False, help="Also write every run and the judgements in TREC format."
        ),
    ] = None,
    cache: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER", show_default=False, help="Keep embeddings here, so that they are computed once."
        ),
    ] = None,
    analyzer: Analyzer = None,
    html: Html = None,
    model: Model = None,
    device: Device = "auto",
    dtype: DType = "auto",
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Measure nDCG@10, Recall@100 and MRR@10 of every mode and of their fusions, with intervals from paired bootstrap.

    trine evaluate scifact/ --model BAAI/bge-m3 --html report.html

    trine evaluate demo/ --collection .trine --system bm25 --system all+bm25:rrf
    """
    output = Output(json=json, quiet=quiet)
    if not folder.is_dir():
        raise NotFound(f"no such folder: {folder}")
    if collection is not None and cache is not None:
        raise UsageError("--cache has no effect with --collection, whose embeddings are stored already")
    if collection is not None and analyzer is not None:
        raise UsageError("--analyzer has no effect with --collection, whose terms are stored already")
    asked = Asked(folder, system or None, metric or None, depth, output.progress)
    with_model = not (system and all(name.strip() == "bm25" for name in system))
    if collection is None:
        encoder: TextEncoder | None = load_encoder(model, device=device, dtype=dtype) if with_model else None
        report = asked.of_model(encoder, cache=cache, analyzer=analyzer)
    else:
        require_collection(Path(collection))
        with searchable(Path(collection), model=model, with_model=with_model, device=device, dtype=dtype) as (
            opened,
            encoder,
        ):
            report = asked.of_collection(opened)
    untrained = () if encoder is None else untrained_modes(encoder)
    if untrained:
        report = replace(report, settings={**report.settings, "untrained": ", ".join(untrained)})
    _show(report, html=html, runs=runs, output=output)
    if encoder is not None and untrained:
        output.warn(untrained_sentence(model_name(encoder), untrained))


@dataclass(frozen=True, slots=True)
class Asked:
    """What to measure, as the options say it."""

    folder: Path
    systems: Sequence[str] | None
    metrics: Sequence[str] | None
    depth: int
    progress: bool

    def of_model(self, encoder: TextEncoder | None, *, cache: Path | None, analyzer: str | None) -> Report:
        """Evaluate a model on the folder's corpus."""
        from trine.evaluation.evaluate import evaluate
        from trine.evaluation.metrics import DEFAULT_METRICS

        return evaluate(
            self.folder,
            encoder,
            systems=self.systems,
            metrics=self.metrics or DEFAULT_METRICS,
            depth=self.depth,
            analyzer=analyzer,
            cache=cache,
            progress=self.progress,
        )

    def of_collection(self, collection: Collection) -> Report:
        """Evaluate a collection."""
        from trine.evaluation.evaluate import evaluate_collection
        from trine.evaluation.metrics import DEFAULT_METRICS

        return evaluate_collection(
            collection,
            self.folder,
            systems=self.systems,
            metrics=self.metrics or DEFAULT_METRICS,
            depth=self.depth,
            progress=self.progress,
        )


def _show(report: Report, *, html: Path | None, runs: Path | None, output: Output) -> None:
    from trine.evaluation.report import html as html_of
    from trine.evaluation.report import table

    if runs is not None:
        output.note(f"wrote {len(report.write_runs(runs))} files to {runs}")
    if html is not None:
        output.page(html, html_of(report))
    if output.json:
        output.data(report.to_json())
    else:
        output.data(table(report).rstrip("\n"))
