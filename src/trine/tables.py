"""Name -> implementation lookup, resolved on demand so that a rare part never breaks the import of the rest."""

from __future__ import annotations

import difflib
import importlib
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from trine.errors import MissingExtra, UnknownName


class Row(NamedTuple):
    """Where a table entry lives, and which extra it needs."""

    target: str
    """``"module:attribute"``."""
    extra: str | None = None
    """Name of the optional dependency group, where one is needed."""


def unknown(name: str, known: Iterable[str], *, kind: str) -> UnknownName:
    """The error for a name that is not in `known`: the nearest names first, then all of them."""
    names = sorted(known)
    near = difflib.get_close_matches(str(name), names, n=1, cutoff=0.5)
    hint = f"; did you mean {near[0]!r}?" if near else "."
    return UnknownName(f"no {kind} called {name!r}{hint} Known: {', '.join(names)}.")


def resolve(table: Mapping[str, Row], name: str, *, kind: str) -> Any:
    """Import and return the entry `name` of `table`.

    Raises:
        UnknownName: `name` is not in the table; the message suggests the nearest.
        MissingExtra: the entry's optional package is not installed; the message says the command.
    """
    if name not in table:
        raise unknown(name, table, kind=kind)
    row = table[name]
    module, attribute = row.target.split(":")
    try:
        return getattr(importlib.import_module(module), attribute)
    except ImportError as error:
        if row.extra is None:
            raise
        raise missing_extra(f"{kind} {name!r}", row.extra) from error


def missing_extra(what: str, extra: str) -> MissingExtra:
    """The error for `what` when the optional dependency group `extra` is not installed."""
    return MissingExtra(f"{what} needs an optional package: pip install 'trine[{extra}]'")
