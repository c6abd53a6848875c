from curation.synthesis.jobs import LONG, OTHER, answer, job, passage
from trine.curation.consistency import Consistency
from trine.curation.synthesis.parsing import Rejected
from trine.curation.synthesis.sieve import Sieve, counted
from trine.curation.synthesis.writing import Answer
from trine.testing import HashingEncoder


def test_answers_become_examples_or_rejects_and_are_counted():
    sieve = Sieve(instruct=True)
    one = job("short-long", "ko")
    assert sieve.take(answer(one, "파드가 뭐야", LONG, OTHER)) == 1
    assert sieve.take(answer(one, "파드가 뭐야?!", OTHER, LONG)) == 1
    assert sieve.take(answer(one, "파드가 뭐야", OTHER, LONG)) == 0
    assert sieve.take(answer(one, "what is it", LONG, OTHER)) == 0
    assert sieve.take(Answer(one, "과제", "cut", None, Rejected("truncated"))) == 0
    record = sieve.written[0].record(source="synthesis:m", mode="json_schema")
    assert record == {
        "query": "파드가 뭐야",
        "pos": [LONG],
        "neg": [OTHER],
        "query_prompt": "Instruct: 과제를 푼다.\nQuery: ",
        "lang": "ko",
        "source": "synthesis:m",
        "group": "short-long",
        "task": "과제를 푼다.",
        "mode": "json_schema",
        "job": 0,
    }
    assert [(row["reason"], row["reply"]) for row in sieve.rejects] == [
        ("duplicate", "the reply"),
        ("wrong language", "the reply"),
        ("truncated", "cut"),
    ]
    counts = counted(sieve)
    assert (counts["examples"], counts["rejected"]) == (2, 3)
    assert counts["languages"] == {
        "ko": {"examples": 2, "rejected": 3, "reasons": {"duplicate": 1, "wrong language": 1, "truncated": 1}}
    }
    assert counts["groups"]["short-long"]["examples"] == 2


def test_queries_of_a_passage_say_their_kind():
    sieve = Sieve()
    one = job("grounded", passages=[passage()])
    assert (
        sieve.take(answer(one, "무엇을 담나요?", "pod only", "파드는 컨테이너를 담는다.", "배포를 하려고 한다.")) == 3
    )
    assert [row["kind"] for row in sieve.rejects] == ["keywords"]
    record = sieve.written[0].record(source="s", mode="m")
    assert (record["document"], record["kind"]) == ("pod.md", "question")
    assert "query_prompt" not in record


def test_the_filter_moves_examples_to_the_rejects():
    sieve = Sieve()
    one = job("short-short", "ko")
    for query, positive in (
        ("나사 돌리는 공구", "나사 공구"),
        ("글 쓰는 도구", "망치 못"),
        ("못 박는 망치", "연필 종이"),
    ):
        sieve.take(answer(one, query, positive))
    found = sieve.filter(HashingEncoder(dense=512), Consistency(top=1))
    assert found.kept.tolist() == [True, False, False]
    assert [each.example.query for each in sieve.written] == ["나사 돌리는 공구"]
    assert [(row["reason"], row["query"]) for row in sieve.rejects] == [
        ("inconsistent", "글 쓰는 도구"),
        ("inconsistent", "못 박는 망치"),
    ]
    assert counted(sieve)["reasons"] == {"inconsistent": 2}
