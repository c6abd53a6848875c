"""A bulk job: files of texts -> a folder of shards.

The input is read twice: once to check every line and to know what there is, once to encode it. Memory holds a shard for
each worker and one more.
"""

from __future__ import annotations

import contextlib
import os
import traceback
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trine.encoding.bulk.journal import Journal
from trine.encoding.bulk.manifest import LOG, begin, complete, described, finish, require_usable
from trine.encoding.bulk.plan import Input, Limits, Settings, Shard, Survey, cut, survey
from trine.encoding.bulk.progress import Pace, Progress
from trine.encoding.bulk.reading import list_input
from trine.encoding.bulk.storage import clear_scratch, from_bytes, ids_agree, pyarrow_parts
from trine.encoding.bulk.workers import Crew, Done, JobFailed, Load, ModelFacts, Work, crew_of, done_of, reason_of
from trine.errors import DataError, UsageError
from trine.types import MODES, Mode

STATED = Settings()


@dataclass(frozen=True, slots=True)
class Report:
    """A job that is done."""

    folder: Path
    model: ModelFacts
    modes: tuple[Mode, ...]
    """The representations that were made."""
    texts: int
    shards: int
    encoded: int
    """Shards of this run; the others lay there before."""
    tokens: int
    """About, of this run."""
    seconds: float
    """Of this run, from the first shard on."""
    skipped: int
    """Lines left out."""
    reasons: tuple[str, ...]
    """Of the first hundred of them."""
    ignored: Mapping[str, int]
    """Files of the folder that are of other types: suffix -> number."""


