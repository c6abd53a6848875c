"""`trine train`: a recipe over files of examples."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from trine.cli.choices import key_values
from trine.cli.options import Device, Json, Model, Quiet
from trine.cli.output import Output
from trine.errors import UsageError

if TYPE_CHECKING:
    from trine.recipes.run import Trained


def train(  # noqa: PLR0913 -- a command's parameters are its options
    recipe: Annotated[str, typer.Argument(metavar="RECIPE", help="retromae, e5_pretrain, bge_m3, ...; or 'list'.")],
    data: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="DATA...",
            help="Files of examples (JSONL, CSV, text; .gz and .xz too) or BEIR folders; NAME=PATH names a source.",
        ),
    ] = None,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", metavar="FOLDER", show_default=False, help="Where the model goes.")
    ] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="KEY=VALUE",
            show_default=False,
            help="Change a setting of the recipe, several times for several: --set steps=200 --set learning_rate=1e-4.",
        ),
    ] = None,
    validation: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER",
            show_default=False,
            help="A judged set in BEIR's layout that training must not have seen: measured before, during and after; "
            "the best checkpoint is kept.",
        ),
    ] = None,
    teacher: Annotated[
        str | None,
        typer.Option(
            metavar="NAME|FOLDER", show_default=False, help="The model whose embeddings are followed (recipe distill)."
        ),
    ] = None,
    licence: Annotated[
        list[str] | None,
        typer.Option(metavar="SOURCE=NAME", show_default=False, help="Licence of a source, for the model card."),
    ] = None,
    format: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            show_default=False,
            help="Format of the data, where the first record does not say it: flag_embedding, columns, distillation, "
            "pairs, text, beir.",
        ),
    ] = None,
    columns: Annotated[
        str | None,
        typer.Option(
            metavar="A,B,...",
            show_default=False,
            help="Columns of the data in the order anchor, positive, negatives, scores; others are left out.",
        ),
    ] = None,
    skip_errors: Annotated[
        bool, typer.Option("--skip-errors", help="Leave bad lines of the data out, and report them.")
    ] = False,
    tensorboard: Annotated[
        bool, typer.Option("--tensorboard", help="Also write TensorBoard's files (extra 'training').")
    ] = False,
    show: Annotated[bool, typer.Option("--show", help="Print the resolved recipe and train nothing.")] = False,
    model: Model = None,
    device: Device = "auto",
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Train a model by a published recipe; the same call goes on with a run that was stopped.

    trine train bge_m3_small pairs.jsonl --model my-model --out better --validation heldout/

    trine train bge_m3 --show

    Several processes: torchrun --nproc-per-node 2 -m trine train ...
    """
    output = Output(json=json, quiet=quiet)
    if recipe == "list":
        _list(output)
        return
    from trine.recipes.config import recipe as resolve_recipe

    chosen = resolve_recipe(recipe, key_values(settings, "--set"))
    if show:
        import msgspec

        output.document(msgspec.to_builtins(chosen))
        return
    if not data or out is None:
        missing = "DATA" if not data else "--out"
        raise UsageError(f"{missing} is missing; a run needs files of examples and a folder: --out FOLDER")
    from trine.recipes.run import Job, run
    from trine.training.distributed import connect

    job = Job(
        recipe=chosen,
        data=data,
        out=out,
        model=model,
        validation=validation,
        teacher=teacher,
        licences=key_values(licence, "--licence"),
        format=format,
        columns=[name.strip() for name in columns.split(",")] if columns else (),
        on_error="skip" if skip_errors else "raise",
        device=device,
        tensorboard=tensorboard,
        progress=output.progress,
    )
    with connect(device=device) as ranks:
        trained = run(job, ranks=ranks)
        if ranks.rank == 0:
            _show(trained, output)


def _list(output: Output) -> None:
    from trine.recipes import RECIPES
    from trine.recipes.config import recipe as resolve_recipe
    from trine.tables import resolve

    found = {name: resolve(RECIPES, name, kind="recipe") for name in RECIPES}
    if output.json:
        rows = [
            {"name": name, "source": resolve_recipe(name).source, "about": _first_line(function.__doc__)}
            for name, function in found.items()
        ]
        output.document(rows)
        return
    width = max(map(len, found))
    for name, function in found.items():
        output.data(f"{name:{width}}  {_first_line(function.__doc__)}")


def _first_line(text: str | None) -> str:
    return (text or "").strip().splitlines()[0]


def _show(trained: Trained, output: Output) -> None:
    if trained.skipped:
        lines = ", ".join(f"{count} of {name}" for name, count in trained.skipped.items())
        output.warn(f"bad lines were left out: {lines}")
    if output.json:
        output.document(trained.to_dict())
        return
    summary = trained.summary
    early = ", stopped early" if summary.stopped_early else ""
    output.data(
        f"{trained.folder}: {summary.steps:,} steps, {summary.tokens:,} tokens in {summary.seconds:,.0f} s{early}"
    )
    if trained.before is not None and trained.after is not None and trained.gain is not None:
        before, after = trained.before.values["ndcg@10"], trained.after.values["ndcg@10"]
        gap = trained.gain
        output.data(
            f"nDCG@10 {before:.4f} -> {after:.4f}, {gap.mean:+.4f} ({gap.low:+.4f} to {gap.high:+.4f}); "
            f"best at step {summary.best_step:,}"
        )
        if gap.mean <= 0 or not gap.significant:
            output.warn("the trained model is not better than its start on this validation set")
