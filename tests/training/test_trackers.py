import io
import json
import sys
import types

import pytest

from trine.errors import MissingExtra
from trine.training.trackers import JsonlTracker, ProgressTracker, TensorBoardTracker


def lines(path):
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_jsonl_has_a_line_a_call_and_is_there_at_once(tmp_path):
    path = tmp_path / "새 폴더" / "log.jsonl"
    tracker = JsonlTracker(path)
    tracker.log(1, {"loss": 0.5, "손실/밀집": 1.0})
    assert lines(path) == [{"step": 1, "loss": 0.5, "손실/밀집": 1.0}]
    tracker.log(1, {"evaluation/ndcg@10": 0.25})
    tracker.close()
    tracker.close()
    assert lines(path)[1] == {"step": 1, "evaluation/ndcg@10": 0.25}


def test_jsonl_of_a_resumed_run_replaces_what_it_repeats(tmp_path):
    path = tmp_path / "log.jsonl"
    tracker = JsonlTracker(path)
    for step in (10, 20, 30):
        tracker.log(step, {"loss": float(step)})
    tracker.close()
    # A kill leaves half a line, and somebody an empty one.
    with path.open("a") as file:
        file.write('\n{"step": 40, "lo')
    again = JsonlTracker(path)
    again.log(20, {"loss": 2.0})
    again.log(30, {"loss": 3.0})
    again.close()
    assert [(line["step"], line["loss"]) for line in lines(path)] == [(10, 10.0), (20, 2.0), (30, 3.0)]
    assert [entry.name for entry in tmp_path.iterdir()] == ["log.jsonl"]


def test_jsonl_stays_json_whatever_the_number(tmp_path):
    path = tmp_path / "log.jsonl"
    tracker = JsonlTracker(path)
    tracker.log(1, {"a": float("nan"), "b": float("inf"), "c": -float("inf"), "d": 1e30})
    tracker.close()
    assert lines(path) == [{"step": 1, "a": "nan", "b": "inf", "c": "-inf", "d": 1e30}]


def test_tensorboard_says_how_to_install_it(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(MissingExtra, match=r"pip install 'trine\[training\]'"):
        TensorBoardTracker(tmp_path)


def test_tensorboard_gets_scalars_and_drops_what_a_kill_left(tmp_path, monkeypatch):
    told = []

    class Writer:
        def __init__(self, **options):
            told.append(options)

        def add_scalar(self, name, value, step):
            told.append((name, value, step))

        def close(self):
            told.append("closed")

    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", types.SimpleNamespace(SummaryWriter=Writer))
    tracker = TensorBoardTracker(tmp_path)
    tracker.log(7, {"loss": 0.5, "learning_rate": 1e-3})
    tracker.close()
    tracker.close()
    assert told == [
        {"log_dir": str(tmp_path), "purge_step": 7},
        ("loss", 0.5, 7),
        ("learning_rate", 1e-3, 7),
        "closed",
    ]


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_progress_shows_the_numbers_on_a_terminal(monkeypatch):
    screen = Terminal()
    monkeypatch.setattr(sys, "stderr", screen)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "160")
    with ProgressTracker(20) as tracker:
        tracker.log(10, {"loss": 0.12345, "tokens_per_second": 12345.6})
        tracker.log(20, {"evaluation/ndcg@10": 0.5})
    shown = screen.getvalue()
    for part in ("training", "loss 0.1235", "12,346 tokens/s", "20/20"):
        assert part in shown, part


def test_progress_is_silent_where_nobody_looks(capsys):
    tracker = ProgressTracker(20)
    tracker.log(10, {"loss": 0.5})
    tracker.close()
    tracker.close()
    assert capsys.readouterr() == ("", "")
