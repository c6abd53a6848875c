"""Tiny random checkpoints of every backbone, written to disk as their own libraries write them.

Hidden size 32, two layers, a vocabulary of some hundred pieces of Korean and English made from `CORPUS`. Every
parameter is random, biases and norms too, so that none can be lost unseen.
"""

import json
import unicodedata
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import tokenizers
import torch
import transformers

from trine.models.backbone import Backbone, auto_class
from trine.models.config import (
    Attention,
    DenseConfig,
    EncoderConfig,
    MultiVectorConfig,
    Normalize,
    Projection,
    SparseConfig,
    TextConfig,
)
from trine.models.encoder import Encoder
from trine.models.files import quiet_transformers

BACKBONES = ("bert", "xlm_roberta", "modernbert", "distilbert", "mpnet")
DECODERS = ("llama", "mistral", "qwen2", "qwen3", "gemma2", "gemma3")
"""Small windows in all that have sliding ones; two layers, so that every kind of layer is there."""
HIDDEN = 32
MAX_LENGTH = 48
"""Tokens that fit, special tokens included."""

CORPUS = [
    "안녕하세요, 세계! 오늘은 날씨가 맑습니다.",
    "검색 엔진은 문서를 찾아 순위를 매긴다.",
    "데이터베이스의 인덱스는 책의 색인과 같다.",
    "교착 상태는 두 프로세스가 서로의 자원을 기다릴 때 생긴다.",
    "서울의 지하철은 하루에 수백만 명을 나른다.",
    "한국어는 교착어라서 조사가 명사에 붙는다.",
    "임베딩은 글의 뜻을 벡터로 나타낸 것이다.",
    "가상 메모리는 페이지 단위로 관리된다.",
    "Hello world, this is a small test of embeddings.",
    "A search engine finds documents and ranks them.",
    "The index of a database is like the index of a book.",
    "Deadlock happens when two processes wait for each other.",
    "Late interaction keeps one vector for every token.",
    "The quick brown fox jumps over the lazy dog.",
    "Containers share the kernel of the host machine.",
    "Attention is computed between queries and keys.",
]

TEXTS = [
    *CORPUS,
    "",
    " ",
    " \t\n ",
    "a",
    "가",
    "?",
    "검색",
    "search",
    "SEARCH Engine RANKS",
    "İstanbul Straße ΣΊΣΥΦΟΣ",
    "앞뒤 공백이 있는 글   ",
    "   leading space",
    "double  spaces   inside",
    "줄바꿈이\n있는\n글",
    unicodedata.normalize("NFD", "검색 엔진은 문서를 찾는다"),
    unicodedata.normalize("NFD", "café naïve"),
    "이모지 🙂 그리고 👩‍👩‍👧‍👦 가족",
    "🇰🇷🇰🇷",
    "日本語と中文也有",
    "مرحبا بالعالم",
    "e = mc^2; f(x) := x**2 // 3",
    "https://example.org/검색?q=문서&page=2",
    "같은 글 같은 글 같은 글 같은 글",
    "zero\u200bwidth and \u00a0 no-break",
    "NUL \x00 and bell \x07",
    "임베딩은 글의 뜻을 벡터로 나타낸 것이다. " * 12,
    "The index of a database is like the index of a book. " * 12,
    "긴글" * 200,
]
"""Ordinary and odd texts in Korean, English and others; the last three are far longer than `MAX_LENGTH`."""


@dataclass(frozen=True)
class Tiny:
    """A model and its tokenizer in memory."""

    name: str
    model: transformers.PreTrainedModel
    tokenizer: transformers.PreTrainedTokenizerBase

    def save(self, folder: Path) -> Path:
        with quiet_transformers():
            self.model.save_pretrained(folder)
        self.tokenizer.save_pretrained(folder)
        return folder


def build(name: str, *, masked_lm: bool = False, seed: int = 7, max_length: int = MAX_LENGTH) -> Tiny:
    """One of `BACKBONES` or `DECODERS` with random weights; a decoder's `masked_lm` is its next-token head."""
    tokenizer = TOKENIZERS[name](max_length)
    common = {
        "vocab_size": len(tokenizer),
        "hidden_size": HIDDEN,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "intermediate_size": 64,
        "max_position_embeddings": max_length,
        "pad_token_id": tokenizer.pad_token_id,
    }
    config = CONFIGS[name](common)
    model = auto_class(config, masked_lm=masked_lm).from_config(config).eval()
    randomise(model, seed=seed)
    return Tiny(name, model, tokenizer)


