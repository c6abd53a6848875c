"""FlagEmbedding's own unified fine-tuning loss against trine's, on the same hidden states: value and gradients.

FlagEmbedding wants transformers 4, so it runs in an environment of its own, whose interpreter the environment
variable TRINE_FLAGEMBEDDING_PYTHON names.
"""

import os
import subprocess

import numpy as np
import pytest
import torch

from trine.objectives.base import Embedded, PairBatch, TokenVectors, TokenWeights
from trine.objectives.embedding import EmbeddingObjective

pytestmark = pytest.mark.flagembedding

PYTHON = os.environ.get("TRINE_FLAGEMBEDDING_PYTHON")
VOCABULARY, HIDDEN = 40, 16
SPECIAL = (0, 1, 2, 3)

SCRIPT = """
import sys
from types import SimpleNamespace
import numpy as np
import torch
from FlagEmbedding.finetune.embedder.encoder_only.m3.modeling import EncoderOnlyEmbedderM3Model

class Backbone(torch.nn.Module):
    def __init__(self, vocabulary):
        super().__init__()
        self.config = SimpleNamespace(vocab_size=vocabulary)
    def forward(self, input_ids, attention_mask, hidden, return_dict):
        return SimpleNamespace(last_hidden_state=hidden)

def linear(given, name):
    weight, bias = torch.from_numpy(given[name + "_weight"]), torch.from_numpy(given[name + "_bias"])
    layer = torch.nn.Linear(weight.shape[1], weight.shape[0], dtype=torch.float64)
    with torch.no_grad():
        layer.weight.copy_(weight)
        layer.bias.copy_(bias)
    return layer

def run(given, result):
    heads = {"sparse_linear": linear(given, "sparse"), "colbert_linear": linear(given, "colbert")}
    model = EncoderOnlyEmbedderM3Model(
        {"model": Backbone(int(given["vocabulary"])), **heads},
        tokenizer=SimpleNamespace(cls_token_id=0, pad_token_id=1, eos_token_id=2, unk_token_id=3, padding_side="right"),
        temperature=float(given["temperature"]),
        normalize_embeddings=True,
        unified_finetuning=True,
        use_self_distill=bool(given["self_distill"]),
        kd_loss_type=str(given["kd"]) or "kl_div",
    )
    model.train()
    sides = {}
    for side in ("query", "passage"):
        sides[side] = {
            "input_ids": torch.from_numpy(given[side + "_ids"]),
            "attention_mask": torch.from_numpy(given[side + "_mask"]),
            "hidden": torch.from_numpy(given[side + "_hidden"]).requires_grad_(),
        }
    teacher = given["teacher"].tolist() if str(given["kd"]) else None
    loss = model(sides["query"], sides["passage"], teacher_scores=teacher).loss
    loss.backward()
    np.savez(
        result,
        loss=loss.detach().numpy(),
        query=sides["query"]["hidden"].grad.numpy(),
        passage=sides["passage"]["hidden"].grad.numpy(),
        sparse=heads["sparse_linear"].weight.grad.numpy(),
        colbert=heads["colbert_linear"].weight.grad.numpy(),
    )

for path in sys.argv[1:]:
    run(np.load(path), path.replace(".in.npz", ".out.npz"))
"""


def side(name, lengths, generator):
    """Ids with special tokens at both ends, now and then one twice or unknown; right padding."""
    width = max(lengths)
    ids = torch.full((len(lengths), width), 1)
    for row, length in enumerate(lengths):
        ids[row, 0], ids[row, length - 1] = 0, 2
        ids[row, 1 : length - 1] = torch.randint(3, 15, (length - 2,), generator=generator)
    mask = (torch.arange(width)[None] < torch.tensor(lengths)[:, None]).long()
    hidden = torch.randn(len(lengths), width, HIDDEN, dtype=torch.float64, generator=generator)
    return {f"{name}_ids": ids, f"{name}_mask": mask, f"{name}_hidden": hidden}


