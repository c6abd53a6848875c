"""Adapters: they alone learn, start as nothing, merge to the same vectors, and are read by peft itself."""

import json

import numpy as np
import pytest
import torch

from models import tiny
from trine.errors import UnknownName, UsageError
from trine.models.adapters import add_adapters, has_adapters, merge_adapters, save_adapters
from trine.models.backbone import Backbone
from trine.models.encoder import Encoder

LAYERS = ("down_proj", "gate_proj", "k_proj", "o_proj", "q_proj", "up_proj", "v_proj")
DECODERS = ("llama", "mistral", "qwen3", "gemma3")


def adapted(name="mistral", *, learned=True, **options):
    """An encoder whose adapters say something, as after training."""
    encoder = tiny.encoder(name)
    add_adapters(encoder.backbone, **{"rank": 4, **options})
    if learned:
        draw = torch.Generator().manual_seed(1)
        with torch.no_grad():
            for key, parameter in encoder.named_parameters():
                if "lora_" in key:
                    parameter.copy_(torch.randn(parameter.shape, generator=draw) * 0.2)
    return encoder.eval()


def vectors(encoder):
    found = encoder.encode(tiny.CORPUS, modes=["dense", "multi_vector"])
    return np.concatenate([found.dense.ravel(), found.multi_vector.values.ravel()])


@pytest.mark.parametrize("name", [*DECODERS, "bert"])
def test_all_linear_layers_get_one_and_they_alone_learn(name):
    encoder = tiny.encoder(name)
    heads = {key for key, _ in encoder.named_parameters() if not key.startswith("backbone.")}
    before = vectors(encoder)
    found = add_adapters(encoder.backbone, rank=4)
    if name != "bert":
        assert found == LAYERS
    linear = sum(isinstance(part, torch.nn.Linear) for part in tiny.build(name).model.modules())
    learning = {key for key, parameter in encoder.named_parameters() if parameter.requires_grad}
    assert heads < learning
    assert all("lora_" in key for key in learning - heads)
    assert len(learning - heads) == 2 * linear
    assert np.array_equal(vectors(encoder), before)


@pytest.mark.parametrize("name", ["mistral", "bert"])
def test_a_language_model_head_gets_none(name):
    backbone = Backbone(tiny.build(name, masked_lm=True).model, masked_lm=True)
    add_adapters(backbone, rank=2)
    touched = {key for key, _ in backbone.model.named_parameters() if "lora_" in key}
    trunk = f"{backbone.model.base_model_prefix}."
    assert touched
    assert all(key.startswith(trunk) for key in touched)


def test_alpha_scales_and_rank_widens():
    (one, other), ids = (adapted(alpha=4), adapted(alpha=8)), torch.arange(3, 11)[None]
    shapes = {key: tuple(parameter.shape) for key, parameter in one.named_parameters() if "layers.0" in key}
    assert shapes["backbone.model.layers.0.self_attn.q_proj.lora_A.default.weight"] == (4, 32)
    plain = torch.nn.Linear(32, 32, bias=False)
    plain.weight.data = tiny.encoder("mistral").backbone.model.layers[0].self_attn.q_proj.weight.data
    states = torch.randn(1, 8, 32)
    shifts = [encoder.backbone.model.layers[0].self_attn.q_proj(states) - plain(states) for encoder in (one, other)]
    torch.testing.assert_close(2 * shifts[0], shifts[1], atol=1e-5, rtol=1e-4)
    assert not torch.equal(*(encoder.backbone(ids, ids > 0).hidden_BLH for encoder in (one, other)))


def test_the_same_seed_begins_with_the_same_weights():
    one, same, other = (
        {key: value for key, value in adapted(learned=False, seed=seed).state_dict().items() if "lora_A" in key}
        for seed in (3, 3, 4)
    )
    assert all(torch.equal(one[key], same[key]) for key in one)
    assert not any(torch.equal(one[key], other[key]) for key in one)


