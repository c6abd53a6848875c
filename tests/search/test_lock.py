import os
import subprocess
import sys
import textwrap

import pytest

from trine.errors import CollectionError, CollectionLocked
from trine.search.lock import FileLock


def start(script, *arguments):
    return subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(script), *map(str, arguments)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def test_one_holder_at_a_time_and_the_message_says_who(tmp_path):
    first = FileLock(tmp_path / "lock")
    with pytest.raises(CollectionLocked, match=f"in process {os.getpid()}, this very process"):
        FileLock(tmp_path / "lock")
    first.release()
    first.release()
    FileLock(tmp_path / "lock").release()


def test_a_killed_holder_leaves_it_free(tmp_path):
    script = """
        import sys
        from pathlib import Path
        from trine.search.lock import FileLock
        held = FileLock(Path(sys.argv[1]))
        print("held", flush=True)
        sys.stdin.read()
    """
    with start(script, tmp_path / "lock") as child:
        assert child.stdout.readline() == "held\n"
        with pytest.raises(CollectionLocked, match=f"in process {child.pid};"):
            FileLock(tmp_path / "lock")
        child.kill()
    FileLock(tmp_path / "lock").release()


def test_a_forked_child_neither_frees_nor_keeps_it(tmp_path):
    script = """
        import os, sys
        from pathlib import Path
        from trine.errors import CollectionLocked
        from trine.search.lock import FileLock
        path = Path(sys.argv[1])
        held = FileLock(path)
        done, tell = os.pipe()
        wait, go = os.pipe()
        releasing = os.fork()
        if not releasing:
            held.release()
            os._exit(0)
        os.waitpid(releasing, 0)
        try:
            FileLock(path)
        except CollectionLocked:
            print("still held")
        outliving = os.fork()
        if not outliving:
            os.read(wait, 1)
            os._exit(0)
        held.release()
        FileLock(path).release()
        print("free again")
        os.write(go, b"x")
        os.waitpid(outliving, 0)
    """
    with start(script, tmp_path / "lock") as child:
        assert child.stdout.read().split("\n") == ["still held", "free again", ""]


def test_a_folder_that_is_not_there_is_an_error(tmp_path):
    with pytest.raises(CollectionError, match="read_only=True"):
        FileLock(tmp_path / "nowhere" / "lock")
