"""Long work in stages on disk: a stage that is done is not repeated, one that was stopped is taken up again.

Every stage has a folder. ``begun.json`` in it says what the stage depends on; ``done.json``, written last, that it is
whole, and what came of it.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trine.curation.output import plain, write_json
from trine.models.files import read_json

BEGUN = "begun.json"
DONE = "done.json"


@dataclass(frozen=True, slots=True)
class Stage:
    """A stage that is done."""

    folder: Path
    facts: Mapping[str, Any]
    """What its work returned."""
    key: str
    """Changes with whatever the stage depends on: what comes after it depends on this."""
    seconds: float
    """On the clock, of the process that finished it."""


class Stages:
    """The stages of one piece of work."""

    def __init__(self, root: Path, *, tell: Callable[[str], None]) -> None:
        self.root = root
        self._tell = tell
        self.seconds = 0.0
        """Of all stages taken so far, those of earlier processes included."""

    def take(
        self, name: str, what: str, *, needs: Mapping[str, Any], work: Callable[[Path], Mapping[str, Any]]
    ) -> Stage:
        """Do a stage's work in its folder, or take what an earlier call left there.

        Args:
            name: of the folder.
            what: the stage in words, for those who wait.
            needs: everything that the outcome depends on, as JSON has it; where it differs from what the folder was
                begun with, the folder is emptied first.
            work: folder -> facts, as JSON has them. Called again after it was stopped, it finds what it had written.
        """
        folder, held = self.root / name, plain(needs)
        key = hashlib.sha256(json.dumps(held, sort_keys=True).encode()).hexdigest()[:32]
        if folder.exists() and read_json(folder / BEGUN, default={"key": ""})["key"] != key:
            self._tell(f"{what}: begins anew, since something that it depends on has changed")
            # Before the rest, so that a kill leaves no folder that looks whole.
            (folder / DONE).unlink(missing_ok=True)
            shutil.rmtree(folder)
        if not (folder / DONE).is_file():
            self._tell(what)
            self._work(folder, work, {"key": key, "needs": held})
        done = read_json(folder / DONE)
        self.seconds += done["seconds"]
        return Stage(folder, done["facts"], key, done["seconds"])

    def _work(self, folder: Path, work: Callable[[Path], Mapping[str, Any]], begun: Mapping[str, Any]) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        write_json(folder / BEGUN, begun)
        start = time.monotonic()
        facts = work(folder)
        write_json(folder / DONE, {"facts": facts, "seconds": round(time.monotonic() - start, 3)})