def encoder(name: str, *, text: TextConfig | None = None, attention: Attention = "native") -> Encoder:
    """An encoder in memory with all three heads: mean-pooled dense, a weight a token, vectors of 16 dimensions."""
    parts = build(name)
    special = set(parts.tokenizer.all_special_ids) - {parts.tokenizer.mask_token_id}
    config = EncoderConfig(
        text=text or TextConfig(max_length=MAX_LENGTH),
        dense=DenseConfig(pooling=("mean",), layers=(Normalize(),)),
        sparse=SparseConfig(
            source="token_linear", width=parts.model.config.vocab_size, dropped_ids=tuple(sorted(special))
        ),
        multi_vector=MultiVectorConfig(
            layers=(Projection(in_features=HIDDEN, out_features=16), Normalize()), drop_first=True
        ),
        attention=attention,
    )
    backbone = Backbone(parts.model, masked_lm=False, attention=attention)
    result = Encoder(config, backbone=backbone, tokenizer=parts.tokenizer, name=name)
    for number, head in enumerate((result.sparse, result.multi_vector)):
        randomise(head, seed=number)
    return result.eval()


def randomise(model: torch.nn.Module, *, seed: int) -> None:
    """Give every parameter its own random value, the same in every run."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for key, parameter in sorted(model.named_parameters()):
            centre = 1.0 if "norm" in key.lower() and key.endswith("weight") else 0.0
            scale = 0.6 if "embed" in key.lower() and parameter.dim() == 2 else 0.2
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * scale + centre)


def random_linear(out_features: int, in_features: int, *, seed: int) -> dict[str, torch.Tensor]:
    """State of a linear layer."""
    generator = torch.Generator().manual_seed(seed)
    return {
        "weight": torch.randn(out_features, in_features, generator=generator) * 0.3,
        "bias": torch.randn(out_features, generator=generator) * 0.3,
    }


# -- configurations --------------------------------------------------------------------------------------------------


def _bert(common: dict) -> transformers.PretrainedConfig:
    return transformers.BertConfig(**common, hidden_act="gelu")


def _xlm_roberta(common: dict) -> transformers.PretrainedConfig:
    # Positions start at the padding id + 1 = 2.
    positions = common["max_position_embeddings"] + 2
    return transformers.XLMRobertaConfig(
        **(common | {"max_position_embeddings": positions}),
        type_vocab_size=1,
        bos_token_id=0,
        eos_token_id=2,
        layer_norm_eps=1e-5,
    )


def _modernbert(common: dict) -> transformers.PretrainedConfig:
    return transformers.ModernBertConfig(
        **common,
        local_attention=16,
        global_attn_every_n_layers=2,
        cls_token_id=1,
        bos_token_id=1,
        sep_token_id=2,
        eos_token_id=2,
    )


def _distilbert(common: dict) -> transformers.PretrainedConfig:
    return transformers.DistilBertConfig(
        vocab_size=common["vocab_size"],
        dim=common["hidden_size"],
        n_layers=common["num_hidden_layers"],
        n_heads=common["num_attention_heads"],
        hidden_dim=common["intermediate_size"],
        max_position_embeddings=common["max_position_embeddings"],
        pad_token_id=common["pad_token_id"],
    )


def _mpnet(common: dict) -> transformers.PretrainedConfig:
    positions = common["max_position_embeddings"] + 2
    return transformers.MPNetConfig(
        **(common | {"max_position_embeddings": positions}), bos_token_id=0, eos_token_id=2, layer_norm_eps=1e-5
    )


def _decoder(model_type: str, common: dict, **extra: object) -> transformers.PretrainedConfig:
    shape = common | {"num_key_value_heads": 2, "bos_token_id": 1, "eos_token_id": 2}
    return transformers.AutoConfig.for_model(model_type, **shape, **extra)


def _llama(common: dict) -> transformers.PretrainedConfig:
    return _decoder("llama", common)


def _mistral(common: dict) -> transformers.PretrainedConfig:
    return _decoder("mistral", common, head_dim=8, sliding_window=12)


def _qwen2(common: dict) -> transformers.PretrainedConfig:
    layers = ["full_attention", "sliding_attention"]
    return _decoder("qwen2", common, use_sliding_window=True, sliding_window=12, layer_types=layers)


def _qwen3(common: dict) -> transformers.PretrainedConfig:
    return _decoder("qwen3", common, head_dim=8)


def _gemma2(common: dict) -> transformers.PretrainedConfig:
    return _decoder("gemma2", common, head_dim=8, sliding_window=12, query_pre_attn_scalar=8)


def _gemma3(common: dict) -> transformers.PretrainedConfig:
    layers = ["sliding_attention", "full_attention"]
    return _decoder("gemma3_text", common, head_dim=8, sliding_window=12, query_pre_attn_scalar=8, layer_types=layers)


CONFIGS = {
    "bert": _bert,
    "xlm_roberta": _xlm_roberta,
    "modernbert": _modernbert,
    "distilbert": _distilbert,
    "mpnet": _mpnet,
    "llama": _llama,
    "mistral": _mistral,
    "qwen2": _qwen2,
    "qwen3": _qwen3,
    "gemma2": _gemma2,
    "gemma3": _gemma3,
}


# -- tokenizers ------------------------------------------------------------------------------------------------------


def pieces(*, first: str, rest: str) -> list[tuple[str, int]]:
    """Single characters and frequent beginnings and ends of the corpus' words, with counts, in a fixed order."""
    counts: Counter[str] = Counter()
    for word in " ".join(unicodedata.normalize("NFKC", text) for text in CORPUS).split():
        for size in range(1, len(word) + 1):
            counts[first + word[:size]] += 1
            if size < len(word):
                counts[rest + word[size:]] += 1
    for letter in sorted(set("".join(CORPUS)) - {" "}):
        for prefix in {first, rest, ""}:
            counts[prefix + letter] += 1
    chosen = [(piece, count) for piece, count in counts.items() if count > 1 or len(piece) < 6]
    return sorted(chosen, key=lambda item: (-item[1], item[0]))


