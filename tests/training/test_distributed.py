"""Real processes that talk through gloo; the oracle is one process with the whole batch.

The processes are started twice for most tests: once for a rank that is killed, and once for everything that they live
through.
"""

import pytest
import torch

from training import light_workers, rank_workers, toys
from trine.errors import TrainingError, UsageError
from trine.objectives.base import Embedded
from trine.training import checkpoints
from trine.training.distributed import connect
from trine.training.ranks import OneProcess, Place
from trine.training.spawning import spawn

PARALLEL = ("ddp", "fsdp")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("ranks")


@pytest.fixture(scope="module")
def killed(folder):
    """What is said when rank 1 of two replicas is killed in the middle of step 4."""
    with pytest.raises(TrainingError) as raised:
        spawn(rank_workers.training, 2, arguments=(folder / "stopped-ddp", "ddp", 7), timeout=60.0, device="cpu")
    return str(raised.value)


@pytest.fixture(scope="module")
def ranks(folder, killed):
    """What each rank found in everything that both live through."""
    return spawn(rank_workers.everything, 2, arguments=(folder,), timeout=120.0, device="cpu")


def test_gather_puts_the_ranks_one_after_the_other(ranks):
    found = [rank["gather"] for rank in ranks]
    for leaves, packing, _, _ in found:
        assert leaves == [
            [[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]],
            pytest.approx([0.1, 0.2, 0.3, 0.4]),
            [[1.0], [2.0], [3.0], [4.0], [5.0], [6.0]],
        ]
        assert packing == [[7, 8, 7, 9], [0, 1, 3, 4], [0, 4, 4, 6]]
    assert [rows for _, _, rows, _ in found] == [(0, 2), (2, 3)]
    # Rank 0 weighs all by 1, rank 1 by 2: each own embedding gets 1 + 2; the vectors were in neither loss.
    assert found[0][3] == [[[3.0, 3.0]] * 2, [3.0] * 3, [[0.0]] * 4]
    assert found[1][3] == [[[3.0, 3.0]], [3.0], [[0.0]] * 2]


def test_gather_of_whole_vocabularies(ranks):
    assert ranks[0]["wide"] == ranks[1]["wide"] == [[0.0] * 3, [1.0] * 3, [1.0] * 3]


def test_what_ranks_tell_each_other(ranks):
    first, second = (rank["talk"] for rank in ranks)
    assert first["gradients"] == second["gradients"] == [[0.5, 0.5], [2.0, 2.0], None]
    assert first["norm"] == second["norm"] == pytest.approx((2 * 0.25 + 2 * 4.0) ** 0.5)
    assert first["mean"] == second["mean"] == 0.5
    assert first["collect"] == second["collect"] == ["글 0", "글 1"]
    assert first["tell"] == second["tell"] == {"rank": 0}
    assert first["align"] == second["align"] == [1.0, 1.0, 1.0]
    assert first["fill"] == second["fill"] == [1.0, 2.0]
    assert (first["whole"], second["whole"]) == ([1.0] * 3, None)


@pytest.mark.parametrize("parallel", PARALLEL)
def test_gradients_of_two_ranks_are_those_of_one(ranks, parallel):
    """Dropout on: the same chunks, seeded alike, whoever runs them."""
    found = ranks[0]["equal", parallel]
    model, objective = toys.encoder(), toys.InBatch()
    parts = [
        toys.work(model, rows, modes=rank_workers.ALL, budget=40, seed=1000 * rank)
        for rank, rows in enumerate(rank_workers.EQUAL)
    ]
    for name, step in (("full_step", rank_workers.full_step), ("cached_step", rank_workers.cached_step)):
        model.zero_grad()
        objective.zero_grad()
        losses = step(toys.embed(model, modes=rank_workers.ALL), toys.joined(parts), objective=objective)
        parameters = {**dict(model.named_parameters()), **dict(objective.named_parameters())}
        wanted = {key: parameter.grad for key, parameter in parameters.items() if parameter.grad is not None}
        gradients, norm, loss = found[name]
        toys.assert_close(gradients, wanted)
        assert norm == pytest.approx(OneProcess().gradient_norm(list(parameters.values())), rel=1e-5)
        assert loss == pytest.approx(float(losses.total), rel=1e-5)