def encode_files(
    source: str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    load: Load,
    settings: Settings = STATED,
    devices: Sequence[str] = ("cpu",),
    progress: Callable[[Progress], None] = lambda state: None,
) -> Report:
    """Embed every text of a file or folder into shards under `out`.

    Stopped at any point, by whatever means, the same call goes on; no finished shard is encoded again. What comes out
    does not depend on how often it was stopped: with the same device, number format and threads per worker the files
    are equal byte for byte. The number of workers decides nothing but how many threads each has.

    Args:
        source: a file, or a folder that is read with all below it (`reading.list_input`).
        out: a folder, made if it is missing, outside of which nothing is written.
        load: gives the model, called with ``device=`` in each worker: ``functools.partial(Encoder.load, name)``.
        settings: what is to be done.
        devices: a worker each; one is this process, more are processes of their own.
        progress: told after every shard.

    Raises:
        UsageError: nothing to read, or `out` holds another job; the message says what differs.
        DataError: a line that gives no text, by file and line, before anything is encoded.
        JobFailed: a shard failed or a worker died; finished shards are kept.
        KeyboardInterrupt: after the workers have ended; finished shards are kept.
    """
    folder = Path(out)
    if folder.resolve() == Path(source).resolve():
        raise UsageError(f"{folder} is the input itself; choose another folder for what comes out")
    if settings.shard_format == "parquet":
        pyarrow_parts()
    listing = list_input(source, leave_out=folder)
    require_usable(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with contextlib.closing(Journal(folder / LOG)) as journal:
            clear_scratch(folder)
            job = _Job(folder, Input(listing.files, settings.form, settings.skip_errors), settings, journal, progress)
            try:
                return job.run(load, devices, listing.ignored)
            finally:
                clear_scratch(folder)
    except OSError as error:
        raise JobFailed(f"{reason_of(error)}; finished shards are kept: mend it and run the same again") from error


class _Job:
    def __init__(
        self,
        folder: Path,
        source: Input,
        settings: Settings,
        journal: Journal,
        progress: Callable[[Progress], None],
    ) -> None:
        self.folder, self.source, self.settings = folder, source, settings
        self.journal, self.progress = journal, progress

    def run(self, load: Load, devices: Sequence[str], ignored: Counter[str]) -> Report:
        with contextlib.closing(crew_of(load, devices)) as crew:
            modes = chosen_modes(self.settings.modes, crew.facts)
            limits = Limits.of(modes, texts=self.settings.shard_texts)
            found = survey(self.source, limits, progress=lambda texts: self.progress(Progress("reading", texts)))
            job = begin(self.folder, described(crew.facts, self.settings, limits, modes, found))
            pace = Pace(found, self.progress)
            if not complete(self.folder, job):
                work = self._work(modes, found)
                finish(self.folder, job, self._encode(crew, limits, found, work, pace), work)
                self.journal.write("finished", seconds=round(pace.seconds, 3), encoded=pace.fresh_shards)
        return Report(
            folder=self.folder,
            model=crew.facts,
            modes=modes,
            texts=found.texts,
            shards=len(found.digests),
            encoded=pace.fresh_shards,
            tokens=pace.fresh_tokens,
            seconds=pace.seconds,
            skipped=found.skipped,
            reasons=found.reasons,
            ignored=ignored,
        )

    def _work(self, modes: tuple[Mode, ...], found: Survey) -> Work:
        return Work(
            folder=self.folder,
            kind=self.settings.kind,
            modes=modes,
            instruction=self.settings.instruction,
            precision=self.settings.precision,
            shard_format=self.settings.shard_format,
            integer_ids=found.integer_ids,
        )

    def _encode(self, crew: Crew, limits: Limits, found: Survey, work: Work, pace: Pace) -> list[Done]:
        """Every shard's facts, those that lay there before among them."""
        every: list[Done] = []
        self.journal.write("started", processes=list(crew.processes), shards=len(found.digests))
        pace.begin()

        def count(done: Done, *, fresh: bool) -> None:
            every.append(done)
            pace.count(done, fresh=fresh)

        try:
            shards = self._missing(cut(self.source.rows(), limits), found, work, count)
            for done in crew.run(shards, work):
                facts = {"tokens": done.tokens, "seconds": round(done.seconds, 3), "worker": done.worker}
                self.journal.write("shard", shard=done.number, texts=done.texts, **facts)
                count(done, fresh=True)
        except BaseException as error:
            with contextlib.suppress(OSError):
                self.journal.write("stopped", reason=reason_of(error), traceback=traceback.format_exc())
            raise
        return every

    def _missing(self, shards: Iterator[Shard], found: Survey, work: Work, count: Any) -> Iterator[Shard]:
        """The shards that are not on the disk yet."""
        number = -1
        for number, shard in enumerate(shards):
            if number >= len(found.digests) or shard.digest != found.digests[number]:
                raise DataError(_changed(shard))
            held = _held(shard, work)
            if held is None:
                yield shard
            else:
                count(held, fresh=False)
        if number + 1 < len(found.digests):
            raise DataError(f"the input has lost texts since this run began; {_PUT_BACK}")


def chosen_modes(asked: Sequence[Mode] | None, facts: ModelFacts) -> tuple[Mode, ...]:
    """The representations to make, in the order of `MODES`.

    Raises:
        UsageError: the model does not give one.
    """
    given = tuple(mode for mode in MODES if mode in facts.dimensions)
    missing = [mode for mode in asked or () if mode not in given]
    if missing:
        raise UsageError(f"{facts.name} gives no {missing[0]} embeddings; it gives {', '.join(given)}")
    return tuple(mode for mode in given if asked is None or mode in asked)


_PUT_BACK = "put it back as it was and run the same command again, or begin anew in another folder"


def _changed(shard: Shard) -> str:
    return f"the input has changed since this run began, between {shard.first} and {shard.last}; {_PUT_BACK}"


def _held(shard: Shard, work: Work) -> Done | None:
    """The facts of a shard that an earlier run wrote; None where there is none that can be used."""
    path = work.path(shard.number)
    if not path.exists():
        return None
    raw = path.read_bytes()
    try:
        texts = from_bytes(raw, shard_format=work.shard_format, name=str(path))
    except DataError:
        return None
    if not ids_agree(texts.ids, shard.ids) or texts.embeddings.modes != work.modes:
        return None
    return done_of(shard, raw)
