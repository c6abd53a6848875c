"""FlagEmbedding's own BGEM3FlagModel against trine, all three outputs, in both directions.

FlagEmbedding wants transformers 4, so it runs in an environment of its own, whose interpreter the environment
variable TRINE_FLAGEMBEDDING_PYTHON names.
"""

import json
import os
import subprocess

import numpy as np
import pytest
from sentence_transformers import SentenceTransformer

from models import layouts, tiny
from trine import Encoder

pytestmark = pytest.mark.flagembedding

PYTHON = os.environ.get("TRINE_FLAGEMBEDDING_PYTHON")

SCRIPT = """
import json, sys
import numpy as np
from FlagEmbedding import BGEM3FlagModel

for job in json.loads(sys.stdin.read()):
    model = BGEM3FlagModel(job["folder"], use_fp16=False, devices="cpu", colbert_dim=job["colbert_dim"])
    found = model.encode(
        job["texts"],
        batch_size=7,
        max_length=job["max_length"],
        return_dense=True,
        return_sparse=True,
        return_colbert_vecs=True,
    )
    np.savez(
        job["result"],
        dense=found["dense_vecs"],
        vectors=np.concatenate(found["colbert_vecs"]),
        lengths=np.array([len(rows) for rows in found["colbert_vecs"]]),
        terms=json.dumps([{key: float(value) for key, value in row.items()} for row in found["lexical_weights"]]),
        ids=json.dumps(model.tokenizer(job["texts"])["input_ids"]),
    )
    if job["resave"]:
        model.model.tokenizer.save_pretrained(job["resave"])
"""


@pytest.fixture(scope="module")
def flag_model():
    """Runs jobs in FlagEmbedding's environment."""
    if not PYTHON:
        pytest.skip("set TRINE_FLAGEMBEDDING_PYTHON to an interpreter that has FlagEmbedding 1.4")

    def run(jobs):
        given = json.dumps([{"texts": tiny.TEXTS, "max_length": tiny.MAX_LENGTH, "resave": None} | job for job in jobs])
        done = subprocess.run([PYTHON, "-c", SCRIPT], input=given, text=True, capture_output=True)
        assert done.returncode == 0, done.stderr[-3000:]

    return run


def agree(encoder, result):
    """Compare all three outputs for all texts with what FlagEmbedding left in `result`."""
    ours = encoder.encode(tiny.TEXTS)
    with np.load(result) as theirs:
        assert [len(row) for row in encoder.tokenizer(tiny.TEXTS)["input_ids"]] == [
            len(row) for row in json.loads(str(theirs["ids"]))
        ]
        np.testing.assert_allclose(ours.dense, theirs["dense"], rtol=1e-5, atol=1e-5)
        np.testing.assert_array_equal(np.diff(ours.multi_vector.offsets), theirs["lengths"])
        np.testing.assert_allclose(ours.multi_vector.values, theirs["vectors"], rtol=1e-5, atol=1e-5)
        for number, wanted in enumerate(json.loads(str(theirs["terms"]))):
            ids, weights = ours.sparse.row(number)
            assert [str(key) for key in ids] == sorted(wanted, key=int)
            np.testing.assert_allclose(weights, [wanted[str(key)] for key in ids], rtol=1e-5, atol=1e-5)


def heads(width):
    return {
        "sparse": tiny.random_linear(1, tiny.HIDDEN, seed=11),
        "colbert": tiny.random_linear(width, tiny.HIDDEN, seed=12),
    }


def test_trine_reads_its_layout(plain, tmp_path, flag_model):
    """Whole and halved storage, with and without modules.json, at full width and less, on XLM-R, BERT and MPNet."""
    cases = {}
    for name in ("xlm_roberta", "bert", "mpnet"):
        for width, with_modules, half in ((tiny.HIDDEN, True, False), (8, False, True)):
            tensors = heads(width)
            if half:
                tensors = {stem: {key: value.half() for key, value in part.items()} for stem, part in tensors.items()}
            folder = tmp_path / f"{name}-{width}"
            layouts.bge_m3(plain(name), folder, with_modules=with_modules, **tensors)
            cases[folder] = {"folder": str(folder), "colbert_dim": width, "result": f"{folder}.npz"}
    again = tmp_path / "xlm_roberta-8"
    cases[again]["resave"] = str(tmp_path / "tokenizer-of-version-4")
    flag_model(list(cases.values()))
    for folder, job in cases.items():
        encoder = Encoder.load(folder, device="cpu")
        assert encoder.config.origin == "bge_m3"
        agree(encoder, job["result"])
    # The tokenizer files that transformers 4 writes are read alike.
    for path in (tmp_path / "tokenizer-of-version-4").iterdir():
        (again / path.name).write_bytes(path.read_bytes())
    agree(Encoder.load(again, device="cpu"), cases[again]["result"])


def test_it_reads_what_trine_exports(plain, tmp_path, flag_model):
    """Out of its layout, through trine's own, and back; sentence-transformers reads the dense part of the folder."""
    jobs = {}
    for name in ("xlm_roberta", "bert"):
        source = layouts.bge_m3(plain(name), tmp_path / name, **heads(tiny.HIDDEN))
        native = Encoder.load(source, device="cpu").save(tmp_path / f"{name}-native")
        encoder = Encoder.load(native, device="cpu")
        folder = encoder.export(tmp_path / f"{name}-exported", layout="bge_m3")
        jobs[folder] = (encoder, {"folder": str(folder), "colbert_dim": -1, "result": f"{folder}.npz"})
    flag_model([job for _, job in jobs.values()])
    for folder, (encoder, job) in jobs.items():
        agree(encoder, job["result"])
        agree(Encoder.load(folder, device="cpu"), job["result"])
        model = SentenceTransformer(str(folder), device="cpu")
        ours = encoder.encode(tiny.TEXTS, modes=["dense"]).dense
        np.testing.assert_allclose(ours, model.encode_document(tiny.TEXTS), rtol=1e-5, atol=1e-5)
