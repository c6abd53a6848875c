"""Run by test_loop.py: forks children that train, some of which kill themselves.

For each line of JSON on standard input it forks a child that trains as told and answers how the child ended. The parent
has imported everything and computed nothing, so that a child costs a second and finds torch as a new process does.
"""

import json
import os
import signal
import sys
import traceback

import torch

from training import rank_workers, toys
from trine.training import checkpoints
from trine.training.loop import train
from trine.training.ranks import OneProcess
from trine.training.settings import LoopSettings
from trine.training.trackers import JsonlTracker


def die():
    os.kill(os.getpid(), signal.SIGKILL)


def die_while_writing(step):
    """Killed when the weights of that step's checkpoint are there, and nothing else of it."""
    real = checkpoints.torch.save

    def save(content, path):
        if path.parent.name.startswith(f".{checkpoints.name(step)}"):
            die()
        real(content, path)

    checkpoints.torch.save = save


def encoder(folder, kill_at=None):
    """All heads, a learnt temperature, dropout."""
    rank_workers.training(OneProcess(), folder, own_kill_at=kill_at)


def network(folder, kill_at=None):
    """A step that draws from all random numbers; a log; evaluation."""
    module = toys.network()
    step = toys.squares(module)

    def stepped(batch):
        losses = step(batch)
        if kill_at is not None and batches.number == kill_at:
            die()
        return losses

    batches = toys.Drawn()
    train(
        module,
        batches=batches,
        step=stepped,
        settings=LoopSettings(
            steps=30, learning_rate=0.05, save_every=4, log_every=3, evaluate_every=6, metric="fit", schedule="cosine"
        ),
        folder=folder,
        evaluate=lambda: {"fit": -float(torch.cat([p.detach().flatten() for p in module.parameters()]).norm())},
        trackers=[JsonlTracker(os.path.join(folder, "log.jsonl"))],
    )


def main():
    torch.set_num_threads(1)
    for line in sys.stdin:
        order = json.loads(line)
        child = os.fork()
        if child == 0:
            try:
                if order.get("kill_writing") is not None:
                    die_while_writing(order["kill_writing"])
                globals()[order["what"]](order["folder"], order.get("kill_at"))
                os._exit(0)
            except BaseException:
                traceback.print_exc()
                os._exit(1)
        status = os.waitpid(child, 0)[1]
        sys.stdout.write(f"{os.waitstatus_to_exitcode(status)}\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
