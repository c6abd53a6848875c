"""The package llm2vec itself against trine's layout of that name.

llm2vec 0.2.3 asks for transformers 4.43 or 4.44, so it runs in an environment of its own, whose interpreter the
environment variable TRINE_LLM2VEC_PYTHON names. It does not scale its vectors; here they are compared at unit length.
"""

import json
import os
import subprocess

import numpy as np
import pytest

from models import layouts, tiny
from trine import Encoder
from trine.models.checkpoints.llm2vec import WRAPPERS

# peft 0.21 asks transformers 5.23 for a property by its old name.
pytestmark = [
    pytest.mark.llm2vec,
    pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning"),
]

PYTHON = os.environ.get("TRINE_LLM2VEC_PYTHON")
SETTINGS = {"pooling_mode": "mean", "max_length": tiny.MAX_LENGTH, "doc_max_length": 20, "skip_instruction": True}
ONE_WORD = ["日本語と中文也有", "긴글" * 200, "https://example.org/검색?q=문서&page=2"]
"""More tokens than doc_max_length in one word, of which llm2vec leaves nothing."""
TEXTS = [text for text in tiny.TEXTS if text.strip() and text not in ONE_WORD]
TEXTS += ["끝에 빈칸  ", "  앞에 빈칸", "세 글 " * 30, "가 나 다 " * 200]
TASKS = ["", "뜻:", "  같은 글을 찾는다  "]
LONG_TASK = "Retrieve documents that answer the question:"
"""With it and the longer texts there are more than `tiny.MAX_LENGTH` tokens."""

SCRIPT = """
import json, sys
import numpy as np
from llm2vec import LLM2Vec

job = json.loads(sys.stdin.read())
found = {}
for stage, adapter in job["stages"].items():
    # transformers 4.44 takes the first adapter's "../base" from where it runs.
    model = LLM2Vec.from_pretrained(".", peft_model_name_or_path=adapter)
    for task in job["tasks"]:
        pairs = [[task, text] for text in job["texts"]]
        found[stage + task] = model.encode(pairs, batch_size=7, show_progress_bar=False).numpy()
for name in job["names"]:
    model.model.config._name_or_path = name
    found[name] = model.prepare_for_tokenization(" x ")
np.savez(job["result"], **found)
"""


def folders(source, root, *, known_as, **settings):
    """Both adapters' folders in the form that transformers 4.44 reads, and the settings beside both."""
    first, second = layouts.llm2vec(source, root, known_as=known_as)
    for folder in (root / "base", first):
        content = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))
        # tokenizers 0.19 knows merges as strings only.
        content["model"]["merges"] = [" ".join(pair) for pair in content["model"]["merges"]]
        layouts.write(folder / "tokenizer.json", content)
        layouts.change(folder / "tokenizer_config.json", tokenizer_class="PreTrainedTokenizerFast")
    for folder in (first, second):
        layouts.write(folder / "llm2vec_config.json", SETTINGS | settings)
    return first, second


def llm2vec(first, second, *, texts=TEXTS, tasks=TASKS, names=()):
    """By "first" or "both" and the task the package's vectors; by a base model's name the chat turn around "x"."""
    if not PYTHON:
        pytest.skip("set TRINE_LLM2VEC_PYTHON to an interpreter that has llm2vec 0.2.3")
    result = first.parent / "theirs.npz"
    job = {"stages": {"first": None, "both": str(second)}, "result": str(result)}
    given = json.dumps(job | {"texts": texts, "tasks": list(tasks), "names": list(names)})
    # No link is followed: where it lies tells an environment's interpreter which libraries are its own.
    command = [os.path.abspath(PYTHON), "-c", SCRIPT]
    done = subprocess.run(command, input=given, text=True, capture_output=True, cwd=first)
    assert done.returncode == 0, done.stderr[-3000:]
    with np.load(result) as found:
        return dict(found)


def trine(first, second):
    return {
        "first": Encoder.load(first, device="cpu"),
        "both": Encoder.load(first, adapter=second, device="cpu"),
    }


def agree(ours, theirs):
    theirs = theirs / np.linalg.norm(theirs, axis=-1, keepdims=True)
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-5)


def differ(ours, theirs):
    assert np.abs(ours - theirs).max() > 1e-3


@pytest.mark.parametrize(
    ("name", "known_as"),
    [
        ("llama", "meta-llama/Llama-2-7b-chat-hf"),
        ("llama", "princeton-nlp/Sheared-LLaMA-1.3B"),
        ("mistral", "mistralai/Mistral-7B-Instruct-v0.2"),
        ("mistral", "mistralai/Mistral-7B-v0.1"),
    ],
)
def test_llm2vec(plain, tmp_path, name, known_as):
    first, second = folders(plain(name), tmp_path, known_as=known_as)
    tasks = TASKS if known_as in WRAPPERS else [*TASKS, LONG_TASK]
    theirs = llm2vec(first, second, tasks=tasks)
    for stage, encoder in trine(first, second).items():
        agree(encoder.encode(TEXTS, kind="passage").dense, theirs[stage])
        for task in tasks:
            ours = encoder.encode(TEXTS, kind="query", instruction=task or None).dense
            agree(ours, theirs[stage + task])
        differ(theirs[stage], theirs[stage + TASKS[1]])
    differ(theirs["first"], theirs["both"])


def test_the_instruction_is_pooled_where_the_settings_say_so(plain, tmp_path):
    first, second = folders(
        plain("mistral"), tmp_path, known_as="mistralai/Mistral-7B-Instruct-v0.2", skip_instruction=False
    )
    theirs = llm2vec(first, second)
    for stage, encoder in trine(first, second).items():
        for task in TASKS:
            agree(encoder.encode(TEXTS, instruction=task or None).dense, theirs[stage + task])


def test_the_chat_turn_of_every_base_model(plain, tmp_path):
    first, second = folders(plain("llama"), tmp_path, known_as="princeton-nlp/Sheared-LLaMA-1.3B")
    theirs = llm2vec(first, second, texts=["x"], tasks=[""], names=WRAPPERS)
    assert {name: str(theirs[name]) for name in WRAPPERS} == {
        name: f"{before}x{after}" for name, (before, after) in WRAPPERS.items()
    }


def test_what_llm2vec_loses(plain, tmp_path):
    """All of a long word, so that all such texts get one vector; and a chat turn's end, behind what is too long."""
    first, second = folders(plain("mistral"), tmp_path, known_as="mistralai/Mistral-7B-Instruct-v0.2")
    encoder = trine(first, second)["both"]
    theirs = llm2vec(first, second, texts=ONE_WORD, tasks=[""])["both"]
    np.testing.assert_allclose(theirs[0], theirs[1], atol=1e-5)
    ours = encoder.encode(ONE_WORD).dense
    differ(ours[0], ours[1])

    text = ["세 글 " * 30]
    theirs = llm2vec(first, second, texts=text, tasks=[LONG_TASK])["both" + LONG_TASK]
    ours = encoder.encode(text, instruction=LONG_TASK).dense
    differ(ours, theirs / np.linalg.norm(theirs))
    ids = encoder.text(text, kind="passage", prompt=encoder.text.instructed(LONG_TASK)).ids
    assert encoder.tokenizer.decode(ids).endswith("[/INST]")
