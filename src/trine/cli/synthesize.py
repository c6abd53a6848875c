"""`trine synthesize`: training examples written by an LLM."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from trine.cli.choices import one_of
from trine.cli.encoders import load_encoder
from trine.cli.exits import ExitCode
from trine.cli.index import SHOWN, require_paths
from trine.cli.options import Device, Json, Quiet
from trine.cli.output import Output, console, report_error
from trine.errors import UsageError

if TYPE_CHECKING:
    from trine.curation.consistency import Consistency
    from trine.curation.llm import Endpoint
    from trine.curation.synthesis.comparison import Comparison
    from trine.curation.synthesis.documents import Groundings
    from trine.curation.synthesis.run import Settings, Synthesised
    from trine.types import TextEncoder

_WRITING, _ASKING, _SPENDING, _FILTERING = "What is written", "How it is asked for", "Budget", "Filter"
_STOPPED = {
    "budget": "the budget is reached; the same command with a larger one goes on",
    "documents": "the passages are used up; more documents give more",
    "attempts": "most answers are rejects, so no more are asked for; rejects.jsonl says why",
    "tasks": "the brainstorms gave no tasks; rejects.jsonl says why",
    "endpoint": "the endpoint cannot be used any more",
    "interrupted": "interrupted; the same command goes on, and repeats no paid call",
}


def synthesize(  # noqa: PLR0913 -- a command's parameters are its options
    out: Annotated[Path, typer.Argument(metavar="OUT", help="Folder for the examples, made if it is missing.")],
    endpoint: Annotated[
        str,
        typer.Option(metavar="URL", help="OpenAI-compatible, such as http://localhost:8000/v1.", show_default=False),
    ] = "",
    model: Annotated[
        str,
        typer.Option("--model", "-m", metavar="NAME", help="The LLM, as the endpoint calls it.", show_default=False),
    ] = "",
    count: Annotated[int, typer.Option("--count", "-n", metavar="N", min=1, help="Valid examples to write.")] = 100,
    group: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME[=SHARE]",
            show_default=False,
            rich_help_panel=_WRITING,
            help="short-long, long-short, short-short, long-long, sts, bitext or grounded; several times for several. "
            "By default the first six in the paper's shares, or with --documents grounded.",
        ),
    ] = None,
    language: Annotated[
        list[str] | None,
        typer.Option(
            metavar="CODE[=SHARE]",
            show_default=False,
            rich_help_panel=_WRITING,
            help="ko, en=0.3, ...; several times for several; 'paper' for the paper's 93. By default en.",
        ),
    ] = None,
    documents: Annotated[
        list[str] | None,
        typer.Option(
            metavar="PATH",
            show_default=False,
            rich_help_panel=_WRITING,
            help="Your own documents, as `trine index` takes them, to write queries for (group grounded).",
        ),
    ] = None,
    per_task: Annotated[
        int, typer.Option(metavar="N", min=1, rich_help_panel=_WRITING, help="Examples of each brainstormed task.")
    ] = 3,
    instruct: Annotated[
        bool,
        typer.Option(
            "--instruct", rich_help_panel=_WRITING, help="Write the task into the query's prompt, as E5-Mistral has it."
        ),
    ] = False,
    prompts: Annotated[
        str,
        typer.Option(
            metavar="LANGUAGE",
            rich_help_panel=_ASKING,
            help="Language of the prompts: en, ko, or auto: Korean for Korean texts, else English.",
        ),
    ] = "auto",
    mode: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            show_default=False,
            rich_help_panel=_ASKING,
            help="json_schema, free_then_json, json_with_reasoning_field (the default) or its control "
            "json_with_reasoning_field_last.",
        ),
    ] = None,
    compare_modes: Annotated[
        bool,
        typer.Option(
            "--compare-modes",
            rich_help_panel=_ASKING,
            help="Write the N examples in every mode, and compare the modes.",
        ),
    ] = False,
    format: Annotated[
        str,
        typer.Option(
            metavar="NAME",
            rich_help_panel=_ASKING,
            help="What holds the endpoint to JSON: json_schema, json_object, or prompt (nothing but the prompt).",
        ),
    ] = "json_schema",
    temperature: Annotated[float, typer.Option(metavar="T", rich_help_panel=_ASKING, help="0 to 2.")] = 1.0,
    top_p: Annotated[float, typer.Option(metavar="P", rich_help_panel=_ASKING, help="Above 0, to 1.")] = 1.0,
    answer_tokens: Annotated[
        int, typer.Option(metavar="N", rich_help_panel=_ASKING, help="Longest answer; a longer one is a reject.")
    ] = 4096,
    seed: Annotated[int, typer.Option(metavar="N", rich_help_panel=_ASKING, help="Decides what is asked for.")] = 0,
    concurrency: Annotated[int, typer.Option(metavar="N", rich_help_panel=_ASKING, help="Calls at a time.")] = 8,
    timeout: Annotated[
        float, typer.Option(metavar="SECONDS", rich_help_panel=_ASKING, help="Patience for one answer.")
    ] = 120,
    retries: Annotated[
        int,
        typer.Option(metavar="N", rich_help_panel=_ASKING, help="Further tries of a call that does not come through."),
    ] = 6,
    api_key_env: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            show_default=False,
            rich_help_panel=_ASKING,
            help="Variable that holds the key. By default OPENAI_API_KEY, where it is set.",
        ),
    ] = None,
    max_tokens: Annotated[
        int | None,
        typer.Option(
            metavar="N", show_default=False, rich_help_panel=_SPENDING, help="Tokens in and out, of all runs in OUT."
        ),
    ] = None,
    max_cost: Annotated[
        float | None,
        typer.Option(metavar="SUM", show_default=False, rich_help_panel=_SPENDING, help="Money, of all runs in OUT."),
    ] = None,
    price_in: Annotated[
        float, typer.Option(metavar="SUM", rich_help_panel=_SPENDING, help="Price of a million tokens of prompts.")
    ] = 0.0,
    price_out: Annotated[
        float, typer.Option(metavar="SUM", rich_help_panel=_SPENDING, help="Price of a million tokens of answers.")
    ] = 0.0,
    dry_run: Annotated[
        bool,
        typer.Option("--dry-run", rich_help_panel=_SPENDING, help="Show the prompts and an estimate, and call nobody."),
    ] = False,
    filter_model: Annotated[
        str | None,
        typer.Option(
            metavar="NAME|FOLDER",
            show_default=False,
            rich_help_panel=_FILTERING,
            help="An embedding model; examples whose positive it does not rank among the first go to the rejects.",
        ),
    ] = None,
    filter_top: Annotated[
        int | None,
        typer.Option(
            metavar="N", show_default=False, rich_help_panel=_FILTERING, help="Worst rank that is kept. By default 2."
        ),
    ] = None,
    device: Device = "auto",
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Have an LLM write training examples: by E5-Mistral's two steps, or queries for your own documents.

    trine synthesize out/ --endpoint http://localhost:8000/v1 --model qwen3 --language ko --count 1000

    trine synthesize out/ --endpoint URL --model NAME --documents docs/ --filter-model default

    Every paid reply is on disk before it is read: the same command goes on with a run that was stopped.
    """
    from trine.curation.llm import FORMATS, Endpoint
    from trine.curation.synthesis.budget import Budget, Prices
    from trine.curation.synthesis.modes import DEFAULT_MODE, MODES
    from trine.curation.synthesis.plan import mix_of
    from trine.curation.synthesis.run import Settings
    from trine.curation.synthesis.writing import Sampling

    output = Output(json=json, quiet=quiet)
    if compare_modes and mode is not None:
        raise UsageError("--mode has no effect with --compare-modes, which runs them all; leave one of them out")
    if filter_top is not None and filter_model is None:
        raise UsageError("--filter-top has no effect without --filter-model; name a model, or leave it out")
    settings = Settings(
        mix=mix_of(group or [], language or [], grounded=bool(documents), prompts=prompts, seed=seed),
        count=count,
        mode=one_of(mode or DEFAULT_MODE, MODES, kind="response mode"),
        format=one_of(format, FORMATS, kind="answer format"),  # type: ignore[arg-type]
        sampling=Sampling(temperature, top_p, answer_tokens),
        per_task=per_task,
        concurrency=concurrency,
        instruct=instruct,
        budget=Budget(max_tokens, max_cost, Prices(price_in, price_out)),
    )
    if dry_run:
        _preview(settings, _read(documents, output), output, compare=compare_modes)
        return
    if not endpoint or not model:
        raise UsageError("--endpoint and --model say who writes; or give --dry-run to see what would be sent")
    place = Endpoint(endpoint, model, api_key_env, timeout, retries)
    found = _read(documents, output)
    encoder = load_encoder(filter_model, device=device) if filter_model is not None else None
    job = _Job(out, place, settings, found, encoder, filter_top)
    if compare_modes:
        _show_comparison(job.compare(output), output)
    else:
        _show(job.write(output), settings, output)


