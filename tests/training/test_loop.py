"""The loop on small networks; killed processes are real, and what they leave is compared bit for bit."""

import json
import math
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from training import toys
from trine.errors import TrainingError, UnknownName, UsageError
from trine.objectives.base import Losses
from trine.training import checkpoints
from trine.training.loop import train
from trine.training.settings import LoopSettings
from trine.training.trackers import JsonlTracker


def settings(**changes):
    return LoopSettings(**{"steps": 12, "learning_rate": 0.05, "warmup": 2, "save_every": 5, "log_every": 4, **changes})


def run(folder, *, module=None, batches=None, step=None, **others):
    """Train the network of numbers; keywords that are no argument of `train` are settings."""
    known = ("evaluate", "trackers", "identity")
    given = {name: others.pop(name) for name in known if name in others}
    module = module or toys.network()
    summary = train(
        module,
        batches=batches or toys.Drawn(),
        step=step or toys.squares(module),
        settings=settings(**others),
        folder=folder,
        **given,
    )
    return summary, module


def weights(module):
    return {name: tensor.detach().clone() for name, tensor in module.state_dict().items()}


def assert_equal(found, wanted):
    assert found.keys() == wanted.keys()
    for name, tensor in wanted.items():
        assert torch.equal(found[name], tensor), name


def steps_kept(folder):
    return list(checkpoints.every(Path(folder) / "checkpoints"))


class Memory:
    """A tracker that keeps what it is told."""

    def __init__(self):
        self.lines, self.closed = [], 0

    def log(self, step, values):
        self.lines.append((step, dict(values)))

    def close(self):
        self.closed += 1


# -- learning --------------------------------------------------------------------------------------------------------


def test_the_loss_falls(tmp_path):
    log = Memory()
    summary, _ = run(
        tmp_path, steps=300, log_every=50, save_every=300, trackers=[log], module=toys.network(dropout=0.0)
    )
    losses = [values["loss"] for _, values in log.lines]
    assert losses[-1] < losses[0] / 20
    assert (summary.steps, summary.skipped, summary.stopped_early) == (300, 0, False)
    assert summary.tokens == 300 * 16


def test_one_step_by_hand(tmp_path):
    """y = w x with w = 1, x = 2, y = 0: loss 4, gradient 2 * 2 * 2 = 8; clipped to 1; Adam's first step is the rate."""
    module = nn.Linear(1, 1, bias=False)
    nn.init.ones_(module.weight)
    log = Memory()

    def step(batch):
        loss = (module(torch.tensor([[2.0]])) ** 2).mean()
        loss.backward()
        return Losses(loss, {"squares": loss.detach(), "half": loss.detach() / 2})

    run(tmp_path, module=module, step=step, steps=1, warmup=0, weight_decay=0.0, trackers=[log], log_every=1)
    ((number, values),) = log.lines
    assert (number, log.closed) == (1, 1)
    assert values["loss"] == values["loss/squares"] == 4.0
    assert values["loss/half"] == 2.0
    assert values["gradient_norm"] == 8.0
    assert values["learning_rate"] == 0.05
    assert values["tokens_per_second"] > 0
    assert values["skipped"] == 0
    assert module.weight.item() == pytest.approx(0.95, abs=1e-6)


def sgd_like(module):
    """Settings under which Adam's step is the gradient's share: an epsilon that drowns its square root."""
    return {"betas": (0.0, 0.0), "epsilon": 1e3, "learning_rate": 1e3, "warmup": 0, "weight_decay": 0.0}


@pytest.mark.parametrize(("limit", "wanted"), [(None, 8.0), (2.0, 2.0), (100.0, 8.0)])
def test_long_gradients_are_cut_to_their_length(tmp_path, limit, wanted):
    module = nn.Linear(1, 1, bias=False)
    nn.init.ones_(module.weight)

    def step(batch):
        loss = (module(torch.tensor([[2.0]])) ** 2).mean()
        loss.backward()
        return Losses(loss, {})

    run(tmp_path, module=module, step=step, steps=1, max_grad_norm=limit, **sgd_like(module))
    assert 1.0 - module.weight.item() == pytest.approx(wanted, rel=0.02)


