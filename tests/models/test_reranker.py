import shutil
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import transformers

from models import cross_encoders, layouts, tiny
from trine import Encoder, Reranker
from trine.errors import CheckpointError, ModelNotFound, UnknownName, UsageError
from trine.models.config import TextConfig
from trine.models.reranker import Ranked, _with_head
from trine.types import MODES

PAIRS = cross_encoders.PAIRS


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    root = tmp_path_factory.mktemp("cross-encoders")
    return {name: cross_encoders.bare(name, root / name) for name in cross_encoders.BACKBONES}


@pytest.fixture(scope="module")
def reranker(folders):
    return Reranker.load(folders["bert"], device="cpu")


def same(found, wanted):
    """Equal but for the order in which a processor adds up."""
    np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-6)


def by_hand(reranker, query, passage):
    """The logit of one pair, without batches and padding, by transformers alone."""
    inputs = reranker.tokenizer(
        [query], [passage], truncation="longest_first", max_length=reranker.config.max_length, return_tensors="pt"
    )
    with torch.no_grad():
        return float(reranker.model(**inputs).logits[0, 0])


@pytest.mark.parametrize("name", cross_encoders.BACKBONES)
def test_scores_are_the_models_logits_in_input_order(folders, name):
    reranker = Reranker.load(folders[name], device="cpu", layout="sentence_transformers")
    wanted = np.array([by_hand(reranker, *pair) for pair in PAIRS])
    for budget in (None, 1, 200):
        found = reranker.score(PAIRS, normalize=False, batch_tokens=budget)
        assert (found.dtype, found.shape) == (np.float32, (len(PAIRS),))
        np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-5)
    assert wanted.std() > 0.05  # were all alike, their order would prove nothing


def test_what_the_checkpoint_states_is_what_comes_out(folders, reranker):
    pairs = PAIRS[:8]
    logits = reranker.score(pairs, normalize=False)
    same(reranker.score(pairs), logits)
    np.testing.assert_allclose(reranker.score(pairs, normalize=True), 1 / (1 + np.exp(-logits)), rtol=1e-6)
    other = Reranker.load(folders["bert"], device="cpu", layout="sentence_transformers")
    np.testing.assert_allclose(other.score(pairs), 1 / (1 + np.exp(-other.score(pairs, normalize=False))), rtol=1e-6)


def test_passages_are_ranked(reranker):
    passages = [*tiny.CORPUS, tiny.CORPUS[3], tiny.CORPUS[0]]
    ranked = reranker.rank("교착 상태", passages)
    scores = reranker.score([("교착 상태", passage) for passage in passages])
    assert sorted(item.index for item in ranked) == list(range(len(passages)))
    assert all(item == Ranked(item.index, float(scores[item.index])) for item in ranked)
    assert [(-item.score, item.index) for item in ranked] == sorted((-item.score, item.index) for item in ranked)
    assert reranker.rank("교착 상태", passages, k=3) == ranked[:3]
    assert all(0 < item.score < 1 for item in reranker.rank("a", passages, normalize=True))


def test_nothing_gives_nothing_and_empty_texts_have_scores(reranker):
    assert reranker.score([]).shape == (0,)
    assert reranker.rank("a", []) == []
    assert np.isfinite(reranker.score([("", ""), ("a", ""), ("", "a"), (" \n", "\ud800")])).all()


def test_what_is_no_pair_is_refused(reranker):
    for pairs in ("ab", [("a", "b"), "ab"], [("a",)], [("a", "b", "c")], [("a", None)], [(1, "b")], [["a", ["b"]]]):
        with pytest.raises(UsageError, match="pair"):
            reranker.score(pairs)
    with pytest.raises(UsageError, match="list of strings"):
        reranker.rank("a", "b")
    with pytest.raises(UsageError, match="k is 0"):
        reranker.rank("a", ["b"], k=0)
    with pytest.raises(UsageError, match="batch_tokens must be at least 1"):
        reranker.score(PAIRS[:1], batch_tokens=0)
    with pytest.raises(UnknownName, match="no engine"):
        reranker.score(PAIRS[:1], engine="warp")


