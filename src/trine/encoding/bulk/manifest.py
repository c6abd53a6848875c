"""What a folder of shards was made from, and what is in it.

``job.json`` is written before the first shard and says what the job depends on; ``manifest.json``, written last, says
the same and lists the shards. Times stand in ``log.jsonl`` and nowhere else, so that the rest is the same however often
the job was stopped.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from trine.encoding.bulk.plan import Limits, Settings, Survey
from trine.encoding.bulk.storage import write_whole
from trine.encoding.bulk.workers import Done, ModelFacts, Work
from trine.errors import DataError, UsageError
from trine.types import Mode

JOB, MANIFEST, LOG = "job.json", "manifest.json", "log.jsonl"
LAYOUT = "trine-shards-1"

_TOLD = {("trine",), ("model", "name"), ("input", "reasons"), ("input", "texts"), ("input", "shards")}
"""What a job says of itself that does not decide its output, or follows from the rest."""


def described(facts: ModelFacts, settings: Settings, limits: Limits, modes: Sequence[Mode], found: Survey) -> Any:
    """A job as JSON has it."""
    return {
        "layout": LAYOUT,
        "trine": version("trine"),
        "model": {
            "name": facts.name,
            "fingerprint": facts.fingerprint,
            "dtype": facts.dtype,
            "dimensions": {mode: facts.dimensions[mode] for mode in modes},
        },
        "settings": {
            "kind": settings.kind,
            "modes": list(modes),
            "instruction": settings.instruction,
            "precision": settings.precision,
            "shard_format": settings.shard_format,
            "shard_texts": limits.texts,
            "shard_characters": limits.characters,
        },
        "input": {
            "texts": found.texts,
            "shards": len(found.digests),
            "skipped": found.skipped,
            "reasons": list(found.reasons),
            "files": {file.name: {"texts": file.texts, "sha256": file.sha256} for file in found.files},
        },
    }


def require_usable(folder: Path) -> None:
    """Refuse a place where no job can write.

    Raises:
        UsageError: a file, or a folder with other things in it.
    """
    if folder.exists() and not folder.is_dir():
        raise UsageError(f"{folder} is a file; a bulk job writes a folder")
    if folder.is_dir() and not (folder / JOB).exists():
        others = sorted(path.name for path in folder.iterdir() if not path.name.startswith(".") and path.name != LOG)
        if others:
            raise UsageError(
                f"{folder} holds {others[0]}{' and more' if len(others) > 1 else ''}, and no bulk job; "
                "choose another folder"
            )


def begin(folder: Path, job: Mapping[str, Any]) -> Mapping[str, Any]:
    """Write what the job is, or take what a run before wrote.

    Raises:
        UsageError: the folder was begun with another input, model or setting; the message says which.
        DataError: what lies there cannot be read.
    """
    path = folder / JOB
    if not path.exists():
        write_json(path, job)
        return job
    held: Mapping[str, Any] = read_json(path)
    differences = list(_differences(held, job))
    if differences:
        shown = "; ".join(differences[:3]) + (f"; and {len(differences) - 3} more" if len(differences) > 3 else "")
        raise UsageError(f"{folder} was begun as another job: {shown}. Choose another --out, or remove that folder")
    return held


def finish(folder: Path, job: Mapping[str, Any], shards: Sequence[Done], work: Work) -> None:
    """Write the manifest: the job is whole."""
    names = ("texts", "bytes", "sha256", "first", "last")
    rows = [
        {"file": work.path(done.number).name} | {name: getattr(done, name) for name in names}
        for done in sorted(shards, key=lambda done: done.number)
    ]
    write_json(folder / MANIFEST, {**job, "shards": rows})


def complete(folder: Path, job: Mapping[str, Any]) -> bool:
    """Whether the manifest is there and every file has its size; a manifest that says otherwise is removed."""
    path = folder / MANIFEST
    if not path.exists():
        return False
    manifest = read_json(path)
    sizes = {row["file"]: row["bytes"] for row in manifest.get("shards", ())}
    files = {name: folder / name for name in sizes}
    if len(sizes) == job["input"]["shards"] and all(
        files[name].is_file() and files[name].stat().st_size == size for name, size in sizes.items()
    ):
        return True
    path.unlink()
    return False


def read_json(path: Path) -> Any:
    """The content of a JSON file.

    Raises:
        DataError: it cannot be read.
    """
    try:
        value = json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        raise DataError(f"{path} cannot be read: {error}; remove the folder to begin anew") from error
    if not isinstance(value, dict) or value.get("layout") != LAYOUT:
        found = value.get("layout") if isinstance(value, dict) else type(value).__name__
        raise DataError(f"{path} says layout {found!r}, this version of trine reads {LAYOUT!r}")
    return value


def write_json(path: Path, value: Any) -> None:
    """Write readable JSON, whole or not at all."""
    write_whole(path, (json.dumps(value, ensure_ascii=False, indent=1) + "\n").encode())


def _differences(held: Any, asked: Any, at: tuple[str, ...] = ()) -> Iterator[str]:
    """What differs, in words."""
    if at in _TOLD or held == asked:
        return
    if isinstance(held, Mapping) and isinstance(asked, Mapping):
        for name in dict.fromkeys([*held, *asked]):
            yield from _differences(held.get(name), asked.get(name), (*at, name))
    elif at[-1] == "sha256":
        yield f"{at[-2]} holds other ids or texts"
    else:
        yield f"{' '.join(at)} was {_shown(held)}, now {_shown(asked)}"


def _shown(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {one}" for name, one in value.items() if name != "sha256")
    return "none" if value is None else str(value)
