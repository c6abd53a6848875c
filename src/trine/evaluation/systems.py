"""Which searches an evaluation compares: every retriever alone, and fusions of them, each under a name."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from trine.errors import UsageError
from trine.scoring import WEIGHTS
from trine.search.fusion import FUSIONS, RETRIEVERS
from trine.tables import unknown
from trine.types import MODES, Mode

_NAME = re.compile(r"([^\s:()]+)(?:\s*\(([^()]*)\)|:(.*))?")


@dataclass(frozen=True, slots=True)
class System:
    """One way to search: a retriever alone, or several with a fusion."""

    retrievers: tuple[str, ...]
    """Names in `trine.search.fusion.RETRIEVERS`, in the order of that list."""
    fusion: str | None = None
    """A name in `trine.search.fusion.FUSIONS`; None for a single retriever."""
    weights: str | None = None
    """A name in `trine.scoring.WEIGHTS`, for the fusion "weighted" alone."""
    name: str = ""
    """How reports call it: "dense", "dense+bm25 (rrf)", "all (m3)"."""

    @property
    def slug(self) -> str:
        """The name without white space and brackets, for file names and tags: "dense+bm25.rrf"."""
        return self.name.replace(" (", ".").rstrip(")")


AS_SEARCHED = System((), name="search (default)")
"""What `Collection.search` does when it is told nothing; it may choose retrievers by query."""


def default_systems(modes: Iterable[Mode]) -> list[System]:
    """Every mode and BM25 alone, then the modes together, then the modes with BM25.

    Of the fusions: the published weights of BGE-M3, reciprocal ranks and z-scores.
    """
    held = _ordered(modes)
    names = [*held, "bm25"]
    if len(held) > 1:
        names += ["all:m3", "all:rrf", "all:zscore"]
    if held:
        names += ["all+bm25:rrf", "all+bm25:zscore"]
    return [parse_system(name, modes=held) for name in names]


def select_systems(names: Sequence[str] | None, *, modes: Iterable[Mode]) -> list[System]:
    """The systems of the given names, or the default ones; none twice.

    Raises:
        UsageError: see `parse_system`; or no name at all.
    """
    held = _ordered(modes)
    if names is None:
        return default_systems(held)
    if isinstance(names, str):
        raise UsageError(f"systems is a list of names: [{names!r}]")
    systems = [parse_system(name, modes=held) for name in names]
    if not systems:
        raise UsageError("no system to evaluate; leave systems out for the usual ones")
    return list({system.name: system for system in systems}.values())


def parse_system(name: str, *, modes: Iterable[Mode]) -> System:
    """The system behind a name such as "bm25", "dense+bm25:rrf" or "all+bm25 (zscore)".

    Retrievers are joined by "+", "all" standing for every mode of the encoder; the fusion follows after a colon or in
    brackets: a name in `trine.search.fusion.FUSIONS`, or a weight set in `trine.scoring.WEIGHTS` for the weighted sum.

    Args:
        name: see above.
        modes: what the encoder gives.

    Raises:
        UnknownName: no such retriever or fusion; the message suggests the nearest.
        UsageError: the encoder lacks a mode, several retrievers come without a fusion, one comes with it, or BM25's
            unbounded scores would be summed with the weights of the modes.
    """
    held = _ordered(modes)
    match = _NAME.fullmatch(name.strip())
    if match is None:
        raise UsageError(f"system {name!r} cannot be read; write it as dense, dense+bm25:rrf or all:m3")
    retrievers = _retrievers(match[1], held, name)
    label = match[2] if match[3] is None else match[3]
    if len(retrievers) == 1:
        if label is not None:
            raise UsageError(f"system {name!r}: one retriever has nothing to fuse; write it as {retrievers[0]}")
        return System(retrievers, name=retrievers[0])
    fusion, weights = _fusion(label, retrievers, name)
    lexical = [retriever for retriever in retrievers if retriever == "bm25"]
    shown = ["all", *lexical] if len(held) > 1 and set(held) <= set(retrievers) else retrievers
    return System(retrievers, fusion, weights, f"{'+'.join(shown)} ({weights or fusion})")


def _retrievers(text: str, held: Sequence[Mode], name: str) -> tuple[str, ...]:
    chosen: list[str] = []
    for part in text.split("+"):
        if part != "all" and part not in RETRIEVERS:
            raise unknown(part, [*RETRIEVERS, "all"], kind="retriever")
        chosen += held if part == "all" else [part]
    lacking = [part for part in chosen if part != "bm25" and part not in held]
    if lacking or not chosen:
        given = ", ".join(held) or "no vectors at all"
        raise UsageError(f"system {name!r} needs {', '.join(lacking) or 'an encoder'}; the encoder gives {given}")
    if len(set(chosen)) < len(chosen):
        raise UsageError(f"system {name!r} names a retriever twice")
    return tuple(retriever for retriever in RETRIEVERS if retriever in chosen)


def _fusion(label: str | None, retrievers: Sequence[str], name: str) -> tuple[str, str | None]:
    known = [*(fusion for fusion in FUSIONS if fusion != "weighted"), *WEIGHTS]
    if not label:
        raise UsageError(
            f"system {name!r}: say how to fuse, as in {'+'.join(retrievers)}:rrf. Known: {', '.join(known)}."
        )
    if label == "weighted":
        label = "m3"
    if label not in known:
        raise unknown(label, known, kind="fusion")
    if label not in WEIGHTS:
        return label, None
    if "bm25" in retrievers:
        raise UsageError(
            f"system {name!r}: the weights {label!r} are for the three modes, whose scores have a common "
            "scale; with bm25 use rrf, minmax or zscore"
        )
    return "weighted", label


def _ordered(modes: Iterable[Mode]) -> list[Mode]:
    given = set(modes)
    return [mode for mode in MODES if mode in given]
