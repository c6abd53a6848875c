"""The training loop: batches in, checkpoints out.

It knows no model, no loss and no data format: a step adds gradients to a module's parameters, and the loop does the
rest. A run that was stopped, by whatever, goes on from its last checkpoint when it is started again: on the CPU its
weights come out bit for bit as if it had never stopped.
"""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from trine.errors import TrainingError, UsageError
from trine.objectives.base import Losses
from trine.tables import unknown
from trine.training import checkpoints
from trine.training.guards import Skips, not_finite
from trine.training.optimizer import Optimizer, trainable
from trine.training.ranks import OneProcess
from trine.training.settings import LoopSettings
from trine.training.state import Batches, RunState
from trine.training.trackers import Tracker

CHECKPOINTS = "checkpoints"
"""The folder under the run's own that holds them."""


@dataclass(frozen=True, slots=True)
class Summary:
    """How a run ended."""

    steps: int
    """Done, those of earlier processes included."""
    skipped: int
    """Steps left out because a loss or gradient was not finite."""
    last: Path
    """Checkpoint of the last step."""
    best: Path
    """Checkpoint with the best metric; the last, where nothing was evaluated."""
    best_step: int
    best_value: float | None
    """Its metric."""
    stopped_early: bool
    """Whether evaluations stopped getting better before all steps were done."""
    tokens: int
    """Seen by all ranks."""
    seconds: float


def train(
    module: nn.Module,
    *,
    batches: Batches,
    step: Callable[[Any], Losses],
    settings: LoopSettings,
    folder: str | Path,
    evaluate: Callable[[], Mapping[str, float]] | None = None,
    trackers: Sequence[Tracker] = (),
    ranks: OneProcess | None = None,
    identity: Mapping[str, Any] | None = None,
) -> Summary:
    """Train a module, or go on where `folder` says that this run has stopped.

    Args:
        module: everything that learns, a learnt temperature too.
        batches: of this rank; each `step` takes one.
        step: adds the gradients of a batch to the module's parameters, autocast included, and returns the losses.
        settings: decide the run; a resumed run must have the same, but for how often it logs and saves.
        folder: of the run; checkpoints go below it.
        evaluate: called on every rank alike, the first rank's numbers count.
        trackers: told by the first rank what happens; closed at the end.
        ranks: of `trine.training.distributed.connect`, where there are several.
        identity: what else the run depends on (recipe, fingerprints of the data), as JSON; checked like `settings`.

    Returns:
        Where the best and the last checkpoint are. The module holds the last weights; `checkpoints.load_weights` puts
        the best into it.

    Raises:
        UsageError: settings do not fit each other, or the run in `folder` was started with others.
        TrainingError: losses stay not finite, a rank died, the disk is full, or the batches ran out; the last
            checkpoint is whole, and the same call goes on from it.
    """
    if (evaluate is None) != (settings.evaluate_every is None):
        raise UsageError(f"evaluate_every={settings.evaluate_every} and an evaluate function need each other")
    ranks = ranks or OneProcess()
    was_training = [part for part in module.modules() if part.training]
    listening = trackers if ranks.rank == 0 else ()
    try:
        run = _Run(module, batches=batches, settings=settings, folder=Path(folder), ranks=ranks, trackers=listening)
        with run.naming_the_step():
            run.begin(identity or {})
            while not run.finished():
                run.advance(step)
                run.log()
                improved = run.evaluate(evaluate)
                run.save(improved)
        return run.summary()
    finally:
        module.eval()
        for part in was_training:
            part.training = True
        for tracker in listening:
            tracker.close()


