"""Training a tokenizer on one's own texts.

Sources: unigram language model (Kudo, arXiv 1804.10959), byte-pair encoding (Sennrich et al., arXiv 1508.07909), byte
fallback as in SentencePiece.
"""

from __future__ import annotations

import json
import unicodedata
from collections import Counter
from collections.abc import Iterable
from typing import Any, Literal, TypeAlias, get_args

from trine.errors import UsageError
from trine.models.tokenization import clean
from trine.tables import unknown

Algorithm: TypeAlias = Literal["unigram", "bpe"]

SPECIAL = {"pad": "[PAD]", "unk": "[UNK]", "cls": "[CLS]", "sep": "[SEP]", "mask": "[MASK]"}
"""Role -> token; their ids are 0 to 4."""
BYTES = tuple(f"<0x{number:02X}>" for number in range(256))
"""Pieces that any character without a piece of its own is written in, so that nothing is unknown."""


def train_tokenizer(
    texts: Iterable[str],
    *,
    size: int,
    algorithm: Algorithm = "unigram",
    coverage: float = 0.9998,
    lower_case: bool = False,
    max_length: int = 512,
    longest_piece: int = 16,
    progress: bool = False,
) -> Any:
    """Learn pieces from texts; the result is a fast transformers tokenizer, saved by its `save_pretrained`.

    Texts are put in form NFKC, so that Korean in single letters and in syllables is the same, and cut at white space. A
    piece never crosses a space, and the space in front belongs to it.

    Args:
        texts: read once, and held in memory.
        size: pieces, with 5 special tokens and 256 bytes; fewer come out where the texts do not hold so many.
        algorithm: "unigram" or "bpe".
        coverage: share of all characters that get pieces; rarer ones, and those beyond half of `size`, are written in
            bytes.
        lower_case: whether capitals are folded.
        max_length: tokens of a text, special ones included, that the tokenizer announces.
        longest_piece: in characters.
        progress: show tokenizers' own bar.

    Raises:
        UsageError: there is no text, something is not a text, or `size` leaves no room for pieces.
        UnknownName: no such algorithm.
    """
    if algorithm not in get_args(Algorithm):
        raise unknown(algorithm, get_args(Algorithm), kind="tokenizer algorithm")
    room = size - len(SPECIAL) - len(BYTES)
    if room < 1:
        raise UsageError(f"size {size} leaves no room: {len(SPECIAL)} special tokens and {len(BYTES)} bytes come first")
    if not 0 < coverage <= 1:
        raise UsageError(f"coverage must be above 0 and at most 1, got {coverage}")
    cleaned = _cleaned(texts, lower_case=lower_case)
    rare = _rare(cleaned, coverage=coverage, limit=max(room // 2, 1))
    backend = _empty(algorithm, lower_case=lower_case)
    trainer = _trainer(algorithm, room=room, longest_piece=longest_piece, progress=progress)
    backend.train_from_iterator((text.translate(rare) for text in cleaned), trainer, length=len(cleaned))
    return _finished(_with_bytes(backend, algorithm, room=room), max_length=max_length)


def _cleaned(texts: Iterable[str], *, lower_case: bool) -> list[str]:
    if isinstance(texts, str):
        raise UsageError("texts must be many strings; for one text write [text]")
    forms = (unicodedata.normalize("NFKC", clean(text)) for text in texts)
    cleaned = [form.lower() if lower_case else form for form in forms if form.strip()]
    if not cleaned:
        raise UsageError("a tokenizer cannot be trained on nothing: all texts are empty")
    return cleaned


def _rare(texts: list[str], *, coverage: float, limit: int) -> dict[int, str]:
    """Translation of the characters that get no piece into spaces."""
    counts: Counter[str] = Counter()
    for text in texts:
        counts.update(text)
    ordered = sorted(counts, key=lambda character: (-counts[character], character))
    wanted, seen, kept = coverage * counts.total(), 0, 0
    for character in ordered[:limit]:
        if seen >= wanted:
            break
        seen += counts[character]
        kept += 1
    return {ord(character): " " for character in ordered[kept:]}


def _empty(algorithm: Algorithm, *, lower_case: bool) -> Any:
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers

    backend = Tokenizer(models.Unigram() if algorithm == "unigram" else models.BPE())
    forms = [normalizers.NFKC(), *([normalizers.Lowercase()] if lower_case else [])]
    # Runs of white space, of which NFKC leaves several kinds, are one space, as most texts come from layouts.
    backend.normalizer = normalizers.Sequence([*forms, normalizers.Replace(_pattern(r"\s+"), " "), normalizers.Strip()])
    backend.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always")
    return backend


def _pattern(expression: str) -> Any:
    from tokenizers import Regex

    return Regex(expression)


def _trainer(algorithm: Algorithm, *, room: int, longest_piece: int, progress: bool) -> Any:
    from tokenizers import trainers

    if algorithm == "unigram":
        return trainers.UnigramTrainer(
            vocab_size=room + 1,
            special_tokens=[SPECIAL["unk"]],
            unk_token=SPECIAL["unk"],
            max_piece_length=longest_piece,
            show_progress=progress,
        )
    return trainers.BpeTrainer(
        vocab_size=room,
        max_token_length=longest_piece,
        show_progress=progress,
    )


def _with_bytes(backend: Any, algorithm: Algorithm, *, room: int) -> Any:
    """The trained model once more, with special tokens and bytes in front.

    Bytes that the trainer knew as special tokens would match a text that says "<0x41>".
    """
    from tokenizers import Tokenizer

    content = json.loads(backend.to_str())
    first = [*SPECIAL.values(), *BYTES]
    model = content["model"]
    if algorithm == "unigram":
        learnt = [(piece, score) for piece, score in model["vocab"] if piece not in first][:room]
        # So unlikely that "<0x41>" in a text is written in its own characters, where these have pieces.
        model["vocab"] = [(piece, 0.0) for piece in SPECIAL.values()]
        model["vocab"] += [(piece, -1000.0) for piece in BYTES] + learnt
        model["unk_id"] = list(SPECIAL).index("unk")
    else:
        learnt = sorted(model["vocab"], key=model["vocab"].__getitem__)
        model["vocab"] = {piece: number for number, piece in enumerate([*first, *learnt])}
        model["unk_token"] = SPECIAL["unk"]
    model["byte_fallback"] = True
    content["added_tokens"] = []
    return Tokenizer.from_str(json.dumps(content))


def _finished(backend: Any, *, max_length: int) -> Any:
    from tokenizers import decoders, processors
    from transformers import PreTrainedTokenizerFast

    names = list(SPECIAL)
    cls, sep = SPECIAL["cls"], SPECIAL["sep"]
    backend.decoder = decoders.Sequence(
        [decoders.ByteFallback(), decoders.Metaspace(prepend_scheme="always"), decoders.Fuse()]
    )
    backend.post_processor = processors.TemplateProcessing(
        single=f"{cls} $A {sep}",
        pair=f"{cls} $A {sep} $B {sep}",
        special_tokens=[(cls, names.index("cls")), (sep, names.index("sep"))],
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        **{f"{role}_token": token for role, token in SPECIAL.items()},
        model_max_length=max_length,
        model_input_names=["input_ids", "attention_mask"],
        clean_up_tokenization_spaces=False,
    )