@pytest.mark.parametrize("parallel", PARALLEL)
def test_unequal_numbers_of_chunks_do_not_wait_for_each_other(ranks, parallel):
    model = toys.encoder()
    parts = [toys.work(model, rows, modes=rank_workers.ALL, budget=40) for rows in rank_workers.ROWS]
    assert len({len(part.queries) + len(part.passages) for part in parts}) == 2
    found = ranks[0]["unequal", parallel]
    toys.assert_close(found["cached_step"][0], found["full_step"][0])
    toys.assert_close(found["cached_step"][0], ranks[0]["unequal", "ddp"]["cached_step"][0])


@pytest.fixture(scope="module")
def alone(folder):
    """Training by one process, with the batches of both."""
    return checkpoints.read(rank_workers.training(OneProcess(), folder / "alone").last)


@pytest.mark.parametrize("parallel", PARALLEL)
def test_training_by_two_is_training_by_one(ranks, alone, parallel):
    first, second = (rank["whole", parallel] for rank in ranks)
    assert (first.last, first.steps, first.skipped) == (second.last, 6, 0)
    found = checkpoints.read(first.last)
    assert found.weights.keys() == alone.weights.keys()
    for name, tensor in alone.weights.items():
        assert torch.allclose(found.weights[name], tensor, rtol=1e-6, atol=1e-6), name
    assert found.optimizer.keys() == alone.optimizer.keys()


def test_the_compared_training_moved_the_weights(alone):
    start = toys.encoder().state_dict()
    for name in ("backbone.model.encoder.layer.0.output.dense.weight", "sparse.linear.weight"):
        assert (alone.weights[f"encoder.{name}"] - start[name]).abs().max() > 1e-3
    # The pooler is in no graph: it stays, and no weight decay shrinks it.
    name = "backbone.model.pooler.dense.weight"
    assert torch.equal(alone.weights[f"encoder.{name}"], start[name])


def test_a_rank_that_dies_ends_the_others(killed):
    assert "rank 1: died with exit code -9" in killed
    assert "training stopped after step 3 of 6: rank 0 was " in killed
    assert "rank 1 of 2 has ended" in killed
    assert "step-00000002: the same call goes on from it" in killed


@pytest.mark.parametrize("parallel", PARALLEL)
def test_what_was_stopped_goes_on_exactly(ranks, parallel):
    """Replicas by the death of a rank, shards by an error in the middle of a step."""
    assert ranks[0]["before", parallel] == [2]
    whole, resumed = (checkpoints.read(ranks[0][how, parallel].last) for how in ("whole", "resumed"))
    assert resumed.weights.keys() == whole.weights.keys()
    for name, tensor in whole.weights.items():
        assert torch.equal(resumed.weights[name], tensor), name


def test_a_full_disk_stops_all_ranks(ranks):
    first, second = (rank["full disk"] for rank in ranks)
    assert first == second
    assert "after step 4 of 6: No space left on device" in first
    assert "step-00000002: the same call goes on from it" in first


def test_sharded_models_are_evaluated_between_steps(ranks, folder):
    first, second = (rank["sharded"] for rank in ranks)
    assert (first.best, first.best_value, first.tokens) == (second.best, second.best_value, second.tokens)
    assert first.best_value > 0
    # What was measured is the model of that step, not the one before: alone, the same steps measure the same.
    same = rank_workers.training(
        OneProcess(), folder / "measured", evaluate_every=1, metric="length", steps=3, warmup=1
    )
    assert (first.best_step, first.best_value) == (same.best_step, pytest.approx(same.best_value, rel=1e-5))


def test_a_run_goes_on_with_as_many_ranks_only(ranks, folder):
    with pytest.raises(UsageError, match="processes was 2, is 1"):
        rank_workers.training(OneProcess(), folder / "whole-ddp")


def test_a_rank_that_hangs_is_waited_for_in_bounded_time():
    with pytest.raises(TrainingError, match="rank 0 was exchanging values, but the other ranks did not answer"):
        spawn(light_workers.one_sleeps, 2, arguments=(30,), timeout=2.0, device="cpu", grace=1.0)


def test_alone_there_is_nobody_to_meet():
    with connect(Place(0, 1, 0)) as ranks:
        assert (ranks.rank, ranks.size) == (0, 1)
        own = Embedded(torch.ones(2, 3))
        assert ranks.gather(own) == (own, slice(None))


def test_others_that_do_not_come(tmp_path):
    with (
        pytest.raises(TrainingError, match="rank 0 of 2 did not find the others"),
        connect(Place(0, 2, 0), device="cpu", timeout=1.0, meeting=(tmp_path / "meeting").as_uri()),
    ):
        pytest.fail("nobody came, and yet it began")
