import pytest

from trine.errors import CollectionError, CollectionNotFound
from trine.search import database
from trine.search.folder import holds_collection, require_collection, require_vacant, size_of


def test_a_folder_with_a_store_is_a_collection(tmp_path):
    assert not holds_collection(tmp_path / "nowhere")
    with pytest.raises(CollectionNotFound, match="holds no collection.sqlite"):
        require_collection(tmp_path)
    database.create(tmp_path / database.FILE, {})
    assert holds_collection(tmp_path)
    require_collection(tmp_path)
    with pytest.raises(CollectionError, match="holds a collection already"):
        require_vacant(tmp_path)


def test_new_and_empty_folders_are_vacant_and_so_are_the_remains_of_a_creation(tmp_path):
    require_vacant(tmp_path)
    require_vacant(tmp_path / "new")
    for name in ("lock", "collection.sqlite", "collection.sqlite-wal"):
        (tmp_path / name).touch()
    require_vacant(tmp_path)
    (tmp_path / "사진.jpg").touch()
    with pytest.raises(CollectionError, match="it holds 사진.jpg"):
        require_vacant(tmp_path)
    with pytest.raises(CollectionError, match="is a file"):
        require_vacant(tmp_path / "사진.jpg")


def test_size_is_what_the_disk_gives_up_for_it(tmp_path):
    assert size_of(tmp_path) == 0
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "file").write_bytes(b"x" * 10_000)
    with open(tmp_path / "reserved", "wb") as file:
        file.truncate(1 << 30)
    (tmp_path / "dangling").symlink_to(tmp_path / "nowhere")
    assert 10_000 <= size_of(tmp_path) < 1 << 20
