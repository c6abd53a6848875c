import inspect
import json
import shutil
from concurrent.futures import ThreadPoolExecutor
from copy import deepcopy as copy_of

import pytest
import torch
from safetensors.torch import load_file, save_file

from models import layouts, tiny
from trine.errors import CheckpointError, UnknownName, UsageError
from trine.models.backbone import Backbone


def load(folder, *, masked_lm=False, **options):
    return Backbone.load(folder, masked_lm=masked_lm, dtype=torch.float32, **options)


@pytest.fixture
def copy(plain, tmp_path):
    return shutil.copytree(plain("bert"), tmp_path / "copy")


@pytest.mark.parametrize("name", tiny.BACKBONES)
def test_states_are_those_of_transformers(name):
    model = tiny.build(name).model
    ids = torch.tensor([[2, 50, 60, 70, 3], [2, 80, 3, 0, 0]])
    mask = torch.tensor([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0]])
    backbone = Backbone(model, masked_lm=False)
    with torch.no_grad():
        expected = model(input_ids=ids, attention_mask=mask).last_hidden_state
        states = backbone(ids, mask.bool())
    torch.testing.assert_close(states.hidden_BLH, expected)
    assert states.logits_BLV is None
    assert backbone.hidden_size == tiny.HIDDEN
    assert backbone.vocabulary_size == model.config.vocab_size


@pytest.mark.parametrize("name", tiny.BACKBONES)
def test_a_masked_lm_gives_the_same_states_and_its_logits(plain, name):
    """Of all hidden states that a model lists, the last must be the one behind its final norm."""
    folder = plain(name, masked_lm=True)
    both, bare = load(folder, masked_lm=True), load(folder)
    ids = torch.tensor([[2, 50, 60, 70, 3]])
    with torch.no_grad():
        states, expected = both(ids, ids > 0), bare(ids, ids > 0)
        logits = both.model(input_ids=ids, attention_mask=torch.ones_like(ids)).logits
    torch.testing.assert_close(states.hidden_BLH, expected.hidden_BLH)
    torch.testing.assert_close(states.logits_BLV, logits)
    assert states.logits_BLV.shape == (1, 5, both.vocabulary_size)


@pytest.mark.parametrize("name", tiny.BACKBONES)
def test_the_language_model_head_takes_states_of_any_origin(plain, name):
    backbone = load(plain(name, masked_lm=True), masked_lm=True)
    keys, ids = list(backbone.state_dict()), torch.tensor([[2, 50, 60, 70, 3]])
    with torch.no_grad():
        states = backbone(ids, ids > 0)
        again = backbone.predict(states.hidden_BLH[:, 1:3])
        logits = backbone.model(input_ids=ids).logits
    torch.testing.assert_close(again.logits, logits[:, 1:3])
    assert list(backbone.state_dict()) == keys
    # The gradient reaches the head, the tied embeddings and the states.
    hidden = states.hidden_BLH.requires_grad_()
    backbone.predict(hidden).logits.square().sum().backward()
    assert hidden.grad.abs().sum() > 0
    assert backbone.model.get_input_embeddings().weight.grad.abs().sum() > 0


def test_a_copied_backbone_keeps_its_head(plain):
    """Wrapped a second time, copied, or asked for plain logits."""
    backbone = load(plain("bert", masked_lm=True), masked_lm=True)
    ids = torch.tensor([[2, 50, 3]])
    again = Backbone(copy_of(backbone.model), masked_lm=True)
    with torch.no_grad():
        expected = backbone.model(input_ids=ids).logits
        for one in (again, copy_of(backbone)):
            torch.testing.assert_close(one(ids, ids > 0).logits_BLV, expected)


def test_threads_do_not_mix_their_predictions(plain):
    backbone = load(plain("bert", masked_lm=True), masked_lm=True)
    texts = [torch.full((1, 3 + number % 4), 50 + number) for number in range(40)]
    with torch.no_grad():
        expected = [backbone(ids, ids > 0).logits_BLV for ids in texts]

        def run(ids):
            with torch.no_grad():
                return backbone(ids, ids > 0).logits_BLV

        with ThreadPoolExecutor(4) as pool:
            found = list(pool.map(run, texts))
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other)