def test_accumulated_batches_are_one_large_batch(tmp_path):
    """Two batches of 8 a step move the weights as one of 16."""

    class Halves(toys.Drawn):
        def __next__(self):
            whole = toys.Drawn()
            whole.number = self.number // 2
            batch = next(whole)
            own = slice(8 * (self.number % 2), 8 * (self.number % 2) + 8)
            self.number += 1
            return toys.Numbers(batch.x_BI[own], batch.y_BO[own], tokens=8)

    def plain(module):
        def step(batch):
            loss = (module(batch.x_BI) - batch.y_BO).square().mean()
            loss.backward()
            return Losses(loss, {})

        return step

    found = []
    logs = Memory(), Memory()
    for name, batches, accumulate in (("whole", toys.Drawn(), 1), ("halves", Halves(), 2)):
        module = toys.network(dropout=0.0)
        summary, _ = run(
            tmp_path / name,
            module=module,
            batches=batches,
            step=plain(module),
            accumulate=accumulate,
            trackers=[logs[accumulate - 1]],
            # Adam's steps do not see how long gradients are, but for an epsilon of their size.
            epsilon=1.0,
            max_grad_norm=None,
            log_every=1,
        )
        found.append(weights(module))
        assert summary.tokens == 12 * 16
    for name, tensor in found[0].items():
        torch.testing.assert_close(found[1][name], tensor, rtol=1e-5, atol=1e-6)
    for (_, one), (_, two) in zip(logs[0].lines, logs[1].lines, strict=True):
        assert two["loss"] == pytest.approx(one["loss"], rel=1e-4)
        assert two["gradient_norm"] == pytest.approx(one["gradient_norm"], rel=1e-4)


def test_the_log_holds_means_since_the_last_line(tmp_path):
    fine, coarse = Memory(), Memory()
    run(tmp_path / "fine", log_every=1, trackers=[fine])
    run(tmp_path / "coarse", log_every=5, trackers=[coarse])
    assert [step for step, _ in coarse.lines] == [5, 10, 12]
    for (step, values), span in zip(coarse.lines, (slice(0, 5), slice(5, 10), slice(10, 12)), strict=True):
        each = [line["loss/squares"] for _, line in fine.lines[span]]
        assert values["loss/squares"] == pytest.approx(sum(each) / len(each))
        assert values["learning_rate"] == fine.lines[step - 1][1]["learning_rate"]


def test_every_part_gets_its_training_state_back(tmp_path):
    module = toys.network().eval()
    module[3].train()
    seen = []
    step = toys.squares(module)

    def watching(batch):
        seen.append(all(part.training for part in module.modules()))
        return step(batch)

    run(tmp_path, module=module, step=watching, steps=3, warmup=0)
    assert seen == [True] * 3
    assert [part.training for part in module] == [False, False, False, True, False]


# -- evaluation ------------------------------------------------------------------------------------------------------


def scores(values):
    queue = iter(values)
    return lambda: {"ndcg@10": next(queue), "other": 0.0}


def test_the_best_checkpoint_stays_and_loads(tmp_path):
    module = toys.network()
    snapshots = []
    queue = iter([0.1, 0.5, 0.3, 0.2, 0.4, 0.45])

    def evaluate():
        snapshots.append(weights(module))
        module.eval()
        return {"ndcg@10": next(queue)}

    summary, _ = run(
        tmp_path, module=module, evaluate=evaluate, evaluate_every=2, metric="ndcg@10", save_every=2, keep=1
    )
    assert (summary.best_step, summary.best_value) == (4, 0.5)
    assert steps_kept(tmp_path) == [4, 12]
    assert summary.last.name == "step-00000012"
    checkpoints.load_weights(module, summary.best)
    assert_equal(weights(module), snapshots[1])


def test_without_evaluation_the_best_is_the_last(tmp_path):
    summary, module = run(tmp_path)
    assert summary.best == summary.last
    assert summary.best_value is None
    found = toys.network(seed=9)
    checkpoints.load_weights(found, summary.best)
    assert_equal(weights(found), weights(module))


def test_training_ends_when_nothing_gets_better(tmp_path):
    summary, _ = run(
        tmp_path,
        steps=100,
        evaluate=scores([0.3, float("nan"), 0.5, 0.5, float("nan")]),
        evaluate_every=2,
        metric="ndcg@10",
        patience=2,
        save_every=100,
    )
    assert (summary.steps, summary.stopped_early, summary.best_step, summary.best_value) == (10, True, 6, 0.5)
    assert steps_kept(tmp_path) == [6, 10]
    # It is over: the same call does nothing more.
    again, _ = run(
        tmp_path,
        steps=100,
        evaluate=scores([]),
        evaluate_every=2,
        metric="ndcg@10",
        patience=2,
        batches=toys.Drawn(end=0),
    )
    assert again == summary


