"""Checkpoints of language models as embedders against their authors' procedures, written out with transformers, and
against sentence-transformers where it follows them. float32, within 1e-5.
"""

import json
import shutil

import numpy as np
import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file
from sentence_transformers import SentenceTransformer

from models import layouts, tiny
from trine import Encoder
from trine.models.files import quiet_transformers
from trine.models.tokenization import TextTokenizer

# peft 0.21 asks transformers 5.23 for a property by its old name.
pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")

TEXTS = [text for text in tiny.TEXTS if text.strip()]
TASK = "같은 사건을 다루는 기사를 찾는다"


@pytest.fixture(autouse=True)
def _quiet():
    with quiet_transformers():
        yield


def agree(ours, theirs):
    np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-5)


def differ(ours, theirs):
    assert np.abs(np.asarray(ours) - np.asarray(theirs)).max() > 1e-3


def trine(folder, **options):
    return Encoder.load(folder, device="cpu", **options)


def transformer(folder, kind=transformers.AutoModel):
    """Eager attention, which computes with the mask that it is given, whatever SDPA makes of it."""
    return kind.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager").eval()


def unit(states):
    return torch.nn.functional.normalize(states, dim=-1).numpy()


def padded(rows, *, left, fill=0):
    width = max(len(row) for row in rows)
    ids, mask = torch.full((len(rows), width), fill), torch.zeros(len(rows), width, dtype=torch.long)
    for number, row in enumerate(rows):
        place = slice(width - len(row), None) if left else slice(0, len(row))
        ids[number, place], mask[number, place] = torch.tensor(row), 1
    return ids, mask


def everything_seen(mask):
    """LLM2Vec's own mask: zeros, and the smallest number in the columns of padding."""
    wide = torch.zeros(len(mask), 1, mask.shape[1], mask.shape[1])
    return wide.masked_fill(mask[:, None, None, :] == 0, torch.finfo(torch.float32).min)


# -- e5-mistral --------------------------------------------------------------------------------------------------------


def e5_mistral_by_its_card(folder, texts, *, left):
    """The last token's state of ``<s> text </s>``, the end put behind by hand."""
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    rows = tokenizer(texts, max_length=tiny.MAX_LENGTH - 1, truncation=True)["input_ids"]
    ids, mask = padded([[*row, tokenizer.eos_token_id] for row in rows], left=left)
    with torch.no_grad():
        states = transformer(folder)(input_ids=ids, attention_mask=mask).last_hidden_state
    last = torch.full((len(ids),), -1) if left else mask.sum(1) - 1
    return unit(states[torch.arange(len(ids)), last])


@pytest.mark.parametrize("left", [True, False])
def test_e5_mistral(plain, tmp_path, left):
    folder = layouts.e5_mistral(plain("mistral"), tmp_path / "model")
    encoder = trine(folder, profile="e5-mistral")
    agree(encoder.encode(TEXTS, kind="passage").dense, e5_mistral_by_its_card(folder, TEXTS, left=left))
    queries = [layouts.WEB_SEARCH + text for text in TEXTS]
    agree(encoder.encode(TEXTS, kind="query").dense, e5_mistral_by_its_card(folder, queries, left=left))
    queries = [f"Instruct: {TASK}\nQuery: {text}" for text in TEXTS]
    agree(encoder.encode(TEXTS, instruction=TASK).dense, e5_mistral_by_its_card(folder, queries, left=left))


def test_e5_mistral_needs_no_profile_for_its_end(plain, tmp_path):
    """tokenizer_config.json asks for </s>, tokenizer.json leaves it out: transformers 5 alone pools the last word."""
    folder = layouts.e5_mistral(plain("mistral"), tmp_path / "model")
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    assert tokenizer("검색")["input_ids"][-1] != tokenizer.eos_token_id  # the trap is there
    encoder = trine(folder)
    for text in (*TEXTS, "긴 글 " * 99):
        ids = encoder.text([text], kind="passage").ids
        assert (ids[0], ids[-1]) == (tokenizer.bos_token_id, tokenizer.eos_token_id)
    agree(encoder.encode(TEXTS).dense, e5_mistral_by_its_card(folder, TEXTS, left=True))
    layouts.change(folder / "tokenizer_config.json", add_eos_token=None)
    differ(trine(folder).encode(TEXTS).dense, encoder.encode(TEXTS).dense)


