"""Values of options that hold names or numbers, checked with a suggestion for typos."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from trine.errors import UsageError
from trine.tables import unknown

if TYPE_CHECKING:
    from trine.types import Kind, Mode


def chosen_retrievers(names: Sequence[str] | None, *, known: Iterable[str]) -> list[str] | None:
    """Names of retrievers, written with "-" or "_"; None for all."""
    return [one_of(name, known, kind="mode") for name in names] if names else None


def chosen_modes(names: Sequence[str] | None) -> list[Mode] | None:
    """Names of representations, written with "-" or "_"; None for all."""
    from trine.types import MODES

    if not names:
        return None
    wanted = {one_of(name, MODES, kind="mode") for name in names}
    return [mode for mode in MODES if mode in wanted]


def chosen_kind(name: str) -> Kind:
    """The side of a search that texts stand on."""
    return "query" if one_of(name, ("query", "passage"), kind="kind of text") == "query" else "passage"


def one_of(name: str, known: Iterable[str], *, kind: str) -> str:
    """`name` if it is known, also with hyphens for underscores."""
    names = list(known)
    found = name.strip().replace("-", "_") if name not in names else name
    if found not in names:
        raise unknown(name, names, kind=kind)
    return found


def parsed_weights(text: str | None) -> str | dict[str, float] | None:
    """The name of a weight set, or one number per name: ``dense=1,sparse=0.3``.

    Raises:
        UsageError: a part that is no "name=number".
    """
    if text is None or "=" not in text:
        return text
    weights: dict[str, float] = {}
    for part in text.split(","):
        name, _, number = part.partition("=")
        key = name.strip().replace("-", "_")
        try:
            value = float(number)
        except ValueError:
            raise UsageError(f"--weights: {part.strip()!r} is no weight; write dense=1,sparse=0.3") from None
        if key in weights:
            raise UsageError(f"--weights: {key!r} is given twice in {text!r}")
        weights[key] = value
    return weights


def key_values(given: Sequence[str] | None, option: str, *, form: str = "KEY=VALUE") -> dict[str, str]:
    """What an option that is given several times sets; of a key given twice, the last.

    Raises:
        UsageError: a part that is no "key=value".
    """
    found = {}
    for part in given or ():
        key, equals, value = part.partition("=")
        if not equals or not key.strip():
            raise UsageError(f"{option} {part!r} cannot be read; write it as {form}")
        found[key.strip()] = value
    return found
