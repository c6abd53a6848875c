"""`trine encode INPUT --out FOLDER`: any number of texts to shards on disk."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from trine.cli.encoders import untrained_sentence
from trine.cli.exits import ExitCode, NotFound
from trine.cli.output import Output, error_console, report_error
from trine.cli.texts import STDIN
from trine.errors import UsageError

if TYPE_CHECKING:
    from trine.encoding.bulk.job import Report
    from trine.encoding.bulk.plan import Settings
    from trine.encoding.bulk.progress import Progress
    from trine.encoding.bulk.workers import Load

NOTE_SECONDS = 60.0
"""Between notes of how it goes, where no terminal shows a bar."""
SHOWN = 20
"""Lines left out that are named."""


def encode_bulk(
    source: str,
    out: Path,
    *,
    settings: Settings,
    load: Load,
    device: str,
    workers: int | None,
    output: Output,
) -> None:
    """Run the job, show how it goes, and say how to go on where it was interrupted."""
    from trine.encoding.bulk.job import encode_files
    from trine.encoding.bulk.workers import devices_of

    if source == STDIN:
        raise UsageError("a bulk job reads its input twice, and again when it is taken up: give a file or a folder")
    if not Path(source).exists():
        raise NotFound(f"no such file or folder: {source}")
    last: list[Progress] = []
    try:
        with _shown(output) as show:

            def told(state: Progress) -> None:
                last[:] = [state]
                show(state)

            devices = devices_of(device, workers)
            report = encode_files(source, out, load=load, settings=settings, devices=devices, progress=told)
    except KeyboardInterrupt:
        report_error(f"interrupted; {_kept(last)} in {out}, run the same command again to go on")
        raise typer.Exit(ExitCode.INTERRUPTED) from None
    _conclude(report, output)


def _conclude(report: Report, output: Output) -> None:
    held = f"{report.texts:,} texts in {report.shards:,} shards"
    if report.shards and not report.encoded:
        output.note(f"{report.folder} was complete: {held}; model {report.model.name}")
    else:
        speed = f"; about {report.tokens / report.seconds:,.0f} tokens/s" if report.seconds > 0 else ""
        output.note(f"wrote {held} to {report.folder}{speed}; model {report.model.name}")
    if report.ignored:
        kinds = ", ".join(f"{count} {suffix or 'without suffix'}" for suffix, count in report.ignored.items())
        output.note(f"left out files of other types: {kinds}")
    untrained = tuple(mode for mode in report.model.untrained if mode in report.modes)
    if untrained:
        output.warn(untrained_sentence(report.model.name, untrained))
    if report.skipped:
        for reason in report.reasons[:SHOWN]:
            output.warn(f"skipped {reason}")
        if report.skipped > SHOWN:
            output.warn(f"and {report.skipped - SHOWN} more; the first hundred are in {report.folder}/manifest.json")
        raise typer.Exit(ExitCode.PARTIAL)


def _kept(last: list[Progress]) -> str:
    if not last or last[0].stage == "reading":
        return "no shard was begun, and finished ones are kept"
    return f"{last[0].shards:,} of {last[0].total_shards:,} shards are done"


def sentence(state: Progress) -> str:
    """How far a job is, for people."""
    if state.stage == "reading":
        return f"reading: {state.texts:,} texts"
    parts = [f"encoding: {state.texts:,} of {state.total:,} texts"]
    if state.tokens_per_second is not None:
        parts.append(f"about {state.tokens_per_second:,.0f} tokens/s")
    if state.seconds_left is not None:
        parts.append(f"{duration(state.seconds_left)} left")
    return ", ".join(parts)


def duration(seconds: float) -> str:
    """In the two largest units that say something."""
    minutes = round(seconds / 60)
    if seconds < 100:
        return f"{seconds:.0f} s"
    if minutes < 60:
        return f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02} min" if hours < 48 else f"{hours // 24} d {hours % 24} h"


@contextmanager
def _shown(output: Output) -> Iterator[Callable[[Progress], None]]:
    """A bar on a terminal; elsewhere a note now and then, for those who read the log of a night."""
    if not output.progress:
        yield _noting(output)
        return
    from rich.progress import BarColumn, TextColumn, TimeElapsedColumn
    from rich.progress import Progress as Bars

    with Bars(
        BarColumn(), TextColumn("{task.description}"), TimeElapsedColumn(), console=error_console(), transient=True
    ) as bars:
        task = bars.add_task("", total=None)
        yield lambda state: bars.update(task, completed=state.texts, total=state.total, description=sentence(state))


def _noting(output: Output, clock: Callable[[], float] = time.monotonic) -> Callable[[Progress], None]:
    said = clock()

    def tell(state: Progress) -> None:
        nonlocal said
        if clock() - said >= NOTE_SECONDS:
            said = clock()
            output.note(sentence(state))

    return tell
