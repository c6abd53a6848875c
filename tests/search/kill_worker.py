"""Run by test_kill.py: forks children that change a collection without end, until they are killed.

For each line of JSON on standard input it forks a child and answers its process id; for an empty line it waits for that
child and answers how it ended. The parent is warm, so that a child costs milliseconds.
"""

import json
import os
import random
import sys
import traceback

from trine.search.collection import Collection
from trine.testing import HashingEncoder
from trine.types import Document

NAMES = [f"문서{number}" for number in range(25)]


def change(collection, choose, record):
    """One change at random: its intention is on record before it starts, its acknowledgement once it is done."""
    if choose.random() < 0.25:
        gone = choose.sample(NAMES, choose.randint(1, 5))
        record({"delete": gone})
        collection.delete(gone)
        record("ack")
        return
    documents = []
    for name in choose.sample(NAMES, choose.randint(1, 4)):
        # Six words: of a passage's eight, so that every paragraph is one.
        paragraphs = [f"shared {choose.randrange(10**6)} 글 {name} 하나 둘" for _ in range(choose.randint(1, 3))]
        documents.append(Document(name, "\n\n".join(paragraphs), metadata={"version": choose.randrange(10**6)}))
    record({"add": [(document.id, document.text, document.metadata["version"]) for document in documents]})
    collection.add(documents, on_ack=lambda acknowledged: record("ack"))


def run(folder, journal, seed, searches):
    descriptor = os.open(journal, os.O_WRONLY | os.O_APPEND | os.O_CREAT)

    def record(entry):
        os.write(descriptor, json.dumps(entry).encode() + b"\n")

    choose = random.Random(seed)
    try:
        collection = Collection.open(folder, encoder=HashingEncoder())
        while True:
            change(collection, choose, record)
            if searches:
                collection.search("shared", retrievers=["dense", "sparse"])
    except BaseException:
        record({"failed": traceback.format_exc()})
        os._exit(1)


def main():
    child = 0
    for line in sys.stdin:
        if line.strip():
            child = os.fork()
            if not child:
                run(**json.loads(line))
            answer = child
        else:
            answer = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        sys.stdout.write(f"{answer}\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