class _Run:
    """A run; `train` says in which order things happen."""

    def __init__(
        self,
        module: nn.Module,
        *,
        batches: Batches,
        settings: LoopSettings,
        folder: Path,
        ranks: OneProcess,
        trackers: Sequence[Tracker],
    ) -> None:
        ranks.settle()
        self.module, self.batches, self.settings = module, batches, settings
        self.ranks, self.trackers = ranks, trackers
        named = trainable(module)
        self.parameters = list(named.values())
        self.optimizer = Optimizer(named, settings)
        root = folder / CHECKPOINTS
        self.state = RunState(module, batches=batches, optimizer=self.optimizer, root=root, ranks=ranks)
        self.clock = time.monotonic()
        """When the tokens since the last log began, but for the time that was not training."""
        self.tokens = 0

    def begin(self, identity: Mapping[str, Any]) -> None:
        """Take up the run."""
        self.state.begin(self.settings, identity)
        self.module.train()
        self.clock = time.monotonic()

    def finished(self) -> bool:
        """Whether all steps are done, or no evaluation was better for too long."""
        progress, patience = self.state.progress, self.settings.patience
        return progress.step >= self.settings.steps or (patience is not None and progress.waited >= patience)

    # -- one step --------------------------------------------------------------------------------------------------

    def advance(self, step: Callable[[Any], Losses]) -> None:
        """One step of the optimizer, or none where a number is not finite."""
        progress, settings, ranks = self.state.progress, self.settings, self.ranks
        losses, tokens = self._gradients(step)
        ranks.share_gradients(self.parameters)
        norm = ranks.gradient_norm(self.parameters) / settings.accumulate
        values = {**losses, "gradient_norm": norm}
        # Of all ranks, so that all leave a step out or none does.
        skipped = bool(not_finite({"loss": ranks.mean(losses["loss"]), "gradient_norm": norm}))
        if not skipped:
            self._scale(norm)
            self.optimizer.take(progress.step)
            progress.window_steps += 1
            for name, value in values.items():
                progress.window[name] = progress.window.get(name, 0.0) + value
        self.optimizer.clear()
        progress.step += 1
        progress.tokens += tokens
        self.tokens += tokens
        self._count(skipped, values)

    def _gradients(self, step: Callable[[Any], Losses]) -> tuple[dict[str, float], int]:
        """Add up the gradients of the step's batches; their mean losses, and their tokens."""
        sums: dict[str, float] = {}
        tokens = 0
        for _ in range(self.settings.accumulate):
            try:
                batch = next(self.batches)
            except StopIteration:
                raise TrainingError(
                    f"the batches ran out before the {self.settings.steps} steps of the settings; give more batches "
                    "(further epochs) or set fewer steps"
                ) from None
            losses = self._stepped(step, batch)
            tokens += int(getattr(batch, "tokens", 0))
            named = {"loss": losses.total, **{f"loss/{name}": part for name, part in losses.parts.items()}}
            numbers = torch.stack([value.detach().float() for value in named.values()]).tolist()
            for name, number in zip(named, numbers, strict=True):
                sums[name] = sums.get(name, 0.0) + number / self.settings.accumulate
        return sums, tokens

    def _stepped(self, step: Callable[[Any], Losses], batch: Any) -> Losses:
        try:
            return step(batch)
        except RuntimeError as error:
            if self.ranks.size > 1 and self.ranks.lost():
                raise self.ranks.failure("in the middle of a step", error) from error
            raise

    def _scale(self, norm: float) -> None:
        """Divide by the number of batches, and clip."""
        limit = self.settings.max_grad_norm
        factor = 1 / self.settings.accumulate
        if limit is not None and norm > limit:
            factor *= limit / norm
        if factor != 1:
            for parameter in self.parameters:
                if parameter.grad is not None:
                    parameter.grad.mul_(factor)

    def _count(self, skipped: bool, values: Mapping[str, float]) -> None:
        progress = self.state.progress
        skips = Skips(self.settings.max_skipped, total=progress.skipped, row=progress.skipped_row)
        too_many = skips.note(skipped)
        progress.skipped, progress.skipped_row = skips.total, skips.row
        if too_many:
            wrong = enumerate(self.ranks.collect(not_finite(values)))
            told = "; ".join(f"rank {rank}: {', '.join(found)}" for rank, found in wrong if found)
            raise TrainingError(
                f"{skips.row} steps in a row had a loss or gradient that is not finite ({told}); "
                "a lower learning rate, or float32, may help"
            )

    # -- log, evaluate, save ---------------------------------------------------------------------------------------

    def log(self) -> None:
        """Tell the trackers the means since the last time, of all ranks."""
        progress = self.state.progress
        if not self._due(self.settings.log_every):
            return
        found = self.ranks.collect((progress.window, self.tokens))
        now = time.monotonic()
        self._tell(
            {
                **_means([window for window, _ in found], progress.window_steps),
                "learning_rate": self.optimizer.learning_rate(progress.step - 1),
                "tokens_per_second": sum(tokens for _, tokens in found) / max(now - self.clock, 1e-9),
                "skipped": progress.skipped,
            }
        )
        progress.window, progress.window_steps = {}, 0
        self.tokens, self.clock = 0, now

    def evaluate(self, evaluate: Callable[[], Mapping[str, float]] | None) -> bool:
        """Measure where it is time to; whether this is the best so far."""
        settings, progress = self.settings, self.state.progress
        if evaluate is None or settings.evaluate_every is None or not self._due(settings.evaluate_every):
            return False
        with self._off_the_clock():
            numbers = self.ranks.tell({name: float(value) for name, value in evaluate().items()})
            self.ranks.settle()
            self.module.train()
        assert settings.metric is not None
        if settings.metric not in numbers:
            raise unknown(settings.metric, numbers, kind="metric")
        self._tell({f"evaluation/{name}": value for name, value in numbers.items()})
        value = numbers[settings.metric]
        if not math.isnan(value) and (progress.best_value is None or value > progress.best_value):
            progress.best_value, progress.best_step, progress.waited = value, progress.step, 0
            return True
        progress.waited += 1
        return False

    def save(self, improved: bool) -> None:
        """Write a checkpoint where it is time to, or where this is the best or the last."""
        progress = self.state.progress
        needed = improved or self.finished()
        # While steps are left out, the weights may be what is wrong; the checkpoint before them stays the newest.
        if needed or (progress.step % self.settings.save_every == 0 and not progress.skipped_row):
            with self._off_the_clock():
                self.state.save(keep=self.settings.keep)

    def _due(self, interval: int) -> bool:
        step = self.state.progress.step
        return step % interval == 0 or step == self.settings.steps

    def _tell(self, values: Mapping[str, float]) -> None:
        for tracker in self.trackers:
            tracker.log(self.state.progress.step, values)

    @contextlib.contextmanager
    def _off_the_clock(self) -> Iterator[None]:
        """What is no training leaves the speed alone."""
        started = time.monotonic()
        yield
        self.clock += time.monotonic() - started

    # -- the end ---------------------------------------------------------------------------------------------------

    def summary(self) -> Summary:
        """How it ended."""
        progress = self.state.progress
        evaluated = progress.best_value is not None
        best_step = progress.best_step if evaluated else progress.step
        return Summary(
            steps=progress.step,
            skipped=progress.skipped,
            last=self._folder(progress.step),
            best=self._folder(best_step),
            best_step=best_step,
            best_value=progress.best_value,
            stopped_early=progress.step < self.settings.steps,
            tokens=sum(self.ranks.collect(progress.tokens)),
            seconds=progress.seconds,
        )

    def _folder(self, step: int) -> Path:
        return self.state.root / checkpoints.name(step)

    @contextlib.contextmanager
    def naming_the_step(self) -> Iterator[None]:
        """Add to what stops the run where it stopped, and how it goes on."""
        try:
            yield
        except TrainingError as error:
            newest = self.state.newest()
            remedy = (
                "There is no checkpoint yet: the same call starts anew"
                if newest is None
                else f"The last checkpoint is {newest}: the same call goes on from it"
            )
            where = f"training stopped after step {self.state.progress.step} of {self.settings.steps}"
            raise TrainingError(f"{where}: {str(error).rstrip('.')}. {remedy}.") from error


def _means(windows: Sequence[Mapping[str, float]], steps: int) -> dict[str, float]:
    """Means over steps and ranks; a component that came in some steps only counts as zero in the others."""
    names = dict.fromkeys(name for window in windows for name in window)
    return {name: sum(window.get(name, 0.0) for window in windows) / (steps * len(windows)) for name in names}
