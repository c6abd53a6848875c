"""A model as a recipe trains it: attention, dropout, end of text, adapters; the same gradients in chunks."""

import msgspec
import pytest
import torch

from models import tiny
from training import toys
from trine.errors import CheckpointError, UsageError
from trine.models.adapters import has_adapters
from trine.models.backbone import Backbone
from trine.models.config import DenseConfig, EncoderConfig, Normalize, TextConfig
from trine.models.encoder import Encoder
from trine.recipes.config import recipe
from trine.recipes.start import attending, ready, set_attention_dropout, start_encoder, with_language_model
from trine.recipes.training import objective_of
from trine.training.embedding import recompute_activations
from trine.training.steps import cached_step, full_step

SHORT = {"query_length": 40, "passage_length": 40}
ALL = ("dense", "sparse", "multi_vector")


def dense_only(name="mistral"):
    parts = tiny.build(name)
    config = EncoderConfig(
        text=TextConfig(max_length=tiny.MAX_LENGTH), dense=DenseConfig(pooling=("mean",), layers=(Normalize(),))
    )
    return Encoder(config, backbone=Backbone(parts.model, masked_lm=False), tokenizer=parts.tokenizer, name=name)


def sees_ahead(encoder):
    ids_BL = torch.tensor([[4, 5, 6, 7], [4, 5, 6, 9]])
    with torch.no_grad():
        first, second = encoder.eval().backbone(ids_BL, ids_BL > 0).hidden_BLH[:, :3]
    return not torch.allclose(first, second, atol=1e-4)


# -- what a recipe asks for ------------------------------------------------------------------------------------------


def test_e5_mistral_ends_texts_with_eos_and_asks_in_its_template():
    encoder = ready(dense_only(), recipe("e5_mistral_small", SHORT))
    text = encoder.config.text
    assert encoder.config.dense.pooling == ("last_token",)
    assert text.prompts["query"].startswith("Instruct: ")
    assert text.prompts["query"].endswith("\nQuery: ")
    assert encoder.text.instructed("Find law").startswith("Instruct: Find law\nQuery: ")
    for kind in ("query", "passage"):
        tokens = encoder.text(["가", "긴글" * 200], kind=kind)
        assert [tokens.ids[end - 1] for end in tokens.offsets[1:]] == [encoder.tokenizer.eos_token_id] * 2
        assert [tokens.ids[start] for start in tokens.offsets[:-1]] == [encoder.tokenizer.bos_token_id] * 2
    assert not sees_ahead(encoder)
    assert has_adapters(encoder)


def test_llm2vec_sees_ahead_and_pools_no_instruction():
    encoder = ready(dense_only(), recipe("llm2vec_supervised_small", SHORT))
    assert encoder.config.attention == encoder.backbone.attention == "bidirectional"
    assert sees_ahead(encoder)
    assert encoder.config.dense.include_prompt is False
    assert encoder.config.text.prompts["query"].endswith(": ")
    assert (encoder.text(["a"], kind="query").prompt_lengths > 0).all()


def test_what_a_recipe_leaves_open_stays():
    plain = dense_only()
    encoder = ready(plain, recipe("e5_finetune_small", SHORT))
    assert not has_adapters(encoder)
    assert encoder.config.attention == "native"
    assert encoder.config.text.last_id is None
    assert encoder.config.dense.include_prompt is True


def test_attention_dropout_is_on_in_training_only():
    """SimCSE learns from the difference alone: without it a text's two vectors would be the same."""
    encoder = ready(dense_only(), recipe("llm2vec_simcse_small", SHORT | {"lora_dropout": 0.0}))
    batch = toys.work(encoder, modes=("dense",), budget=None).queries[0].batch
    with torch.no_grad():
        one, other = (encoder.train()(batch, ("dense",)).dense_BD for _ in range(2))
        assert (one - other).abs().max() > 1e-3
        one, other = (encoder.eval()(batch, ("dense",)).dense_BD for _ in range(2))
    torch.testing.assert_close(one, other, atol=0, rtol=0)
    assert {layer.self_attn.attention_dropout for layer in encoder.backbone.model.layers} == {0.3}


def test_dropout_without_effect_is_refused():
    with pytest.raises(UsageError, match="attention_dropout"):
        ready(dense_only(), recipe("simcse_small", SHORT | {"pooling": "mean"}))
    with pytest.raises(UsageError, match="no effect"):
        set_attention_dropout(tiny.encoder("bert"), 0.3)
    with pytest.raises(UsageError, match="below 1"):
        set_attention_dropout(tiny.encoder("llama"), 1.0)


def test_a_tokenizer_without_eos_cannot_append_one():
    encoder = dense_only()
    encoder.tokenizer.eos_token = None
    with pytest.raises(UsageError, match="end-of-sequence"):
        ready(encoder, recipe("e5_mistral_small", SHORT))


# -- gradients -------------------------------------------------------------------------------------------------------


def learning(encoder):
    return {key: part.grad.clone() for key, part in encoder.named_parameters() if part.grad is not None}