def test_e5_mistral_leaves_trine_with_its_end(plain, tmp_path):
    """Saved, exported, and read by sentence-transformers, which follows tokenizer.json."""
    encoder = trine(layouts.e5_mistral(plain("mistral"), tmp_path / "model"), profile="e5-mistral")
    again = trine(encoder.save(tmp_path / "native"))
    agree(again.encode(TEXTS, kind="query").dense, encoder.encode(TEXTS, kind="query").dense)
    agree(again.encode(TEXTS, instruction=TASK).dense, encoder.encode(TEXTS, instruction=TASK).dense)
    theirs = SentenceTransformer(str(encoder.export(tmp_path / "st", layout="sentence_transformers")), device="cpu")
    agree(encoder.encode(TEXTS, kind="query").dense, theirs.encode_query(TEXTS))
    agree(encoder.encode(TEXTS).dense, theirs.encode_document(TEXTS))


# -- Qwen3-Embedding ---------------------------------------------------------------------------------------------------


def test_qwen3_embedding(plain, tmp_path):
    folder = layouts.qwen3_embedding(plain("qwen3"), tmp_path / "model")
    encoder, theirs = trine(folder), SentenceTransformer(str(folder), device="cpu")
    assert theirs.tokenizer.padding_side == "left"
    agree(encoder.encode(TEXTS).dense, theirs.encode_document(TEXTS))
    agree(encoder.encode(TEXTS, kind="query").dense, theirs.encode_query(TEXTS))
    ours = trine(folder, profile="qwen3-embedding").encode(TEXTS, kind="query", instruction=TASK).dense
    agree(ours, theirs.encode(TEXTS, prompt=f"Instruct: {TASK}\nQuery:"))


def test_the_space_behind_query_is_e5s_alone(plain, tmp_path):
    """Both models' template is one letter apart, and the vectors are not."""
    folder = layouts.qwen3_embedding(plain("qwen3"), tmp_path / "model")
    encoder = trine(folder, profile="qwen3-embedding")
    ours = encoder.encode(TEXTS, kind="query", instruction=TASK).dense
    differ(ours, encoder.encode(TEXTS, kind="query", prompt=f"Instruct: {TASK}\nQuery: ").dense)
    other = trine(folder, profile="e5-instruct").text.instructed(TASK)
    assert (encoder.text.instructed(TASK), other) == (f"Instruct: {TASK}\nQuery:", f"Instruct: {TASK}\nQuery: ")


def test_the_side_of_the_padding_moves_no_vector(plain, tmp_path):
    """The folder asks for padding on the left; pooled is the last token of each text, wherever it stands."""
    folder = layouts.qwen3_embedding(plain("qwen3"), tmp_path / "model")
    rows = transformers.AutoTokenizer.from_pretrained(folder)(TEXTS, truncation=True, max_length=48)["input_ids"]
    ids, mask = padded(rows, left=True)
    with torch.no_grad():
        states = transformer(folder)(input_ids=ids, attention_mask=mask).last_hidden_state
    ours = trine(folder).encode(TEXTS).dense
    agree(ours, unit(states[:, -1]))
    ids, mask = padded(rows, left=False)
    with torch.no_grad():
        states = transformer(folder)(input_ids=ids, attention_mask=mask).last_hidden_state
    differ(ours, unit(states[:, -1]))  # the trap: the last column of a batch that is padded on the right
    encoder = trine(folder)
    alone = np.concatenate([encoder.encode([text]).dense for text in TEXTS])
    agree(ours, alone)


# -- EmbeddingGemma ----------------------------------------------------------------------------------------------------


def test_embeddinggemma(plain, tmp_path):
    folder = layouts.embeddinggemma(plain("gemma3"), tmp_path / "model")
    encoder, theirs = trine(folder), SentenceTransformer(str(folder), device="cpu")
    agree(encoder.encode(TEXTS).dense, theirs.encode_document(TEXTS))
    agree(encoder.encode(TEXTS, kind="query").dense, theirs.encode_query(TEXTS))
    ours = trine(folder, profile="embeddinggemma").encode(TEXTS, instruction="sentence similarity").dense
    agree(ours, theirs.encode(TEXTS, prompt_name="STS"))
    again = trine(encoder.save(tmp_path / "native"))
    agree(again.encode(TEXTS).dense, encoder.encode(TEXTS).dense)


def test_embeddinggemma_sees_ahead(plain, tmp_path):
    folder = layouts.embeddinggemma(plain("gemma3"), tmp_path / "model")
    ours = trine(folder).encode(TEXTS).dense
    layouts.change(folder / "config.json", use_bidirectional_attention=None)
    differ(ours, trine(folder).encode(TEXTS).dense)


# -- GritLM ------------------------------------------------------------------------------------------------------------


