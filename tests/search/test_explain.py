import unicodedata

import numpy as np
import pytest

from trine.index.analysis import BigramAnalyzer
from trine.scoring import multi_vector_scores, sparse_scores
from trine.search.explain import (
    FAINT,
    Alignment,
    Highlight,
    Highlighter,
    TermMatch,
    Words,
    alignment,
    explain,
    highlight_spans,
    lexical_spans,
    printable,
    term_contributions,
    word_contributions,
)
from trine.testing import HashingEncoder
from trine.types import Embeddings, Hit, PackedRows, Passage, SparseRows

NFD = unicodedata.normalize("NFD", "검색 엔진은 각각의 문서를 찾는다")
FAMILY = "\U0001f469\u200d\U0001f469\u200d\U0001f467"
PAIRS = [
    ("what ranks documents?", "A search engine finds documents and ranks them."),
    ("무엇이 문서를 찾나요", "검색 엔진은 문서를 찾아 순위를 매긴다."),
    (NFD, unicodedata.normalize("NFD", "검색 엔진은 문서를 찾아 순위를 매긴다.")),
    (f"가족 {FAMILY} 🙂🇰🇷", f"이모지 🙂 그리고 {FAMILY} 가족 🇰🇷🇰🇷"),
    ("日本語 검색 café", "日本語と中文也有 naïve café"),
    ("", "leerer Text"),
    ("?!", " \n "),
    ("같은 글 같은 글", "같은 글 " * 40),
]
ENCODERS = ["hashing", "bert", "xlm_roberta", "modernbert"]


@pytest.fixture(params=ENCODERS)
def model(request, trio):
    return HashingEncoder() if request.param == "hashing" else trio(request.param)


class Table:
    """An encoder made of a table: one vector and one weight for each of its words."""

    def __init__(self, table):
        self.table = table

    def encode(self, texts, *, kind, modes=None, progress=False):
        words = texts[0].split()
        vectors = np.array([self.table[word][0] for word in words], np.float32).reshape(-1, 2)
        weights = {number: self.table[word][1] for word in words for number in [list(self.table).index(word)]}
        return Embeddings(
            sparse=SparseRows.from_rows([weights], width=len(self.table)),
            multi_vector=PackedRows.from_rows([vectors], width=2),
        )

    def token_labels(self, ids):
        return [list(self.table)[number] for number in ids]

    def vector_spans(self, text, *, kind):
        return np.array(Words(text).spans())

    def sparse_spans(self, text, *, kind):
        return [(list(self.table).index(text[start:end]), start, end) for start, end in Words(text).spans()]


TABLE = Table({"up": ((0, 1), 2.0), "right": ((1, 0), 1.0), "slope": ((0.6, 0.8), 3.0), "down": ((0, -1), 0.5)})


def text_of(text, span):
    return None if span is None else text[slice(*span)]


def test_every_query_token_goes_to_its_most_similar_token():
    found = alignment(TABLE, "up right down", "slope right")
    pairs = [
        (text_of(found.query, token.query), text_of(found.text, token.passage), token.similarity)
        for token in found.tokens
    ]
    assert pairs == [
        ("up", "slope", pytest.approx(0.8)),
        ("right", "right", pytest.approx(1.0)),
        ("down", "right", pytest.approx(0.0)),
    ]
    assert [token.share for token in found.tokens] == [pytest.approx(0.8 / 3), pytest.approx(1 / 3), pytest.approx(0)]
    assert found.score == pytest.approx(0.6)


def test_a_negative_best_match_keeps_its_sign():
    found = alignment(TABLE, "down", "up slope")
    assert found.tokens[0].share == pytest.approx(-0.8)


