"""The whole way for one's own domain or language: documents in, a model adapted to them out, if it is better.

Weak pairs of the documents train stage 1; what it learned filters the pairs (E5, arXiv 2212.03533, section 3) and mines
hard negatives (NV-Retriever, arXiv 2407.15831, section 4); stage 2 trains all three heads on the rest (BGE-M3, arXiv
2402.03216, section 3.3). Documents that were held out say what it was good for.

Every stage lies in ``OUT.training`` beside the model's folder, and the same call goes on from there.
"""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from trine.curation.consistency import Consistency, consistency_filter
from trine.curation.negatives import Mining, mine_negatives
from trine.curation.output import write_examples, write_json
from trine.curation.retrievers import Bm25Retriever, EncoderRetriever, FusedRetriever, RowRetriever
from trine.curation.texts import canonical
from trine.curation.weak_pairs import PairRules
from trine.data.examples import ExampleFile, Source, open_examples
from trine.data.listing import list_files
from trine.errors import UsageError
from trine.evaluation.beir import Dataset, read_beir
from trine.models.encoder import Encoder
from trine.models.files import fresh_folder
from trine.recipes import pace
from trine.recipes.adaptation import Adaptation, Adapted
from trine.recipes.card import Data, earlier_stages, stage, write_record
from trine.recipes.config import PairRecipe, changed
from trine.recipes.domain import Domain, prepare_domain
from trine.recipes.measuring import Measurement, gain, measure
from trine.recipes.prepare import prepared
from trine.recipes.remembered import Remembered
from trine.recipes.run import USE_ENCODER, working_folder
from trine.recipes.stages import Stage, Stages
from trine.recipes.training import Surroundings, objective_of, train_encoder
from trine.recipes.validation import Validation
from trine.training.loop import CHECKPOINTS
from trine.training.trackers import ProgressTracker
from trine.types import Example

REPORT = "adapt.json"
_EPOCHS = {"stage1": 20, "stage2": 12}
"""Passes over the pairs at most, where there is time for more."""
_SHARES = {"stage1": 0.5, "stage2": 1.0}
"""Of the time that is left when a stage begins."""
_NEGATIVES = 4
_SAMPLE = 256
"""Pairs whose scores say how to weigh BM25 against the model."""


def adapt(job: Adaptation, *, tell: Callable[[str], None] = lambda text: None) -> Adapted:
    """Adapt a model to documents, and write it if it is better than its start.

    Args:
        job: what, to what, where to.
        tell: hears what is being done.

    Raises:
        UsageError: too few documents, settings that do not fit, or `out` is taken.
        TrainingError: training cannot go on; the same call resumes it.
    """
    if job.out.exists() and (not job.out.is_dir() or any(job.out.iterdir())):
        raise UsageError(f"{job.out} exists and is not empty; choose another folder or remove it")
    if not job.minutes > 0:
        raise UsageError(f"the time budget is {job.minutes} minutes; it must be above 0")
    work = _Work(job, tell)
    domain = work.domain()
    before = work.before(domain)
    first = work.first(domain, before)
    teacher = work.better_of(first, before)
    filtered = work.filtered(domain, teacher)
    negatives = work.negatives(domain, teacher, filtered)
    second = work.second(domain, before, teacher, negatives)
    after = work.after(domain, second)
    done = {
        "domain": domain,
        "before": before,
        "stage1": first,
        "filter": filtered,
        "negatives": negatives,
        "stage2": second,
        "after": after,
    }
    return _Finish(work, done, teacher).adapted()


@dataclass(frozen=True, slots=True)
class _Teacher:
    """The better of the start and stage 1: it filters, mines, and is where stage 2 begins."""

    folder: Path | None
    """None for the start."""
    key: str


