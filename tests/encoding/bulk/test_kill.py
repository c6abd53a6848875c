"""A bulk job is killed at random times; what comes out in the end is what an undisturbed job writes, byte for byte."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from encoding.bulk.samples import content, numbered, run, slow

pytestmark = pytest.mark.skipif(os.name == "nt", reason="signals")


class Runner:
    def __init__(self):
        script = Path(__file__).with_name("kill_worker.py")
        self.process = subprocess.Popen(
            [sys.executable, str(script)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def ask(self, request):
        self.process.stdin.write(request + "\n")
        self.process.stdin.flush()
        return int(self.process.stdout.readline())

    def start(self, **request):
        return self.ask(json.dumps(request))

    def end(self):
        return self.ask("")

    def close(self):
        self.process.stdin.close()
        self.process.wait(30)
        self.process.stdout.close()


@pytest.fixture(scope="module")
def runner():
    made = Runner()
    made.start(source="none", out="none", workers=1)
    made.end()
    yield made
    made.close()


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """An input, and what an undisturbed job makes of it."""
    folder = tmp_path_factory.mktemp("whole")
    source = numbered(folder / "a.jsonl", 200)
    run(source, folder / "out", load=slow, shard_texts=5)
    return source, content(folder / "out")


def shards(folder):
    """Identity of every finished shard: another number where it was written again."""
    return {path.name: (path.stat().st_ino, path.stat().st_mtime_ns) for path in folder.glob("shard-*")}


def started(folder):
    """The worker processes of each run so far, and what the last line of the log says."""
    path = folder / "log.jsonl"
    rows = [json.loads(line) for line in path.read_text("utf-8").splitlines()] if path.exists() else []
    return [row["processes"] for row in rows if row["event"] == "started"], rows[-1] if rows else {}


def is_running(process):
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    return True


def gone(processes):
    limit = time.monotonic() + 10
    while any(map(is_running, processes)) and time.monotonic() < limit:
        time.sleep(0.01)
    return not any(map(is_running, processes))


class Rounds:
    """Kills, one after the other, in one folder after the other."""

    def __init__(self, runner, whole, root, workers):
        self.runner, (self.source, self.content), self.root, self.workers = runner, whole, root, workers
        self.jobs = self.kills = self.midway = 0

    @property
    def folder(self):
        return self.root / f"job{self.jobs}"

    def start(self):
        self.held = shards(self.folder)
        self.runs = len(started(self.folder)[0])
        return self.runner.start(source=str(self.source), out=str(self.folder), workers=self.workers)

    def check(self, code):
        """Nothing half written has a name, nothing finished was written again; a finished job is a whole one."""
        now = content(self.folder) if self.folder.exists() else {}
        named = {name: raw for name, raw in now.items() if not name.startswith(".")}
        assert named.items() <= self.content.items()
        assert self.held.items() <= shards(self.folder).items()
        self.midway += 0 < len(shards(self.folder)) < len(self.content) - 2
        if code == 0:
            assert now == self.content
            self.jobs += 1
        else:
            self.kills += 1

    def finish(self):
        self.start()
        code = self.runner.end()
        assert code == 0
        self.check(code)

    def wait_for_work(self):
        """Until the workers have their model and the first shard is handed out."""
        limit = time.monotonic() + 60
        while len(started(self.folder)[0]) == self.runs and time.monotonic() < limit:
            time.sleep(0.005)

    def kill_main(self, seconds, *, at_work):
        child = self.start()
        if at_work:
            self.wait_for_work()
        time.sleep(seconds)
        # A job that is done waits as a zombie for its parent, and a signal does it no harm.
        os.kill(child, signal.SIGKILL)
        code = self.runner.end()
        runs, _ = started(self.folder)
        assert gone([process for process in (runs[-1] if len(runs) > self.runs else []) if process != child])
        assert code in (0, -signal.SIGKILL)
        self.check(code)

    def kill_worker(self, seconds, which):
        self.start()
        self.wait_for_work()
        time.sleep(seconds)
        runs, last = started(self.folder)
        if last["event"] != "finished" and is_running(runs[-1][which]):
            os.kill(runs[-1][which], signal.SIGKILL)
        code = self.runner.end()
        if code:
            last = started(self.folder)[1]
            assert (code, last["event"]) == (1, "stopped")
            assert f"worker {which} (cpu): the process died with exit code -9" in last["reason"]
        assert gone(runs[-1])
        self.check(code)


def kill_rounds(rounds, kills, *, seed, of_worker=False):
    choose = random.Random(seed)
    while rounds.kills < kills:
        if of_worker:
            rounds.kill_worker(choose.uniform(0, 0.05), choose.randrange(rounds.workers))
        else:
            # Two processes take a second to start, and a tenth of one to do the work.
            early = choose.random() < 0.25
            rounds.kill_main(choose.uniform(0, 0.8 if early and rounds.workers > 1 else 0.1), at_work=not early)
    rounds.finish()
    # Else the times were badly chosen, and nothing was tested.
    assert rounds.midway >= kills // 4


def test_a_job_killed_again_and_again_ends_as_if_nothing_had_been(runner, whole, tmp_path):
    kill_rounds(Rounds(runner, whole, tmp_path, 1), 12, seed=1)


def test_a_job_of_two_processes_whose_first_process_is_killed(runner, whole, tmp_path):
    kill_rounds(Rounds(runner, whole, tmp_path, 2), 4, seed=2)


def test_a_job_of_two_processes_one_of_which_is_killed(runner, whole, tmp_path):
    kill_rounds(Rounds(runner, whole, tmp_path, 2), 4, seed=3, of_worker=True)


def test_processes_end_at_once_when_the_first_one_is_killed(runner, whole, tmp_path):
    child = runner.start(source=str(whole[0]), out=str(tmp_path / "out"), workers=2, load="sleeping")
    limit = time.monotonic() + 60
    while not (runs := started(tmp_path / "out")[0]) and time.monotonic() < limit:
        time.sleep(0.01)
    time.sleep(0.1)
    assert all(map(is_running, runs[0]))
    os.kill(child, signal.SIGKILL)
    assert runner.end() == -signal.SIGKILL
    assert gone(runs[0])


@pytest.mark.slow
@pytest.mark.parametrize(("workers", "of_worker"), [(1, False), (2, False), (2, True)], ids=str)
def test_fifty_kills(runner, whole, tmp_path, workers, of_worker):
    kill_rounds(Rounds(runner, whole, tmp_path, workers), 50, seed=4, of_worker=of_worker)
