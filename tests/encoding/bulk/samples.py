"""Inputs and models for bulk jobs; the models can be imported by the processes of a job."""

import json
import os
import time

from trine.encoding.bulk.job import encode_files
from trine.encoding.bulk.plan import Settings
from trine.testing import HashingEncoder

ROWS = [
    {"id": key, "text": text}
    for key, text in [
        ("가", "검색 엔진은 문서를 찾는다 🙂"),
        ("b", "A search engine finds documents"),
        (3, "deadlock happens when two processes wait"),
        ("라/마", "교착 상태는 두 프로세스가 기다릴 때 생긴다"),
        (-5, ""),
        ("f", "late interaction keeps one vector for every token"),
        ("café", "가상 메모리는 페이지 단위로 관리된다"),
    ]
]


def hashing(device):
    return HashingEncoder(dense=8, sparse=64, multi_vector=4)


def slow(device):
    """A few milliseconds for a shard, so that a kill meets it."""
    return Slow(dense=8, sparse=64, multi_vector=4)


def sleeping(device):
    return Sleeping(dense=8, sparse=64, multi_vector=4)


def other(device):
    return HashingEncoder(dense=6, sparse=64, multi_vector=4)


def failing(device):
    return Failing(dense=8, sparse=64, multi_vector=4)


def dying(device):
    return Dying(dense=8, sparse=64, multi_vector=4)


def stubborn(device):
    raise ValueError("these weights are not to be read")


class Slow(HashingEncoder):
    def encode(self, texts, **how):
        time.sleep(0.004)
        return super().encode(texts, **how)


class Sleeping(HashingEncoder):
    def encode(self, texts, **how):
        time.sleep(60)
        return super().encode(texts, **how)


class Failing(HashingEncoder):
    def encode(self, texts, **how):
        if "poison" in texts:
            raise ValueError("cannot be embedded")
        return super().encode(texts, **how)


class Dying(HashingEncoder):
    def encode(self, texts, **how):
        if "poison" in texts:
            os.kill(os.getpid(), 9)
        return super().encode(texts, **how)


def tiny_bert(device):
    from models import tiny

    return tiny.encoder("bert")


def json_lines(path, rows=ROWS):
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), "utf-8")
    return path


def numbered(path, count, *, poison=None):
    texts = [f"문서 number {number} of {number % 7} 🙂" for number in range(count)]
    if poison is not None:
        texts[poison] = "poison"
    return json_lines(path, [{"id": f"글{number}", "text": text} for number, text in enumerate(texts)])


def run(source, out, *, load=hashing, workers=1, progress=None, **settings):
    more = {} if progress is None else {"progress": progress}
    return encode_files(source, out, load=load, settings=Settings(**settings), devices=("cpu",) * workers, **more)


def content(folder):
    """Every file but the log, by name."""
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.name != "log.jsonl"}