def test_lengths_can_be_chosen(folders):
    shorter = Reranker.load(folders["bert"], device="cpu", max_length=20)
    assert (shorter.config.max_length, shorter.config.query_max_length) == (20, 15)
    with pytest.raises(UsageError, match="max_length 49 is more than the 48"):
        Reranker.load(folders["bert"], device="cpu", max_length=49)
    with pytest.raises(UsageError, match="no room for a passage"):
        Reranker.load(folders["bert"], device="cpu", max_length=3)
    with pytest.raises(ModelNotFound):
        Reranker.load("nowhere")


def test_the_query_prompt_stands_in_front(folders, tmp_path, reranker):
    folder = cross_encoders.new(
        folders["bert"],
        tmp_path / "prompted",
        activation="torch.nn.modules.linear.Identity",
        prompts={"q": "검색: "},
        default_prompt_name="q",
    )
    prompted = Reranker.load(folder, device="cpu")
    plain = Reranker.load(folders["bert"], device="cpu", layout="sentence_transformers")
    np.testing.assert_allclose(
        prompted.score([("문서", "a")]), plain.score([("검색: 문서", "a")], normalize=False), rtol=1e-6
    )
    again = Reranker.load(prompted.save(tmp_path / "again"), device="cpu")
    same(prompted.score(PAIRS), again.score(PAIRS))


@pytest.mark.parametrize("name", cross_encoders.BACKBONES)
def test_saved_and_loaded_it_is_the_same(folders, tmp_path, name):
    reranker = Reranker.load(folders[name], device="cpu")
    again = Reranker.load(reranker.save(tmp_path / "saved"), device="cpu")
    assert again.config == reranker.config
    assert again.fingerprint == reranker.fingerprint
    same(again.score(PAIRS), reranker.score(PAIRS))


def test_the_fingerprint_follows_weights_and_settings_only(folders, tmp_path):
    base = Reranker.load(folders["bert"], device="cpu")
    assert Reranker.load(folders["bert"], device="cpu").fingerprint == base.fingerprint
    assert Reranker.load(folders["bert"], device="cpu", dtype="float16").fingerprint == base.fingerprint
    assert Reranker.load(folders["bert"], device="cpu", dtype="bfloat16").fingerprint == base.fingerprint
    assert Reranker.load(folders["bert"], device="cpu", max_length=20).fingerprint != base.fingerprint
    changed = shutil.copytree(folders["bert"], tmp_path / "changed")
    other = Reranker.load(changed, device="cpu")
    with torch.no_grad():
        other.model.classifier.weight[0, 0] += 0.5
    assert other.fingerprint != base.fingerprint
    before = other.fingerprint
    with torch.no_grad():
        other.model.classifier.weight[0, 0] += 0.5
    assert other.trained().fingerprint != before


def test_lower_precision_is_near(folders):
    exact = Reranker.load(folders["xlm_roberta"], device="cpu")
    rough = Reranker.load(folders["xlm_roberta"], device="cpu", dtype="bfloat16")
    assert rough.dtype == torch.bfloat16
    np.testing.assert_allclose(rough.score(PAIRS), exact.score(PAIRS), atol=0.05)
    assert rough.score(PAIRS).dtype == np.float32


def test_it_scores_without_dropout_while_it_is_trained(folders):
    reranker = Reranker.load(folders["bert"], device="cpu")
    wanted = reranker.score(PAIRS[:5])
    reranker.train()
    same(reranker.score(PAIRS[:5]), wanted)
    assert reranker.training
    assert reranker.model.bert.embeddings.dropout.training


