"""The small Korean world of the experiments: training pairs, running text, test sets, a tokenizer.

Made once from a data folder (`pairs/NAME.jsonl.xz`, `corpora/NAME.jsonl.xz`, `eval/NAME.tar.xz`) and kept.
"""

from __future__ import annotations

import json
import lzma
import random
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

PAIRS = {"kolaw": 25_000, "msdocs_vs_ko_ht": 14_000, "msdocs_dynamics_ko": 14_000, "kobest_boolq_ft": 3_600}
"""Source -> most pairs taken."""
KINDS = {"heading-section", "title-passage", "title-description", "description-passage", "question-passage"}
CORPORA = {"msdocs_vs_ko": 5_000_000, "msdocs_dynamics_ko": 4_000_000, "kolaw": 6_000_000, "kobest": 1_000_000}
"""Source -> most characters taken."""
TESTS = {"msdocs-ko": (500, 605), "kolaw-article-ko": (400, 1000), "kobest-boolq-ko": (400, 1000)}
"""Test set -> queries and passages kept; every passage that answers a query stays."""
LONG = "kolaw-long-ko"
VOCABULARY = 12_000


@dataclass(frozen=True)
class World:
    """Where everything lies."""

    folder: Path

    @property
    def pairs(self) -> list[Path]:
        """Training files, one a source."""
        return sorted((self.folder / "pairs").glob("*.jsonl"))

    @property
    def text(self) -> Path:
        """Running text, one passage a line."""
        return self.folder / "text.jsonl"

    @property
    def tokenizer(self) -> Path:
        """A transformers tokenizer."""
        return self.folder / "tokenizer"

    @property
    def tests(self) -> list[Path]:
        """BEIR folders."""
        return [self.folder / "eval" / name for name in TESTS]

    @property
    def long(self) -> Path:
        """The BEIR folder of long documents."""
        return self.folder / "eval" / LONG


def build(data: Path, folder: Path) -> World:
    """Make the world, or take the one that lies there."""
    world = World(folder)
    done = folder / "done.json"
    if done.is_file():
        return world
    for name, (queries, passages) in TESTS.items():
        subset(data / "eval" / f"{name}.tar.xz", folder / "eval", name, queries=queries, passages=passages)
    subset(data / "eval" / f"{LONG}.tar.xz", folder / "eval", LONG, queries=10_000, passages=10_000)
    known = _test_texts(folder / "eval")
    dropped = {name: _write_pairs(data, world, name, limit, known) for name, limit in PAIRS.items()}
    _write_text(data, world, known)
    _train_tokenizer(world)
    done.write_text(json.dumps({"overlapping pairs left out": dropped}))
    return world


def rows(path: Path) -> Iterator[dict]:
    """JSON lines, packed or not."""
    with lzma.open(path, "rt", encoding="utf-8") if path.suffix == ".xz" else path.open(encoding="utf-8") as lines:
        for line in lines:
            yield json.loads(line)


def normal(text: str) -> str:
    """What counts as the same text."""
    return "".join(text.lower().split())


def _test_texts(folder: Path) -> set[str]:
    found = set()
    for name in TESTS:
        found |= {normal(row["text"]) for row in rows(folder / name / "queries.jsonl")}
    for name in [*TESTS, LONG]:
        judged = {line.split("\t")[1] for line in (folder / name / "qrels.tsv").read_text().splitlines()[1:]}
        found |= {normal(row["text"])[:200] for row in rows(folder / name / "corpus.jsonl") if row["_id"] in judged}
    return found


def _write_pairs(data: Path, world: World, name: str, limit: int, known: set[str]) -> int:
    kept, dropped = [], 0
    for row in rows(data / "pairs" / f"{name}.jsonl.xz"):
        if row["lang"] != "ko" or row["type"] not in KINDS or row.get("mt") or len(row["positive"]) < 20:
            continue
        if normal(row["query"]) in known or normal(row["positive"])[:200] in known:
            dropped += 1
            continue
        kept.append({key: row[key] for key in ("query", "positive", "lang", "source", "type")})
    random.Random(0).shuffle(kept)
    path = world.folder / "pairs" / f"{name}.jsonl"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in kept[:limit]), encoding="utf-8")
    return dropped


def _write_text(data: Path, world: World, known: set[str]) -> None:
    pieces = []
    for name, limit in CORPORA.items():
        taken = 0
        for row in rows(data / "corpora" / f"{name}.jsonl.xz"):
            for start in range(0, len(row["text"]), 300):
                piece = row["text"][start : start + 300].strip()
                if len(piece) > 60 and normal(piece)[:200] not in known:
                    pieces.append(piece)
            taken += len(row["text"])
            if taken > limit:
                break
    random.Random(0).shuffle(pieces)
    world.text.write_text(
        "".join(json.dumps({"text": piece}, ensure_ascii=False) + "\n" for piece in pieces), encoding="utf-8"
    )


def _train_tokenizer(world: World) -> None:
    import itertools

    from trine.curation.tokenizers import train_tokenizer

    texts = (row["text"] for row in itertools.islice(rows(world.text), 15_000))
    train_tokenizer(texts, size=VOCABULARY, max_length=128).save_pretrained(world.tokenizer)


def subset(archive: Path, folder: Path, name: str, *, queries: int, passages: int) -> None:
    """Unpack a test set and keep at most so many queries and passages; every passage that answers a query stays."""
    with tarfile.open(archive) as tar:
        tar.extractall(folder, filter="data")
    here = folder / name
    draw = random.Random(0)
    judged = [line.split("\t") for line in (here / "qrels.tsv").read_text().splitlines()[1:]]
    present = {row["_id"] for row in rows(here / "queries.jsonl")}
    ids = sorted({query for query, _, grade in judged if int(grade) > 0 and query in present})
    chosen = set(draw.sample(ids, min(queries, len(ids))))
    needed = {passage for query, passage, _ in judged if query in chosen}
    corpus = list(rows(here / "corpus.jsonl"))
    others = [row["_id"] for row in corpus if row["_id"] not in needed]
    needed |= set(draw.sample(others, max(min(passages - len(needed), len(others)), 0)))
    _rewrite(here / "corpus.jsonl", [row for row in corpus if row["_id"] in needed])
    _rewrite(here / "queries.jsonl", [row for row in rows(here / "queries.jsonl") if row["_id"] in chosen])
    lines = ["query-id\tcorpus-id\tscore", *("\t".join(row) for row in judged if row[0] in chosen)]
    (here / "qrels.tsv").write_text("\n".join(lines) + "\n")


def _rewrite(path: Path, content: list[dict]) -> None:
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in content), encoding="utf-8")
