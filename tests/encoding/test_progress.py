import io

import pytest
import rich.console

from models import tiny
from trine.encoding.progress import progress_bar


def test_silent_unless_asked(capfd):
    with progress_bar("encoding", total=3, shown=False) as advance:
        advance(3)
    assert capfd.readouterr() == ("", "")


def test_silent_where_there_is_no_terminal(capfd):
    with progress_bar("encoding", total=3, shown=True) as advance:
        advance(3)
    assert capfd.readouterr().out == ""
    assert "encoding" not in capfd.readouterr().err


@pytest.fixture
def terminal(monkeypatch):
    """What a terminal on standard error would show."""
    screen = io.StringIO()
    console = rich.console.Console

    def fake(*, stderr):
        assert stderr
        return console(file=screen, force_terminal=True, width=100)

    monkeypatch.setattr(rich.console, "Console", fake)
    return screen


def test_a_terminal_shows_what_is_done_and_what_is_left(terminal):
    with progress_bar("encoding", total=5, shown=True) as advance:
        advance(2)
        advance(3)
    assert "encoding" in terminal.getvalue()
    assert "5/5" in terminal.getvalue()


def test_an_unknown_total_is_counted_up(terminal):
    with progress_bar("reading", total=None, shown=True) as advance:
        advance(7)
    assert "7/?" in terminal.getvalue()


def test_the_bar_is_closed_after_a_failure(terminal):
    with pytest.raises(ValueError, match="stop"), progress_bar("encoding", total=5, shown=True):
        raise ValueError("stop")
    assert terminal.getvalue().endswith("\x1b[?25h")  # the cursor is back


def test_encoding_counts_its_texts(trio, terminal):
    trio("bert").encode(tiny.TEXTS, progress=True)
    assert f"{len(tiny.TEXTS)}/{len(tiny.TEXTS)}" in terminal.getvalue()
