"""`trine`: the program, put together from one file per command."""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Callable
from typing import Annotated, Any

import typer
from typer.core import TyperCommand

import trine
from trine.cli.adapt import adapt
from trine.cli.convert import convert
from trine.cli.delete import delete
from trine.cli.encode import encode
from trine.cli.evaluate import evaluate
from trine.cli.exits import MEANINGS, guarded
from trine.cli.explain import explain
from trine.cli.index import index
from trine.cli.info import info
from trine.cli.output import error_console, prepare_streams
from trine.cli.score import score
from trine.cli.search import search
from trine.cli.size import size
from trine.cli.synthesize import synthesize
from trine.cli.train import train

COMMANDS: dict[str, Callable[..., None]] = {
    "index": index,
    "search": search,
    "explain": explain,
    "delete": delete,
    "encode": encode,
    "score": score,
    "convert": convert,
    "evaluate": evaluate,
    "size": size,
    "train": train,
    "adapt": adapt,
    "synthesize": synthesize,
    "info": info,
}
"""In the order of the help."""

EPILOG = "Exit codes: " + "; ".join(f"{code.value} {meaning}" for code, meaning in MEANINGS.items()) + "."

app = typer.Typer(
    name="trine",
    help="Dense, learned sparse and multi-vector embeddings from one model: encode, index, search, evaluate.\n\n"
    "trine index docs/\n\n"
    "trine search 'how do I roll back a release?'",
    epilog=EPILOG,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"trine {trine.__version__}")
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """Accept the options that stand before a command."""


class SpelledOut(TyperCommand):
    """A command whose usage line shows its arguments as they are written in its signature."""

    def collect_usage_pieces(self, ctx: Any) -> list[str]:
        """The words after the command's name."""
        arguments = [part for part in self.get_params(ctx) if part.param_type_name == "argument"]
        return [self.options_metavar or "", *(part.metavar or "" for part in arguments)]


def _help(command: Callable[..., None]) -> str:
    """The docstring with one line a paragraph, for the terminal to break."""
    paragraphs = (inspect.getdoc(command) or "").split("\n\n")
    return "\n\n".join(" ".join(paragraph.split()) for paragraph in paragraphs)


for _name, _command in COMMANDS.items():
    app.command(_name, cls=SpelledOut, help=_help(_command))(guarded(_command))


def main() -> None:
    """Run the program; the entry point of the package."""
    prepare_streams()
    warnings.showwarning = _show_warning
    app()


def _show_warning(message: Warning | str, *_: object, **__: object) -> None:
    """A warning in one line, without the source line that raised it."""
    error_console().print(f"warning: {' '.join(str(message).split())}", style="yellow", soft_wrap=True)
