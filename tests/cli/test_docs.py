"""docs/cli.md names every command, argument, option, exit code and variable."""

import re
from pathlib import Path

import pytest
from typer.main import get_command

from trine.cli.exits import MEANINGS
from trine.cli.main import COMMANDS, app
from trine.search.fusion import DEFAULT_FUSION

PAGE = (Path(__file__).parent.parent.parent / "docs" / "cli.md").read_text("utf-8")
SECTIONS = dict(re.findall(r"^## `trine (\w+)`\n(.*?)(?=^## |\Z)", PAGE, re.MULTILINE | re.DOTALL))


def test_every_command_has_its_section_and_no_other():
    assert set(SECTIONS) == set(COMMANDS) == set(get_command(app).commands)


@pytest.mark.parametrize("name", COMMANDS)
def test_every_option_is_documented_and_nothing_else(name):
    parameters = get_command(app).commands[name].params
    options = [option for each in parameters if each.param_type_name == "option" for option in [*each.opts]]
    rows = re.findall(r"^\| `(.*?)` \|", SECTIONS[name], re.MULTILINE)
    named = {option for row in rows for option in re.findall(r"(?<![\w-])--?[a-z][\w-]*", row)}
    assert named == set(options) - {"--help", "-h"}


@pytest.mark.parametrize("name", COMMANDS)
def test_the_usage_line_is_the_programs_own(name):
    arguments = [each.metavar for each in get_command(app).commands[name].params if each.param_type_name == "argument"]
    assert f"trine {name} {' '.join(arguments)}".strip() in SECTIONS[name]


@pytest.mark.parametrize(("code", "meaning"), MEANINGS.items())
def test_every_exit_code_is_documented(code, meaning):
    assert f"| {code.value} | {meaning} |" in PAGE


def test_the_default_fusion_is_named():
    fusion = next(each for each in get_command(app).commands["search"].params if each.name == "fusion")
    assert f"{DEFAULT_FUSION} (the default)" in fusion.help
    assert f"`{DEFAULT_FUSION}` (the default)" in PAGE


@pytest.mark.parametrize("variable", ["TRINE_COLLECTION", "TRINE_DEVICE", "TRINE_DTYPE", "TRINE_DEBUG", "NO_COLOR"])
def test_every_variable_is_documented(variable):
    assert f"`{variable}`" in PAGE