@pytest.mark.parametrize("pair", PAIRS, ids=range(len(PAIRS)))
def test_the_shares_are_the_score(model, pair):
    query, text = pair
    expected = multi_vector_scores(
        model.encode([query], kind="query", modes=["multi_vector"]).multi_vector,
        model.encode([text], kind="passage", modes=["multi_vector"]).multi_vector,
    )[0, 0]
    found = alignment(model, query, text)
    assert found.score == pytest.approx(expected, abs=1e-5)
    assert sum(word.share for word in found.words()) == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("pair", PAIRS, ids=range(len(PAIRS)))
def test_the_contributions_are_the_sparse_score(model, pair):
    query, text = pair
    expected = sparse_scores(
        model.encode([query], kind="query", modes=["sparse"]).sparse,
        model.encode([text], kind="passage", modes=["sparse"]).sparse,
    )[0, 0]
    matches = term_contributions(model, query, text)
    assert sum(match.contribution for match in matches) == pytest.approx(expected, abs=1e-5)
    words = word_contributions(matches, query)
    assert sum(word.contribution for word in words) == pytest.approx(expected, abs=1e-5)
    assert [match.contribution for match in matches] == sorted((m.contribution for m in matches), reverse=True)


@pytest.mark.parametrize("pair", PAIRS, ids=range(len(PAIRS)))
def test_no_word_begins_or_ends_inside_a_character(model, pair):
    query, text = pair
    for word in alignment(model, query, text).words():
        for whole, span in ((query, word.query), *((text, span) for span, _ in word.passages)):
            if span is not None:
                assert span in [(start, end) for start, end in _runs(whole)]
                assert not whole[slice(*span)].isspace()


def _runs(text):
    """All spans of whole words."""
    spans = Words(text).spans()
    return [(first[0], last[1]) for number, first in enumerate(spans) for last in spans[number:]]


def test_pieces_of_a_word_are_merged(trio):
    query = "임베딩은 embeddings"
    found = alignment(trio("bert"), query, "임베딩은 글의 뜻을 벡터로 나타낸 것이다.")
    assert len(found.tokens) > 3
    names = [text_of(query, word.query) for word in found.words()]
    assert names[:2] == ["임베딩은", "embeddings"]
    assert names[2:] in ([], [None])


def test_special_tokens_are_one_entry_at_the_end(trio):
    words = alignment(trio("bert"), "hello world", "hello").words()
    assert words[-1].query is None
    assert all(word.query is not None for word in words[:-1])


def test_texts_without_vectors_align_to_nothing():
    assert alignment(TABLE, "", "up") == Alignment("", "up", ())
    assert alignment(TABLE, "", "up").score == 0
    assert alignment(TABLE, "up", "").words() == ()


def test_terms_carry_their_weights_and_places():
    matches = term_contributions(TABLE, "up slope up", "slope up slope")
    assert matches == (
        TermMatch("slope", 3.0, 3.0, 9.0, ((3, 8),), ((0, 5), (9, 14))),
        TermMatch("up", 2.0, 2.0, 4.0, ((0, 2), (9, 11)), ((6, 8),)),
    )


def test_a_term_in_several_words_is_divided_among_them():
    match = TermMatch("##하", 1.0, 1.0, 1.0, ((1, 2), (5, 6)), ())
    whole = TermMatch("▁공부", 1.0, 1.0, 3.0, ((4, 5),), ())
    words = word_contributions([match, whole], "공하다 부하다")
    assert [(word.word, word.contribution) for word in words] == [("부하다", 3.5), ("공하다", 0.5)]
    assert words[0].terms == ("##하", "▁공부")


def test_a_term_that_the_model_added_is_a_word_of_its_own():
    (word,) = word_contributions([TermMatch("▁ship", 1.0, 2.0, 2.0, (), ((0, 4),))], "boat")
    assert (word.word, word.spans, word.contribution) == ("ship", (), 2.0)


@pytest.mark.parametrize(
    ("term", "shown"), [("##ing", "ing"), ("▁the", "the"), ("Ġthe", "the"), ("▁", "▁"), ("#", "#")]
)
def test_vocabulary_strings_lose_their_marks(term, shown):
    assert printable(term) == shown


