"""Data on standard output, everything else on standard error."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console

PIPED_WIDTH = 120
"""Columns of a table where no terminal says how wide it is."""


@dataclass(frozen=True, slots=True)
class Output:
    """What a command may write, by the options `--json` and `--quiet`."""

    json: bool = False
    quiet: bool = False

    @property
    def progress(self) -> bool:
        """Whether a bar may be shown: someone is looking, and nobody asked for silence."""
        return not self.quiet and sys.stderr.isatty() and not os.environ.get("CI")

    def data(self, text: str) -> None:
        """Write a line that was asked for."""
        sys.stdout.write(text + "\n")

    def document(self, value: Any) -> None:
        """Write the one JSON document of a command."""
        sys.stdout.write(dumps(value, indent=2) + "\n")

    def line(self, value: Any) -> None:
        """Write one line of JSONL, at once, so that a reader of the pipe sees it."""
        sys.stdout.write(dumps(value) + "\n")
        sys.stdout.flush()

    def page(self, path: Path, html: str) -> None:
        """Write an HTML page, whole or not at all."""
        from trine.evaluation.files import replacing

        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as scratch:
            scratch.write_text(html, encoding="utf-8")
        self.note(f"wrote {path}")

    def note(self, text: str) -> None:
        """Say something beside the data."""
        if not self.quiet:
            error_console().print(text, style="dim", soft_wrap=True)

    def warn(self, text: str) -> None:
        """Say something that one should not miss; `--quiet` does not hide it."""
        error_console().print(f"note: {text}", style="yellow", soft_wrap=True)

    @contextmanager
    def bar(self, what: str) -> Iterator[Callable[[int, int | None], None]]:
        """Yield a function that is told how much is done, and of how much, where that is known."""
        if not self.progress:
            yield lambda done, total: None
            return
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

        columns = (TextColumn(what), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
        with Progress(*columns, console=error_console(), transient=True) as progress:
            task = progress.add_task(what, total=None)
            yield lambda done, total: progress.update(task, completed=done, total=total)


def dumps(value: Any, *, indent: int | None = None) -> str:
    """Strict JSON: no NaN, and text as it is."""
    return json.dumps(value, ensure_ascii=False, allow_nan=False, indent=indent)


def console() -> Console:
    """For people, on standard output; without colour where that is no terminal or NO_COLOR is set."""
    from rich.console import Console

    width = None if sys.stdout.isatty() else PIPED_WIDTH
    return Console(file=sys.stdout, highlight=False, markup=False, emoji=False, width=width)


def error_console() -> Console:
    """For people, on standard error."""
    from rich.console import Console

    return Console(file=sys.stderr, highlight=False, markup=False, emoji=False)


def report_error(message: str) -> None:
    """Say what went wrong, in one line."""
    error_console().print(f"error: {message}", style="red", soft_wrap=True)


def prepare_streams() -> None:
    """Pipes carry UTF-8 whatever the locale; what it cannot hold is written as an escape, which JSON reads too."""
    for stream in (sys.stdout, sys.stderr):
        reconfigure = getattr(stream, "reconfigure", None)
        if reconfigure is not None:
            reconfigure(encoding=None if stream.isatty() else "utf-8", errors="backslashreplace")