def test_a_metric_that_is_nan_is_never_the_best(tmp_path):
    summary, _ = run(tmp_path, steps=4, evaluate=scores([float("nan"), 0.1]), evaluate_every=2, metric="ndcg@10")
    assert (summary.best_step, summary.best_value) == (4, 0.1)


def test_the_last_step_is_evaluated_and_all_is_logged(tmp_path):
    log = Memory()
    run(tmp_path, steps=5, evaluate=scores([0.1, 0.2]), evaluate_every=3, metric="ndcg@10", trackers=[log])
    evaluations = [(step, values) for step, values in log.lines if "evaluation/ndcg@10" in values]
    assert evaluations == [
        (3, {"evaluation/ndcg@10": 0.1, "evaluation/other": 0.0}),
        (5, {"evaluation/ndcg@10": 0.2, "evaluation/other": 0.0}),
    ]


def test_a_metric_that_evaluation_does_not_give_names_the_nearest(tmp_path):
    with pytest.raises(UnknownName, match="did you mean 'ndcg@10'"):
        run(tmp_path, evaluate=scores([0.1] * 9), evaluate_every=2, metric="ndcg@1O")


def test_evaluation_and_its_interval_need_each_other(tmp_path):
    with pytest.raises(UsageError, match="need each other"):
        run(tmp_path, evaluate=scores([]))
    with pytest.raises(UsageError, match="need each other"):
        run(tmp_path, evaluate_every=3, metric="ndcg@10")


# -- numbers that are not finite -------------------------------------------------------------------------------------


def test_a_bad_batch_is_left_out_and_counted(tmp_path):
    module = toys.network()
    log = Memory()
    trace = []
    step = toys.squares(module)

    def watching(batch):
        trace.append(weights(module))
        return step(batch)

    summary, _ = run(
        tmp_path, module=module, step=watching, batches=toys.Drawn(poisoned=[4, 8]), log_every=1, trackers=[log]
    )
    assert (summary.steps, summary.skipped) == (12, 2)
    assert_equal(trace[4], trace[3])
    assert not torch.equal(trace[5]["0.weight"], trace[4]["0.weight"])
    assert all(math.isfinite(value) for _, values in log.lines for value in values.values())
    assert "loss" not in log.lines[3][1]
    assert [values["skipped"] for _, values in log.lines] == [0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2, 2]


def test_a_gradient_that_is_not_finite_is_left_out_though_the_loss_is(tmp_path):
    module = toys.network()
    step = toys.squares(module)

    def poisoned(batch):
        losses = step(batch)
        module[0].weight.grad[0, 0] = float("inf")
        return losses

    before = weights(module)
    with pytest.raises(TrainingError, match=r"after step 3 of 12: 3 steps in a row .*gradient_norm=inf"):
        run(tmp_path, module=module, step=poisoned, max_skipped=3)
    assert_equal(weights(module), before)


def test_too_many_in_a_row_end_the_run_and_leave_the_last_good_checkpoint(tmp_path):
    with pytest.raises(TrainingError) as raised:
        run(tmp_path, batches=toys.Drawn(poisoned=range(7, 99)), max_skipped=5)
    told = str(raised.value)
    assert "after step 11 of 12: 5 steps in a row" in told
    assert "rank 0: loss=nan, loss/squares=nan, gradient_norm=nan" in told
    assert "step-00000005: the same call goes on from it" in told
    # Step 10 was due to be saved in the middle of the bad steps.
    assert steps_kept(tmp_path) == [5]


def test_weights_that_are_not_finite_never_become_a_checkpoint(tmp_path):
    module = toys.network()
    step = toys.squares(module)

    def breaking(batch):
        losses = step(batch)
        if batches.number == 8:
            # As an optimizer does whose rate is far too high: after the gradients were seen to be good.
            nn.init.constant_(module[4].bias, float("inf"))
        return losses

    batches = toys.Drawn()
    with pytest.raises(TrainingError, match="weights are no longer finite"):
        run(tmp_path, module=module, step=breaking, batches=batches, steps=8, save_every=3)
    assert steps_kept(tmp_path) == [3, 6]


# -- stopping and going on -------------------------------------------------------------------------------------------


class Stopped(Exception):
    pass


def stop_at(module, number, batches):
    step = toys.squares(module)

    def stopping(batch):
        losses = step(batch)
        if batches.number == number:
            raise Stopped
        return losses

    return stopping