def test_everything_about_a_pair_at_once(model):
    query, text = PAIRS[1]
    found = explain(model, query, text, weights={"dense": 2.0, "sparse": 0.5})
    assert set(found.scores) == {"dense", "sparse", "multi_vector"}
    assert found.weights == {"dense": 2.0, "sparse": 0.5, "multi_vector": 0.0}
    assert found.fused == pytest.approx(2 * found.scores["dense"] + 0.5 * found.scores["sparse"])
    assert found.alignment.score == pytest.approx(found.scores["multi_vector"], abs=1e-5)
    assert sum(match.contribution for match in found.terms) == pytest.approx(found.scores["sparse"], abs=1e-5)


def test_a_mode_that_the_encoder_lacks_is_not_explained():
    class DenseOnly(HashingEncoder):
        def encode(self, texts, *, kind, modes=None, progress=False):
            return super().encode(texts, kind=kind, modes=["dense"])

    found = explain(DenseOnly(), "a b", "b c")
    assert (set(found.scores), found.alignment, found.terms) == ({"dense"}, None, None)


# Words


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("A pod, holding it.", ["A", "pod", ",", "holding", "it", "."]),
        ("트랜잭션이 시작된다.", ["트랜잭션이", "시작된다", "."]),
        ("don't stop\u2019s '90s", ["don't", "stop\u2019s", "'", "90s"]),
        ("snake_case TCP/IP", ["snake_case", "TCP", "/", "IP"]),
        (unicodedata.normalize("NFD", "검색 café"), [unicodedata.normalize("NFD", part) for part in ("검색", "café")]),
        (f"{FAMILY}🙂", [FAMILY, "🙂"]),
        ("🇰🇷🇯🇵", ["🇰🇷", "🇯🇵"]),
        ("日本語ひら", ["日", "本", "語", "ひ", "ら"]),
        ("대한민국 大韓", ["대한민국", "大", "韓"]),
        (" \t\n", []),
        ("", []),
    ],
)
def test_words(text, words):
    assert [text[start:end] for start, end in Words(text).spans()] == words


def test_a_span_grows_to_whole_words():
    text = "앞의 트랜잭션이 日本"
    assert text_of(text, Words(text).around((4, 5))) == "트랜잭션이"
    assert text_of(text, Words(text).around((2, 5))) == "트랜잭션이"
    assert text_of(text, Words(text).around((1, 5))) == "앞의 트랜잭션이"
    assert text_of(text, Words(text).around((9, 10))) == "日"
    assert Words(text).around((2, 3)) is None
    assert Words(text).around((3, 3)) is None
    assert Words(text).around((50, 60)) is None


def test_a_span_inside_a_decomposed_syllable_grows_around_it():
    text = unicodedata.normalize("NFD", "각 日")
    assert Words(text).around((1, 2)) == (0, 3)
    assert Words(unicodedata.normalize("NFD", "語ガ")).around((2, 3)) == (1, 3)


# Highlights


def hit(text, *, title="", terms=None):
    passage = Passage("d", 0, 0, len(text), 1, text, title)
    return Hit(1, 1, passage, 1.0, {}, {}, terms or {})


def test_words_with_shared_terms_are_marked_by_what_they_contribute():
    encoder = HashingEncoder()
    text, query = "Cats eat fish, cats sleep.", "what do cats eat"
    matches = term_contributions(encoder, query, text)
    terms = {match.term: match.contribution for match in matches} | {matches[0].term: 2.0}
    marks = highlight_spans(encoder, query, text, terms=terms)
    assert {text[mark.start : mark.end]: mark.weight for mark in marks} in (
        {"Cats": 1.0, "eat": 0.5, "cats": 1.0},
        {"Cats": 0.5, "eat": 1.0, "cats": 0.5},
    )
    assert highlight_spans(encoder, query, text, terms={}) == ()


