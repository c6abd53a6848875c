import pytest
import typer

from trine.cli.exits import NotFound, code_of, described, guarded
from trine.errors import (
    CheckpointError,
    CollectionCorrupt,
    CollectionError,
    CollectionLocked,
    CollectionNotFound,
    DataError,
    MissingExtra,
    ModelMismatch,
    ModelNotFound,
    UnknownName,
    UsageError,
)


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (UsageError("x"), 2),
        (UnknownName("x"), 2),
        (ModelMismatch("x"), 2),
        (CollectionNotFound("x"), 4),
        (ModelNotFound("x"), 4),
        (CollectionCorrupt("x"), 5),
        (NotFound("x"), 4),
        (FileNotFoundError("x"), 4),
        (CheckpointError("x"), 5),
        (DataError("x"), 5),
        (CollectionLocked("x"), 1),
        (CollectionError("x"), 1),
        (MissingExtra("x"), 1),
        (PermissionError("x"), 1),
        (ZeroDivisionError("x"), 1),
    ],
)
def test_every_error_has_its_exit_code(error, code):
    assert code_of(error) == code
    with pytest.raises(typer.Exit) as caught:
        guarded(_raising(error))()
    assert caught.value.exit_code == code


def test_one_line_says_what_went_wrong(capsys):
    with pytest.raises(typer.Exit):
        guarded(_raising(UsageError("two\nlines,   and  gaps [red]")))()
    assert capsys.readouterr().err == "error: two lines, and gaps [red]\n"


def test_an_unforeseen_error_says_how_to_see_where(capsys):
    with pytest.raises(typer.Exit):
        guarded(_raising(ZeroDivisionError("division by zero")))()
    assert capsys.readouterr().err == "error: ZeroDivisionError: division by zero (TRINE_DEBUG=1 shows where)\n"


def test_debugging_keeps_the_traceback(monkeypatch):
    monkeypatch.setenv("TRINE_DEBUG", "1")
    with pytest.raises(UsageError):
        guarded(_raising(UsageError("x")))()


def test_interruption_is_130(capsys):
    with pytest.raises(typer.Exit) as caught:
        guarded(_raising(KeyboardInterrupt()))()
    assert caught.value.exit_code == 130
    assert capsys.readouterr().err == "error: interrupted\n"


def test_system_errors_name_the_file():
    assert described(PermissionError(13, "Permission denied", "a.txt")) == "a.txt: Permission denied"
    assert described(FileNotFoundError(2, "No such file", "a.txt")) == "no such file or folder: a.txt"
    assert described(OSError(28, "No space left on device")) == "No space left on device"


def test_an_exit_passes_through():
    with pytest.raises(typer.Exit) as caught:
        guarded(_raising(typer.Exit(3)))()
    assert caught.value.exit_code == 3


def _raising(error):
    def command():
        raise error

    return command