def gradients(encoder, step, *, settings, modes, budget, checkpointing=False):
    encoder.zero_grad()
    if checkpointing:
        recompute_activations(encoder)
    work = toys.work(encoder, modes=modes, budget=budget)
    losses = step(toys.embed(encoder, modes=modes), work, objective=objective_of(settings, encoder))
    return losses.total.detach(), learning(encoder)


@pytest.mark.parametrize("name", ["mistral", "qwen3"])
@pytest.mark.parametrize("modes", [("dense",), ALL], ids=" ".join)
def test_adapters_learn_the_same_through_either_step_under_dropout(name, modes):
    """BGE-M3's loss over all three heads of a decoder, too: LoRA and attention dropout are drawn anew alike."""
    extra = {"lora_rank": 4, "lora_dropout": 0.2, "attention_dropout": 0.2, "group_size": 1, "dropout": None}
    chosen = recipe("bge_m3_small" if len(modes) > 1 else "e5_mistral_small", {**SHORT, **extra, "modes": modes})
    encoder = ready(tiny.encoder(name), chosen).train()
    with torch.no_grad():
        for key, parameter in encoder.named_parameters():
            if "lora_B" in key:
                parameter.normal_(std=0.1)
    options = {"settings": chosen, "modes": modes, "budget": 60}
    loss, whole = gradients(encoder, full_step, **options)
    for checkpointing in (False, True):
        found_loss, found = gradients(encoder, cached_step, checkpointing=checkpointing, **options)
        torch.testing.assert_close(found_loss, loss)
        assert found.keys() == whole.keys()
        assert any("lora_A" in key for key in whole)
        assert not any("lora" not in key for key in whole if key.startswith("backbone."))
        for key, gradient in whole.items():
            torch.testing.assert_close(found[key], gradient, atol=1e-6, rtol=1e-5)
    if len(modes) > 1:
        assert {key.partition(".")[0] for key in whole} == {"backbone", "sparse", "multi_vector"}


# -- loading ---------------------------------------------------------------------------------------------------------


def test_a_bare_language_model_gets_the_recipe_s_pooling(tmp_path):
    folder = tiny.build("llama", masked_lm=True).save(tmp_path / "llama")
    with pytest.raises(CheckpointError, match="pooling"):
        Encoder.load(folder)
    for name, pooling in (("e5_mistral", "last_token"), ("llm2vec_mntp", "mean"), ("llm2vec_simcse", "mean")):
        assert start_encoder(str(folder), recipe=recipe(name)).config.dense.pooling == (pooling,)
    with pytest.raises(CheckpointError, match="pooling"):
        start_encoder(str(folder), recipe=recipe("e5_mistral", {"pooling": None}))


def test_a_model_that_says_its_pooling_keeps_it(tmp_path):
    folder = tiny.encoder("bert").save(tmp_path / "bert")
    assert start_encoder(str(folder), recipe=recipe("e5_mistral")).config.dense.pooling == ("mean",)


def test_the_language_model_s_own_head_comes_from_its_files(tmp_path):
    whole = tiny.build("llama", masked_lm=True)
    folder = whole.save(tmp_path / "llama")
    encoder = attending(start_encoder(str(folder), recipe=recipe("llm2vec_mntp")), recipe("llm2vec_mntp"))
    found = with_language_model(encoder)
    assert found.backbone.masked_lm
    assert found.backbone.attention == "bidirectional"
    assert torch.equal(found.backbone.model.lm_head.weight, whole.model.lm_head.weight)
    expected = encoder.encode(tiny.CORPUS).dense
    assert found.encode(tiny.CORPUS).dense == pytest.approx(expected, abs=1e-6)
    assert sees_ahead(found)


def test_weights_that_were_trained_since_are_kept_under_the_head(tmp_path):
    folder = tiny.build("llama", masked_lm=True).save(tmp_path / "llama")
    encoder = start_encoder(str(folder), recipe=recipe("llm2vec_mntp"))
    tiny.randomise(encoder.backbone, seed=99)
    found = with_language_model(encoder)
    assert found.backbone.model.base_model is encoder.backbone.model
    assert found.encode(tiny.CORPUS).dense == pytest.approx(encoder.encode(tiny.CORPUS).dense, abs=1e-6)
    assert not sees_ahead(found)


def test_a_language_model_without_its_head_is_refused(tmp_path):
    folder = tiny.build("llama").save(tmp_path / "llama")
    encoder = start_encoder(str(folder), recipe=recipe("llm2vec_mntp"))
    with pytest.raises(CheckpointError, match="language model's own head"):
        with_language_model(encoder)
    fresh = msgspec.structs.replace(encoder.config, origin="fresh")
    never = Encoder(fresh, backbone=encoder.backbone, tokenizer=encoder.tokenizer, name="fresh")
    assert with_language_model(never) is never
    encoder.backbone.model.config.tie_word_embeddings = True
    assert with_language_model(encoder) is encoder


def test_settings_of_adapters_without_adapters():
    with pytest.raises(UsageError, match="no effect with lora_rank=0"):
        recipe("e5_mistral", {"lora_rank": 0, "lora_dropout": 0.1})
    with pytest.raises(UsageError, match="freeze_backbone"):
        recipe("e5_mistral", {"freeze_backbone": True})
    assert msgspec.structs.asdict(recipe("e5_mistral", {"lora_rank": 0}))["lora_rank"] == 0