class _Work:
    """The stages, each from those before it."""

    def __init__(self, job: Adaptation, tell: Callable[[str], None]) -> None:
        self.job = job
        self.stages = Stages(working_folder(job.out), tell=tell)
        self.settings = pace.settings_of(job.settings)
        self.start = self.load(None)
        self.model = self.start.fingerprint
        self._teachers: dict[str, Remembered] = {}
        # As an index cuts them (three quarters of what the model reads).
        self.rules = PairRules(max_tokens=min(256, self.start.config.text.max_length * 3 // 4))
        # Settings that do not fit are told before an hour of work, not after it.
        for chosen in self.recipes(examples=job.division.least_pairs):
            objective_of(chosen, prepared(self.start, chosen))

    def load(self, folder: Path | None) -> Encoder:
        """The start, or the model of a stage."""
        return Encoder.load(folder or self.job.model, device=self.job.device, dtype="float32")

    def remembered(self, teacher: _Teacher) -> Remembered:
        """The model of a teacher; what it has encoded for the filter serves for the negatives, too."""
        if teacher.key not in self._teachers:
            self._teachers = {teacher.key: Remembered(self.load(teacher.folder))}
        return self._teachers[teacher.key]

    def recipes(self, *, examples: int) -> tuple[PairRecipe, PairRecipe]:
        """Of both stages, without their lengths."""
        seed = self.job.division.seed
        first, second = self.settings["stage1"], self.settings["stage2"]
        return (
            pace.first_recipe(self.start, examples=examples, settings=first, seed=seed),
            pace.second_recipe(self.start, examples=examples, settings=second, seed=seed),
        )

    def domain(self) -> Stage:
        """Documents to pairs and judged sets."""
        job = self.job
        files = [(file.name, *_state(file.path)) for file in list_files(job.documents).files]
        patterns = () if job.held_out is None else ("*.jsonl*", "qrels*", "qrels/*")
        judged = sorted(path for pattern in patterns for path in (job.held_out or Path()).glob(pattern))
        needs = {
            "files": files,
            "held_out": [(path.name, *_state(path)) for path in judged],
            "rules": asdict(self.rules),
            "division": asdict(job.division),
            "model": self.model,
        }
        return self.stages.take(
            "domain",
            "documents to pairs",
            needs=needs,
            work=lambda folder: prepare_domain(
                job.documents,
                folder,
                rules=self.rules,
                spans=self.start.token_spans,
                division=job.division,
                held_out=job.held_out,
                progress=job.progress,
            ),
        )

    def test(self, domain: Stage) -> Dataset:
        """What decides."""
        return read_beir(self.job.held_out or domain.folder / "held_out")

    def before(self, domain: Stage) -> Stage:
        """Measure the start, on the held-out queries in all its systems, and on the validation set by dense alone."""

        def work(folder: Path) -> dict[str, Any]:
            held_out = measure(self.test(domain), self.start, progress=self.job.progress).to_dict()
            started = time.monotonic()
            dense = "dense" in self.start.modes
            value = Validation(_domain(domain).validation).measure(self.start, ["dense"]) if dense else None
            seconds = time.monotonic() - started
            reached = None if value is None else value.values["dense"]
            return {"held_out": held_out, "validation": reached, "validation_seconds": seconds}

        needs = {"domain": domain.key, "model": self.model}
        return self.stages.take("before", "measuring the start", needs=needs, work=work)

    def first(self, domain: Stage, before: Stage) -> Stage:
        """Train on the noisy pairs."""
        data = _domain(domain)
        sources = [data.pairs, *([data.sentences] if data.sentences else [])]
        recipe = self.recipes(examples=len(data.pairs))[0]
        chosen = self._paced("stage1", recipe, sources, before, {"domain": domain.key})
        return self._trained("stage1", chosen, sources, data.validation, start=_Teacher(None, self.model))

    def better_of(self, first: Stage, before: Stage) -> _Teacher:
        """Stage 1, unless the start does better on the validation set."""
        reached, started = first.facts["validation"], before.facts["validation"]
        if started is not None and started >= reached:
            return _Teacher(None, self.model)
        return _Teacher(first.folder / "model", first.key)

    def filtered(self, domain: Stage, teacher: _Teacher) -> Stage:
        """Keep the pairs that the model believes."""
        data, least = _domain(domain), self.job.division.least_pairs
        # The published rank of 2 among a million passages is for a model that has read a billion pairs.
        settings = Consistency(top=max(2, len(data.passages) // 50), seed=self.job.division.seed)

        def work(folder: Path) -> dict[str, Any]:
            examples = list(data.pairs)
            found = consistency_filter(
                examples,
                self.remembered(teacher),
                settings=settings,
                sources=data.kinds,
                passages=data.passages,
                progress=self.job.progress,
            )
            # Titles and headings are no crawl: where most of them go, it is the model that is weak, not they.
            applied = len(found.examples) >= max(least, len(examples) / 2)
            write_examples(found.examples if applied else examples, folder / "train.jsonl")
            return {**found.summary(), "applied": applied, "kept": len(found.examples) if applied else len(examples)}

        needs = {"domain": domain.key, "model": teacher.key, "settings": asdict(settings), "least": least}
        return self.stages.take("filter", "filtering the pairs", needs=needs, work=work)

    def negatives(self, domain: Stage, teacher: _Teacher, filtered: Stage) -> Stage:
        """Mine hard negatives by the model and BM25 together."""
        settings = Mining(negatives=_NEGATIVES, short="fill", seed=self.job.division.seed)

        def work(folder: Path) -> dict[str, Any]:
            examples = list(open_examples(filtered.folder / "train.jsonl"))
            passages = _domain(domain).passages
            parts: list[RowRetriever] = [
                EncoderRetriever(self.remembered(teacher), passages, mode="dense", progress=self.job.progress),
                Bm25Retriever(passages),
            ]
            retriever = FusedRetriever(parts, fusion="weighted", weights=balanced(parts, examples))
            mined = mine_negatives(examples, retriever, settings=settings, progress=self.job.progress)
            write_examples(mined.examples, folder / "train.jsonl")
            self._teachers.clear()
            return {**mined.summary(), "weights": retriever.weights_used.tolist()}

        needs = {"filter": filtered.key, "model": teacher.key, "settings": asdict(settings)}
        return self.stages.take("negatives", "mining hard negatives", needs=needs, work=work)

    def second(self, domain: Stage, before: Stage, teacher: _Teacher, negatives: Stage) -> Stage:
        """Train all heads."""
        sources = [open_examples(negatives.folder / "train.jsonl", name="weak_pairs")]
        recipe = self.recipes(examples=len(sources[0]))[1]
        chosen = self._paced("stage2", recipe, sources, before, {"negatives": negatives.key})
        return self._trained("stage2", chosen, sources, _domain(domain).validation, start=teacher)

    def after(self, domain: Stage, second: Stage) -> Stage:
        """Choose a system on the validation set, and measure all on the held-out queries."""

        def work(folder: Path) -> dict[str, Any]:
            encoder = self.load(second.folder / "model")
            system = measure(_domain(domain).validation, encoder, bm25=False).best
            held_out = measure(self.test(domain), encoder, progress=self.job.progress)
            return {"system": system, "held_out": held_out.to_dict()}

        needs = {"model": second.key, "domain": domain.key}
        return self.stages.take("after", "measuring the adapted model", needs=needs, work=work)

    def _paced(
        self, name: str, recipe: PairRecipe, sources: Sequence[Source], before: Stage, needs: Mapping[str, Any]
    ) -> PairRecipe:
        """The recipe with its number of steps; chosen once, so that a resumed run has the same."""
        settings, examples = self.settings[name], sum(map(len, sources))
        if not pace.has_length(settings):
            # Still to come besides training: the last measurement, with encoding for filter and negatives half as much
            # again, and those on the way.
            left = 60 * self.job.minutes - self.stages.seconds - 1.5 * before.seconds
            seconds = _SHARES[name] * left - pace.EVALUATIONS * before.facts["validation_seconds"]

            def work(folder: Path) -> dict[str, Any]:
                found = pace.measured_pace(self.load(None), sources, recipe, folder / "probe")
                fitting = pace.fitted(
                    recipe, settings, examples=examples, epochs=_EPOCHS[name], seconds=seconds, pace=found
                )
                return {"fitted": fitting, "pace": asdict(found)}

            needed = {**needs, "model": self.model, "recipe": _fields(recipe), "minutes": self.job.minutes}
            plan = self.stages.take(f"{name}.plan", f"{name}: how fast it trains here", needs=needed, work=work)
            recipe = changed(recipe, plan.facts["fitted"])
        return pace.with_intervals(recipe, settings, examples=examples)

    def _trained(
        self, name: str, recipe: PairRecipe, sources: Sequence[ExampleFile], validation: Dataset, *, start: _Teacher
    ) -> Stage:
        measured = Validation(validation)

        def work(folder: Path) -> dict[str, Any]:
            encoder = self.load(start.folder)
            trackers = [ProgressTracker(recipe.steps or 0, what=name)] if self.job.progress else []
            around = Surroundings(
                folder=folder,
                evaluate=lambda model: measured.measure(model, recipe.modes).values,
                trackers=trackers,
                identity={"start": start.key, "data": {source.name: source.fingerprint for source in sources}},
            )
            trained, summary = train_encoder(encoder, sources, recipe=recipe, surroundings=around)
            shutil.rmtree(folder / "model", ignore_errors=True)
            trained.save(folder / "model")
            return {
                "steps": summary.steps,
                "best_step": summary.best_step,
                "validation": summary.best_value,
                "stopped_early": summary.stopped_early,
                "tokens": summary.tokens,
                "training_seconds": summary.seconds,
                "examples": {source.name: len(source) for source in sources},
                "recipe": _fields(recipe),
                "start": "start" if start.folder is None else "stage1",
            }

        needs = {
            "start": start.key,
            "recipe": _fields(recipe),
            "data": [source.fingerprint for source in sources],
        }
        what = f"{name}: training {recipe.steps or f'{recipe.epochs} epochs of'} steps"
        done = self.stages.take(name, what, needs=needs, work=work)
        # Only after the stage is done: until then they are what a killed run goes on from.
        shutil.rmtree(done.folder / CHECKPOINTS, ignore_errors=True)
        return done


class _Finish:
    """The verdict, and the model with its record where it is better."""

    def __init__(self, work: _Work, done: Mapping[str, Stage], teacher: _Teacher) -> None:
        self.work, self.job, self.done, self.teacher = work, work.job, done, teacher

    def adapted(self) -> Adapted:
        """Compare, and write."""
        before = Measurement.from_dict(self.done["before"].facts["held_out"])
        after = Measurement.from_dict(self.done["after"].facts["held_out"])
        system = self.done["after"].facts["system"]
        result = Adapted(
            folder=None,
            target=self.job.out,
            working=self.work.stages.root,
            before=before,
            after=after,
            system=system,
            gain=gain(before, after, system),
            stages={
                name: {key: value for key, value in one.facts.items() if key != "held_out" or name == "domain"}
                for name, one in self.done.items()
            },
            seconds=self.work.stages.seconds,
        )
        if result.better or self.job.keep_worse:
            result = replace(result, folder=self.job.out)
            self._write(result)
        write_json(self.work.stages.root / REPORT, result.to_dict())
        return result

    def _write(self, result: Adapted) -> None:
        """Put the model in its place, whole; models of stages go, so that only data stay in the working folder."""
        with fresh_folder(self.job.out) as folder:
            shutil.copytree(self.done["stage2"].folder / "model", folder, dirs_exist_ok=True)
            write_json(folder / REPORT, result.to_dict())
            self._record(folder, result)
        for name in ("stage1", "stage2"):
            shutil.rmtree(self.work.stages.root / name)

    def _record(self, folder: Path, result: Adapted) -> None:
        earlier = list(earlier_stages(self.job.model))
        if self.teacher.folder is not None:
            earlier.append(asdict(self._stage("stage1", self.work.start.name, self.work.model, {})))
        metrics = {
            "before": dict(result.before.values),
            "after": dict(result.after.values),
        }
        start = self.work.start.name if self.teacher.folder is None else "stage 1"
        last = self._stage("stage2", start, self.teacher.key, metrics)
        title = self.job.out.name + ("" if result.better else " (not better than its start)")
        write_record(folder, last=last, earlier=earlier, title=title, use=USE_ENCODER.format(folder=self.job.out.name))

    def _stage(self, name: str, start: str, fingerprint: str, metrics: Mapping[str, Mapping[str, float]]) -> Any:
        facts = self.done[name].facts
        return stage(
            msgspec.convert(facts["recipe"], PairRecipe),
            start=start,
            start_fingerprint=fingerprint,
            data=[
                Data(source, ", ".join(map(str, self.job.documents)), "documents", count, self.done["domain"].key)
                for source, count in facts["examples"].items()
            ],
            steps=facts["steps"],
            seconds=self.done[name].seconds,
            metrics=metrics,
        )


def balanced(parts: Sequence[RowRetriever], examples: Sequence[Example]) -> dict[str, float]:
    """Weights under which the positives of a sample score 1 on average with each retriever.

    So none drowns the other, and a score of 0 still means that nothing is in common: BM25's scores have no upper end,
    and a cosine has one.
    """
    numbers = {canonical(text): number for number, text in enumerate(parts[0].passages)}
    sample = [example for example in examples[:_SAMPLE] if canonical(example.positives[0]) in numbers]
    rows = [numbers[canonical(example.positives[0])] for example in sample]
    weights = {}
    for part in parts:
        scores = [row[number] for row, number in zip(part.rows([one.query for one in sample]), rows, strict=True)]
        mean = float(np.nan_to_num(np.array(scores, np.float64)).mean()) if scores else 0.0
        weights[part.name] = 1 / mean if mean > 0 else 1.0
    return weights


def _fields(recipe: PairRecipe) -> dict[str, Any]:
    fields: dict[str, Any] = msgspec.json.decode(msgspec.json.encode(recipe))
    return fields


def _domain(done: Stage) -> Domain:
    return Domain(done.folder, done.facts)


def _state(path: Path) -> tuple[int, int]:
    # Of a link itself, where it leads nowhere: that is a document that cannot be read, and told as such.
    found = os.stat(path) if path.exists() else os.lstat(path)
    return found.st_size, found.st_mtime_ns