def test_only_a_masked_lm_predicts():
    with pytest.raises(UsageError, match="masked_lm=True"):
        Backbone(tiny.build("bert").model, masked_lm=False).predict(torch.zeros(1, 2, tiny.HIDDEN))


@pytest.mark.parametrize("name", tiny.BACKBONES)
def test_embeddings_are_what_the_first_layer_sees(name):
    model = tiny.build(name).model
    ids = torch.tensor([[2, 50, 60, 3]])
    with torch.no_grad():
        first = model(input_ids=ids, output_hidden_states=True).hidden_states[0]
        torch.testing.assert_close(Backbone(model, masked_lm=False).embedded(ids), first)


@pytest.mark.parametrize(
    ("name", "first"), [("bert", 0), ("xlm_roberta", 2), ("distilbert", 0), ("mpnet", 2), ("modernbert", None)]
)
def test_learned_positions_and_where_they_begin(name, first):
    positions = Backbone(tiny.build(name).model, masked_lm=False).positions
    assert (None if positions is None else positions.first) == first
    if positions is not None:
        assert positions.length == tiny.MAX_LENGTH


def test_weights_that_no_embedding_passes_are_not_made_up(plain):
    """The pooler is missing in a masked-LM checkpoint; it is left out rather than random."""
    backbone = load(plain("bert", masked_lm=True))
    assert not [name for name, _ in backbone.named_parameters() if "pooler" in name]
    assert [name for name, _ in load(plain("bert")).named_parameters() if "pooler" in name]


def test_missing_weights_are_an_error_and_never_random(copy):
    tensors = load_file(copy / "model.safetensors")
    del tensors["encoder.layer.1.output.dense.weight"]
    save_file(tensors, copy / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(CheckpointError, match="1 weights are missing .encoder.layer.1.output.dense.weight"):
        load(copy)
    load(copy, ignored=("encoder.layer.1.output.",))  # unless a head owns them


def test_a_checkpoint_without_its_masked_lm_head(plain):
    with pytest.raises(CheckpointError, match="weights are missing"):
        load(plain("bert"), masked_lm=True)


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"vocab_size": 99}, r"word_embeddings.weight is \(\d+, 32\), should be \(99, 32\)"),
        ({"hidden_size": 64}, "weights have shapes other than config.json says"),
        ({"num_hidden_layers": 3}, "16 weights are missing"),
        ({"model_type": "no_such_model"}, "cannot be loaded.*no_such_model"),
        ({"num_attention_heads": 5}, "cannot be loaded"),
    ],
)
def test_a_configuration_of_another_model(copy, fields, words):
    layouts.change(copy / "config.json", **fields)
    with pytest.raises(CheckpointError, match=words):
        load(copy)


@pytest.mark.parametrize("content", [b"", b"\x08\x00\x00\x00\x00\x00\x00\x00{}", b"no weights at all"])
def test_broken_weights(copy, content):
    (copy / "model.safetensors").write_bytes(content)
    with pytest.raises(CheckpointError):
        load(copy)


def test_a_download_that_broke_off(copy):
    whole = (copy / "model.safetensors").read_bytes()
    (copy / "model.safetensors").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(CheckpointError, match="cannot be loaded"):
        load(copy)


def test_no_weights_or_no_configuration(copy):
    (copy / "model.safetensors").unlink()
    with pytest.raises(CheckpointError, match="no file named model.safetensors"):
        load(copy)
    (copy / "config.json").unlink()
    with pytest.raises(CheckpointError, match="cannot be loaded"):
        load(copy)


def test_pickled_weights_are_read_without_their_code(copy):
    tensors = load_file(copy / "model.safetensors")
    (copy / "model.safetensors").unlink()
    torch.save(tensors, copy / "pytorch_model.bin")
    assert load(copy).hidden_size == tiny.HIDDEN