def gritlm_by_its_code(folder, texts, *, prompt):
    """Bidirectional states, averaged behind the prompt's tokens (BOS among them)."""
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    rows = tokenizer([prompt + text for text in texts], max_length=tiny.MAX_LENGTH, truncation=True)["input_ids"]
    ids, mask = padded(rows, left=False)
    with torch.no_grad():
        states = transformer(folder)(input_ids=ids, attention_mask=everything_seen(mask)).last_hidden_state
    mask[:, : len(tokenizer(prompt)["input_ids"])] = 0
    weight = mask[:, :, None].float()
    return unit((states * weight).sum(1) / weight.sum(1))


def test_gritlm(plain, tmp_path):
    folder = layouts.gritlm(plain("mistral", masked_lm=True), tmp_path / "model")
    short = [text for text in TEXTS if len(text) < 60]
    encoder = trine(folder, profile="gritlm")
    agree(encoder.encode(short).dense, gritlm_by_its_code(folder, short, prompt="<|embed|>\n"))
    agree(encoder.encode(short, kind="query").dense, gritlm_by_its_code(folder, short, prompt="<|embed|>\n"))
    theirs = gritlm_by_its_code(folder, short, prompt="<|user|>\n뜻\n<|embed|>\n")
    agree(encoder.encode(short, instruction="뜻").dense, theirs)
    config = json.loads((encoder.save(tmp_path / "native") / "config.json").read_text())
    assert config["is_causal"] is False
    agree(trine(tmp_path / "native").encode(short, instruction="뜻").dense, theirs)


# -- LLM2Vec -----------------------------------------------------------------------------------------------------------


def llm2vec_by_its_code(root, texts, *, instruction="", wrap=("[INST] ", " [/INST]"), second=True, limits=(48, 20)):
    """Adapters merged by peft, one after the other; the mean of the last n positions of a batch padded on the left."""
    from peft import PeftModel

    model = transformer(root / "base")
    model = PeftModel.from_pretrained(model, root / "mntp").merge_and_unload()
    if second:
        model = PeftModel.from_pretrained(model, root / "supervised").eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(root / "mntp")
    longest, shortened = limits

    def tokens(text, special):
        return tokenizer(text, add_special_tokens=special, truncation=True, max_length=longest)["input_ids"]

    rows, counts = [], []
    for text in texts:
        while (count := len(tokens(text, False))) > shortened:
            text = " ".join(text.split()[: int(len(text.split()) * (shortened / count))])
        sentinel = "!@#$%^&*()"
        marked = f"{instruction.strip()} {sentinel}{text}" if instruction else f"{sentinel}{text}"
        marked = wrap[0] + marked.strip() + wrap[1] if wrap[0] else marked
        rows.append(tokens(marked.replace(sentinel, ""), True))
        counts.append(len(tokens(marked.split(sentinel)[1], False)))
    ids, mask = padded(rows, left=True)
    with torch.no_grad():
        states = model(input_ids=ids, attention_mask=everything_seen(mask)).last_hidden_state
    return unit(torch.stack([row[-count:].mean(0) for row, count in zip(states, counts, strict=True)]))


@pytest.fixture
def llm2vec(plain, tmp_path):
    first, second = layouts.llm2vec(plain("mistral"), tmp_path)
    settings = {"pooling_mode": "mean", "max_length": 48, "doc_max_length": 20, "skip_instruction": True}
    for folder in (first, second):
        layouts.write(folder / "llm2vec_config.json", settings)
    return first, second


LONG_WORDS = ["日本語と中文也有", "긴글" * 200, "https://example.org/검색?q=문서&page=2"]
SPACED = [text for text in TEXTS if text not in LONG_WORDS] + ["끝에 빈칸  ", "  앞에 빈칸", "세 글 " * 30]


def test_llm2vec(llm2vec):
    first, second = llm2vec
    one, two = trine(first), trine(first, adapter=second)
    agree(one.encode(SPACED).dense, llm2vec_by_its_code(first.parent, SPACED, second=False))
    agree(two.encode(SPACED, kind="query").dense, llm2vec_by_its_code(first.parent, SPACED))
    theirs = llm2vec_by_its_code(first.parent, SPACED, instruction="뜻:")
    agree(two.encode(SPACED, kind="query", instruction="뜻:").dense, theirs)