def embedded(job, name):
    """trine's packed arrays from the same hidden states and head weights."""
    ids, mask, hidden = job[f"{name}_ids"], job[f"{name}_mask"].bool(), job[f"{name}_hidden"]
    weights = torch.relu(hidden @ job["sparse_weight"].T + job["sparse_bias"])[..., 0]
    carries = mask & ~torch.isin(ids, torch.tensor(SPECIAL))
    kept = mask.clone()
    kept[:, 0] = False
    vectors = hidden[kept] @ job["colbert_weight"].T + job["colbert_bias"]

    def offsets(which):
        return torch.cat([torch.zeros(1, dtype=torch.int64), which.sum(1).cumsum(0)])

    return Embedded(
        dense_ND=torch.nn.functional.normalize(hidden[:, 0], dim=-1),
        sparse=TokenWeights(weights[carries], ids[carries], offsets(carries), width=VOCABULARY),
        vectors=TokenVectors(torch.nn.functional.normalize(vectors, dim=-1), offsets(kept)),
    )


def no_maximum_is_negative(queries, passages):
    """FlagEmbedding's padding scores 0 and would win over it, a defect that must not enter the comparison."""
    for n in range(len(passages)):
        span = slice(passages.offsets[n], passages.offsets[n + 1])
        if (queries.values_Td @ passages.values_Td[span].T).max(1).values.min() <= 0:
            return False
    return True


CASES = [
    (0.02, True, "", {}),
    (0.02, False, "", {}),
    (1.0, True, "", {}),
    (0.05, True, "kl_div", {"distillation": "listnet"}),
    (0.05, True, "m3_kd_loss", {"distillation": "ranked", "contrastive_weight": 0.0}),
]


def inputs():
    generator = torch.Generator().manual_seed(7)
    job = {
        **side("query", [5, 4, 6, 5], generator),
        **side("passage", [12, 20, 15, 17, 30, 11, 14, 13, 12, 19, 26, 16], generator),
        "sparse_weight": torch.randn(1, HIDDEN, dtype=torch.float64, generator=generator),
        "sparse_bias": torch.full((1,), 0.1, dtype=torch.float64),
        "colbert_weight": torch.randn(8, HIDDEN, dtype=torch.float64, generator=generator),
        "colbert_bias": torch.randn(8, dtype=torch.float64, generator=generator),
    }
    # Best first: FlagEmbedding takes the passages as they stand, trine by the teacher's order. In float32, as it reads
    # them.
    return job, torch.randn(4, 3, generator=generator).sort(dim=1, descending=True).values


@pytest.fixture(scope="module")
def flag_losses(tmp_path_factory):
    """What FlagEmbedding makes of every case, in one process."""
    if not PYTHON:
        pytest.skip("set TRINE_FLAGEMBEDDING_PYTHON to an interpreter that has FlagEmbedding 1.4")
    folder = tmp_path_factory.mktemp("m3")
    job, teacher = inputs()
    arrays = {"teacher": teacher.numpy(), "vocabulary": VOCABULARY} | {k: v.numpy() for k, v in job.items()}
    paths = [folder / f"{number}.in.npz" for number in range(len(CASES))]
    for path, (temperature, self_distill, kd, _) in zip(paths, CASES, strict=True):
        np.savez(path, temperature=temperature, self_distill=self_distill, kd=kd, **arrays)
    done = subprocess.run([PYTHON, "-c", SCRIPT, *map(str, paths)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    results = []
    for number in range(len(CASES)):
        with np.load(folder / f"{number}.out.npz") as found:
            results.append(dict(found))
    return results


@pytest.mark.parametrize("number", range(len(CASES)))
def test_loss_and_gradients(number, flag_losses):
    temperature, self_distill, kd, options = CASES[number]
    job, teacher = inputs()
    leaves = {
        "query_hidden": "query",
        "passage_hidden": "passage",
        "sparse_weight": "sparse",
        "colbert_weight": "colbert",
    }
    for name in leaves:
        job[name].requires_grad_()
    queries, passages = embedded(job, "query"), embedded(job, "passage")
    assert no_maximum_is_negative(queries.vectors, passages.vectors)
    objective = EmbeddingObjective(
        modes=("dense", "sparse", "multi_vector"), temperature=temperature, self_distillation=self_distill, **options
    )
    losses = objective(PairBatch(queries, passages, group_size=3, teacher_scores_RG=teacher if kd else None))
    losses.total.backward()
    theirs = flag_losses[number]
    np.testing.assert_allclose(losses.total.detach().numpy(), theirs["loss"], rtol=1e-6)
    for name, key in leaves.items():
        np.testing.assert_allclose(job[name].grad.numpy(), theirs[key], rtol=1e-6, atol=1e-7)