def _wordpiece(special: list[str]) -> dict[str, int]:
    lowered: dict[str, int] = {}
    for piece, _ in pieces(first="", rest="##"):
        # BERT's normaliser strips accents through NFD, which takes Korean syllables apart.
        for form in (piece, piece.lower(), unicodedata.normalize("NFD", piece.lower())):
            lowered.setdefault(form, 1)
    jamo = sorted({letter for piece in lowered for letter in unicodedata.normalize("NFD", piece.removeprefix("##"))})
    words = [*special, *lowered, *jamo, *("##" + letter for letter in jamo)]
    return {piece: number for number, piece in enumerate(dict.fromkeys(words))}


def _bert_tokenizer(max_length: int) -> transformers.PreTrainedTokenizerBase:
    vocabulary = _wordpiece(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"])
    return transformers.BertTokenizer(vocab=vocabulary, model_max_length=max_length)


def _cased_bert_tokenizer(max_length: int) -> transformers.PreTrainedTokenizerBase:
    vocabulary = _wordpiece(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"])
    return transformers.BertTokenizer(
        vocab=vocabulary, do_lower_case=False, strip_accents=False, model_max_length=max_length
    )


def _mpnet_tokenizer(max_length: int) -> transformers.PreTrainedTokenizerBase:
    vocabulary = _wordpiece(["<s>", "<pad>", "</s>", "[UNK]"])
    vocabulary["<mask>"] = len(vocabulary)
    return transformers.MPNetTokenizer(vocab=vocabulary, model_max_length=max_length)


def _xlm_roberta_tokenizer(max_length: int) -> transformers.PreTrainedTokenizerBase:
    counted = [("▁", 50), *pieces(first="▁", rest="")]
    total = sum(count for _, count in counted)
    scored = [(piece, float(torch.log(torch.tensor(count / total)))) for piece, count in counted]
    vocabulary = [("<s>", 0.0), ("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), *scored, ("<mask>", 0.0)]
    return transformers.XLMRobertaTokenizer(vocab=vocabulary, model_max_length=max_length)


def _modernbert_tokenizer(max_length: int) -> transformers.PreTrainedTokenizerBase:
    backend = tokenizers.Tokenizer(tokenizers.models.BPE())
    backend.normalizer = tokenizers.normalizers.NFC()
    backend.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = tokenizers.decoders.ByteLevel()
    special = ["[PAD]", "[CLS]", "[SEP]", "[UNK]", "[MASK]"]
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=600,
        special_tokens=special,
        initial_alphabet=tokenizers.pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    backend.train_from_iterator(CORPUS, trainer)
    backend.post_processor = tokenizers.processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B [SEP]", special_tokens=[("[CLS]", 1), ("[SEP]", 2)]
    )
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=backend,
        pad_token="[PAD]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        unk_token="[UNK]",
        mask_token="[MASK]",
        model_max_length=max_length,
        model_input_names=["input_ids", "attention_mask"],
    )


def _with_bytes(normalizer: tokenizers.normalizers.Normalizer, *, special: list[str]) -> tokenizers.Tokenizer:
    """BPE whose unknown letters become their bytes."""
    backend = tokenizers.Tokenizer(tokenizers.models.BPE(unk_token="<unk>", byte_fallback=True, fuse_unk=True))
    backend.normalizer = normalizer
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=700,
        special_tokens=[*special, *(f"<0x{byte:02X}>" for byte in range(256))],
        show_progress=False,
    )
    backend.train_from_iterator(CORPUS, trainer)
    # The bytes are ordinary pieces: training knows no other way to reserve them.
    content = json.loads(backend.to_str())
    content["added_tokens"] = [token for token in content["added_tokens"] if token["content"] in special]
    return tokenizers.Tokenizer.from_str(json.dumps(content))


def _sentencepiece_tokenizer(max_length: int) -> transformers.PreTrainedTokenizerBase:
    """As Llama's and Mistral's files have it: byte fallback, a space in front, and a template that adds only <s>."""
    normalizer = tokenizers.normalizers.Sequence(
        [tokenizers.normalizers.Prepend("▁"), tokenizers.normalizers.Replace(" ", "▁")]
    )
    backend = _with_bytes(normalizer, special=["<unk>", "<s>", "</s>", "<pad>"])
    backend.decoder = tokenizers.decoders.Sequence(
        [
            tokenizers.decoders.Replace("▁", " "),
            tokenizers.decoders.ByteFallback(),
            tokenizers.decoders.Fuse(),
            tokenizers.decoders.Strip(content=" ", left=1),
        ]
    )
    backend.post_processor = tokenizers.processors.TemplateProcessing(
        single="<s> $A", pair="<s> $A <s> $B", special_tokens=[("<s>", 1)]
    )
    return _fast(backend, max_length, bos_token="<s>", eos_token="</s>", unk_token="<unk>", pad_token="<pad>")


def _qwen_tokenizer(max_length: int) -> transformers.PreTrainedTokenizerBase:
    """As Qwen's files have it: bytes, no BOS; the embedding models' template adds <|endoftext|> behind."""
    backend = tokenizers.Tokenizer(tokenizers.models.BPE())
    backend.normalizer = tokenizers.normalizers.NFC()
    backend.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = tokenizers.decoders.ByteLevel()
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=600,
        special_tokens=["<|endoftext|>", "<|im_start|>", "<|im_end|>"],
        initial_alphabet=tokenizers.pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    backend.train_from_iterator(CORPUS, trainer)
    backend.post_processor = tokenizers.processors.TemplateProcessing(
        single="$A <|endoftext|>", pair="$A <|endoftext|> $B <|endoftext|>", special_tokens=[("<|endoftext|>", 0)]
    )
    return _fast(backend, max_length, eos_token="<|im_end|>", pad_token="<|endoftext|>")


def _gemma_tokenizer(max_length: int) -> transformers.PreTrainedTokenizerBase:
    """As Gemma's files have it for embedding: <bos> and <eos> around, a space as ▁, none put in front."""
    backend = _with_bytes(tokenizers.normalizers.Replace(" ", "▁"), special=["<pad>", "<eos>", "<bos>", "<unk>"])
    backend.post_processor = tokenizers.processors.TemplateProcessing(
        single="<bos> $A <eos>", pair="<bos> $A <eos> <bos> $B <eos>", special_tokens=[("<bos>", 2), ("<eos>", 1)]
    )
    return _fast(backend, max_length, bos_token="<bos>", eos_token="<eos>", unk_token="<unk>", pad_token="<pad>")


def _fast(backend: tokenizers.Tokenizer, max_length: int, **tokens: str) -> transformers.PreTrainedTokenizerBase:
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=backend,
        model_max_length=max_length,
        model_input_names=["input_ids", "attention_mask"],
        **tokens,
    )


TOKENIZERS = {
    "bert": _bert_tokenizer,
    "xlm_roberta": _xlm_roberta_tokenizer,
    "modernbert": _modernbert_tokenizer,
    "distilbert": _cased_bert_tokenizer,
    "mpnet": _mpnet_tokenizer,
    "llama": _sentencepiece_tokenizer,
    "mistral": _sentencepiece_tokenizer,
    "qwen2": _qwen_tokenizer,
    "qwen3": _qwen_tokenizer,
    "gemma2": _gemma_tokenizer,
    "gemma3": _gemma_tokenizer,
}
