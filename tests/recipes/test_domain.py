"""Documents divided for adapting: nothing that is asked is trained on, and too little says what is missing."""

import json
import random

import pytest

from recipes import village
from trine.curation.texts import canonical
from trine.curation.weak_pairs import PairRules
from trine.errors import UsageError
from trine.evaluation.beir import read_beir
from trine.recipes.domain import Division, Domain, prepare_domain
from trine.recipes.held_out import Part, overlapping, texts_of
from trine.types import Example

DIVISION = Division(held_out=Part(0.2, 10, 60), validation=Part(0.1, 5, 30), least_pairs=20)
LINE = (
    "{} 문서의 {}번째 문단은 서로 다른 낱말 {}을 담아 길이를 채우고 그 다음 문장으로 이어진다. "
    "그래서 {} 끝나는 이 두 번째 문장도 앞의 문장만큼이나 길게 이어져서 혼자서도 문단이 된다."
)


def prepared(paths, folder, **options):
    options = {"rules": PairRules(), "division": DIVISION, **options}
    folder.mkdir()
    return Domain(folder, prepare_domain([str(path) for path in paths], folder, **options))


@pytest.fixture(scope="module")
def docs(tmp_path_factory):
    """Documents with headings, a heading and a passage that several share, and copies."""
    folder = tmp_path_factory.mktemp("docs")
    draw = random.Random(0)
    for number in range(30):
        words = ["".join(chr(draw.randrange(0xAC00, 0xD7A3)) for _ in range(8)) for _ in range(4)]
        lines = [f"# 제품 {words[0]}", "", LINE.format(number, 0, words[0], words[1])]
        for part, word in enumerate(words[1:], 1):
            lines += ["", f"## 방법 {word}", "", LINE.format(number, part, word, words[0])]
        shared = LINE.format("모든", "같은", "공통", "함께") + f" 거의 그대로 모든 문서에 들어 있다. {number}"
        lines += ["", "## 지원을 받는 방법과 연락할 곳", "", shared]
        (folder / f"{number:02}.md").write_text("\n".join(lines) + "\n", encoding="utf-8")
    (folder / "copy.md").write_text((folder / "03.md").read_text(encoding="utf-8"), encoding="utf-8")
    (folder / "empty.md").touch()
    return folder


@pytest.fixture(scope="module")
def domain(docs, tmp_path_factory):
    return prepared([docs], tmp_path_factory.mktemp("work") / "domain")


def spellings(texts):
    return {canonical(text) for text in texts}


def test_nothing_that_is_asked_is_trained_on(domain):
    held_out, validation = read_beir(domain.folder / "held_out"), domain.validation
    sources = [domain.pairs, domain.sentences]
    trained = {text for source in sources for one in source for text in (one.query, *one.positives)}
    for data in (held_out, validation):
        assert len(data.judged) >= 5
        assert not spellings(texts_of(data)) & spellings(trained)
        assert overlapping([Example(text, (text,)) for text in [*trained, *domain.passages]], [data]).kept.all()
    asked = spellings(query.text for query in held_out.judged)
    assert not asked & spellings(query.text for query in validation.judged)


def test_what_the_documents_share_was_there_and_was_taken_out(domain):
    found = domain.facts["overlap"]
    assert found["examples"] - found["kept"] == sum(found["by_reason"].values())
    assert found["examples"] - found["kept"] >= domain.facts["training"]["documents"]
    assert found["kept"] == len(domain.pairs)


def test_all_passages_compete_in_the_held_out_set(domain):
    corpus = read_beir(domain.folder / "held_out").corpus
    assert {passage.metadata["document"] for passage in corpus} == {f"{number:02}.md" for number in range(30)}
    assert len(corpus) == 30 * 5
    learned = domain.facts["training"]["documents"]
    assert learned + domain.facts["held_out"]["documents"] + domain.facts["validation"]["documents"] == 30


def test_every_query_has_an_answer_in_the_corpus(domain):
    for data in (read_beir(domain.folder / "held_out"), domain.validation):
        assert not data.missing_documents
        assert all(any(judged.values()) for judged in data.qrels.values())


def test_kinds_stand_beside_the_pairs_and_sentences_apart(domain):
    assert len(domain.kinds) == len(domain.pairs)
    assert set(domain.kinds) == {"title_passage", "heading_passage"}
    assert all(example.query not in example.positives[0] for example in domain.sentences)


