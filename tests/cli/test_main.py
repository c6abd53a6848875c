import json
import subprocess
import sys

import pytest

import trine
from trine.cli.exits import MEANINGS
from trine.cli.main import COMMANDS

HEAVY = {"torch", "numpy", "transformers", "tokenizers", "pydantic_core", "qdrant_edge", "msgspec"}


def test_the_version_is_printed(run):
    assert run("--version").stdout == f"trine {trine.__version__}\n"


def test_help_names_every_command_and_every_exit_code(run):
    shown = " ".join(run("--help").stdout.split())
    assert all(f" {name} " in shown for name in COMMANDS)
    assert all(f"{code.value} {meaning.split()[0]}" in shown for code, meaning in MEANINGS.items())


@pytest.mark.parametrize("arguments", [["--help"], ["search", "--help"], ["--version"]])
def test_help_loads_no_library_that_computes(arguments):
    code = (
        "import sys, json\n"
        "from trine.cli.main import main\n"
        f"sys.argv = ['trine', *{arguments!r}]\n"
        "try:\n    main()\n"
        "except SystemExit as end:\n    assert not end.code\n"
        "print(json.dumps(sorted(name.partition('.')[0] for name in sys.modules)), file=sys.stderr)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert set(json.loads(done.stderr)) & (HEAVY - {"pydantic_core"}) == set()


@pytest.mark.parametrize(
    ("arguments", "hint"),
    [
        (["serch", "x"], "'search'"),
        (["indx", "x"], "'index'"),
        (["search", "x", "--jsn"], "--json"),
        (["search", "x", "--mode", "dens"], "did you mean 'dense'?"),
        (["search", "x", "--fusion", "rff"], "did you mean 'rrf'?"),
        (["encode", "--kind", "qury"], "did you mean 'query'?"),
        (["convert", "default", "out", "--layout", "bge-m4"], "did you mean 'bge_m3'?"),
    ],
)
def test_a_typo_is_wrong_usage_and_suggests_the_nearest(run, arguments, hint, collection):
    result = run(*arguments)
    assert result.exit_code == 2
    assert hint in result.stderr
    assert result.stdout == ""


def test_without_a_command_there_is_help(run):
    assert "Commands" in run().output


def test_usage_shows_the_arguments_as_they_are_given(run):
    assert "trine search [OPTIONS] [COLLECTION] QUERY" in " ".join(run("search", "--help").stdout.split())
