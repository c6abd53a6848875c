"""LLM2Vec's stages one after the other on tiny decoders; each with adapters of its own, merged before the next."""

import json

import pytest
import torch

from recipes import samples
from trine.data.examples import open_examples
from trine.models.encoder import Encoder
from trine.recipes import pretraining
from trine.recipes.card import RECORD
from trine.recipes.config import recipe
from trine.recipes.pretraining import pretrain, settings_of
from trine.recipes.run import Job, run
from trine.recipes.start import start_encoder
from trine.recipes.training import Surroundings
from trine.training.embedding import recompute_activations as recompute

MNTP = {"steps": 24, "batch_size": 8, "max_length": 64, "log_every": 1, "learning_rate": 1e-2, "save_every": 6}
PAIRS = {**samples.LENGTHS, "steps": 4, "batch_size": 8, "save_every": 2}


def test_the_paper_s_numbers():
    mntp, simcse, supervised = (recipe(f"llm2vec_{stage}") for stage in ("mntp", "simcse", "supervised"))
    for stage in (mntp, simcse, supervised):
        assert (stage.lora_rank, stage.lora_alpha, stage.lora_dropout) == (16, 32, 0.05)
        assert (stage.steps, stage.attention, stage.pooling) == (1000, "bidirectional", "mean")
    assert (mntp.batch_size, mntp.learning_rate, mntp.max_length, mntp.encoder_mask) == (32, 5e-5, 512, 0.2)
    assert (simcse.batch_size, simcse.learning_rate, simcse.passage_length) == (128, 3e-5, 128)
    assert (simcse.temperature, simcse.attention_dropout, simcse.same_text) == (0.05, 0.3, True)
    assert (supervised.batch_size, supervised.learning_rate, supervised.warmup) == (512, 2e-4, 300)
    assert (supervised.temperature, supervised.group_size, supervised.pool_prompt) == (0.02, 2, False)


def test_tokens_are_hidden_one_by_one_by_either_rule():
    llama = settings_of(recipe("llm2vec_mntp")).masking
    assert (llama.rate, llama.whole_word, llama.random_share, llama.kept_share) == (0.2, False, 0.1, 0.1)
    mistral = settings_of(recipe("llm2vec_mntp", {"encoder_mask": 0.8, "mask_all": True})).masking
    assert (mistral.rate, mistral.random_share, mistral.kept_share) == (0.8, 0.0, 0.0)


@pytest.mark.parametrize("checkpointing", [False, True])
def test_a_language_model_learns_to_look_ahead_by_its_own_head(checkpointing, tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr(pretraining, "recompute_activations", lambda encoder: asked.append(recompute(encoder)))
    folder = samples.language_model(tmp_path / "llama", "llama")
    chosen = recipe("llm2vec_mntp_small", {**MNTP, "gradient_checkpointing": checkpointing})
    encoder = start_encoder(str(folder), recipe=chosen)
    plain = {key: value.clone() for key, value in encoder.backbone.state_dict().items()}
    source = open_examples(samples.texts(tmp_path / "texts.txt"))
    trained, _ = pretrain(encoder, [source], recipe=chosen, surroundings=Surroundings(tmp_path / "run"))
    lines = [json.loads(line) for line in (tmp_path / "run" / "log.jsonl").read_text().splitlines()]
    assert len(asked) == checkpointing
    losses = [line["loss"] for line in lines]
    assert sum(losses[-4:]) < 0.9 * sum(losses[:4])
    found = trained.backbone.state_dict()
    assert found.keys() == plain.keys()
    for key, value in found.items():
        assert torch.equal(value, plain[key]) == ("_proj" not in key), key
    loaded = Encoder.load(trained.save(tmp_path / "out"))
    assert loaded.config.attention == "bidirectional"
    assert loaded.encode(["검색"]).dense == pytest.approx(trained.encode(["검색"]).dense, abs=1e-6)


def test_adapters_under_pretraining_leave_head_and_embeddings(tmp_path):
    """All weights learn without adapters; the own head of an untied model, too, which is then thrown away."""
    folder = samples.language_model(tmp_path / "llama", "llama")
    settings = {**MNTP, "steps": 2, "lora_rank": 0, "lora_alpha": None, "lora_dropout": 0.0}
    encoder = start_encoder(str(folder), recipe=recipe("llm2vec_mntp_small"))
    plain = {key: value.clone() for key, value in encoder.backbone.state_dict().items()}
    source = open_examples(samples.texts(tmp_path / "texts.txt"))
    chosen = recipe("llm2vec_mntp_small", settings)
    trained, _ = pretrain(encoder, [source], recipe=chosen, surroundings=Surroundings(tmp_path / "run"))
    assert not any(torch.equal(value, plain[key]) for key, value in trained.backbone.state_dict().items())


def test_three_stages_in_a_row(tmp_path):
    start = samples.encoder(tmp_path / "start", "qwen3")
    texts, pairs = samples.texts(tmp_path / "texts.txt"), samples.pairs(tmp_path / "pairs.jsonl")
    folder = start
    for stage, data, settings in (
        ("mntp", texts, MNTP),
        ("simcse", texts, PAIRS),
        ("supervised", pairs, PAIRS),
    ):
        chosen = recipe(f"llm2vec_{stage}_small", settings)
        trained = run(Job(recipe=chosen, data=[str(data)], out=tmp_path / stage, model=str(folder)))
        assert Encoder.load(trained.folder).fingerprint != Encoder.load(folder).fingerprint
        folder = trained.folder
    encoder = Encoder.load(folder)
    assert encoder.config.attention == "bidirectional"
    assert encoder.config.dense.include_prompt is False
    assert encoder.encode(["검색"], kind="query").dense.shape == (1, 32)
    stages = json.loads((folder / RECORD).read_text(encoding="utf-8"))["stages"]
    assert [stage["recipe"]["name"] for stage in stages] == [
        f"llm2vec_{stage}_small" for stage in ("mntp", "simcse", "supervised")
    ]


def test_a_decoder_is_made_from_scratch_and_taken_up_by_the_first_stage(tmp_path):
    """Next tokens under the causal mask, then masked ones without it: how small decoders come to be compared."""
    start = samples.encoder(tmp_path / "start", "llama")
    texts = samples.texts(tmp_path / "texts.txt")
    settings = {**MNTP, "objective": "next_token", "attention": "causal", "lora_rank": 0}
    settings |= {"lora_alpha": None, "lora_dropout": 0.0}
    first = recipe("llm2vec_mntp_small", settings)
    made = run(Job(recipe=first, data=[str(texts)], out=tmp_path / "decoder", model=str(start)))
    assert Encoder.load(made.folder).config.attention == "causal"
    second = recipe("llm2vec_mntp_small", MNTP)
    turned = run(Job(recipe=second, data=[str(texts)], out=tmp_path / "mntp", model=str(made.folder)))
    assert Encoder.load(turned.folder).config.attention == "bidirectional"
