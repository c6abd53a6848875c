"""Tests stand where their sources stand: src/trine/<room>/<file>.py has tests/<room>/test_<file>.py.

A room's `__init__.py` is covered by the tests of its files.
"""

from pathlib import Path

import pytest

TESTS = Path(__file__).parent
SOURCES = TESTS.parent / "src" / "trine"

ROOMS = ("models", "encoding", "")
"""The rooms held to it; "" is the floor, the files that lie in no room."""


def sources():
    for room in ROOMS:
        files = (SOURCES / room).rglob("*.py") if room else SOURCES.glob("*.py")
        yield from (path.relative_to(SOURCES) for path in sorted(files) if path.name != "__init__.py")


@pytest.mark.parametrize("path", list(sources()), ids=str)
def test_every_source_has_its_tests(path):
    test = TESTS / path.parent / f"test_{path.name}"
    assert test.is_file(), f"{path} has no {test.relative_to(TESTS.parent)}"
    assert "def test_" in test.read_text(encoding="utf-8")


@pytest.mark.parametrize("room", [room for room in ROOMS if room])
def test_no_test_outlives_its_source(room):
    for test in sorted((TESTS / room).rglob("test_*.py")):
        source = SOURCES / test.relative_to(TESTS).parent / test.name.removeprefix("test_")
        assert source.is_file(), test
