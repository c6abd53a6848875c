"""Stages of long work: done once, taken up after a stop, done anew when what they depend on changes."""

import json

import pytest

from trine.recipes.stages import Stages


class Work:
    """Counts its calls, and leaves a file."""

    def __init__(self, fails=0):
        self.calls, self.fails = 0, fails

    def __call__(self, folder):
        self.calls += 1
        (folder / f"call {self.calls}").touch()
        if self.calls <= self.fails:
            raise OSError("No space left on device")
        return {"calls": self.calls}


def test_a_stage_that_is_done_is_not_repeated(tmp_path):
    work, told = Work(), []
    first = Stages(tmp_path, tell=told.append).take("one", "counting", needs={"a": 1}, work=work)
    later = Stages(tmp_path, tell=told.append)
    second = later.take("one", "counting", needs={"a": 1}, work=work)
    assert (work.calls, told) == (1, ["counting"])
    assert second == first
    assert second.facts == {"calls": 1}
    assert later.seconds == first.seconds


def test_a_stage_that_was_stopped_finds_what_it_had_written(tmp_path):
    work = Work(fails=1)
    stages = Stages(tmp_path, tell=lambda text: None)
    with pytest.raises(OSError, match="space"):
        stages.take("one", "counting", needs={"a": 1}, work=work)
    assert not (tmp_path / "one" / "done.json").exists()
    assert stages.take("one", "counting", needs={"a": 1}, work=work).facts == {"calls": 2}
    assert (tmp_path / "one" / "call 1").exists()


@pytest.mark.parametrize("fails", [0, 1])
def test_a_stage_begins_anew_when_its_needs_change(tmp_path, fails):
    work, told = Work(fails=fails), []
    stages = Stages(tmp_path, tell=told.append)
    for needs in ({"a": 1}, {"a": 2}):
        try:
            found = stages.take("one", "counting", needs=needs, work=work)
        except OSError:
            continue
    assert work.calls == 2
    assert not (tmp_path / "one" / "call 1").exists()
    assert "begins anew" in told[1]
    assert json.loads((tmp_path / "one" / "begun.json").read_text())["needs"] == {"a": 2}
    assert found.facts == {"calls": 2}


def test_the_key_follows_from_the_needs_alone(tmp_path):
    stages = Stages(tmp_path, tell=lambda text: None)
    one = stages.take("one", "", needs={"a": (1, 2), "b": None}, work=Work())
    two = stages.take("two", "", needs={"b": None, "a": [1, 2]}, work=Work())
    assert one.key == two.key
    assert one.key != stages.take("three", "", needs={"a": (2, 1), "b": None}, work=Work()).key