@pytest.mark.parametrize("name", DECODERS)
def test_merged_vectors_are_the_adapted_ones(name):
    encoder = adapted(name)
    before, plain = vectors(encoder), vectors(tiny.encoder(name))
    assert np.abs(before - plain).max() > 1e-2
    names = [key for key, _ in tiny.encoder(name).named_parameters()]
    merge_adapters(encoder)
    assert vectors(encoder) == pytest.approx(before, abs=1e-5)
    assert [key for key, _ in encoder.named_parameters()] == names
    assert all(parameter.requires_grad for parameter in encoder.parameters())
    assert not has_adapters(encoder)


def test_a_merged_model_is_saved_and_exported(tmp_path):
    import sentence_transformers

    encoder = adapted()
    before = vectors(encoder)
    merge_adapters(encoder)
    assert vectors(Encoder.load(encoder.save(tmp_path / "native"))) == pytest.approx(before, abs=1e-5)
    folder = encoder.export(tmp_path / "st", layout="sentence_transformers")
    model = sentence_transformers.SentenceTransformer(str(folder), device="cpu")
    expected = encoder.encode(tiny.CORPUS, modes=["dense"]).dense
    assert model.encode(tiny.CORPUS) == pytest.approx(expected, abs=1e-5)


def test_a_model_that_is_not_merged_is_not_saved(tmp_path):
    encoder = tiny.encoder("mistral")
    add_adapters(encoder.backbone, rank=2)
    with pytest.raises(UsageError, match="merge_adapters"):
        encoder.save(tmp_path / "model")
    assert not (tmp_path / "model").exists()


def test_merging_in_the_wrong_order_is_refused():
    encoder = adapted()
    with pytest.raises(UsageError, match="merge them first"):
        add_adapters(encoder.backbone)
    merge_adapters(encoder)
    add_adapters(encoder.backbone)
    merge_adapters(tiny.encoder("mistral"))  # without adapters nothing happens


def test_a_sum_that_is_not_finite_is_refused():
    encoder = adapted()
    with torch.no_grad():
        encoder.backbone.model.layers[1].mlp.up_proj.lora_B.default.weight[0, 0] = torch.inf
    with pytest.raises(UsageError, match=r"layers\.1\.mlp\.up_proj"):
        merge_adapters(encoder)


@pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing.:FutureWarning")  # peft's own
def test_peft_takes_the_saved_adapters_up(tmp_path):
    import peft
    import transformers

    encoder = adapted()
    tiny.build("mistral").save(tmp_path / "base")
    folder = save_adapters(encoder.backbone, tmp_path / "adapters", base=str(tmp_path / "base"))
    config = json.loads((folder / "adapter_config.json").read_text())
    assert (config["r"], config["base_model_name_or_path"]) == (4, str(tmp_path / "base"))
    assert sorted(config["target_modules"]) == list(LAYERS)
    base = transformers.AutoModel.from_pretrained(tmp_path / "base")
    ids = torch.arange(3, 11)[None]
    with torch.no_grad():
        expected = encoder.backbone(ids, torch.ones_like(ids) > 0).hidden_BLH
        found = peft.PeftModel.from_pretrained(base, folder)(input_ids=ids).last_hidden_state
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)
    loaded = Encoder.load(tmp_path / "base", pooling="mean", adapter=folder)
    expected = encoder.encode(tiny.CORPUS, modes=["dense"]).dense
    assert loaded.encode(tiny.CORPUS).dense == pytest.approx(expected, abs=1e-5)
    with pytest.raises(UsageError, match="no adapters"):
        save_adapters(tiny.encoder("mistral").backbone, tmp_path / "none")


def test_settings_that_make_no_sense():
    backbone = tiny.encoder("llama").backbone
    with pytest.raises(UnknownName, match="did you mean 'q_proj'"):
        add_adapters(backbone, targets=["q_porj"])
    with pytest.raises(UsageError, match="rank"):
        add_adapters(backbone, rank=0)
    with pytest.raises(UsageError, match="dropout"):
        add_adapters(backbone, dropout=1.0)
    assert add_adapters(backbone, targets=["v_proj", "q_proj"]) == ("q_proj", "v_proj")
    assert sum("lora_" in key for key, _ in backbone.named_parameters()) == 8