class _Job:
    """What both kinds of run are given."""

    def __init__(
        self,
        out: Path,
        endpoint: Endpoint,
        settings: Settings,
        found: Groundings | None,
        encoder: TextEncoder | None,
        top: int | None,
    ) -> None:
        self._out, self._endpoint, self._settings = out, endpoint, settings
        self._passages = () if found is None else found.passages
        self._encoder, self._top = encoder, top

    def write(self, output: Output) -> Synthesised:
        from trine.curation.synthesis.run import synthesize as run

        return run(
            self._out,
            self._endpoint,
            self._settings,
            passages=self._passages,
            encoder=self._encoder,
            consistency=self._consistency(),
            progress=output.progress,
        )

    def compare(self, output: Output) -> Comparison:
        from trine.curation.synthesis.comparison import compare_modes

        return compare_modes(
            self._out,
            self._endpoint,
            self._settings,
            passages=self._passages,
            encoder=self._encoder,
            consistency=self._consistency(),
            progress=output.progress,
        )

    def _consistency(self) -> Consistency:
        from trine.curation.consistency import Consistency

        return Consistency() if self._top is None else replace(Consistency(), top=self._top)


def _read(documents: Sequence[str] | None, output: Output) -> Groundings | None:
    if not documents:
        return None
    require_paths(list(documents))
    from trine.curation.synthesis.documents import read_groundings

    found = read_groundings(documents)
    output.note(f"{len(found.passages)} passages to write queries for")
    for item in found.skipped[:SHOWN]:
        output.warn(f"skipped {item.path}: {item.reason}")
    if len(found.skipped) > SHOWN:
        output.warn(f"and {len(found.skipped) - SHOWN} more")
    return found


