"""sentence-transformers' CrossEncoder and FlagEmbedding's FlagReranker against trine, in both directions.

FlagEmbedding wants transformers 4, so it runs in an environment of its own, whose interpreter the environment
variable TRINE_FLAGEMBEDDING_PYTHON names.
"""

import json
import os
import subprocess

import numpy as np
import pytest
import torch
from sentence_transformers import CrossEncoder

from models import cross_encoders, tiny
from trine import Reranker

PAIRS = [(query, passage) for query in tiny.TEXTS for passage in tiny.TEXTS]
SOME = PAIRS[::5]
SIGMOID, IDENTITY = "torch.nn.modules.activation.Sigmoid", "torch.nn.modules.linear.Identity"


@pytest.fixture(scope="module")
def bare(tmp_path_factory):
    root = tmp_path_factory.mktemp("bare")
    return {name: cross_encoders.bare(name, root / name) for name in cross_encoders.BACKBONES}


def agree(reranker, model):
    """Stated scores and logits of all pairs of texts."""
    np.testing.assert_allclose(reranker.score(SOME), model.predict(SOME), rtol=1e-5, atol=1e-5)
    logits = model.predict(SOME, activation_fn=torch.nn.Identity())
    np.testing.assert_allclose(reranker.score(SOME, normalize=False), logits, rtol=1e-5, atol=1e-5)
    assert logits.std() > 0.05


@pytest.mark.parametrize("name", cross_encoders.BACKBONES)
def test_folders_that_cross_encoder_saves(bare, tmp_path, name):
    for number, activation in enumerate((torch.nn.Sigmoid(), torch.nn.Identity())):
        model = CrossEncoder(str(bare[name]), device="cpu", activation_fn=activation, max_length=40 + number)
        model.save_pretrained(str(tmp_path / str(number)))
        reranker = Reranker.load(tmp_path / str(number), device="cpu")
        assert reranker.config.origin == "sentence_transformers"
        assert reranker.config.max_length == 40 + number
        agree(reranker, model)


@pytest.mark.parametrize("name", cross_encoders.BACKBONES)
@pytest.mark.parametrize(
    ("key", "activation"),
    [
        ("sentence_transformers", IDENTITY),
        ("sentence_transformers", SIGMOID),
        ("sentence_transformers", None),
        ("sbert_ce_default_activation_function", IDENTITY),
    ],
)
def test_folders_of_older_versions(bare, tmp_path, name, key, activation):
    folder = cross_encoders.old(bare[name], tmp_path / "old", activation=activation, key=key)
    agree(Reranker.load(folder, device="cpu"), CrossEncoder(str(folder), device="cpu"))


def test_a_default_prompt(bare, tmp_path):
    folder = cross_encoders.new(
        bare["bert"],
        tmp_path / "prompted",
        activation=IDENTITY,
        prompts={"query": "검색: "},
        default_prompt_name="query",
    )
    agree(Reranker.load(folder, device="cpu"), CrossEncoder(str(folder), device="cpu"))


@pytest.mark.parametrize("name", cross_encoders.BACKBONES)
def test_cross_encoder_reads_what_trine_saves(bare, tmp_path, name):
    new_head = Reranker.from_backbone(tiny.encoder(name), max_length=44)
    tiny.randomise(new_head.model, seed=9)
    prompted = cross_encoders.new(
        bare[name], tmp_path / "prompted", activation=SIGMOID, prompts={"q": "a "}, default_prompt_name="q"
    )
    for number, reranker in enumerate((new_head, Reranker.load(prompted, device="cpu"))):
        folder = reranker.save(tmp_path / str(number))
        agree(reranker, CrossEncoder(str(folder), device="cpu"))
        # Versions before 5.4 do not read these files; config.json says enough.
        for path in ("modules.json", "config_sentence_transformers.json", "sentence_bert_config.json"):
            (folder / path).unlink()
        again = CrossEncoder(str(folder), device="cpu", max_length=reranker.config.max_length)
        assert type(again.activation_fn) is (torch.nn.Sigmoid if number else torch.nn.Identity)


def test_saved_from_the_bge_layout_pairs_that_fit_score_alike(bare, tmp_path):
    reranker = Reranker.load(bare["xlm_roberta"], device="cpu")
    model = CrossEncoder(str(reranker.save(tmp_path / "saved")), device="cpu")
    short = [(query, passage) for query in tiny.CORPUS[:4] for passage in tiny.TEXTS]
    assert max(len(row) for row in reranker.pairs.ids(tiny.TEXTS).values()) > tiny.MAX_LENGTH
    np.testing.assert_allclose(reranker.score(short), model.predict(short), rtol=1e-5, atol=1e-5)


SCRIPT = """
import json, sys
from FlagEmbedding import FlagReranker

results = []
for job in json.loads(sys.stdin.read()):
    model = FlagReranker(job["folder"], use_fp16=False, devices="cpu", max_length=job["max_length"], batch_size=64)
    results.append([model.compute_score(job["pairs"], normalize=normalize) for normalize in (False, True)])
print("RESULTS" + json.dumps(results))
"""


@pytest.mark.flagembedding
def test_flag_reranker_gives_the_same_scores(bare, tmp_path):
    """All pairs, far too long ones on either side too, at full and at shorter length; and from a saved folder."""
    python = os.environ.get("TRINE_FLAGEMBEDDING_PYTHON")
    if not python:
        pytest.skip("set TRINE_FLAGEMBEDDING_PYTHON to an interpreter that has FlagEmbedding 1.4")
    rerankers = {}
    for name in ("xlm_roberta", "bert"):
        for length in (tiny.MAX_LENGTH, 21):
            rerankers[bare[name], length] = Reranker.load(bare[name], device="cpu", max_length=length)
    saved = rerankers[bare["xlm_roberta"], 21].save(tmp_path / "saved")
    rerankers[saved, 21] = Reranker.load(saved, device="cpu")
    jobs = [{"folder": str(folder), "max_length": length, "pairs": PAIRS} for folder, length in rerankers]
    done = subprocess.run([python, "-c", SCRIPT], input=json.dumps(jobs), text=True, capture_output=True)
    assert done.returncode == 0, done.stderr[-3000:]
    results = json.loads(done.stdout.partition("RESULTS")[2])
    for reranker, (logits, probabilities) in zip(rerankers.values(), results, strict=True):
        np.testing.assert_allclose(reranker.score(PAIRS), logits, rtol=1e-5, atol=1e-5)
        np.testing.assert_allclose(reranker.score(PAIRS, normalize=True), probabilities, rtol=1e-5, atol=1e-5)
