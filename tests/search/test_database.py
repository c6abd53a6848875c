import os
import shutil
import sqlite3
import subprocess
import sys
import textwrap

import pytest

from trine.errors import CollectionCorrupt, CollectionError
from trine.search import database
from trine.search.database import Reader, connect_writer, create


@pytest.fixture
def path(tmp_path):
    create(tmp_path / database.FILE, {"name": "이름"})
    return tmp_path / database.FILE


def commits(reader):
    return reader.rows("SELECT count(*) FROM commits")[0][0]


def commit(writer):
    writer.execute("INSERT INTO commits (token) VALUES (1)")


def as_nobody(script, *arguments):
    """Run as a user who may not write, since root may write everywhere; he may not read the interpreter's files."""
    script = """
import os, sys
from pathlib import Path
import trine.search.database as database
if os.getuid() == 0:
    os.setgid(65534)
    os.setuid(65534)
""" + textwrap.dedent(script)
    return subprocess.Popen(
        [sys.executable, "-c", script, *map(str, arguments)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )


READ = """
    reader = database.Reader(Path(sys.argv[1]))
    for line in sys.stdin:
        with reader.snapshot():
            print(reader.rows("SELECT count(*) FROM commits")[0][0], flush=True)
"""


@pytest.fixture
def locked_folder(path):
    """A folder that others may read but not write; pytest's own folders are closed to them."""
    import tempfile

    folder = tempfile.mkdtemp()
    shutil.copy(path, folder)
    os.chmod(folder, 0o555)
    os.chmod(os.path.join(folder, database.FILE), 0o444)
    yield folder
    os.chmod(folder, 0o755)
    shutil.rmtree(folder)


def ask(child):
    child.stdin.write("\n")
    child.stdin.flush()
    return child.stdout.readline().strip()


def test_create_writes_everything_or_refuses(path):
    reader = Reader(path)
    assert reader.rows("SELECT * FROM config") == [("name", '"이름"')]
    assert commits(reader) == 1
    reader.close()
    with pytest.raises(CollectionError, match="already holds"):
        create(path, {})


def test_what_a_killed_creation_left_can_be_used(tmp_path):
    path = tmp_path / database.FILE
    connection = sqlite3.connect(path)
    connection.execute("PRAGMA journal_mode = WAL")
    connection.close()
    create(path, {})
    Reader(path).close()


def test_a_snapshot_is_one_state_and_the_next_a_newer_one(path):
    writer, reader = connect_writer(path), Reader(path)
    with reader.snapshot():
        assert commits(reader) == 1
        commit(writer)
        assert commits(reader) == 1
    with reader.snapshot():
        assert commits(reader) == 2
    reader.close()
    writer.close()


def test_a_reader_writes_nothing(path):
    reader = Reader(path)
    with pytest.raises(CollectionError, match="readonly"):
        reader.rows("INSERT INTO commits (token) VALUES (1)")
    reader.close()


def test_a_folder_that_cannot_be_written_can_be_read_and_followed(locked_folder):
    path = os.path.join(locked_folder, database.FILE)
    with as_nobody(READ, path) as child:
        assert ask(child) == "1"
        assert os.listdir(locked_folder) == [database.FILE]
        os.chmod(locked_folder, 0o755)
        os.chmod(path, 0o644)
        writer = sqlite3.connect(path, isolation_level=None)
        commit(writer)
        assert ask(child) == "2"
        commit(writer)
        assert ask(child) == "3"
        writer.close()
        os.chmod(locked_folder, 0o555)
        assert ask(child) == "3"
        child.stdin.close()


def test_changes_that_nobody_present_can_fold_in_are_reported(locked_folder):
    path = os.path.join(locked_folder, database.FILE)
    os.chmod(locked_folder, 0o755)
    os.chmod(path, 0o644)
    writer = sqlite3.connect(path, isolation_level=None)
    commit(writer)
    shutil.copy(path + "-wal", path + ".saved")
    writer.close()
    os.rename(path + ".saved", path + "-wal")
    os.chmod(locked_folder, 0o555)
    script = """
        try:
            database.Reader(Path(sys.argv[1]))
        except database.CollectionError as error:
            print(error)
    """
    with as_nobody(script, path) as child:
        assert "write-ahead log holds changes" in child.stdout.read()


def test_a_file_that_cannot_be_read_is_reported(locked_folder):
    path = os.path.join(locked_folder, database.FILE)
    os.chmod(path, 0o000)
    script = """
        try:
            database.Reader(Path(sys.argv[1]))
        except database.CollectionError as error:
            print(error)
    """
    with as_nobody(script, path) as child:
        assert "cannot be read: Permission denied" in child.stdout.read()


def test_foreign_files_are_refused(tmp_path, path):
    path.write_bytes(b"this is no database, but long enough to have a header of a hundred bytes " * 9)
    with pytest.raises(CollectionError, match="not a database.*restore it from a backup"):
        Reader(path)
    path.unlink()
    connection = sqlite3.connect(path)
    connection.execute("CREATE TABLE somebody (elses)")
    connection.close()
    with pytest.raises(CollectionError, match="not a trine collection"):
        Reader(path)
    path.write_bytes(b"")
    with pytest.raises(CollectionError, match="not a trine collection"):
        Reader(path)


def test_a_newer_schema_is_refused(path):
    connection = sqlite3.connect(path)
    connection.execute(f"PRAGMA user_version = {database.SCHEMA_VERSION + 1}")
    connection.close()
    with pytest.raises(CollectionError, match="schema version 2, this trine reads up to 1"):
        Reader(path)


@pytest.mark.parametrize("kept", [0.9, 0.5, 0.01])
def test_a_truncated_file_is_found_on_opening(path, kept):
    os.truncate(path, int(path.stat().st_size * kept) + 100)
    with pytest.raises(CollectionCorrupt, match="truncated"):
        Reader(path)


def test_a_damaged_page_is_reported_with_its_remedy(path):
    data = bytearray(path.read_bytes())
    data[4096:] = b"\xff" * (len(data) - 4096)
    path.write_bytes(data)
    with pytest.raises(CollectionError, match="malformed.*restore it from a backup"):
        Reader(path).rows("SELECT * FROM documents")


def test_a_log_that_holds_the_rest_is_not_taken_for_damage(path):
    writer = connect_writer(path)
    commit(writer)
    reader = Reader(path)
    assert commits(reader) == 2
    reader.close()
    writer.close()