def test_copies_and_files_that_cannot_be_read_are_counted(domain):
    counts = domain.facts["documents"]
    assert (counts["read"], counts["copies"], counts["kept"]) == (31, 1, 30)
    assert counts["skipped"][0]["path"].endswith("empty.md")


def test_the_division_follows_the_seed(docs, domain, tmp_path):
    again = prepared([docs], tmp_path / "again")
    other = prepared([docs], tmp_path / "other", division=Division(**{**_fields(DIVISION), "seed": 1}))
    read = [[query.text for query in read_beir(one.folder / "held_out").judged] for one in (domain, again, other)]
    assert read[0] == read[1] != read[2]
    assert list(domain.pairs) == list(again.pairs)


def test_the_corpus_can_be_kept_small_without_losing_an_answer(docs, tmp_path):
    small = prepared([docs], tmp_path / "small", division=Division(**{**_fields(DIVISION), "most_corpus": 60}))
    data = read_beir(small.folder / "held_out")
    assert len(data.corpus) == 60
    assert not data.missing_documents


def test_a_judged_set_of_one_s_own_takes_the_place_of_held_out_documents(docs, domain, tmp_path):
    own = domain.folder / "held_out"
    found = prepared([docs], tmp_path / "own", held_out=own)
    assert not (found.folder / "held_out").exists()
    assert found.facts["held_out"] == {"documents": 0, "queries": len(read_beir(own).judged), "corpus": 150}
    trained = {text for one in found.pairs for text in (one.query, *one.positives)}
    assert not spellings(texts_of(read_beir(own))) & spellings(trained)


def test_first_sentences_join_the_pairs_where_these_are_too_few(tmp_path):
    draw = random.Random(1)
    for number in range(20):
        paragraphs = [f"{words(draw, 8)} 이다. {words(draw, 20)} 이다." for _ in range(5)]
        (tmp_path / f"{number}.txt").write_text("\n\n".join(paragraphs), encoding="utf-8")
    found = prepared(sorted(tmp_path.glob("*.txt")), tmp_path / "work", rules=PairRules(max_tokens=70))
    assert "first_sentence" in found.kinds
    assert found.sentences is None
    held_out = read_beir(found.folder / "held_out")
    texts = {document.id: document.text for document in held_out.corpus}
    for query in held_out.judged:
        assert all(query.text not in texts[identity] for identity in held_out.qrels[query.id])


def test_documents_that_say_the_same_are_told_apart_from_documents_that_say_nothing(tmp_path):
    draw = random.Random(2)
    for number in range(40):
        text = f"# 제목 {number}\n\n{LINE} {LINE}\n\n{words(draw, 150)}"
        (tmp_path / f"{number}.md").write_text(text, encoding="utf-8")
    (tmp_path / "copy.md").write_text((tmp_path / "1.md").read_text(encoding="utf-8"), encoding="utf-8")
    with pytest.raises(UsageError, match=r"1 copies of them left out.* \d+ pairs shared text"):
        prepared([tmp_path], tmp_path / "work")


def test_too_few_documents_are_told_with_what_was_found_and_dropped(docs, tmp_path):
    with pytest.raises(UsageError) as caught:
        prepared([docs / "00.md", docs / "01.md"], tmp_path / "few")
    message = str(caught.value)
    assert "10 queries to measure on" in message
    assert "20 pairs to train on" in message
    assert "2 documents, 0 copies of them left out, gave" in message
    village.write(tmp_path / "short", documents=3, sections=1)
    with pytest.raises(UsageError, match=r"candidates dropped: .*short passage \d"):
        prepared([tmp_path / "short"], tmp_path / "shorter", rules=PairRules(least_passage=1000))


def test_nothing_readable_says_why(tmp_path):
    (tmp_path / "broken.jsonl").write_text("{", encoding="utf-8")
    with pytest.raises(UsageError, match=r"no document could be read.*broken\.jsonl"):
        prepared([tmp_path / "broken.jsonl"], tmp_path / "work")


def words(draw, count):
    return " ".join("".join(chr(draw.randrange(0xAC00, 0xD7A3)) for _ in range(3)) for _ in range(count))


def _fields(division):
    return {name: getattr(division, name) for name in division.__slots__}


def test_facts_are_json(domain):
    assert json.loads(json.dumps(domain.facts)) == domain.facts
