"""`trine adapt`: documents in, a model adapted to them out."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from trine.cli.choices import key_values
from trine.cli.encoders import DEFAULT_NAME, silence_libraries
from trine.cli.exits import ExitCode
from trine.cli.index import SHOWN, require_paths
from trine.cli.options import Device, Json, Model, Quiet
from trine.cli.output import Output, report_error
from trine.errors import UsageError

if TYPE_CHECKING:
    from trine.recipes.adaptation import Adapted
    from trine.recipes.domain import Division


def adapt(  # noqa: PLR0913 -- a command's parameters are its options
    paths: Annotated[
        list[str], typer.Argument(metavar="DOCS...", help="Files, folders and patterns, as `trine index` takes them.")
    ],
    out: Annotated[Path, typer.Option("--out", "-o", metavar="FOLDER", show_default=False, help="Where it goes.")],
    held_out: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER",
            show_default=False,
            help="A judged set in BEIR's layout that decides, in place of documents that are held out.",
        ),
    ] = None,
    share: Annotated[
        float | None,
        typer.Option(
            metavar="SHARE", show_default=False, help="Share of the queries that is held out. By default 0.15."
        ),
    ] = None,
    time_budget: Annotated[
        float, typer.Option(metavar="MINUTES", help="Time for everything; training takes as many steps as fit.")
    ] = 45,
    settings: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="KEY=VALUE",
            show_default=False,
            help="Change a setting of the recipes, several times for several: --set stage1.steps=200, or of both: "
            "--set batch_size=32.",
        ),
    ] = None,
    seed: Annotated[int, typer.Option(metavar="N", help="Decides what is held out, and all that is random.")] = 0,
    keep_worse: Annotated[
        bool, typer.Option("--keep-worse", help="Write the model even where it is not better than its start.")
    ] = False,
    model: Model = None,
    device: Device = "auto",
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Adapt a model to your documents: their language, their domain. Nothing needs to be labelled.

    trine adapt docs/ --out my-model

    Some documents are held out; headings and questions in them become queries, and say whether the adapted model is
    better than its start. If it is not, it is not written. The same call goes on with a run that was stopped.
    """
    output = Output(json=json, quiet=quiet)
    division = _division(share, seed, judged=held_out is not None)
    require_paths([*paths, *([] if held_out is None else [str(held_out)])])
    silence_libraries()
    from trine.recipes.adapt import adapt as run
    from trine.recipes.adaptation import Adaptation

    job = Adaptation(
        documents=paths,
        out=out,
        model=None if model == DEFAULT_NAME else model,
        settings=key_values(settings, "--set", form="KEY=VALUE or stage1.KEY=VALUE"),
        held_out=held_out,
        division=division,
        minutes=time_budget,
        keep_worse=keep_worse,
        device=device,
        progress=output.progress,
    )
    try:
        adapted = run(job, tell=output.note)
    except KeyboardInterrupt:
        report_error("interrupted; the same command goes on from where it was")
        raise typer.Exit(ExitCode.INTERRUPTED) from None
    _show(adapted, output)
    if not adapted.better:
        raise typer.Exit(ExitCode.NOT_BETTER)
    if adapted.skipped:
        raise typer.Exit(ExitCode.PARTIAL)


def _show(adapted: Adapted, output: Output) -> None:
    if output.json:
        output.document(adapted.to_dict())
    else:
        output.data("\n".join(adapted.lines()))
    for item in adapted.skipped[:SHOWN]:
        output.warn(f"skipped {_place(item)}: {item['reason']}")
    if len(adapted.skipped) > SHOWN:
        output.warn(f"and {len(adapted.skipped) - SHOWN} more; --json lists all")
    if adapted.folder is None:
        report_error(
            f"the adapted model is not better than its start, so {adapted.target} was not written; "
            "the same command with --keep-worse writes it without training again"
        )
    elif not adapted.better:
        output.warn(f"{adapted.folder} is not better than its start, and was written because --keep-worse asked for it")
    output.note(f"pairs, negatives and judged sets are in {adapted.working}; remove it when you have seen enough")


def _place(item: Mapping[str, Any]) -> str:
    return str(item["path"]) if item["line"] is None else f"{item['path']}:{item['line']}"


def _division(share: float | None, seed: int, *, judged: bool) -> Division:
    if share is not None and judged:
        raise UsageError("--share has no effect with --held-out, which holds out no documents; leave one of them out")
    if share is not None and not 0 < share < 1:
        raise UsageError(f"--share is {share}; it lies between 0 and 1, as 0.15")
    from dataclasses import replace

    from trine.recipes.domain import SHARE, Division

    division = Division(seed=seed)
    return replace(division, held_out=replace(division.held_out, share=SHARE if share is None else share))
