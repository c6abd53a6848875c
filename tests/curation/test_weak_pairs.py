import json

import pytest

from trine.curation.weak_pairs import DEFAULT_KINDS, PAIR_KINDS, PairRules, weak_pairs
from trine.data.ingest.markdown import find_headings
from trine.errors import UnknownName, UsageError
from trine.types import Document

LONG = "컨테이너는 애플리케이션과 그것이 기대는 모든 것을 한데 묶어 어디서나 똑같이 돌게 하는 꾸러미이다."
OTHER = "배포할 때마다 환경이 달라서 생기던 문제를 없애 주며, 가상 머신보다 훨씬 가볍고 빠르게 시작한다."
ENGLISH = "A container bundles an application with all that it depends on, so that it runs the same way everywhere."


def document(text, *, name="a.md", title="", **metadata):
    return Document(name, text, title, metadata, find_headings(text))


def made(documents, *kinds, **rules):
    result = weak_pairs(documents, kinds=kinds or None, rules=PairRules(**rules))
    return [(pair.kind, pair.example.query, pair.example.positives[0]) for pair in result.pairs]


def test_title_and_first_passage():
    text = f"# 컨테이너\n\n{LONG}\n\n## 왜 쓰나\n\n{OTHER}\n"
    assert made([document(text, title="컨테이너")], "title_passage") == [("title_passage", "컨테이너", LONG)]


def test_headings_carry_what_they_need_to_be_understood():
    text = (
        f"# 컨테이너 기술\n\n## 개요\n\n{LONG}\n\n## 2. 가상 머신보다 가벼운 이유\n\n{OTHER}\n\n"
        f"## 종류\n\n{OTHER} 여럿이다.\n\n### 예시\n\n{LONG} 보라.\n"
    )
    found = made([document(text, title="컨테이너 기술")], "heading_passage")
    assert [query for _, query, _ in found] == [
        "컨테이너 기술 개요",
        "가상 머신보다 가벼운 이유",
        "컨테이너 기술 종류",
        "컨테이너 기술 종류 예시",
    ]


def test_a_heading_of_many_documents_carries_its_title():
    documents = [
        document(
            f"# Tool {name}\n\n## Problem it addresses\n\n{ENGLISH} {name}\n", name=f"{name}.md", title=f"Tool {name}"
        )
        for name in ("one", "two", "three")
    ]
    queries = [query for _, query, _ in made(documents, "heading_passage")]
    assert queries == [f"Tool {name} Problem it addresses" for name in ("one", "two", "three")]
    alone = [query for _, query, _ in made(documents, "heading_passage", common_heading=4)]
    assert alone == ["Problem it addresses"] * 3


def test_a_generic_heading_without_a_title_is_dropped_and_counted():
    result = weak_pairs([document(f"## 개요\n\n{LONG}\n")], kinds=["heading_passage"])
    assert result.pairs == ()
    assert result.dropped == {"heading_passage": {"generic query": 1}}


def test_a_pair_cannot_be_solved_by_copying_the_first_line():
    text = f"## 컨테이너란 무엇인지 알아보기\n\n**컨테이너란 무엇인지 알아보기**\n{LONG}\n"
    assert made([document(text)], "heading_passage") == [("heading_passage", "컨테이너란 무엇인지 알아보기", LONG)]
    titled = Document("a.txt", f"Containers in short\n\n{ENGLISH}", "Containers in short")
    assert made([titled], "title_passage") == [("title_passage", "Containers in short", ENGLISH)]


def test_a_passage_does_not_begin_with_the_title_either():
    text = f"# 도구 모음\n\n## 컨테이너란 무엇인지 알아보기\n\n도구 모음\n\n{LONG}\n"
    assert made([document(text, title="도구 모음")], "heading_passage")[0][2] == LONG


def test_lengths_are_kept():
    long = "긴 제목 " * 40
    text = f"## 너무 짧은 본문의 제목\n\n짧다.\n\n## {long}\n\n{LONG}\n\n## 2024\n\n{OTHER}\n\n## C\n\n{ENGLISH}\n"
    result = weak_pairs([document(text)], kinds=["heading_passage"], rules=PairRules(least_alone=1))
    assert result.pairs == ()
    assert result.dropped["heading_passage"] == {"short passage": 1, "long query": 1, "short query": 2}


def test_long_sections_are_cut_and_give_their_first_passages():
    text = "## 아주 긴 절의 제목이다\n\n" + " ".join(f"{LONG} {number}번째 문장이 여기에 있다." for number in range(20))
    one = made([document(text)], "heading_passage", max_tokens=64)
    assert len(one) == 1
    assert one[0][2].startswith(LONG)
    assert len(one[0][2]) < 200
    assert len(made([document(text)], "heading_passage", max_tokens=64, per_query=3)) == 3