def test_dtype_of_the_weights(plain):
    backbone = Backbone.load(plain("bert"), masked_lm=False, dtype=torch.bfloat16)
    assert {parameter.dtype for parameter in backbone.parameters()} == {torch.bfloat16}
    assert not backbone.training


def test_loading_says_nothing_and_leaves_the_settings_alone(plain, capfd):
    import transformers

    before = transformers.logging.get_verbosity(), transformers.logging.is_progress_bar_enabled()
    load(plain("bert", masked_lm=True))
    assert capfd.readouterr() == ("", "")
    assert (transformers.logging.get_verbosity(), transformers.logging.is_progress_bar_enabled()) == before


def test_the_tiny_model_is_the_same_in_every_run(plain):
    """Guards the fixtures: other weights or another vocabulary would mean other tests."""
    config = json.loads((plain("bert") / "config.json").read_text())
    assert config["hidden_size"] == tiny.HIDDEN
    first, second = (tiny.build("bert").model.state_dict() for _ in range(2))
    for key, tensor in first.items():
        torch.testing.assert_close(tensor, second[key], rtol=0, atol=0)


# -- decoders --------------------------------------------------------------------------------------------------------

IDS = torch.tensor([[1, 50, 60, 70, 80, 90, 51, 61, 71, 81, 91, 2]])


def states(backbone, ids, *, padding=0, left=False):
    """Hidden states of the real tokens, with so many tokens of padding at a side."""
    width = (padding, 0) if left else (0, padding)
    mask = torch.nn.functional.pad(torch.ones_like(ids, dtype=torch.bool), width)
    with torch.no_grad():
        found = backbone(torch.nn.functional.pad(ids, width, value=5), mask).hidden_BLH
    return found[mask][None]


@pytest.mark.parametrize("masked_lm", [False, True])
@pytest.mark.parametrize("attention", ["native", "causal", "bidirectional"])
@pytest.mark.parametrize("name", tiny.DECODERS)
def test_the_last_token_moves_the_first_state_of_a_bidirectional_decoder_only(name, attention, masked_lm):
    backbone = Backbone(tiny.build(name, masked_lm=masked_lm).model, masked_lm=masked_lm, attention=attention)
    other = IDS.clone()
    other[0, -1] = 99
    for padding in (0, 3):
        moved = (states(backbone, IDS, padding=padding) - states(backbone, other, padding=padding))[0].abs().amax(-1)
        assert moved[-1] > 1e-3
        # The windows of 12 tokens reach from the first to the last of 12.
        assert (moved[0] > 1e-4) == (attention == "bidirectional")
        assert (moved[:-1] > 1e-4).any() == (attention == "bidirectional")


@pytest.mark.parametrize("attention", ["causal", "bidirectional"])
@pytest.mark.parametrize("name", tiny.DECODERS)
def test_padding_on_either_side_changes_no_state(name, attention):
    backbone = Backbone(tiny.build(name).model, masked_lm=False, attention=attention)
    alone = states(backbone, IDS)
    for padding, left in ((1, False), (9, False), (1, True), (9, True)):
        torch.testing.assert_close(states(backbone, IDS, padding=padding, left=left), alone, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", tiny.DECODERS)
def test_sliding_windows_stay_windows_in_both_directions(name):
    """A switched layer with a window sees as far behind as ahead, and no further."""
    model = tiny.build(name).model
    backbone = Backbone(model, masked_lm=False, attention="bidirectional")
    ids = torch.arange(10, 50)[None]
    other = ids.clone()
    other[0, -1] = 99
    moved = (states(backbone, ids) - states(backbone, other))[0].abs().amax(-1)
    kinds = getattr(model.config, "layer_types", None) or [
        "sliding_attention" if name == "mistral" else "full_attention"
    ]
    assert bool(moved[0] > 1e-6) == ("full_attention" in kinds)
    assert moved[-11] > 1e-4


def test_the_states_are_those_of_a_mask_made_by_hand():
    """Zeros, and the smallest number in the columns of padding, through eager attention."""
    parts = tiny.build("llama")
    mask = torch.tensor([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0]])
    ids = torch.tensor([[1, 50, 60, 70, 2], [1, 80, 2, 3, 3]])
    wide = torch.zeros(2, 1, 5, 5).masked_fill(mask[:, None, None, :] == 0, torch.finfo(torch.float32).min)
    parts.model.set_attn_implementation("eager")
    with torch.no_grad():
        expected = parts.model(input_ids=ids, attention_mask=wide).last_hidden_state[mask.bool()]
        backbone = Backbone(tiny.build("llama").model, masked_lm=False, attention="bidirectional")
        found = backbone(ids, mask.bool()).hidden_BLH[mask.bool()]
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


