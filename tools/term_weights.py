"""Count the document frequencies behind the default model's sparse weights.

    python tools/term_weights.py corpus.jsonl.xz [...]

Each file holds JSON lines with a "text"; texts are cut into paragraphs of up to 1,000 characters, the size of a
passage. Only one number per vocabulary entry is kept.
"""

from __future__ import annotations

import gzip
import json
import lzma
import random
import sys
from collections.abc import Iterator
from pathlib import Path

from safetensors.numpy import save_file

OUT = Path(__file__).parent.parent / "src/trine/models/assets/term_weights.safetensors"
PER_FILE = 40_000
OPENERS = {".xz": lzma.open, ".gz": gzip.open}


def passages(path: Path) -> Iterator[str]:
    with OPENERS.get(path.suffix, open)(path, "rt", encoding="utf-8") as lines:
        for line in lines:
            text = json.loads(line)["text"]
            yield from (text[start : start + 1000] for start in range(0, len(text), 1000))


def main(paths: list[Path]) -> None:
    from trine import Encoder
    from trine.models.statistics import term_weights

    texts: list[str] = []
    for path in paths:
        found = list(passages(path))
        chosen = random.Random(0).sample(found, min(len(found), PER_FILE))
        print(f"{path.name}: {len(found)} passages, {len(chosen)} taken")
        texts += chosen
    weights = term_weights(texts, Encoder.load().tokenizer)
    OUT.parent.mkdir(exist_ok=True)
    save_file({"weights": weights.astype("float16")}, OUT)
    print(f"{len(texts)} passages -> {OUT} ({OUT.stat().st_size} bytes)")


if __name__ == "__main__":
    main([Path(argument) for argument in sys.argv[1:]])