@pytest.mark.parametrize("number", [1, 5, 6, 9, 12])
def test_a_run_goes_on_bit_for_bit(tmp_path, number):
    """Stopped in the middle of any step: weights, log and evaluations are those of a run that was not."""

    def parts(module, name):
        return {
            "evaluate": lambda: {"fit": float(module[4].weight.detach().sum()) + float(torch.rand(()))},
            "evaluate_every": 4,
            "metric": "fit",
            "trackers": [JsonlTracker(tmp_path / name / "log.jsonl")],
        }

    whole = toys.network()
    wanted, _ = run(tmp_path / "whole", module=whole, **parts(whole, "whole"))
    first, batches = toys.network(), toys.Drawn()
    with pytest.raises(Stopped):
        run(
            tmp_path / "stopped",
            module=first,
            batches=batches,
            step=stop_at(first, number, batches),
            **parts(first, "stopped"),
        )
    # What the second process starts with does not matter, except where the first never saved.
    second = toys.network(seed=3 if number < 4 else 99)
    found, _ = run(tmp_path / "stopped", module=second, **parts(second, "stopped"))
    assert_equal(weights(second), weights(whole))
    assert (found.best_step, found.best_value, found.tokens) == (wanted.best_step, wanted.best_value, wanted.tokens)
    assert log_of(tmp_path / "stopped") == log_of(tmp_path / "whole")


def log_of(folder):
    lines = [json.loads(line) for line in (folder / "log.jsonl").read_text(encoding="utf-8").splitlines()]
    return [{key: value for key, value in line.items() if key != "tokens_per_second"} for line in lines]


def test_other_settings_are_refused_by_name(tmp_path):
    run(tmp_path, steps=5)
    with pytest.raises(UsageError, match="learning_rate was 0.05, is 0.01; schedule was 'linear', is 'cosine'"):
        run(tmp_path, steps=5, learning_rate=0.01, schedule="cosine")
    run(tmp_path, steps=5, log_every=1, save_every=1, keep=7)


def test_another_identity_is_refused_by_name(tmp_path):
    run(tmp_path, steps=5, identity={"data": "abc", "recipe": {"name": "e5"}})
    with pytest.raises(UsageError, match="data was 'abc', is 'abd'"):
        run(tmp_path, steps=5, identity={"data": "abd", "recipe": {"name": "e5"}})


def test_batches_that_run_out(tmp_path):
    with pytest.raises(TrainingError, match="after step 7 of 12: the batches ran out before the 12 steps"):
        run(tmp_path, batches=toys.Drawn(end=7))
    assert steps_kept(tmp_path) == [5]


def test_trackers_are_closed_whatever_happens(tmp_path):
    log = Memory()
    with pytest.raises(ZeroDivisionError):
        run(tmp_path, step=lambda batch: 1 / 0, trackers=[log])
    assert log.closed == 1
    with pytest.raises(UnknownName):
        run(tmp_path, multipliers={"nowhere.": 2.0}, trackers=[log])
    assert log.closed == 2


# -- killed processes ------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def worker():
    """Answers how a child ended that trained as told."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(__file__).parents[1])}
    script = Path(__file__).with_name("kill_worker.py")
    with subprocess.Popen(
        [sys.executable, str(script)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
    ) as process:

        def ask(**order):
            process.stdin.write(json.dumps(order) + "\n")
            process.stdin.flush()
            return json.loads(process.stdout.readline())

        yield ask
        process.stdin.close()


@pytest.mark.parametrize("what", ["encoder", "network"])
def test_killed_and_resumed_is_uninterrupted(worker, tmp_path, what):
    """Killed in the middle of a step, and again in the middle of writing a checkpoint."""
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    assert worker(what=what, folder=str(whole)) == 0
    assert worker(what=what, folder=str(killed), kill_at=6) == -signal.SIGKILL
    kept = steps_kept(killed)
    assert kept
    assert kept[-1] < steps_kept(whole)[-1]
    assert worker(what=what, folder=str(killed), kill_writing=4 if what == "encoder" else 8) == -signal.SIGKILL
    assert any(path.name.startswith(".step-") for path in (killed / "checkpoints").iterdir())
    assert worker(what=what, folder=str(killed)) == 0
    assert steps_kept(killed) == steps_kept(whole)
    assert not [path for path in (killed / "checkpoints").iterdir() if path.name.startswith(".")]
    for step, folder in checkpoints.every(whole / "checkpoints").items():
        wanted, found = checkpoints.read(folder), checkpoints.read(killed / "checkpoints" / checkpoints.name(step))
        assert_equal(found.weights, wanted.weights)
        for name, values in wanted.optimizer.items():
            assert_equal(found.optimizer[name], values)
    if what == "network":
        assert log_of(killed) == log_of(whole)
