"""A recipe on files: model and data by name in, a model folder with its record and card out.

While it runs, checkpoints and log lie in `OUT.training` beside the model folder; the same call goes on from there.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from trine.data.examples import ExampleFile, OnError, open_examples
from trine.data.sources import Skipped
from trine.errors import UsageError
from trine.evaluation.significance import Difference
from trine.models.encoder import Encoder
from trine.models.reranker import Reranker
from trine.recipes.card import Data, earlier_stages, stage, write_record
from trine.recipes.config import AnyRecipe, PairRecipe, PretrainingRecipe, RerankerRecipe
from trine.recipes.pretraining import pretrain
from trine.recipes.start import start_encoder
from trine.recipes.teachers import teacher_vectors
from trine.recipes.training import LOG, Surroundings, steps_of, train_encoder, train_reranker
from trine.recipes.validation import Measured, Validation, gain
from trine.training.loop import Summary
from trine.training.ranks import OneProcess
from trine.training.trackers import ProgressTracker, TensorBoardTracker, Tracker

USE_ENCODER = """
from trine import Encoder

encoder = Encoder.load("{folder}")
embeddings = encoder.encode(["a text", "another"], kind="passage")
"""
USE_RERANKER = """
from trine import Reranker

reranker = Reranker.load("{folder}")
scores = reranker.score([("a query", "a passage")])
"""


@dataclass(frozen=True, slots=True)
class Job:
    """What to train, on what, and where to."""

    recipe: AnyRecipe
    data: Sequence[str]
    """Files or BEIR folders; ``NAME=PATH`` names a source."""
    out: Path
    model: str | None = None
    """Folder or hub id to start from; None for the default model."""
    validation: Path | None = None
    """A judged set in BEIR's layout that training must not have seen."""
    teacher: str | None = None
    """The model whose embeddings are followed."""
    licences: Mapping[str, str] = field(default_factory=dict)
    """Source -> licence, for the card."""
    format: str | None = None
    """Of the data, in `trine.data.example_formats.FORMATS`; None lets each file's first record decide."""
    columns: Sequence[str] = ()
    """Of format "columns": which, in the order anchor, positive, negatives, scores."""
    on_error: OnError = "raise"
    """"skip" leaves bad lines of the data out and counts them."""
    device: str = "auto"
    tensorboard: bool = False
    progress: bool = False


@dataclass(frozen=True, slots=True)
class Trained:
    """What came of it."""

    folder: Path
    """Of the model."""
    summary: Summary
    before: Measured | None
    after: Measured | None
    gain: Difference | None
    """Of the deciding system, over the validation queries; None where nothing was measured."""
    skipped: Mapping[str, int]
    """Source -> lines that were left out."""

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "folder": str(self.folder),
            "steps": self.summary.steps,
            "skipped_steps": self.summary.skipped,
            "best_step": self.summary.best_step,
            "stopped_early": self.summary.stopped_early,
            "tokens": self.summary.tokens,
            "seconds": self.summary.seconds,
            "before": None if self.before is None else dict(self.before.values),
            "after": None if self.after is None else dict(self.after.values),
            "gain": None if self.gain is None else asdict(self.gain),
            "skipped_lines": dict(self.skipped),
        }


def run(job: Job, *, ranks: OneProcess | None = None) -> Trained:
    """Train, measure before and after, and write the model with its record and card.

    Raises:
        DataError: a file of the data breaks its format; the message names file and line.
        UsageError: recipe, model and data do not fit, or `out` is taken.
        TrainingError: the run cannot go on; the same call resumes it.
    """
    ranks = ranks or OneProcess()
    if job.out.exists() and (not job.out.is_dir() or any(job.out.iterdir())):
        raise UsageError(f"{job.out} exists and is not empty; choose another folder or remove it")
    _check(job)
    sources = [open_source(given, format=job.format, columns=job.columns, on_error=job.on_error) for given in job.data]
    folder = working_folder(job.out)
    folder.mkdir(parents=True, exist_ok=True)
    start = time.monotonic()
    trained = (_rerank if isinstance(job.recipe, RerankerRecipe) else _encode)(job, sources, folder, ranks)
    ranks.tell(None)  # none reads checkpoints any more
    if ranks.rank == 0:
        _keep(job, trained, sources, folder, ranks, time.monotonic() - start)
    return Trained(
        folder=job.out,
        summary=trained.summary,
        before=trained.before,
        after=trained.after,
        gain=gain(trained.before, trained.after) if trained.before and trained.after else None,
        skipped={source.name: source.skipped_count for source in sources if source.skipped_count},
    )


def working_folder(out: Path) -> Path:
    """Where a run to `out` keeps its checkpoints."""
    return out.with_name(f"{out.name}.training")


def open_source(
    given: str, *, format: str | None = None, columns: Sequence[str] = (), on_error: OnError = "raise"
) -> ExampleFile:
    """The examples of ``PATH`` or ``NAME=PATH``."""
    name, equals, path = given.partition("=")
    named = bool(equals) and not Path(given).exists()
    return open_examples(
        path if named else given,
        format=format,
        columns=columns,
        name=name if named else None,
        on_error=on_error,
    )


def skipped_lines(sources: Sequence[ExampleFile]) -> list[Skipped]:
    """The lines that were left out, with the reasons."""
    return [line for source in sources for line in source.skipped]


@dataclass(frozen=True, slots=True)
class _Outcome:
    model: Encoder | Reranker
    summary: Summary
    start: str
    start_fingerprint: str
    before: Measured | None = None
    after: Measured | None = None


