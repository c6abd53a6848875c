"""Recipes over files: a model folder comes out that is better than its start, with its record; runs can be resumed."""

import json

import pytest

from models import tiny
from recipes import samples
from trine.errors import DataError, TrainingError, UsageError
from trine.models.encoder import Encoder
from trine.models.reranker import Reranker
from trine.recipes.card import RECORD
from trine.recipes.config import recipe
from trine.recipes.run import Job, open_source, run, working_folder
from trine.training import checkpoints

LENGTHS = {"query_length": 16, "passage_length": 32, "log_every": 1}


@pytest.fixture(scope="module")
def start(tmp_path_factory):
    return tiny.encoder("bert").save(tmp_path_factory.mktemp("start") / "model")


@pytest.fixture(scope="module")
def pairs(tmp_path_factory):
    return samples.pairs(tmp_path_factory.mktemp("data") / "pairs.jsonl")


@pytest.fixture(scope="module")
def judged(tmp_path_factory):
    return samples.judged(tmp_path_factory.mktemp("judged") / "set")


def job(name, settings, *, start, out, data, **options):
    return Job(recipe=recipe(name, settings), data=[str(path) for path in data], out=out, model=str(start), **options)


def test_m3_training_improves_a_held_out_set_and_leaves_a_record(start, pairs, judged, tmp_path):
    settings = {**LENGTHS, "steps": 30, "batch_size": 16, "learning_rate": 3e-3, "evaluate_every": 15, "dropout": 0.0}
    out = tmp_path / "out"
    trained = run(job("bge_m3_small", settings, start=start, out=out, data=[pairs], validation=judged))
    assert trained.after.values["ndcg@10"] > trained.before.values["ndcg@10"]
    assert trained.gain.mean == pytest.approx(trained.after.values["ndcg@10"] - trained.before.values["ndcg@10"])
    (stage,) = json.loads((out / RECORD).read_text(encoding="utf-8"))["stages"]
    assert stage["recipe"]["steps"] == 30
    assert stage["data"][0]["examples"] == len(open_source(str(pairs)))
    assert stage["start_fingerprint"] == Encoder.load(start).fingerprint
    lines = (out / "log.jsonl").read_text().splitlines()
    assert [sum("loss" in line for line in lines), sum("evaluation" in line for line in lines)] == [30, 2]
    assert not working_folder(out).exists()
    assert Encoder.load(out).modes == ("dense", "sparse", "multi_vector")


def test_a_killed_run_goes_on_and_ends_as_if_it_had_not_been_killed(start, pairs, tmp_path, monkeypatch):
    settings = {**LENGTHS, "steps": 6, "batch_size": 8, "save_every": 2}
    whole = run(job("e5_pretrain_small", settings, start=start, out=tmp_path / "whole", data=[pairs]))
    real = checkpoints.write

    def write(root, step, checkpoint):
        if step == 6:
            raise TrainingError("No space left on device")
        return real(root, step, checkpoint)

    again = job("e5_pretrain_small", settings, start=start, out=tmp_path / "again", data=[pairs])
    monkeypatch.setattr(checkpoints, "write", write)
    with pytest.raises(TrainingError, match="goes on from it"):
        run(again)
    monkeypatch.undo()
    resumed = run(again)
    assert Encoder.load(resumed.folder).fingerprint == Encoder.load(whole.folder).fingerprint


def test_pretraining_and_then_contrastive_training(start, pairs, tmp_path):
    texts = tmp_path / "texts.txt"
    texts.write_text("\n".join(tiny.CORPUS) + "\n", encoding="utf-8")
    settings = {"steps": 3, "batch_size": 4, "max_length": 32, "log_every": 1}
    first = run(job("retromae_small", settings, start=start, out=tmp_path / "mae", data=[texts]))
    settings = {**LENGTHS, "steps": 2, "batch_size": 4}
    second = run(job("bge_m3_unsupervised_small", settings, start=first.folder, out=tmp_path / "two", data=[pairs]))
    stages = json.loads((second.folder / RECORD).read_text(encoding="utf-8"))["stages"]
    assert [stage["recipe"]["name"] for stage in stages] == ["retromae_small", "bge_m3_unsupervised_small"]


def test_a_bare_language_model_becomes_an_encoder_by_adapters(pairs, judged, tmp_path):
    start = samples.language_model(tmp_path / "mistral")
    settings = {**samples.LENGTHS, "steps": 30, "batch_size": 16, "learning_rate": 1e-2}
    out = tmp_path / "out"
    trained = run(job("e5_mistral_small", settings, start=start, out=out, data=[pairs], validation=judged))
    assert trained.gain.low > 0
    encoder = Encoder.load(out)
    assert encoder.config.dense.pooling == ("last_token",)
    assert not [name for name in encoder.state_dict() if "lora" in name]


def test_a_teacher_s_embeddings_are_followed(start, pairs, tmp_path):
    settings = {**LENGTHS, "steps": 20, "batch_size": 16, "learning_rate": 3e-3, "dropout": 0.0}
    teacher = tiny.encoder("modernbert").save(tmp_path / "teacher")
    trained = run(job("distill_small", settings, start=start, out=tmp_path / "out", data=[pairs], teacher=str(teacher)))
    lines = [json.loads(line) for line in (trained.folder / "log.jsonl").read_text().splitlines()]
    losses = [line["loss/embedding_distillation"] for line in lines]
    assert losses[-1] < 0.7 * losses[0]


