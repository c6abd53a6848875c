"""A tiny language model in its own layout, and words that ask for the passages that repeat them."""

import json

from models import tiny
from trine.models.encoder import Encoder

WORDS = ["검색", "색인", "문서", "기억", "장치", "지하철", "날씨", "한국어", "임베딩", "벡터"]
WORDS += ["kernel", "deadlock", "attention", "index", "container", "database"]
LENGTHS = {"query_length": 128, "passage_length": 64, "log_every": 1}


def language_model(folder, name="mistral"):
    """As its makers publish it: config.json, weights with a head of its own, a tokenizer that adds BOS alone."""
    return tiny.build(name, masked_lm=True, max_length=128).save(folder)


def encoder(folder, name="mistral"):
    """The same as an encoder in trine's own layout, without its head."""
    parts = tiny.build(name, max_length=128)
    parts.model.config.tie_word_embeddings = True
    return Encoder.load(parts.save(folder / "plain"), pooling="mean").save(folder / "native")


def pairs(path):
    """Every word asks for a passage that repeats it; a passage without it is its hard negative."""
    rows = [
        {"query": word, "pos": [f"{word} {word} {other}"], "neg": [f"{other} {other}"]}
        for word in WORDS
        for other in WORDS[:6]
        if word != other
    ]
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return path


def judged(folder):
    """Held-out passages: the words beside others than in training."""
    folder.mkdir()
    corpus = [
        {"_id": f"p{n}", "title": "", "text": f"{word} {word} {WORDS[-1 - n % 3]}"} for n, word in enumerate(WORDS)
    ]
    queries = [{"_id": f"q{n}", "text": word} for n, word in enumerate(WORDS)]
    for name, rows in (("corpus", corpus), ("queries", queries)):
        text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
        (folder / f"{name}.jsonl").write_text(text, encoding="utf-8")
    lines = ["query-id\tcorpus-id\tscore", *(f"q{n}\tp{n}\t1" for n in range(len(WORDS)))]
    (folder / "qrels.tsv").write_text("\n".join(lines) + "\n")
    return folder


def texts(path):
    """Running text."""
    path.write_text("\n".join(tiny.CORPUS) + "\n", encoding="utf-8")
    return path