# -- a new head ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [*cross_encoders.BACKBONES, "mpnet", "distilbert"])
def test_a_head_on_an_encoder_keeps_its_transformer(trio, name):
    encoder = trio(name)
    reranker = Reranker.from_backbone(encoder, max_length=40)
    kept = getattr(reranker.model, reranker.model.base_model_prefix).state_dict()
    for key, tensor in encoder.backbone.model.state_dict().items():
        if not key.startswith("pooler."):
            assert torch.equal(kept[key], tensor), key
    assert reranker.config.untrained
    assert reranker.config.max_length == 40
    assert not reranker.training
    assert torch.equal(
        torch.cat([part.flatten() for part in reranker.parameters()]),
        torch.cat([part.flatten() for part in Reranker.from_backbone(encoder, max_length=40).parameters()]),
    )
    other = Reranker.from_backbone(encoder, max_length=40, seed=1)
    assert not np.allclose(other.score(PAIRS[:3]), reranker.score(PAIRS[:3]))
    # A copy: training it leaves the encoder as it is.
    before = encoder.encode(["a"], modes=["dense"]).dense
    with torch.no_grad():
        for parameter in reranker.parameters():
            parameter.zero_()
    same(encoder.encode(["a"], modes=["dense"]).dense, before)


def test_a_head_on_a_folder_is_that_on_its_encoder(plain, tmp_path):
    encoder = Encoder.load(plain("xlm_roberta"), pooling="mean", device="cpu")
    wanted = Reranker.from_backbone(encoder).score(PAIRS)
    same(Reranker.from_backbone(plain("xlm_roberta")).score(PAIRS), wanted)
    native = encoder.save(tmp_path / "native")
    same(Reranker.from_backbone(str(native)).score(PAIRS), wanted)
    masked = plain("bert", masked_lm=True)
    assert np.isfinite(Reranker.from_backbone(Encoder.load(masked, layout="splade", device="cpu")).score(PAIRS)).all()


def test_an_untrained_head_stays_marked_until_it_is_trained(trio, tmp_path):
    reranker = Reranker.from_backbone(trio("bert"))
    again = Reranker.load(reranker.save(tmp_path / "raw"), device="cpu")
    assert again.config.untrained
    same(again.score(PAIRS), reranker.score(PAIRS))
    again.trained().save(tmp_path / "trained")
    assert not Reranker.load(tmp_path / "trained", device="cpu").config.untrained


def test_no_head_where_there_is_no_transformer(tmp_path):
    with pytest.raises(CheckpointError, match=r"config\.json is missing"):
        Reranker.from_backbone(tmp_path)
    with pytest.raises(UsageError, match="more than the 30 tokens"):
        Reranker.from_backbone(tiny.encoder("bert", text=TextConfig(max_length=30)), max_length=31)
    assert set(tiny.encoder("bert").modes) == set(MODES)


def test_a_transformer_that_no_classifier_fits_is_refused():
    encoder = tiny.encoder("bert")
    encoder.backbone.model.register_parameter("surplus", torch.nn.Parameter(torch.zeros(1)))
    with pytest.raises(UsageError, match=r"other weights than the encoder: \['surplus'\]"):
        Reranker.from_backbone(encoder)
    with pytest.raises(UsageError, match="no classifier of the architecture 'clap_audio_model'"):
        _with_head(SimpleNamespace(config=transformers.ClapAudioConfig()), seed=0)


def test_an_encoder_is_no_reranker_and_the_message_says_the_way(plain, tmp_path):
    with pytest.raises(CheckpointError, match=r"Reranker\.from_backbone"):
        Reranker.load(plain("bert"), device="cpu")
    folder = shutil.copytree(plain("bert"), tmp_path / "renamed")
    layouts.change(folder / "config.json", architectures=["BertForSequenceClassification"], id2label={"0": "LABEL_0"})
    with pytest.raises(CheckpointError, match="would be random"):
        Reranker.load(folder, device="cpu")
