"""nDCG@10 and speed of BM25 on BEIR folders, for every analyzer and setting of k1 and b that is asked for.

python benchmarks/bm25.py path/to/scifact path/to/other --analyzer bigram --analyzer kiwi --setting 0.9,0.4
"""

from __future__ import annotations

import argparse
import platform
import random
import time
from importlib.metadata import version

import numpy as np

from trine.evaluation.beir import Dataset, read_beir
from trine.evaluation.metrics import mean, measure
from trine.index import ANALYZERS
from trine.index.analysis import Analyzer
from trine.index.bm25 import Bm25Index, Vocabulary
from trine.tables import resolve

DEPTH = 100


def main() -> None:
    arguments = parse()
    print(f"numpy {version('numpy')}, Python {platform.python_version()}, {platform.machine()}")
    print("| set | passages | queries | analyzer | terms | k1 | b | nDCG@10 | analysis kchar/s | ms a query |")
    print("|---|---|---|---|---|---|---|---|---|---|")
    for folder in arguments.folders:
        dataset = sampled(read_beir(folder), arguments.queries, seed=arguments.seed)
        for name in arguments.analyzer or ["bigram"]:
            analyzer = resolve(ANALYZERS, name, kind="analyzer")()
            analyzer.terms("가")  # loads what is loaded once
            compare(dataset, analyzer, settings=arguments.setting or [(0.9, 0.6)])


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", nargs="+", help="BEIR folders: corpus.jsonl, queries.jsonl, qrels")
    parser.add_argument("--analyzer", action="append", choices=sorted(ANALYZERS), help="again for several")
    parser.add_argument("--setting", action="append", type=setting, metavar="K1,B", help="again for several")
    parser.add_argument("--queries", type=int, default=1000, help="a larger set is sampled down to so many judged ones")
    parser.add_argument("--seed", type=int, default=0)
    return parser.parse_args()


def setting(text: str) -> tuple[float, float]:
    k1, b = text.split(",")
    return float(k1), float(b)


def sampled(dataset: Dataset, size: int, *, seed: int) -> Dataset:
    queries = dataset.judged
    if len(queries) > size:
        queries = random.Random(seed).sample(queries, size)
    qrels = {query.id: dataset.qrels[query.id] for query in queries}
    return Dataset(dataset.name, dataset.corpus, queries, qrels, dataset.split)


def compare(dataset: Dataset, analyzer: Analyzer, *, settings: list[tuple[float, float]]) -> None:
    vocabulary = Vocabulary()
    texts = [f"{document.title}\n{document.text}" if document.title else document.text for document in dataset.corpus]
    start = time.perf_counter()
    counts = vocabulary.encode((analyzer.terms(text) for text in texts), grow=True)
    speed = sum(map(len, texts)) / (time.perf_counter() - start) / 1000
    queries = vocabulary.encode((analyzer.terms(query.text) for query in dataset.queries), grow=False)
    for k1, b in settings:
        index = Bm25Index(k1=k1, b=b)
        index.add(np.arange(len(texts)), counts)
        index.search(queries.take(slice(0, 1)), k=1)  # builds the posting lists
        start = time.perf_counter()
        ranking = index.search(queries, k=DEPTH)
        milliseconds = (time.perf_counter() - start) / len(dataset.queries) * 1000
        run = {}
        for number, query in enumerate(dataset.queries):
            ids, scores = ranking.row(number)
            run[query.id] = {dataset.corpus[i].id: float(score) for i, score in zip(ids, scores, strict=True)}
        quality = mean(measure(run, dataset.qrels, metric="ndcg@10"))
        print(
            f"| {dataset.name} | {len(texts)} | {len(dataset.queries)} | {analyzer.name} | {len(vocabulary)} "
            f"| {k1} | {b} | {quality:.3f} | {speed:.0f} | {milliseconds:.2f} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
