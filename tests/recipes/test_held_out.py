"""Judged sets out of documents: divided by family, answers in every form counted, nothing torn out left behind."""

import pytest

from trine.curation.texts import canonical
from trine.curation.weak_pairs import PairRules, WeakPair, weak_pairs
from trine.evaluation.beir import Dataset, read_beir
from trine.recipes.held_out import (
    Part,
    families,
    judged_set,
    overlapping,
    passages_of,
    set_aside,
    texts_of,
    write_set,
)
from trine.types import Document, Example, Heading, Query

FILLER = "이 문단은 길이를 채우려고 쓴 글이며 다른 문단과 겹치지 않게 숫자를 붙인다"


def pair(query, passage, document, kind="heading_passage"):
    return WeakPair(kind, Example(query, (passage,)), document)


def passages(*rows):
    return [Document(f"p{n}", text, metadata={"document": document}) for n, (document, text) in enumerate(rows)]


def answers(data, text):
    query = next(query for query in data.queries if query.text == text)
    texts = {document.id: document.text for document in data.corpus}
    return {texts[identity] for identity in data.qrels[query.id]}


def test_translations_are_one_family_and_others_are_their_own():
    documents = [Document(name, "x") for name in ("docs/ko/a.md", "docs/en/a.md", "docs/en/b.md", "plain.md")]
    found = families(documents)
    assert found["docs/ko/a.md"] == found["docs/en/a.md"] != found["docs/en/b.md"]
    assert found["plain.md"] == "plain.md"


def test_a_part_has_its_share_within_bounds():
    part = Part(0.15, least=40, most=1000)
    assert [part.wanted(count) for count in (10, 1000, 100_000)] == [40, 150, 1000]


def test_whole_families_are_set_aside_the_same_ones_for_a_seed():
    pairs = [pair(f"query {document} {n}", "x", f"d{document}") for document in range(50) for n in range(4)]
    family_of = {f"d{document}": f"d{document}" for document in range(50)}
    part = Part(0.2, least=1, most=1000)
    chosen = set_aside(pairs, family_of, part, seed=0)
    assert len(chosen) == 10
    assert chosen == set_aside(pairs[::-1], family_of, part, seed=0) != set_aside(pairs, family_of, part, seed=1)


def test_a_folder_that_grows_keeps_its_held_out_documents():
    def draw(documents):
        names = [f"d{number}" for number in range(documents)]
        pairs = [pair(f"query {name}", "x", name) for name in names]
        return set_aside(pairs, {name: name for name in names}, Part(0.2, 1, 1000), seed=3)

    before, after = draw(100), draw(110)
    assert len(before & after) >= len(before) - 3


def test_a_family_too_large_to_be_held_out_is_passed_over():
    pairs = [pair(f"query {n}", "x", "large") for n in range(90)] + [
        pair(f"other {n}", "x", f"d{n}") for n in range(10)
    ]
    family_of = {one.document_id: one.document_id for one in pairs}
    assert all("large" not in set_aside(pairs, family_of, Part(0.1, 1, 1000), seed=seed) for seed in range(5))


def test_queries_of_one_spelling_count_once():
    pairs = [pair("Same QUERY", "x", f"d{n}") for n in range(5)] + [pair(f"query {n}", "x", f"e{n}") for n in range(5)]
    family_of = {one.document_id: one.document_id for one in pairs}
    assert set_aside(pairs, family_of, Part(1.0, 1, 1000), seed=0) >= {f"e{n}" for n in range(5)}


def test_passages_are_those_of_the_weak_pairs():
    text = f"첫 문단\n{FILLER} 하나.\n\n소제목\n소제목\n{FILLER} 둘."
    document = Document("a", text, title="첫 문단", headings=(Heading(text.index("소제목"), 1, "소제목"),))
    rules = PairRules()
    found = [passage.text for passage in passages_of([document, document], rules=rules)]
    assert found == [f"{FILLER} 하나.", f"{FILLER} 둘."]
    assert {one.example.positives[0] for one in weak_pairs([document], rules=rules).pairs} <= set(found)


def test_answers_are_all_passages_that_a_query_of_that_spelling_has():
    corpus = passages(("a", "first"), ("b", "second"), ("c", "third"))
    others = [pair("QUERY", "second", "b"), pair("else", "third", "c")]
    data = judged_set([pair("query", "first", "a")], corpus, others=others, name="x")
    assert answers(data, "query") == {"first", "second"}
    assert [query.text for query in data.queries] == ["query"]


def test_near_copies_of_an_answer_are_answers():
    text = "데이터베이스의 인덱스는 책의 색인과 같아서 모든 쪽을 넘기지 않고도 찾는 곳으로 바로 간다. " * 3
    corpus = passages(("a", text), ("b", text + "끝."), ("c", "검색 엔진은 문서를 찾아 순위를 매긴다. " * 3))
    data = judged_set([pair("색인", text, "a")], corpus, name="x")
    assert answers(data, "색인") == {text, text + "끝."}


def test_what_a_pair_was_torn_out_of_leaves_the_corpus():
    whole = "What is a pod? A pod holds containers."
    corpus = passages(("a", whole), ("b", "other"))
    asked = [pair("What is a pod?", "A pod holds containers.", "a", "question_answer")]
    data = judged_set(asked, corpus, name="x")
    assert {document.text for document in data.corpus} == {"other", "A pod holds containers."}
    assert answers(data, "What is a pod?") == {"A pod holds containers."}
    assert len({document.id for document in data.corpus}) == len(data.corpus)


def test_a_passage_that_is_asked_for_itself_stays_and_answers_both():
    whole = "What is a pod? A pod holds containers."
    asked = [pair("What is a pod?", "A pod holds containers.", "a"), pair("Pods", whole, "a")]
    data = judged_set(asked, passages(("a", whole)), name="x")
    assert answers(data, "What is a pod?") == {"A pod holds containers.", whole}
    assert answers(data, "Pods") == {whole}


@pytest.fixture
def judged():
    corpus = [Document("p0", "답이 되는 문단이다 🙂", metadata={"document": "가.md"}), Document("p1", "다른 문단")]
    return Dataset("held_out", corpus, [Query("q0", "질문이 무엇인가")], {"q0": {"p0": 1}})


def test_texts_of_a_set_are_its_queries_and_answers(judged):
    assert texts_of(judged) == ["질문이 무엇인가", "답이 되는 문단이다 🙂"]


def test_examples_with_a_held_out_text_in_any_spelling_go(judged):
    examples = [
        Example("질문이  무엇인가", ("아무 문단",)),
        Example("다른 질문", ("답이 되는 문단이다 🙂",)),
        Example("다른 질문", ("다른 문단",)),
    ]
    found = overlapping(examples, [judged])
    assert found.kept.tolist() == [False, False, True]
    assert canonical(found.findings[0].evidence) == "질문이 무엇인가"


def test_a_set_is_read_back_as_it_was_written(judged, tmp_path):
    write_set(judged, tmp_path / "held_out")
    assert read_beir(tmp_path / "held_out") == judged
