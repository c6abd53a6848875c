import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from trine.errors import UsageError
from trine.search.documents import cleaned, storable_id
from trine.types import Document, Heading


def test_what_sqlite_cannot_keep_is_replaced_and_offsets_stay():
    document = Document("a\udcff", "\ud800 제목\x00\n본문", title="T\x00", metadata={"k\x00": "v\ud8ff", "n": 1})
    document = Document(document.id, document.text, document.title, document.metadata, [Heading(2, 1, "제목\x00")])
    clean = cleaned(document)
    assert clean.id == "a\\udcff"
    assert clean.text == "\ufffd 제목\ufffd\n본문"
    assert len(clean.text) == len(document.text)
    assert clean.title == "T\ufffd"
    assert clean.metadata == {"k\ufffd": "v\ufffd", "n": 1}
    assert clean.headings == (Heading(2, 1, "제목\ufffd"),)


def test_text_that_can_be_stored_is_left_as_it_is():
    text = "한국어 e\u0301 👩‍👩‍👧 \t\u200b\r\n"
    assert cleaned(Document("문서/1", text)).text == text
    assert cleaned(Document("문서/1", text)).id == "문서/1"


@given(st.lists(st.text(), unique=True, min_size=2))
def test_different_ids_stay_different_unless_they_imitate_an_escape(ids):
    plain = [document_id for document_id in ids if "\\" not in document_id]
    assert len({storable_id(document_id) for document_id in plain}) == len(plain)
    for document_id in plain:
        storable_id(document_id).encode()


@pytest.mark.parametrize(
    ("document", "message"),
    [
        ("just text", "add takes trine.Document objects, got str"),
        ({"id": "a"}, "got dict"),
        (Document("", "text"), "empty id"),
        (Document("a", "text", metadata={"tags": ["x"]}), "'a', metadata 'tags'"),
        (Document("a", "text", metadata={"score": float("nan")}), "finite number"),
        (Document("a", "text", metadata={"n": np.int64(3)}), "metadata 'n'"),
        (Document("a", "text", metadata={"": "x"}), "metadata keys"),
        (Document("a", "text", metadata={3: "x"}), "metadata keys"),
    ],
)
def test_what_cannot_be_stored_is_refused(document, message):
    with pytest.raises(UsageError, match=message):
        cleaned(document)
