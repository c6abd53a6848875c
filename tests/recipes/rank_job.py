"""What each process of `test_run.py` does; a module of its own, so that spawned processes can import it."""

from pathlib import Path

from trine.recipes.config import recipe
from trine.recipes.run import Job, run


def train(ranks, settings, start, out, pairs, judged):
    trained = run(
        Job(
            recipe=recipe("bge_m3_small", settings),
            data=[pairs],
            out=Path(out),
            model=start,
            validation=Path(judged),
            device="cpu",
        ),
        ranks=ranks,
    )
    return trained.after.values
