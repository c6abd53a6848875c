"""Run by test_kill.py: forks children that run a bulk job, to be killed.

For each line of JSON on standard input it forks a child and answers its process id; for an empty line it waits for that
child and answers how it ended. The parent is warm, so that a child costs milliseconds.
"""

import json
import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

from encoding.bulk import samples
from trine.encoding.bulk.workers import JobFailed


def run(source, out, workers, load="slow"):
    try:
        samples.run(source, out, load=getattr(samples, load), workers=workers, shard_texts=5)
    except JobFailed:
        os._exit(1)
    os._exit(0)


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