def test_a_text_without_spaces_is_cut_and_not_lost(llm2vec):
    """LLM2Vec shortens by whole words, and is left with nothing of a long Chinese text: all get one vector."""
    encoder = trine(llm2vec[0])
    theirs = llm2vec_by_its_code(llm2vec[0].parent, LONG_WORDS, second=False)
    agree(theirs[:1], theirs[1:2])
    one, other = encoder.encode(LONG_WORDS[:2]).dense
    differ(one, other)
    beginning = encoder.text(LONG_WORDS[:1], kind="passage").ids[:12]
    np.testing.assert_array_equal(beginning, encoder.text([LONG_WORDS[0] + "漢字" * 50], kind="passage").ids[:12])


def test_llm2vec_with_no_chat_turn(plain, tmp_path):
    first, second = layouts.llm2vec(plain("llama"), tmp_path, known_as="princeton-nlp/Sheared-LLaMA-1.3B")
    for folder in (first, second):
        layouts.write(folder / "llm2vec_config.json", {"pooling_mode": "mean", "max_length": 48, "doc_max_length": 20})
    encoder = trine(first, adapter=second)
    agree(encoder.encode(SPACED).dense, llm2vec_by_its_code(tmp_path, SPACED, wrap=("", "")))
    theirs = llm2vec_by_its_code(tmp_path, SPACED, wrap=("", ""), instruction="뜻:")
    agree(encoder.encode(SPACED, instruction="뜻:").dense, theirs)


def test_llm2vec_pools_the_last_positions_and_sees_ahead(llm2vec):
    """Each trap put back gives other vectors: the causal mask, the prompt's own count, one adapter alone."""
    import msgspec

    first, second = llm2vec
    encoder = trine(first, adapter=second)
    right = encoder.encode(SPACED, instruction="뜻:").dense
    encoder.backbone.model.config.is_causal = True
    differ(right, encoder.encode(SPACED, instruction="뜻:").dense)
    encoder.backbone.model.config.is_causal = False
    agree(right, encoder.encode(SPACED, instruction="뜻:").dense)
    text = msgspec.structs.replace(encoder.config.text, prompt_counted_by="prompt")
    encoder.text = TextTokenizer(encoder.tokenizer, text)
    differ(right, encoder.encode(SPACED, instruction="뜻:").dense)
    differ(right, trine(first).encode(SPACED, instruction="뜻:").dense)


def test_the_first_adapter_is_merged_before_the_second(llm2vec):
    """Rounded to bfloat16 after each, the order is seen in the weights; peft's order is the reference."""
    from peft import PeftModel

    first, second = llm2vec
    root = first.parent
    model = transformers.AutoModel.from_pretrained(root / "base", dtype=torch.bfloat16)
    for folder in (first, second):
        model = PeftModel.from_pretrained(model, folder, autocast_adapter_dtype=True).merge_and_unload()
    ours = trine(first, adapter=second, dtype="bfloat16").backbone.model.state_dict()
    for key, weight in model.state_dict().items():
        torch.testing.assert_close(ours[key], weight, rtol=0, atol=0)
    layouts.change(first / "adapter_config.json", base_model_name_or_path="../supervised")
    turned = trine(first, dtype="bfloat16").backbone.model.state_dict()
    assert any(not torch.equal(turned[key], weight) for key, weight in ours.items())


# -- sharded and halved ------------------------------------------------------------------------------------------------


def test_shards_and_bfloat16(plain, tmp_path):
    """Large checkpoints come in several files and in bfloat16."""
    source = plain("mistral")
    folder = shutil.copytree(source, tmp_path / "shards")
    tensors = {key: tensor.bfloat16() for key, tensor in load_file(source / "model.safetensors").items()}
    (folder / "model.safetensors").unlink()
    halves = sorted(tensors)[::2], sorted(tensors)[1::2]
    files = ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"]
    for name, keys in zip(files, halves, strict=True):
        save_file({key: tensors[key] for key in keys}, folder / name, metadata={"format": "pt"})
    index = {key: name for name, keys in zip(files, halves, strict=True) for key in keys}
    layouts.write(folder / "model.safetensors.index.json", {"metadata": {"total_size": 1}, "weight_map": index})
    layouts.change(folder / "config.json", dtype="bfloat16")
    encoder = trine(folder, pooling="mean")
    with torch.no_grad():
        row = encoder.tokenizer("검색 엔진")["input_ids"]
        states = transformer(folder)(input_ids=torch.tensor([row])).last_hidden_state
    agree(encoder.encode(["검색 엔진"]).dense, unit(states.mean(1)))
    (folder / files[1]).unlink()
    from trine.errors import CheckpointError

    with pytest.raises(CheckpointError, match="cannot be loaded"):
        trine(folder, pooling="mean")
