"""`trine delete`: documents out of a collection."""

from __future__ import annotations

from typing import Annotated

import typer

from trine.cli.exits import ExitCode, NotFound
from trine.cli.opening import require_collection
from trine.cli.options import Json, Quiet, collection_path
from trine.cli.output import Output


def delete(
    ids: Annotated[
        list[str],
        typer.Argument(metavar="DOCUMENT...", help="Ids of documents, as `trine search` prints them before the colon."),
    ],
    collection: Annotated[
        str | None,
        typer.Option(
            "--from",
            metavar="COLLECTION",
            show_default=False,
            help="Folder of the collection. Without it: TRINE_COLLECTION, else .trine in this folder.",
        ),
    ] = None,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Delete documents from a collection; the files they came from stay.

    Indexing the same folder again brings them back, unless their files are gone.
    """
    output = Output(json=json, quiet=quiet)
    path = collection_path(collection)
    require_collection(path)
    from trine.search.collection import Collection

    with Collection.open(path) as opened:
        missing = [name for name in dict.fromkeys(ids) if opened.document(name) is None]
        if len(missing) == len(set(ids)):
            raise NotFound(f"{path} has no document called {', '.join(map(repr, missing))}; nothing was deleted")
        deleted = opened.delete(ids)
        left = len(opened)
    if output.json:
        output.document({"collection": str(path), "deleted": deleted, "missing": missing, "documents": left})
    else:
        output.data(f"{path}: {deleted} deleted; it holds {left} documents.")
    for name in missing:
        output.warn(f"no document called {name!r}")
    if missing:
        raise typer.Exit(ExitCode.PARTIAL)
