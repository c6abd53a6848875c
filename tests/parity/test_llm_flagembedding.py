"""FlagEmbedding's own FlagLLMModel and FlagICLModel against trine.

FlagEmbedding wants transformers 4, so it runs in an environment of its own, whose interpreter the environment
variable TRINE_FLAGEMBEDDING_PYTHON names. transformers 4 puts </s> where tokenizer_config.json asks for it.
"""

import json
import os
import subprocess
import unicodedata

import numpy as np
import pytest

from models import layouts, tiny
from trine import Encoder
from trine.models.tokenization import WorkedExample

pytestmark = pytest.mark.flagembedding

PYTHON = os.environ.get("TRINE_FLAGEMBEDDING_PYTHON")
TEXTS = [text for text in tiny.TEXTS if text.strip()]
DECOMPOSED = unicodedata.normalize("NFD", "검색 엔진은 문서를 찾는다")
"""Cut in the middle of a letter's bytes, where FlagEmbedding decodes what is left to a replacement character."""
TASK = "같은 사건을 다루는 기사를 찾는다"

SCRIPT = """
import json, sys
import numpy as np
from FlagEmbedding import FlagICLModel, FlagLLMModel

for job in json.loads(sys.stdin.read()):
    kind = {"FlagICLModel": FlagICLModel, "FlagLLMModel": FlagLLMModel}[job["kind"]]
    model = kind(job["folder"], use_fp16=False, devices="cpu", batch_size=7, **job["options"])
    length = job["max_length"]
    np.savez(
        job["result"],
        queries=model.encode_queries(job["texts"], max_length=length),
        passages=model.encode_corpus(job["texts"], max_length=length),
    )
"""


def flag(kind, folder, result, texts, **options):
    """Vectors of both sides."""
    if not PYTHON:
        pytest.skip("set TRINE_FLAGEMBEDDING_PYTHON to an interpreter that has FlagEmbedding 1.4")
    job = {"kind": kind, "folder": str(folder), "result": str(result), "texts": texts, "options": options}
    given = json.dumps([job | {"max_length": tiny.MAX_LENGTH}])
    done = subprocess.run([PYTHON, "-c", SCRIPT], input=given, text=True, capture_output=True)
    assert done.returncode == 0, done.stderr[-3000:]
    with np.load(result) as found:
        return found["queries"], found["passages"]


def agree(ours, theirs):
    np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-5)


def test_bge_multilingual_gemma2(plain, tmp_path):
    folder = layouts.bge_gemma2(plain("gemma2"), tmp_path / "model")
    # transformers 4 runs Gemma 2 through SDPA, which leaves the soft cap of attention out; 5 takes eager attention.
    config = json.loads((folder / "config.json").read_text())
    layouts.write(folder / "config.json", config | {"attn_logit_softcapping": None})
    instruction = "Given a web search query, retrieve relevant passages that answer the query."
    form = {"query_instruction_format": "<instruct>{}\n<query>{}"}
    encoder = Encoder.load(folder, profile="bge-multilingual-gemma2", device="cpu")
    theirs = flag(
        "FlagLLMModel", folder, tmp_path / "a.npz", TEXTS, query_instruction_for_retrieval=instruction, **form
    )
    agree(encoder.encode(TEXTS, kind="query").dense, theirs[0])
    agree(encoder.encode(TEXTS).dense, theirs[1])
    theirs = flag("FlagLLMModel", folder, tmp_path / "b.npz", TEXTS, query_instruction_for_retrieval=TASK, **form)
    agree(encoder.encode(TEXTS, kind="query", instruction=TASK).dense, theirs[0])


def test_bge_en_icl(plain, tmp_path):
    """Long queries are cut so that what is answered after stays."""
    texts = [text for text in TEXTS if text != DECOMPOSED]
    folder = layouts.bge_icl(plain("mistral"), tmp_path / "model")
    encoder = Encoder.load(folder, profile="bge-en-icl", device="cpu")
    theirs = flag("FlagICLModel", folder, tmp_path / "a.npz", texts, query_instruction_for_retrieval="뜻")
    agree(encoder.encode(texts, kind="query", instruction="뜻").dense, theirs[0])
    agree(encoder.encode(texts).dense, theirs[1])


def test_bge_en_icl_with_examples(plain, tmp_path):
    folder = layouts.bge_icl(plain("mistral"), tmp_path / "model")
    layouts.change(folder / "tokenizer_config.json", model_max_length=500)
    layouts.change(folder / "config.json", max_position_embeddings=500)
    encoder = Encoder.load(folder, profile="bge-en-icl", device="cpu")
    short = [text for text in TEXTS if len(text) < 8]
    examples = [
        {"instruct": "찾는다", "query": "검색 {엔진}", "response": "문서를 찾는다."},
        {"query": "인덱스", "response": "책의 색인과 같다."},
    ]
    theirs, _ = flag(
        "FlagICLModel",
        folder,
        tmp_path / "a.npz",
        short,
        query_instruction_for_retrieval="뜻",
        examples_for_task=examples,
    )
    shown = [WorkedExample(row["query"], row["response"], row.get("instruct")) for row in examples]
    prompt = encoder.text.instructed("뜻", examples=shown)
    agree(encoder.encode(short, kind="query", prompt=prompt).dense, theirs)