def test_simcse_takes_plain_text(start, tmp_path):
    texts = tmp_path / "texts.txt"
    texts.write_text("\n".join(tiny.CORPUS) + "\n", encoding="utf-8")
    settings = {**LENGTHS, "passage_length": 16, "steps": 2, "batch_size": 4}
    trained = run(job("simcse_small", settings, start=start, out=tmp_path / "out", data=[texts]))
    assert trained.summary.steps == 2


def test_a_reranker_begins_on_an_encoder_and_goes_on_from_itself(start, pairs, tmp_path):
    settings = {"steps": 2, "batch_size": 4, "group_size": 2, "max_length": 32, "log_every": 1}
    first = run(job("reranker_small", settings, start=start, out=tmp_path / "one", data=[pairs]))
    second = run(job("reranker_small", settings, start=first.folder, out=tmp_path / "two", data=[pairs]))
    assert Reranker.load(second.folder).score([("검색", "검색 검색")]).shape == (1,)
    assert len(json.loads((second.folder / RECORD).read_text(encoding="utf-8"))["stages"]) == 2


def test_bad_lines_are_named_or_left_out_on_demand(start, pairs, tmp_path):
    broken = tmp_path / "broken.jsonl"
    broken.write_text(pairs.read_text(encoding="utf-8") + '{"query": "x", "pos": [\n', encoding="utf-8")
    settings = {**LENGTHS, "steps": 1, "batch_size": 4}
    with pytest.raises(DataError, match=r"broken\.jsonl:\d+"):
        run(job("e5_pretrain_small", settings, start=start, out=tmp_path / "a", data=[broken]))
    trained = run(job("e5_pretrain_small", settings, start=start, out=tmp_path / "b", data=[broken], on_error="skip"))
    assert trained.skipped == {"broken": 1}


def test_a_taken_folder_and_options_without_effect_are_refused(start, pairs, judged, tmp_path):
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").touch()
    with pytest.raises(UsageError, match="not empty"):
        run(job("e5_pretrain_small", LENGTHS, start=start, out=tmp_path / "full", data=[pairs]))
    with pytest.raises(UsageError, match="--teacher"):
        run(job("distill_small", LENGTHS, start=start, out=tmp_path / "x", data=[pairs]))
    with pytest.raises(UsageError, match="no effect"):
        run(job("e5_pretrain_small", LENGTHS, start=start, out=tmp_path / "x", data=[pairs], teacher=str(start)))
    with pytest.raises(UsageError, match="reranker"):
        run(job("reranker_small", {}, start=start, out=tmp_path / "x", data=[pairs], validation=judged))


def test_sources_can_be_named(pairs):
    assert open_source(f"법령={pairs}").name == "법령"
    assert open_source(str(pairs)).name == "pairs"


@pytest.mark.parametrize(
    "settings",
    [
        {"length_batch_sizes": "[[16, 8], [32, 4]]", "epochs": 1},
        {"memory_gigabytes": 0.0005, "cached": False, "steps": 3},
    ],
    ids=["by table", "by memory"],
)
def test_batches_may_depend_on_the_length(settings, start, pairs, tmp_path):
    trained = run(job("e5_pretrain_small", {**LENGTHS, **settings}, start=start, out=tmp_path / "out", data=[pairs]))
    lines = [json.loads(line) for line in (trained.folder / "log.jsonl").read_text().splitlines()]
    assert len(lines) == trained.summary.steps >= 3


def test_batch_sizes_that_exclude_each_other():
    with pytest.raises(UsageError, match="not both"):
        recipe("e5_pretrain", {"length_batch_sizes": "[[16, 8]]", "memory_gigabytes": 1, "cached": False})
    with pytest.raises(UsageError, match="no effect with cached"):
        recipe("e5_pretrain", {"memory_gigabytes": 1})


@pytest.mark.parametrize("parallel", ["ddp", "fsdp"])
def test_two_processes_train_as_one(parallel, start, pairs, judged, tmp_path):
    from recipes import rank_job
    from trine.training.spawning import spawn

    settings = {**LENGTHS, "steps": 3, "batch_size": 8, "evaluate_every": 2, "dropout": 0.0, "parallel": parallel}
    arguments = (settings, str(start), str(tmp_path / "two"), str(pairs), str(judged))
    spawn(rank_job.train, 2, arguments=arguments, device="cpu", timeout=120)
    run(job("bge_m3_small", settings, start=start, out=tmp_path / "one", data=[pairs], validation=judged))
    # Not the weights: the keys' biases have no gradient but noise, which Adam makes steps of.
    two, one = (Encoder.load(tmp_path / name).encode(tiny.CORPUS) for name in ("two", "one"))
    assert two.dense == pytest.approx(one.dense, abs=1e-4)
    assert two.sparse.weights == pytest.approx(one.sparse.weights, abs=1e-4)
    assert two.multi_vector.values == pytest.approx(one.multi_vector.values, abs=1e-4)