def _preview(settings: Settings, found: Groundings | None, output: Output, *, compare: bool) -> None:
    from trine.curation.synthesis.modes import MODES
    from trine.curation.synthesis.preview import preview

    shown = preview(settings, () if found is None else found.passages, modes=tuple(MODES) if compare else ())
    if output.json:
        output.document(shown.to_dict())
        return
    for name, text in shown.prompts:
        output.data(f"--- {name} ---\n{text}\n")
    cost = "" if shown.cost is None else f", about {shown.cost:.2f} in money"
    output.data(
        f"{shown.jobs} examples in {shown.calls} calls, {shown.brainstorms} of them for tasks; "
        f"about {shown.input_tokens:,} tokens in and {shown.output_tokens:,} out{cost}. Nothing was sent."
    )


def _show(done: Synthesised, settings: Settings, output: Output) -> None:
    report = done.report
    if output.json:
        output.document({"folder": str(done.folder), **report})
    else:
        calls, tokens = report["calls"], report["tokens"]
        cost = "" if report["cost"] is None else f", {report['cost']:.4f} in money"
        output.data(f"{done.folder / 'examples.jsonl'}: {report['examples']} examples, {report['rejected']} rejects")
        for reason, number in report["reasons"].items():
            output.data(f"  {number} {reason}")
        output.data(
            f"{calls['paid_now']} calls paid now, {calls['from_journal']} from the journal; "
            f"{tokens['input']:,} tokens in and {tokens['output']:,} out{cost}"
        )
    _end(done.stopped, str(done.error or ""), output)


def _show_comparison(done: Comparison, output: Output) -> None:
    if output.json:
        output.document({"folder": str(done.folder), **done.to_dict()})
    else:
        from rich.table import Table

        from trine.curation.synthesis.comparison import LEGEND, columns

        table = Table(box=None, pad_edge=False, header_style="dim")
        rows = [columns(arm) for arm in done.arms]
        for name in rows[0] if rows else ():
            table.add_column(name, justify="left" if name == "mode" else "right", no_wrap=True)
        for row in rows:
            table.add_row(*row.values())
        console().print(table)
        output.note(LEGEND)
        output.note(
            f"{done.folder / 'comparison.json'} has all numbers; each mode's examples and rejects lie beside it"
        )
    _end(done.stopped, str(done.error or ""), output)


def _end(stopped: str, error: str, output: Output) -> None:
    if not stopped:
        return
    message = error or _STOPPED[stopped]
    if stopped in ("budget", "documents"):
        output.warn(message)
        raise typer.Exit(ExitCode.PARTIAL)
    report_error(message)
    raise typer.Exit(ExitCode.INTERRUPTED if stopped == "interrupted" else ExitCode.FAILED)
