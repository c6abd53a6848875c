"""How a command ends: its exit code, and one line about what went wrong."""

from __future__ import annotations

import functools
import os
import sys
from collections.abc import Callable
from enum import IntEnum
from typing import ParamSpec

import typer

from trine.cli.output import report_error
from trine.errors import (
    CheckpointError,
    CollectionCorrupt,
    CollectionLocked,
    CollectionNotFound,
    DataError,
    ModelMismatch,
    ModelNotFound,
    TrineError,
    UsageError,
)

Parameters = ParamSpec("Parameters")


class ExitCode(IntEnum):
    """What a calling script can tell apart."""

    DONE = 0
    FAILED = 1
    USAGE = 2
    PARTIAL = 3
    NOT_FOUND = 4
    CORRUPT = 5
    NOT_BETTER = 6
    INTERRUPTED = 130


MEANINGS = {
    ExitCode.DONE: "done",
    ExitCode.FAILED: "it failed while running",
    ExitCode.USAGE: "wrong usage: an option or a value that cannot be used",
    ExitCode.PARTIAL: "done in part: some documents were skipped, each with a reason on standard error",
    ExitCode.NOT_FOUND: "not found: a model, a collection, a document or a file",
    ExitCode.CORRUPT: "corrupt: a model, a collection or a data file breaks its format",
    ExitCode.NOT_BETTER: "not better: the model that came out of training does not beat its start",
    ExitCode.INTERRUPTED: "interrupted by Ctrl-C",
}
"""For the help and the documentation."""


class NotFound(TrineError):
    """A model, document, hit or file that is not there."""


def guarded(command: Callable[Parameters, None]) -> Callable[Parameters, None]:
    """Turn whatever a command raises into one line on standard error and an exit code.

    With TRINE_DEBUG=1 errors keep their traceback.
    """

    @functools.wraps(command)
    def run(*args: Parameters.args, **kwargs: Parameters.kwargs) -> None:
        try:
            command(*args, **kwargs)
            sys.stdout.flush()
        except BrokenPipeError:
            _let_go_of_stdout()
        except KeyboardInterrupt:
            report_error("interrupted")
            raise typer.Exit(ExitCode.INTERRUPTED) from None
        except typer.Exit:
            raise
        except Exception as error:
            if os.environ.get("TRINE_DEBUG"):
                raise
            report_error(described(error))
            raise typer.Exit(code_of(error)) from None

    return run


def code_of(error: Exception) -> ExitCode:
    """The exit code that stands for an error."""
    for kind, code in _CODES:
        if isinstance(error, kind):
            return code
    return ExitCode.FAILED


def described(error: Exception) -> str:
    """One line for people; what trine did not foresee also says how to learn more."""
    if isinstance(error, TrineError):
        return " ".join(str(error).split())
    if isinstance(error, FileNotFoundError) and error.filename is not None:
        return f"no such file or folder: {error.filename}"
    if isinstance(error, OSError) and error.strerror is not None:
        return f"{error.filename}: {error.strerror}" if error.filename is not None else error.strerror
    return f"{type(error).__name__}: {error} (TRINE_DEBUG=1 shows where)"


def _let_go_of_stdout() -> None:
    """The reader closed the pipe, as `head` does: that is no failure, and the interpreter must not complain either."""
    try:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except (OSError, ValueError):
        return


_CODES: tuple[tuple[type[Exception], ExitCode], ...] = (
    (UsageError, ExitCode.USAGE),
    (ModelMismatch, ExitCode.USAGE),
    (CollectionLocked, ExitCode.FAILED),
    (CollectionNotFound, ExitCode.NOT_FOUND),
    (CollectionCorrupt, ExitCode.CORRUPT),
    (ModelNotFound, ExitCode.NOT_FOUND),
    (NotFound, ExitCode.NOT_FOUND),
    (FileNotFoundError, ExitCode.NOT_FOUND),
    (CheckpointError, ExitCode.CORRUPT),
    (DataError, ExitCode.CORRUPT),
)
"""The first that fits."""
