"""Nested facts as an indented list."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from trine.cli.output import console
from trine.cli.show_hits import printable


def print_facts(facts: Mapping[str, Any]) -> None:
    """Print names and values to standard output; what is nested is indented."""
    from rich.text import Text

    target = console()
    for name, value, depth in _flat(facts, 0):
        label = f"{'  ' * depth}{name.replace('_', ' ')}"
        target.print(Text.assemble((f"{label:<22}", "dim"), printable(value)), soft_wrap=True)


def _flat(facts: Mapping[str, Any], depth: int) -> list[tuple[str, str, int]]:
    rows = []
    for name, value in facts.items():
        if isinstance(value, Mapping) and value:
            rows += [(name, "", depth), *_flat(value, depth + 1)]
        else:
            rows.append((name, _shown(value), depth))
    return rows


def _shown(value: Any) -> str:
    if value is None:
        return "missing"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, list | tuple | Mapping):
        return ", ".join(map(str, value)) or "none"
    return str(value)