class Pieces(HashingEncoder):
    """Cuts words into single characters, as a vocabulary without Korean does."""

    def sparse_spans(self, text, *, kind):
        return [(ord(character), at, at + 1) for at, character in enumerate(text) if not character.isspace()]

    def token_labels(self, ids):
        return [chr(number) for number in ids]


def test_a_single_shared_piece_marks_no_word():
    text = "관계형 데이터베이스 트랜잭션이란"
    terms = dict.fromkeys("트랜잭션데", 1.0)
    marks = highlight_spans(Pieces(), "트랜잭션 데드락", text, terms=terms)
    assert [text[mark.start : mark.end] for mark in marks] == ["트랜잭션이란"]


def test_a_term_that_the_model_added_is_marked():
    text = "배 ship"
    (mark,) = highlight_spans(Pieces(), "boat", text, terms={"배": 1.0})
    assert text[mark.start : mark.end] == "배"


def test_bm25_terms_are_found_inside_korean_words():
    text = "트랜잭션이 격리된다. 거래 수준은"
    analyzer = BigramAnalyzer()
    terms = dict.fromkeys(analyzer.terms("트랜잭션 격리 수준"), 1.0)
    marks = lexical_spans(text, terms=terms, analyzer=analyzer)
    assert [text[mark.start : mark.end] for mark in marks] == ["트랜잭션이", "격리된다", "수준은"]


def test_a_weak_word_is_left_out():
    marks = lexical_spans("a b", terms={"a": 1.0, "b": FAINT - 0.01}, analyzer=BigramAnalyzer())
    assert marks == (Highlight(0, 1, 1.0),)


def test_decomposed_text_is_marked_whole():
    text = unicodedata.normalize("NFD", "그 문서를 찾는다")
    analyzer = BigramAnalyzer()
    (mark,) = lexical_spans(text, terms={"문서": 1.0}, analyzer=analyzer)
    assert unicodedata.normalize("NFC", text[mark.start : mark.end]) == "문서를"


def test_title_and_text_of_a_hit_are_marked_apart():
    encoder, analyzer = HashingEncoder(), BigramAnalyzer()
    found = hit("A pod holds containers.", title="Pod > Use")
    terms = {match.term: match.contribution for match in term_contributions(encoder, "pod use", found.passage.content)}
    marks = Highlighter("pod use", encoder=encoder, analyzer=analyzer).marks(
        hit("A pod holds.", title="Pod > Use", terms=terms)
    )
    assert [(mark.start, mark.end) for mark in marks.title] == [(0, 3), (6, 9)]
    assert [(mark.start, mark.end) for mark in marks.text] == [(2, 5)]


def test_without_an_encoder_the_hits_terms_are_bm25s():
    highlighter = Highlighter("cats fish", encoder=None, analyzer=BigramAnalyzer())
    assert highlighter.marks(hit("Cats eat fish.", terms={"fish": 2.0})).text == (Highlight(9, 13, 1.0),)


def test_without_terms_the_words_of_the_query_are_marked():
    for encoder in (None, HashingEncoder()):
        marks = Highlighter("fish and cats", encoder=encoder, analyzer=BigramAnalyzer()).marks(hit("A cat eats Fish."))
        assert marks.text == (Highlight(2, 5, 1.0), Highlight(11, 15, 1.0))
        assert marks.title == ()


def test_terms_of_a_model_that_does_not_know_the_query_are_left_alone():
    class English(HashingEncoder):
        def covers(self, text):
            return text.isascii()

    encoder = English()
    (label,) = encoder.token_labels([encoder.sparse_spans("은", kind="passage")[0][0]])
    marks = Highlighter("문서 은", encoder=encoder, analyzer=BigramAnalyzer()).marks(
        hit("문서를 은 찾다", terms={label: 1.0})
    )
    assert [(mark.start, mark.end) for mark in marks.text] == [(0, 3), (4, 5)]
