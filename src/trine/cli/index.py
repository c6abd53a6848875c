"""`trine index`: documents into a collection."""

from __future__ import annotations

import glob
from collections import Counter
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from trine.cli.encoders import load_encoder, model_name, warn_untrained
from trine.cli.exits import ExitCode, NotFound
from trine.cli.opening import is_collection, recorded_model
from trine.cli.options import Analyzer, Device, DType, Json, Model, Quiet, collection_path
from trine.cli.output import Output, report_error
from trine.errors import UsageError

if TYPE_CHECKING:
    from trine.data.chunking import Chunking
    from trine.search.adding import Acknowledged, AddReport
    from trine.search.collection import Collection

BATCH = 32
"""Documents that become safe together: as many as an interruption may cost."""
SHOWN = 20
"""Skipped files that are listed; `--json` has all."""


def index(  # noqa: PLR0913 -- a command's parameters are its options
    paths: Annotated[
        list[str], typer.Argument(metavar="PATHS...", help="Files, folders and patterns such as 'docs/**/*.md'.")
    ],
    to: Annotated[
        str | None,
        typer.Option(
            metavar="COLLECTION",
            show_default=False,
            help="Folder of the collection, made if it is missing. Without it: TRINE_COLLECTION, else .trine here.",
        ),
    ] = None,
    chunk_tokens: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            show_default=False,
            help="Longest passage in tokens of the model. By default 256, or three quarters of what the model reads.",
        ),
    ] = None,
    overlap: Annotated[
        int | None,
        typer.Option(
            metavar="N", show_default=False, help="Tokens that a passage repeats of the one before. By default 0."
        ),
    ] = None,
    analyzer: Analyzer = None,
    prune: Annotated[
        bool, typer.Option("--prune", help="Also delete documents whose file below PATHS does not exist any more.")
    ] = False,
    model: Model = None,
    device: Device = "auto",
    dtype: DType = "auto",
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Read documents, cut them into passages, embed them and keep them to be searched.

    Reads text, Markdown, HTML, PDF, Word, HWP, HWPX, CSV and JSONL. Run it again after a change: what is unchanged is
    not embedded again, and an interrupted run goes on where it stopped.
    """
    output = Output(json=json, quiet=quiet)
    require_paths(paths)
    folder = collection_path(to)
    exists = is_collection(folder)
    name = _absolute(model) if model or not exists else recorded_model(folder)
    from trine.search.collection import Collection

    chunking = _chunking(folder if exists else None, chunk_tokens, overlap)
    encoder = load_encoder(name, device=device, dtype=dtype)
    collection = Collection.create(
        folder,
        encoder=encoder,
        chunking=chunking,
        analyzer=analyzer,
        exist_ok=True,
    )
    with collection:
        report = _add(collection, paths, prune, output)
        info = collection.info()
    facts = {"collection": str(folder), "model": model_name(encoder), "documents": info.documents}
    _show(report, {**facts, "total_passages": info.passages}, output)
    warn_untrained(encoder, output)
    if report.skipped:
        raise typer.Exit(ExitCode.PARTIAL)


def require_paths(paths: list[str]) -> None:
    """Raise `NotFound` for the first that names nothing."""
    for path in paths:
        if not Path(path).exists() and not glob.has_magic(path):
            raise NotFound(f"no such file or folder: {path}")


def _add(collection: Collection, paths: list[str], prune: bool, output: Output) -> AddReport:
    """Add the files; on Ctrl-C say what is safe."""
    safe = 0

    def acknowledged(part: Acknowledged) -> None:
        nonlocal safe
        safe += len(part.ids)

    try:
        with output.bar("indexing") as progress:
            return collection.add_files(list(paths), prune=prune, batch=BATCH, progress=progress, on_ack=acknowledged)
    except KeyboardInterrupt:
        report_error(f"interrupted; {safe} documents are safely indexed, run the same command again to go on")
        raise typer.Exit(ExitCode.INTERRUPTED) from None


def _show(report: AddReport, facts: dict[str, object], output: Output) -> None:
    if output.json:
        skipped = [asdict(item) for item in report.skipped]
        output.document({**facts, **asdict(report), "skipped": skipped, "seconds": round(report.seconds, 3)})
    else:
        counts = ("added", "updated", "unchanged", "removed")
        done = ", ".join(f"{count} {name}" for name in counts if (count := getattr(report, name))) or "nothing to do"
        output.data(f"{facts['collection']}: {done}; {report.passages} passages embedded in {report.seconds:.1f} s")
        output.data(f"It holds {facts['documents']} documents in {facts['total_passages']} passages.")
    if report.ignored:
        kinds_left = ", ".join(f"{count} {suffix or 'without suffix'}" for suffix, count in report.ignored.items())
        output.note(f"left out files of other types: {kinds_left}")
    for item in report.skipped[:SHOWN]:
        place = item.path if item.line is None else f"{item.path}:{item.line}"
        output.warn(f"skipped {place}: {item.reason}")
    if len(report.skipped) > SHOWN:
        kinds = Counter(item.reason for item in report.skipped[SHOWN:]).most_common(3)
        reasons = "; ".join(f"{count} times: {reason}" for reason, count in kinds)
        output.warn(f"and {len(report.skipped) - SHOWN} more ({reasons}); --json lists all")


def _chunking(folder: Path | None, tokens: int | None, overlap: int | None) -> Chunking | None:
    """What was asked for, the rest as the collection has it; None where nothing was."""
    if tokens is None and overlap is None:
        return None
    from trine.data.chunking import Chunking
    from trine.search.collection import Collection

    if folder is None:
        if tokens is None:
            raise UsageError("--overlap of a new collection needs --chunk-tokens beside it")
        return Chunking(max_tokens=tokens, overlap_tokens=overlap or 0)
    with Collection.open(folder, read_only=True) as collection:
        base = collection.settings.chunking
    return Chunking(
        max_tokens=base.max_tokens if tokens is None else tokens,
        overlap_tokens=base.overlap_tokens if overlap is None else overlap,
    )


def _absolute(model: str | None) -> str | None:
    """A folder by its full path, so that the collection finds it from anywhere."""
    path = Path(model or "").expanduser()
    return str(path.resolve()) if model and path.is_dir() else model
