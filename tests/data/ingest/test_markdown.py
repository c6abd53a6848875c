import pytest

from trine.data.ingest.markdown import find_headings, read, split_front_matter
from trine.data.sources import Limits


def read_one(path, text, *, encoding="utf-8"):
    path.write_bytes(text.encode(encoding))
    (document,) = read(path, name="a.md", limits=Limits())
    return document


def test_text_is_the_source_and_offsets_are_the_files(tmp_path):
    source = "# 휴가 *규정*\n\n본문은 **굵게** 씁니다.\n\n## `연차` [링크](http://a.kr)\n\n- 항목\n"
    document = read_one(tmp_path / "a.md", source)
    assert document.text == source
    assert [(heading.start, heading.level, heading.text) for heading in document.headings] == [
        (0, 1, "휴가 규정"),
        (source.index("##"), 2, "연차 링크"),
    ]
    assert document.title == "휴가 규정"


def test_what_only_looks_like_a_heading_is_none():
    text = (
        "```\n# code\n```\n\n    # indented\n\n> # quoted\n\n- # in a list\n\n#no space\n\n<!--\n# comment\n-->\n\n#\n"
    )
    assert find_headings(text) == []


def test_underlined_headings():
    assert [(heading.start, heading.level, heading.text) for heading in find_headings("가\n==\n\n나\n다\n--\n")] == [
        (0, 1, "가"),
        (6, 2, "나 다"),
    ]


def test_front_matter_gives_title_and_metadata_and_keeps_every_line(tmp_path):
    source = '---\ntitle: "휴가 안내: 2024"\ntags: [a, b]\nnested:\n  key: value\nempty:\n---\n# 제목\n본문\n'
    document = read_one(tmp_path / "a.md", source)
    assert document.title == "휴가 안내: 2024"
    assert document.metadata == {"tags": "[a, b]"}
    assert len(document.text) == len(source)
    assert document.text.count("\n") == source.count("\n")
    assert document.text.strip() == "# 제목\n본문"
    assert document.headings[0].start == source.index("# 제목")


@pytest.mark.parametrize(
    "text", ["---\n본문입니다\n---\n더", "---\nkey: value\nnever closed", "text\n---\nkey: value\n---\n", "---\n"]
)
def test_a_rule_is_not_front_matter(text):
    assert split_front_matter(text) == (text, {})


def test_korean_editors_encodings_and_newlines(tmp_path):
    document = read_one(tmp_path / "a.md", "# 제목\r\n\r\n본문입니다.\r\n", encoding="cp949")
    assert document.text == "# 제목\n\n본문입니다.\n"
    assert document.title == "제목"


def test_without_a_level_one_heading_there_is_no_title(tmp_path):
    assert read_one(tmp_path / "a.md", "## 둘째\n본문").title == ""
