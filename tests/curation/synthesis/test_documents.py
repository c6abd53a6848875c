import pytest

from curation.synthesis.jobs import LONG, OTHER
from trine.curation.synthesis.documents import read_groundings
from trine.curation.texts import length_of
from trine.errors import UsageError


def test_passages_with_their_headings_and_what_was_skipped(tmp_path):
    (tmp_path / "pod.md").write_text(
        f"---\nlang: ko-KR\n---\n# 파드\n\n{LONG}\n\n## 수명\n\n짧다.\n\n## 노드\n\n{OTHER}\n", "utf-8"
    )
    (tmp_path / "copy.txt").write_text(LONG, "utf-8")
    (tmp_path / "broken.jsonl").write_text("{no json\n")
    found = read_groundings([str(tmp_path)])
    titles = {(one.document, one.title): one for one in found.passages}
    assert len(found.passages) == 2
    assert titles["pod.md", "파드 > 노드"].text == OTHER
    assert titles["pod.md", "파드 > 노드"].lang == "ko"
    assert [one.text for one in found.passages].count(LONG) == 1
    assert [item.path.endswith("broken.jsonl") for item in found.skipped] == [True]


def test_long_sections_are_cut(tmp_path):
    (tmp_path / "long.txt").write_text("\n\n".join(f"{number}번째 문단이다. {LONG}" for number in range(30)), "utf-8")
    found = read_groundings([str(tmp_path / "long.txt")])
    assert len(found.passages) > 3
    assert all(120 <= length_of(one.text) < 2000 for one in found.passages)


def test_nothing_long_enough_is_an_error(tmp_path):
    (tmp_path / "short.txt").write_text("짧다.", "utf-8")
    with pytest.raises(UsageError, match="no passage of 120 letters or more in 1 documents"):
        read_groundings([str(tmp_path)])
    with pytest.raises(UsageError, match="no file or folder"):
        read_groundings([str(tmp_path / "nowhere")])
