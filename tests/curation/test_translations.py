import pytest

from trine.curation.translations import (
    LANGUAGES,
    Aligned,
    Unaligned,
    align,
    language_key,
    paragraphs_of,
    similar_length,
)
from trine.data.ingest.markdown import find_headings
from trine.types import Document


def document(name, text):
    return Document(name, text, headings=find_headings(text))


@pytest.mark.parametrize(
    ("name", "key"),
    [
        ("docs/ko/guide.md", ("docs/*/guide.md", "ko")),
        ("docs/pt-BR/a/guide.md", ("docs/*/a/guide.md", "pt")),
        ("zh-hans/x.md", ("*/x.md", "zh")),
        ("docs/guide.ko.md", ("docs/guide.*.md", "ko")),
        ("guide_en.md", ("guide.*.md", "en")),
        ("en/guide.ko.md", ("en/guide.*.md", "ko")),
        ("docs\\en\\x.md", ("docs/*/x.md", "en")),
        ("docs/in/to/guide.md", None),
        ("guide.md", None),
        ("ko.md", None),
        ("docs/src/x.md", None),
    ],
)
def test_the_language_in_a_path(name, key):
    assert language_key(name) == key


def test_words_that_are_common_in_paths_are_no_languages():
    assert {"ko", "en", "ja", "zh", "de"} <= LANGUAGES
    assert not {"in", "to", "as", "so", "src"} & LANGUAGES
    assert all(len(code) == 2 for code in LANGUAGES)


def test_sections_of_equal_outlines_pair_up():
    english = document("docs/en/x.md", "Intro.\n\n# One\n\nFirst.\n\n## Two\n\nSecond.\n\n## Three\n")
    korean = document("docs/ko/x.md", "머리말.\n\n# 하나\n\n첫째.\n\n## 둘\n\n둘째.\n\n## 셋\n\n영어에는 없다.\n")
    found = list(align([english, document("docs/en/y.md", "# Y\n\nAlone."), korean]))
    assert [(pair.left, pair.right) for pair in found] == [
        ("Intro.", "머리말."),
        ("First.", "첫째."),
        ("Second.", "둘째."),
    ]
    assert {(pair.languages, pair.document_ids) for pair in found} == {(("en", "ko"), ("docs/en/x.md", "docs/ko/x.md"))}


def test_other_outlines_are_reported_and_not_guessed_at():
    english = document("en/x.md", "# One\n\nFirst.\n\n## Two\n\nSecond.")
    korean = document("ko/x.md", "# 하나\n\n첫째.")
    assert list(align([english, korean])) == [Unaligned(("en/x.md", "ko/x.md"), ((1, 2), (1,)))]


def test_three_languages_make_three_pairs_and_regions_none():
    texts = [document(f"{code}/x.md", f"text of {code}") for code in ("en", "ko", "ja")]
    assert [pair.languages for pair in align(texts)] == [("en", "ko"), ("en", "ja"), ("ko", "ja")]
    assert list(align([document("pt-BR/x.md", "a"), document("pt-PT/x.md", "b")])) == []


def test_paragraphs_align_where_their_numbers_do():
    pair = Aligned("one\n\ntwo", "하나\n \n둘", ("en", "ko"), ("a", "b"))
    assert [(part.left, part.right) for part in paragraphs_of(pair)] == [("one", "하나"), ("two", "둘")]
    uneven = Aligned("one\n\ntwo", "하나", ("en", "ko"), ("a", "b"))
    assert paragraphs_of(uneven) == [uneven]


def test_lengths_are_weighed_by_script():
    assert similar_length("abcdefghij", "가나다라마")
    assert similar_length("a" * 25, "b" * 10)
    assert not similar_length("a" * 26, "b" * 10)
    assert not similar_length("text", "")