def _check(job: Job) -> None:
    recipe = job.recipe
    if not job.data:
        raise UsageError("no data; give at least one file of examples")
    follows = isinstance(recipe, PairRecipe) and recipe.embedding_distillation is not None
    if follows and job.teacher is None:
        raise UsageError(f"recipe {recipe.name} follows a teacher's embeddings; say which model teaches (--teacher)")
    if job.teacher is not None and not follows:
        raise UsageError(f"a teacher has no effect on recipe {recipe.name}, whose embedding_distillation is not set")
    if job.validation is not None and isinstance(recipe, RerankerRecipe):
        raise UsageError("a reranker is not measured while it trains; leave validation out")


def _encode(job: Job, sources: list[ExampleFile], folder: Path, ranks: OneProcess) -> _Outcome:
    recipe = job.recipe
    assert not isinstance(recipe, RerankerRecipe)
    encoder = start_encoder(job.model, recipe=recipe, device=job.device)
    fingerprint, name = encoder.fingerprint, encoder.name
    validation = None if job.validation is None else Validation(job.validation)
    before = None if validation is None else validation.measure(encoder)
    around = _surroundings(job, folder, ranks, sources, validation)
    if isinstance(recipe, PretrainingRecipe):
        encoder, summary = pretrain(encoder, sources, recipe=recipe, surroundings=around)
    else:
        encoder, summary = train_encoder(encoder, sources, recipe=recipe, surroundings=around)
    after = None if validation is None else validation.measure(encoder)
    return _Outcome(encoder, summary, name, fingerprint, before, after)


def _rerank(job: Job, sources: list[ExampleFile], folder: Path, ranks: OneProcess) -> _Outcome:
    recipe = job.recipe
    assert isinstance(recipe, RerankerRecipe)
    reranker = reranker_to_train(job.model, max_length=recipe.max_length, device=job.device, seed=recipe.seed)
    fingerprint, name = reranker.fingerprint, reranker.name
    examples = [example for source in sources for example in source]
    around = _surroundings(job, folder, ranks, sources, None)
    reranker, summary = train_reranker(reranker, examples, recipe=recipe, surroundings=around)
    return _Outcome(reranker, summary, name, fingerprint)


def reranker_to_train(name: str | None, *, max_length: int, device: str = "auto", seed: int = 0) -> Reranker:
    """A cross-encoder to start from: the one in that folder, or a new head on the encoder of that name."""
    from trine.models.devices import choose_device
    from trine.models.files import read_json
    from trine.models.sources import locate

    folder, _ = locate(name)
    built = [str(one) for one in read_json(folder / "config.json", default={}).get("architectures") or []]
    if any(one.endswith("ForSequenceClassification") for one in built):
        return Reranker.load(folder, device=device, dtype="float32")
    encoder = Encoder.load(name, device="cpu", dtype="float32")
    length = min(max_length, encoder.max_length)
    made = Reranker.from_backbone(encoder, max_length=length, seed=seed, name=encoder.name)
    return made.to(choose_device(device))


def _surroundings(
    job: Job, folder: Path, ranks: OneProcess, sources: Sequence[ExampleFile], validation: Validation | None
) -> Surroundings:
    recipe = job.recipe
    trackers: list[Tracker] = []
    if job.progress:
        steps = steps_of(recipe, sum(len(source) for source in sources))
        trackers.append(ProgressTracker(steps, what=recipe.name))
    if job.tensorboard:
        trackers.append(TensorBoardTracker(folder / "tensorboard"))
    modes = recipe.modes if isinstance(recipe, PairRecipe) else None
    evaluate: Callable[[Any], Mapping[str, float]] | None = None
    if validation is not None:
        evaluate = lambda encoder: validation.measure(encoder, modes).values  # noqa: E731
    teacher = None
    if job.teacher is not None:
        assert isinstance(recipe, PairRecipe)
        teaching = Encoder.load(job.teacher, device=job.device)
        teacher = teacher_vectors(
            teaching,
            sources,
            folder=folder / "teacher",
            same_text=recipe.same_text,
            ranks=ranks,
            progress=job.progress,
        )
    return Surroundings(
        folder=folder,
        evaluate=evaluate,
        trackers=trackers,
        ranks=ranks,
        teacher=teacher,
        identity={"data": {source.name: source.fingerprint for source in sources}, "model": job.model or ""},
    )


def _keep(
    job: Job, found: _Outcome, sources: Sequence[ExampleFile], folder: Path, ranks: OneProcess, seconds: float
) -> None:
    """Write the model, then its record, then remove what only a resumed run would need."""
    found.model.save(job.out)
    metrics = {
        name: dict(value.values)
        for name, value in (("before", found.before), ("after", found.after))
        if value is not None
    }
    last = stage(
        job.recipe,
        start=found.start,
        start_fingerprint=found.start_fingerprint,
        data=[
            Data(
                source.name,
                str(source.path),
                source.format,
                len(source),
                source.fingerprint,
                job.licences.get(source.name, ""),
            )
            for source in sources
        ],
        steps=found.summary.steps,
        seconds=seconds,
        metrics=metrics,
        ranks=ranks.size,
    )
    use = USE_RERANKER if isinstance(found.model, Reranker) else USE_ENCODER
    write_record(
        job.out, last=last, earlier=earlier_stages(job.model), title=job.out.name, use=use.format(folder=job.out.name)
    )
    shutil.copyfile(folder / LOG, job.out / LOG)
    shutil.rmtree(folder)
