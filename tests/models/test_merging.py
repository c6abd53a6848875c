import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file

from models import layouts, tiny
from trine import Encoder
from trine.errors import CheckpointError
from trine.models.merging import merge_lora

# peft 0.21 asks transformers 5.23 for a property by its old name.
pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")


def model(name="mistral", *, masked_lm=False):
    return tiny.build(name, masked_lm=masked_lm).model


def same(one, other):
    assert one.keys() == other.keys()
    for key, tensor in one.items():
        torch.testing.assert_close(tensor, other[key], rtol=1e-6, atol=1e-6)


@pytest.fixture
def adapter(plain, tmp_path):
    return layouts.adapter(plain("mistral"), tmp_path / "adapter", base="anything", seed=3)


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"use_rslora": True},
        {"lora_alpha": 5},
        {"alpha_pattern": {"q_proj": 3, "layers.1.mlp.up_proj": 40}},
    ],
)
def test_weights_are_those_of_peft(plain, tmp_path, settings):
    from peft import PeftModel

    folder = layouts.adapter(plain("mistral"), tmp_path / "adapter", base="x", seed=3, **settings)
    ours = model()
    before = {key: tensor.clone() for key, tensor in ours.state_dict().items()}
    merge_lora(ours, folder)
    theirs = PeftModel.from_pretrained(model(), folder).merge_and_unload()
    same(ours.state_dict(), theirs.state_dict())
    changed = {key for key, tensor in ours.state_dict().items() if not torch.equal(tensor, before[key])}
    assert changed == {key for key in before if "_proj." in key}


def test_an_adapter_that_peft_saved(tmp_path):
    """Trained on the model with its head, merged into the model without, and the other way round."""
    from peft import LoraConfig, get_peft_model

    def settings():
        return LoraConfig(r=3, lora_alpha=7, target_modules="all-linear", init_lora_weights=False)

    with_head = get_peft_model(model(masked_lm=True), settings())
    with_head.save_pretrained(tmp_path / "head")
    ours, whole = model(masked_lm=True).model, model(masked_lm=True)
    merge_lora(ours, tmp_path / "head")
    merge_lora(whole, tmp_path / "head")
    theirs = with_head.merge_and_unload()
    same(whole.state_dict(), theirs.state_dict())
    same(ours.state_dict(), theirs.model.state_dict())
    bare = get_peft_model(model(masked_lm=True).model, settings())
    bare.save_pretrained(tmp_path / "bare")
    around = model(masked_lm=True)
    merge_lora(around, tmp_path / "bare")
    same(around.model.state_dict(), bare.merge_and_unload().state_dict())


def test_convolutions_that_are_matrices_the_other_way_round(tmp_path):
    from peft import LoraConfig, get_peft_model

    config = transformers.GPT2Config(vocab_size=60, n_embd=16, n_layer=1, n_head=2, bos_token_id=1, eos_token_id=1)
    settings = LoraConfig(r=2, target_modules=["c_attn"], init_lora_weights=False, fan_in_fan_out=True)
    torch.manual_seed(0)
    wrapped = get_peft_model(transformers.GPT2Model(config), settings)
    wrapped.save_pretrained(tmp_path / "gpt2")
    torch.manual_seed(0)
    ours = transformers.GPT2Model(config)
    merge_lora(ours, tmp_path / "gpt2")
    same(ours.state_dict(), wrapped.merge_and_unload().state_dict())


def test_any_model_is_loaded_with_an_adapter(plain, adapter, tmp_path):
    """A checkpoint of another layout, an adapter of one's own; saved, it needs the adapter no more."""
    folder = layouts.e5_mistral(plain("mistral"), tmp_path / "model")
    bare, merged = (Encoder.load(folder, adapter=one, device="cpu") for one in (None, adapter))
    expected = model()
    merge_lora(expected, adapter)
    same(merged.backbone.model.state_dict(), expected.state_dict())
    assert merged.fingerprint != bare.fingerprint
    again = Encoder.load(merged.save(tmp_path / "saved"), device="cpu")
    assert again.fingerprint == merged.fingerprint


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"peft_type": "IA3"}, "peft_type is 'IA3'"),
        ({"use_dora": True}, "use_dora is True.*merge_and_unload"),
        ({"lora_bias": True}, "lora_bias is True"),
        ({"bias": "all"}, "bias is 'all'"),
        ({"modules_to_save": ["lm_head"]}, "modules_to_save is .'lm_head'."),
    ],
)
def test_more_than_lora_is_refused(adapter, settings, words):
    layouts.change(adapter / "adapter_config.json", **settings)
    with pytest.raises(CheckpointError, match=words):
        merge_lora(model(), adapter)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda tensors: tensors.pop("base_model.model.layers.0.mlp.up_proj.lora_A.weight"), "up_proj lacks"),
        (lambda tensors: tensors.clear(), "the file lacks matrices A and B"),
        (
            lambda tensors: tensors.update({"base_model.model.embed_tokens.lora_embedding_A": torch.ones(2, 2)}),
            "lora_embedding_A is no LoRA matrix of a linear layer",
        ),
        (
            lambda tensors: tensors["base_model.model.layers.1.mlp.up_proj.lora_B.weight"].fill_(float("nan")),
            "up_proj.lora_B.weight holds NaN",
        ),
        (
            lambda tensors: tensors.update(
                {f"base_model.model.layers.9.mlp.up_proj.lora_{part}.weight": torch.ones(2, 2) for part in "AB"}
            ),
            "changes layers.9.mlp.up_proj, which MistralModel does not have",
        ),
    ],
)
def test_files_that_do_not_fit(adapter, change, words):
    tensors = load_file(adapter / "adapter_model.safetensors")
    change(tensors)
    save_file(tensors, adapter / "adapter_model.safetensors")
    with pytest.raises(CheckpointError, match=words):
        merge_lora(model(), adapter)


def test_an_adapter_of_a_model_of_another_width(adapter):
    config = model().config
    config.intermediate_size = 48
    other = transformers.AutoModel.from_config(config)
    with pytest.raises(CheckpointError, match=r"matrix of shape \(32, 64\), the weight has \(32, 48\)"):
        merge_lora(other, adapter)


def test_missing_files(adapter):
    (adapter / "adapter_model.safetensors").unlink()
    with pytest.raises(CheckpointError, match="weights are missing"):
        merge_lora(model(), adapter)
    (adapter / "adapter_config.json").unlink()
    with pytest.raises(CheckpointError, match=r"adapter_config.json is missing"):
        merge_lora(model(), adapter)