def test_a_switch_without_effect_is_an_error(monkeypatch):
    """As in transformers before 5.2, where the flag was read by nobody."""
    with pytest.raises(UsageError, match="BertModel does not become causal in transformers 5"):
        Backbone(tiny.build("bert").model, masked_lm=False, attention="causal")
    model = tiny.build("llama").model
    forward = model.forward

    def deaf(*arguments, **options):
        model.config.is_causal = True
        return forward(*arguments, **options)

    deaf.__signature__ = inspect.signature(forward)
    monkeypatch.setattr(model, "forward", deaf)
    with pytest.raises(
        UsageError, match="LlamaModel does not become bidirectional.*does not move the states before it"
    ):
        Backbone(model, masked_lm=False, attention="bidirectional")
    with pytest.raises(UnknownName, match="no attention called 'bidirectonal'; did you mean 'bidirectional'"):
        Backbone(model, masked_lm=False, attention="bidirectonal")


def test_encoders_are_bidirectional_already():
    backbone = Backbone(tiny.build("bert").model, masked_lm=False, attention="bidirectional")
    torch.testing.assert_close(states(backbone, IDS), states(Backbone(tiny.build("bert").model, masked_lm=False), IDS))


def test_the_switch_is_saved_and_loaded(tmp_path):
    folder = tiny.build("qwen3").save(tmp_path / "model")
    switched = load(folder, attention="bidirectional")
    switched.model.save_pretrained(tmp_path / "saved")
    assert json.loads((tmp_path / "saved" / "config.json").read_text())["is_causal"] is False
    torch.testing.assert_close(states(load(tmp_path / "saved"), IDS), states(switched, IDS))
    back = load(tmp_path / "saved", attention="causal")
    torch.testing.assert_close(states(back, IDS), states(load(folder), IDS))


@pytest.mark.parametrize("name", tiny.DECODERS)
def test_a_decoder_predicts_with_its_next_token_head(plain, name):
    folder = plain(name, masked_lm=True)
    both, bare = load(folder, masked_lm=True), load(folder)
    with torch.no_grad():
        found, expected = both(IDS, IDS > 0), bare(IDS, IDS > 0)
        logits = both.model(input_ids=IDS).logits
    torch.testing.assert_close(found.hidden_BLH, expected.hidden_BLH)
    torch.testing.assert_close(found.logits_BLV, logits)
    # Gemma 2 caps its logits behind the projection, so that they cannot be computed piece by piece.
    assert (found.prediction.weight_VH is None) == (name == "gemma2")
    if name != "gemma2":
        with torch.no_grad():
            torch.testing.assert_close(both.predict(found.hidden_BLH).logits, logits)


def test_keys_and_values_are_not_kept():
    model = tiny.build("llama").model
    seen = []
    model.register_forward_hook(lambda module, given, output: seen.append(output.past_key_values))
    with torch.no_grad():
        Backbone(model, masked_lm=False)(IDS, IDS > 0)
    assert seen == [None]


@pytest.mark.parametrize("name", tiny.DECODERS)
def test_it_says_whether_tokens_see_ahead(name):
    for attention, expected in (("native", False), ("causal", False), ("bidirectional", True)):
        backbone = Backbone(tiny.build(name).model, masked_lm=False, attention=attention)
        assert backbone.keeps_cache
        assert backbone.sees_ahead == expected
    assert Backbone(tiny.build("bert").model, masked_lm=False).sees_ahead
