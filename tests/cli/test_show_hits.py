import unicodedata

from rich.cells import cell_len

from trine.cli.show_hits import cut, number, printable, styled
from trine.search.explain import Highlight


def marked(text, word, weight=1.0):
    start = text.index(word)
    return [Highlight(start, start + len(word), weight)]


def test_a_text_becomes_one_line_with_its_matches_styled():
    text = "one\n\n  two\tthree"
    shown = styled(text, marked(text, "two"))
    assert shown.plain == "one two three"
    assert [(span.start, span.end, str(span.style)) for span in shown.spans] == [(4, 7, "bold yellow")]
    assert str(styled(text, marked(text, "two", 0.5)).spans[0].style) == "yellow"


def test_a_short_text_is_not_cut():
    assert cut(styled("short text", []), cells=20).plain == "short text"


def test_a_long_text_is_cut_around_its_matches_between_words():
    text = "filler words " * 60 + "the needle is here " + "more words " * 60
    part = cut(styled(text, marked(text, "needle")), cells=200)
    assert "the needle is here" in part.plain
    assert part.plain.startswith("… ")
    assert part.plain.endswith(" …")
    assert cell_len(part.plain) <= 204
    assert set(part.plain.strip("… ").split()) <= set(text.split())
    assert [part.plain[span.start : span.end] for span in part.spans] == ["needle"]


def test_without_a_match_the_beginning_is_shown():
    part = cut(styled("first words " + "and more " * 100, []), cells=100)
    assert part.plain.startswith("first words and more")
    assert part.plain.endswith(" …")


def test_wide_characters_count_double():
    text = "데이터베이스는 트랜잭션을 처리한다. " * 40
    assert cell_len(cut(styled(text, []), cells=120).plain) <= 124


def test_no_syllable_is_cut_where_there_are_no_spaces():
    syllable = unicodedata.normalize("NFD", "각")
    part = cut(styled(syllable * 300, []), cells=100)
    kept = part.plain.strip("… ")
    assert len(kept) % 3 == 0
    assert kept == syllable * (len(kept) // 3)


def test_scores_are_short():
    assert [number(value) for value in (0.03226, -0.5, 12.3456)] == ["0.0323", "-0.5000", "12.35"]


def test_control_characters_are_replaced():
    assert printable("a\x1b[31mb\x9b\u2028") == "a\ufffd[31mb\ufffd\u2028"