def test_questions_in_headings_and_in_text():
    text = f"# 도움말\n\nQ: 언제 시작되나요?\nA: {LONG}\n\n## 왜 느린가요?\n\n{OTHER}\n"
    found = made([document(text, title="도움말")], "question_answer", "heading_passage")
    assert ("question_answer", "언제 시작되나요?", LONG) in found
    # A short question is not clear without its title; the heading's own kind finds the same pair and leaves it.
    assert ("question_answer", "도움말 왜 느린가요?", OTHER) in found
    assert [kind for kind, _, passage in found if passage == OTHER] == ["question_answer"]


def test_descriptions_and_first_sentences():
    text = f"{LONG} {OTHER}\n"
    described = document(text, description="컨테이너가 무엇이고 왜 쓰는지 설명한다")
    assert made([described], "description_passage") == [
        ("description_passage", "컨테이너가 무엇이고 왜 쓰는지 설명한다", f"{LONG} {OTHER}")
    ]
    assert made([described], "first_sentence") == [("first_sentence", LONG, OTHER)]


def parallel():
    english = f"# Container\n\n{ENGLISH}\n\n## Why\n\nShort.\n"
    korean = f"# 컨테이너\n\n{LONG}\n\n## 왜\n\n짧다.\n"
    return [document(english, name="docs/en/c.md"), document(korean, name="docs/ko/c.md")]


def test_translations_go_both_ways():
    result = weak_pairs(parallel(), kinds=["translation"])
    found = [(pair.example.query, pair.example.positives, pair.example.lang, pair.document_id) for pair in result.pairs]
    assert found == [(ENGLISH, (LONG,), "en-ko", "docs/ko/c.md"), (LONG, (ENGLISH,), "ko-en", "docs/en/c.md")]
    assert result.dropped["translation"]["short passage"] == 2


def test_translations_that_do_not_fit_are_dropped_or_cut_into_paragraphs():
    english, korean = ("\n\n".join([text] * 2 + [text + " x"]) for text in (ENGLISH, LONG))
    documents = [document(english, name="en/c.md"), document(korean, name="ko/c.md")]
    cut = weak_pairs(documents, kinds=["translation"], rules=PairRules(max_tokens=40))
    assert [pair.example.query for pair in cut.pairs] == [ENGLISH, LONG, ENGLISH + " x", LONG + " x"]
    assert cut.dropped["translation"] == {"repeated": 2}
    uneven = [documents[0], document(LONG + " " + OTHER, name="ko/c.md")]
    long = weak_pairs(uneven, kinds=["translation"], rules=PairRules(max_tokens=40))
    assert long.dropped["translation"] == {"too long": 2}
    far = [document(ENGLISH, name="en/c.md"), document(" ".join([LONG, OTHER, LONG, OTHER]), name="ko/c.md")]
    assert weak_pairs(far, kinds=["translation"]).dropped["translation"] == {"unequal length": 2}


def test_untranslated_copies_are_no_pairs():
    documents = [document(ENGLISH, name="en/c.md"), document(ENGLISH, name="ko/c.md")]
    assert weak_pairs(documents, kinds=["translation"]).dropped["translation"] == {"same text": 2}


def test_documents_with_other_outlines_are_reported():
    documents = [document(f"# A\n\n{ENGLISH}", name="en/c.md"), document(LONG, name="ko/c.md")]
    assert [item.document_ids for item in weak_pairs(documents).unaligned] == [("en/c.md", "ko/c.md")]


def test_the_summary_counts_each_kind():
    documents = [*parallel(), document(f"## 개요\n\n{OTHER}\n", name="z.md")]
    summary = json.loads(json.dumps(weak_pairs(documents).summary()))
    assert summary["documents"] == 3
    assert set(summary["kinds"]) == set(DEFAULT_KINDS)
    assert sum(row["pairs"] for row in summary["kinds"].values()) == summary["pairs"]
    assert summary["kinds"]["heading_passage"]["dropped"]["generic query"] == 1
    assert summary["rules"]["max_tokens"] == 256


def test_sources_name_the_kind_of_each_example():
    result = weak_pairs(parallel())
    assert len(result.sources) == len(result.examples)
    assert set(result.sources) <= set(PAIR_KINDS)
    assert all(len(example.positives) == 1 and not example.negatives for example in result.examples)


def test_the_language_of_front_matter_is_kept():
    pairs = weak_pairs([document(f"## 컨테이너가 가벼운 이유\n\n{LONG}\n", lang="ko")]).pairs
    assert [pair.example.lang for pair in pairs] == ["ko"]


def test_odd_documents_give_nothing_and_break_nothing():
    odd = [
        document(text, name=f"{number}.md")
        for number, text in enumerate(["", "#\n", "🙂" * 50, "\u200b\n\n---\n", "# A"])
    ]
    assert weak_pairs(odd, kinds=list(PAIR_KINDS)).pairs == ()
    assert weak_pairs([]).summary()["pairs"] == 0


def test_mistakes_are_named():
    with pytest.raises(UnknownName, match="did you mean 'title_passage'"):
        weak_pairs([], kinds=["title_pasage"])
    with pytest.raises(UsageError, match="most_query is 1"):
        PairRules(most_query=1)
    with pytest.raises(UsageError, match="must be at least 1"):
        PairRules(per_query=0)
