"""E5-Mistral end to end on a tiny language model: adapters that learn, are merged and resumed, and an encoder after."""

import json

import pytest
import torch

from recipes import samples
from trine.data.examples import open_examples
from trine.errors import TrainingError
from trine.models.encoder import Encoder
from trine.recipes.card import RECORD
from trine.recipes.config import recipe
from trine.recipes.run import Job, run
from trine.recipes.start import start_encoder
from trine.recipes.training import Surroundings, train_encoder
from trine.recipes.validation import Validation
from trine.training import checkpoints

SETTINGS = {**samples.LENGTHS, "steps": 30, "batch_size": 16, "learning_rate": 1e-2, "save_every": 10}


@pytest.fixture(scope="module")
def pairs(tmp_path_factory):
    return samples.pairs(tmp_path_factory.mktemp("data") / "pairs.jsonl")


@pytest.fixture(scope="module")
def start(tmp_path_factory):
    return samples.encoder(tmp_path_factory.mktemp("start"))


def test_the_paper_s_numbers():
    found = recipe("e5_mistral")
    assert (found.lora_rank, found.group_size, found.temperature) == (16, 2, 0.02)
    assert (found.batch_size, found.learning_rate, found.warmup, found.schedule) == (2048, 1e-4, 100, "linear")
    assert (found.weight_decay, found.query_length, found.passage_length) == (0.1, 512, 512)
    assert (found.pooling, found.append_eos, found.epochs, found.attention) == ("last_token", True, 1, None)
    assert found.query_prompt.startswith("Instruct: ")
    assert found.query_prompt.endswith("\nQuery: ")
    assert found.passage_prompt is None


def test_a_bare_language_model_becomes_a_better_encoder_without_adapters(pairs, tmp_path):
    folder = samples.language_model(tmp_path / "mistral")
    chosen = recipe("e5_mistral_small", {**SETTINGS, "gradient_checkpointing": True})
    encoder = start_encoder(str(folder), recipe=chosen)
    plain = {key: value.clone() for key, value in encoder.backbone.state_dict().items()}
    validation = Validation(samples.judged(tmp_path / "judged"))
    before = validation.measure(encoder).values["dense"]
    trained, summary = train_encoder(
        encoder, [open_examples(pairs)], recipe=chosen, surroundings=Surroundings(tmp_path / "run")
    )
    assert validation.measure(trained).values["dense"] > before + 0.1
    kept = json.loads((summary.last / checkpoints.STATE).read_text())
    assert kept["progress"]["step"] == 30
    # A checkpoint holds the adapters alone; embeddings and norms are as they were, every linear layer is not.
    assert (summary.last / checkpoints.WEIGHTS).stat().st_size < sum(4 * value.numel() for value in plain.values()) / 2
    for key, value in trained.backbone.state_dict().items():
        assert torch.equal(value, plain[key]) == ("_proj" not in key), key
    loaded = Encoder.load(trained.save(tmp_path / "out"))
    assert loaded.config.text.last_id == loaded.tokenizer.eos_token_id
    assert loaded.encode(["검색"], kind="query").dense == pytest.approx(trained.encode(["검색"], kind="query").dense)
    assert loaded.config.text.max_length == 128


def test_a_killed_run_goes_on_and_is_recorded(start, pairs, tmp_path, monkeypatch):
    settings = {**SETTINGS, "steps": 6, "save_every": 2, "lora_dropout": 0.1}

    def job(name):
        chosen = recipe("e5_mistral_small", settings)
        return Job(recipe=chosen, data=[str(pairs)], out=tmp_path / name, model=str(start))

    whole = run(job("whole"))
    real = checkpoints.write

    def write(root, step, checkpoint):
        if step == 6:
            raise TrainingError("No space left on device")
        return real(root, step, checkpoint)

    monkeypatch.setattr(checkpoints, "write", write)
    with pytest.raises(TrainingError, match="goes on from it"):
        run(job("again"))
    monkeypatch.undo()
    resumed = run(job("again"))
    assert Encoder.load(resumed.folder).fingerprint == Encoder.load(whole.folder).fingerprint
    assert Encoder.load(whole.folder).fingerprint != Encoder.load(start).fingerprint
    (stage,) = json.loads((whole.folder / RECORD).read_text(encoding="utf-8"))["stages"]
    assert stage["recipe"]["lora_rank"] == 16


def test_the_trained_model_exports_to_sentence_transformers(start, pairs, tmp_path):
    import sentence_transformers

    chosen = recipe("e5_mistral_small", {**SETTINGS, "steps": 3})
    trained = run(Job(recipe=chosen, data=[str(pairs)], out=tmp_path / "out", model=str(start)))
    encoder = Encoder.load(trained.folder)
    folder = encoder.export(tmp_path / "exported", layout="sentence_transformers")
    model = sentence_transformers.SentenceTransformer(str(folder), device="cpu")
    for kind in ("query", "passage"):
        options = {"prompt_name": kind} if kind in model.prompts else {}
        expected = encoder.encode(samples.WORDS, kind=kind).dense
        assert model.encode(samples.WORDS, **options) == pytest.approx(expected, abs=1e-5), kind


@pytest.mark.parametrize("parallel", ["ddp", "fsdp"])
def test_two_processes_train_adapters_as_one(parallel, start, pairs, tmp_path):
    """All three heads of a decoder by BGE-M3's loss, its backbone frozen but for adapters."""
    from recipes import rank_job
    from trine.training.spawning import spawn

    judged = samples.judged(tmp_path / "judged")
    settings = {"query_length": 16, "passage_length": 32, "steps": 3, "batch_size": 8, "evaluate_every": 2}
    settings |= {"pooling": "mean", "lora_rank": 4, "parallel": parallel}
    arguments = (settings, str(start), str(tmp_path / "two"), str(pairs), str(judged))
    spawn(rank_job.train, 2, arguments=arguments, device="cpu", timeout=120)
    chosen = recipe("bge_m3_small", settings)
    run(Job(recipe=chosen, data=[str(pairs)], out=tmp_path / "one", model=str(start), validation=judged))
    two, one = (Encoder.load(tmp_path / name).encode(samples.WORDS) for name in ("two", "one"))
    assert two.dense == pytest.approx(one.dense, abs=1e-5)
    assert two.multi_vector.values == pytest.approx(one.multi_vector.values, abs=1e-5)
