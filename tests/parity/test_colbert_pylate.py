"""PyLate's own vectors against trine's, for the layout that PyLate owns.

PyLate pins older versions of torch and transformers, so it runs in an environment of its own, whose interpreter the
environment variable TRINE_PYLATE_PYTHON names.
"""

import json
import os
import subprocess

import numpy as np
import pytest

from models import builders_multi as builders
from trine import Encoder

PYTHON = os.environ.get("TRINE_PYLATE_PYTHON")

pytestmark = [
    pytest.mark.pylate,
    pytest.mark.skipif(
        not PYTHON, reason="TRINE_PYLATE_PYTHON is not set; it names the interpreter of an environment with PyLate"
    ),
]

SCRIPT = """
import json, sys
import numpy as np
import torch
from pylate import models

jobs = json.loads(sys.stdin.read())
for job in jobs:
    if job["source"]:
        torch.manual_seed(0)
        fresh = models.ColBERT(job["source"], device="cpu", embedding_size=8, query_length=12, document_length=30)
        fresh.save_pretrained(job["folder"], create_model_card=False)
    model = models.ColBERT(job["folder"], device="cpu")
    arrays = {}
    for kind in ("query", "passage"):
        rows = model.encode(
            job["texts"],
            is_query=kind == "query",
            prompt_name=job["prompts"].get(kind),
            batch_size=7,
            show_progress_bar=False,
        )
        arrays[kind] = np.concatenate(rows)
        arrays[kind + "_lengths"] = np.array([len(row) for row in rows])
    np.savez(job["result"], **arrays)
"""

SETTINGS = (
    "query_prefix",
    "document_prefix",
    "query_length",
    "document_length",
    "attend_to_expansion_tokens",
    "skiplist_words",
    "do_query_expansion",
)

CASES = {
    "bert": {},
    "bert, extra tokens attended": {"attend_to_expansion_tokens": True},
    "bert, no expansion": {"do_query_expansion": False, "attend_to_expansion_tokens": True},
    "bert, settings of PyLate's own": {"max_length": 200, **dict.fromkeys(SETTINGS, "left out")},
    "bert, null settings": {"max_length": 200, **dict.fromkeys(SETTINGS)},
    "bert, no prefixes": {"query_prefix": "", "document_prefix": "", "skiplist_words": []},
    "bert, three projections": {
        "dense": [
            {"in_features": 32, "out_features": 32, "use_residual": True, "bias": True},
            {"in_features": 32, "out_features": 24, "activation_function": "torch.nn.modules.activation.GELU"},
            {"in_features": 24, "out_features": 8, "use_residual": True},
        ]
    },
    "bert, prompts": {"prompts": {"query": "질문: ", "document": " 글 "}},
    "distilbert": {"name": "distilbert"},
    "modernbert": {"name": "modernbert"},
    "modernbert, extra tokens attended": {"name": "modernbert", "attend_to_expansion_tokens": True},
    "xlm_roberta": {"name": "xlm_roberta"},
    "mpnet": {"name": "mpnet"},
}


BY_PYLATE = {"bert, saved by PyLate": "bert", "modernbert, saved by PyLate": "modernbert"}
"""Case -> backbone; PyLate puts a random projection and its prefix tokens on it, and saves the whole."""
STANFORD = "stanford"


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """case -> where the checkpoint is, or will be once PyLate has saved it."""
    base = tmp_path_factory.mktemp("pylate")
    written = {case: builders.pylate(base / str(number), **CASES[case]) for number, case in enumerate(CASES)}
    written[STANFORD] = builders.stanford(base / STANFORD)
    return written | {case: base / name / "saved" for case, name in BY_PYLATE.items()}


@pytest.fixture(scope="module")
def reference(folders, tmp_path_factory):
    """case -> kind -> one array a text."""
    base = tmp_path_factory.mktemp("vectors")
    jobs = []
    for number, (case, folder) in enumerate(folders.items()):
        source = builders.backbone(BY_PYLATE[case]).save(folder.parent / "source") if case in BY_PYLATE else ""
        jobs.append(
            {
                "folder": str(folder),
                "source": str(source),
                "texts": texts_of(case),
                # Stanford's folders name no prompts.
                "prompts": {} if case == STANFORD else {"query": "query", "passage": "document"},
                "result": str(base / f"{number}.npz"),
            }
        )
    done = subprocess.run(
        [PYTHON, "-c", SCRIPT],
        input=json.dumps(jobs),
        text=True,
        capture_output=True,
        env=os.environ | {"HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"},
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return {case: unpack(job["result"]) for case, job in zip(folders, jobs, strict=True)}


def unpack(path):
    with np.load(path) as arrays:
        return {
            kind: np.split(arrays[kind], np.cumsum(arrays[f"{kind}_lengths"])[:-1]) for kind in ("query", "passage")
        }


def texts_of(case):
    # PyLate makes an added token of Stanford's marker, and then finds it in a text that has it typed in, like the last.
    return builders.TEXTS[:-1] if case == STANFORD else builders.TEXTS


@pytest.mark.parametrize("kind", ["query", "passage"])
@pytest.mark.parametrize("case", [*CASES, STANFORD, *BY_PYLATE])
def test_vectors_are_those_of_pylate(case, kind, reference, folders):
    encoder = Encoder.load(folders[case], device="cpu")
    found = encoder.encode(texts_of(case), kind=kind).multi_vector
    builders.assert_same_vectors(found, reference[case][kind])
