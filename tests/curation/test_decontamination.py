import json
import random

import pytest

from trine.curation.decontamination import Overlap, decontaminate
from trine.curation.duplicates import NearDuplicates
from trine.errors import UnknownName, UsageError
from trine.types import Example

ENGLISH = " ".join(f"word{number}" for number in range(30))
KOREAN = (
    "대한민국 헌법 제일조는 대한민국이 민주공화국이라고 정하며 "
    "대한민국의 주권은 국민에게 있고 모든 권력은 국민으로부터 나온다고 한다"
)
NO_COPIES = Overlap(near=None)


def found(examples, benchmarks, settings=NO_COPIES):
    result = decontaminate(examples, benchmarks, settings=settings)
    return [(finding.example, finding.field, finding.reason) for finding in result.findings]


def test_an_equal_text_is_found_whatever_its_case_and_punctuation():
    examples = [Example("what is BM25", ("p",)), Example("What is BM25, really?", ("p",))]
    result = decontaminate(examples, {"scifact": ["unrelated", "What is BM25?"]})
    assert result.kept.tolist() == [False, True]
    assert result.examples == (examples[1],)
    finding = result.findings[0]
    assert (finding.benchmark, finding.benchmark_text, finding.reason) == ("scifact", 1, "exact")
    assert finding.evidence == "what is bm25"


def test_thirteen_words_in_a_row_overlap_and_twelve_do_not():
    thirteen = "x " + " ".join(f"word{number}" for number in range(5, 18)) + " y"
    twelve = "x " + " ".join(f"word{number}" for number in range(5, 17)) + " y"
    result = decontaminate([Example("q", (thirteen,)), Example("q", (twelve,))], {"set": [ENGLISH]}, settings=NO_COPIES)
    assert result.kept.tolist() == [False, True]
    assert result.findings[0].field == "positives"
    assert result.findings[0].evidence == " ".join(f"word{number}" for number in range(5, 18))


def test_the_evidence_is_the_first_run_of_a_longer_overlap():
    text = "x " + " ".join(f"word{number}" for number in range(3, 25)) + " y"
    result = decontaminate([Example("q", (text,))], {"set": [ENGLISH]}, settings=NO_COPIES)
    assert result.findings[0].evidence == " ".join(f"word{number}" for number in range(3, 16))


def test_korean_overlaps_by_characters_whatever_its_spacing():
    letters = KOREAN.replace(" ", "")
    examples = [
        Example("질문", (f"앞말 {letters[10:40]} 뒷말",)),
        Example("질문", (f"앞말 {letters[10:39]} 뒷말",)),
        Example("질문", ("An English frame: " + KOREAN[5:60],)),
    ]
    result = decontaminate(examples, {"kor": [KOREAN]}, settings=NO_COPIES)
    assert result.kept.tolist() == [False, True, False]
    assert result.findings[0].evidence == letters[10:40]


def test_a_short_benchmark_text_inside_a_long_one_is_no_overlap():
    assert found([Example("q", ("what is bm25 and why does it work so well",))], {"set": ["what is bm25"]}) == []


def test_near_copies_are_found_where_ngrams_are_broken_up():
    generator = random.Random(0)
    words = ["".join(generator.choices("abcdefghij", k=6)) for _ in range(120)]
    broken = [word if number % 12 else "gap" for number, word in enumerate(words)]
    examples = [Example("q", (" ".join(broken),))]
    benchmarks = {"set": ["other", " ".join(words)]}
    assert found(examples, benchmarks) == []
    result = decontaminate(examples, benchmarks, settings=Overlap(near=NearDuplicates(similarity=0.7)))
    assert [(finding.reason, finding.benchmark_text) for finding in result.findings] == [("near_copy", 1)]
    assert result.findings[0].evidence.startswith("similarity 0.")


def test_fields_decide_where_one_looks():
    example = Example("q", ("p",), negatives=(ENGLISH,))
    assert found([example], {"set": [ENGLISH]}) == []
    with_negatives = Overlap(near=None, fields=("query", "positives", "negatives"))
    assert found([example], {"set": [ENGLISH]}, with_negatives) == [(0, "negatives", "exact")]


def test_counts_per_reason_and_set():
    examples = [Example("첫 질문", ("p",)), Example("q", (ENGLISH + " more",)), Example("clean", ("clean passage",))]
    result = decontaminate(examples, {"ko": ["첫 질문!"], "en": [ENGLISH]}, settings=NO_COPIES)
    summary = json.loads(json.dumps(result.summary()))
    assert (summary["examples"], summary["kept"]) == (3, 1)
    assert summary["by_reason"] == {"exact": 1, "ngram": 1}
    assert summary["by_benchmark"] == {"ko": 1, "en": 1}
    assert summary["benchmarks"] == {"ko": 1, "en": 1}


def test_empty_texts_match_nothing():
    assert found([Example("?", ("",))], {"set": ["", "!!"], "none": []}, Overlap()) == []
    assert decontaminate([], {}).examples == ()


def test_mistakes_are_named():
    with pytest.raises(UnknownName, match="did you mean 'positives'"):
        Overlap(fields=("positive",))
    with pytest.raises(UsageError, match="fields is empty"):
        Overlap(fields=())
    with pytest.raises(UsageError, match="words 0"):
        Overlap(words=0)
    with pytest.raises(UsageError, match="'set' are one string"):
        decontaminate([], {"set": "a text"})
