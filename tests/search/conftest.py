from __future__ import annotations

from pathlib import Path

import pytest

from trine.search.collection import Collection
from trine.testing import HashingEncoder
from trine.types import Document


@pytest.fixture(scope="session")
def encoder():
    return HashingEncoder()


@pytest.fixture
def folder(tmp_path) -> Path:
    return tmp_path / "collection"


@pytest.fixture
def collection(folder, encoder):
    """An empty collection that keeps no shard: most tests are not about the index on disk."""
    with Collection.create(folder, encoder=encoder, analyzer="bigram", index="exact") as opened:
        yield opened


@pytest.fixture
def documents() -> list[Document]:
    return [
        Document(
            "cats", "Cats sleep all day. A cat eats fish.", title="Animals", metadata={"lang": "en", "year": 2020}
        ),
        Document("고양이", "고양이는 하루 종일 잠을 잔다. 생선을 먹는다.", metadata={"lang": "ko", "year": 2021}),
        Document("trees", "Trees grow slowly in the north.", metadata={"lang": "en", "year": 2022, "draft": True}),
        Document("나무", "나무는 북쪽에서 천천히 자란다 🌲.", metadata={"lang": "ko", "note": None}),
    ]
