import base64
import hashlib
import re
from html.parser import HTMLParser

import pytest

from trine.search.explain import Highlight, Marks, explain
from trine.search.page import explanation_page, search_page
from trine.testing import HashingEncoder
from trine.types import Hit, Passage

EVIL = "<script>alert('x')</script><img src=x onerror=alert(1)> & \"quotes\" \x00 \udcff </title></style>"
VOID = {"meta", "br", "img", "input", "link", "hr"}


class Tree(HTMLParser):
    """Checks that tags nest, and keeps what a browser would see."""

    def __init__(self, page):
        super().__init__(convert_charrefs=True)
        self.open, self.tags, self.text = [], [], []
        self.feed(page)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if not {"script", "style"} & set(self.open):
            self.text.append(data)

    def of_class(self, name):
        return [attrs for _, attrs in self.tags if name in (attrs.get("class") or "").split()]


def hit(rank, text, *, title="", document="a.md", metadata=None, **scores):
    passage = Passage(document, 0, 0, len(text), 7, text, title)
    return Hit(rank, rank, passage, 1.0 / rank, scores, metadata or {})


def results(hits, marks=None, *, query="a query", **options):
    marks = marks or [Marks((), ())] * len(hits)
    return search_page(query, hits, marks=marks, facts={"collection": "docs"}, **options)


HITS = [
    hit(
        1,
        "First passage.",
        title="Guide > Part",
        metadata={"lang": "en", "path": "a.md", "note": None},
        dense=0.8,
        bm25=2.5,
    ),
    hit(2, "둘째 글.", document="나.md", dense=0.4),
]


def test_hits_come_with_source_scores_and_metadata():
    tree = Tree(results(HITS))
    shown = "".join(tree.text)
    for part in ("a query", "docs", "a.md:7", "나.md:7", "First passage.", "둘째 글.", "0.8000", "2.5000", "no match"):
        assert part in shown
    assert "lang en" in shown
    assert "note" not in shown
    bars = [attrs["style"] for attrs in tree.of_class("dense")]
    assert bars == ["--w:1.000", "--w:0.500"]
    assert [attrs["data-fused"] for attrs in tree.of_class("hit")] == ["1", "0.5"]
    assert "data-bm25" not in tree.of_class("hit")[1]
    assert [attrs["data-key"] for tag, attrs in tree.tags if "data-key" in attrs] == ["fused", "dense", "bm25"]


def test_the_last_heading_is_the_title_and_keeps_its_marks():
    marks = [Marks((Highlight(0, 5, 1.0), Highlight(8, 12, 0.5)), (Highlight(0, 5, 0.75),)), Marks((), ())]
    page = results(HITS, marks)
    assert '<p class=crumbs lang=und><mark style="--w:1.00">Guide</mark></p>' in page
    assert '<h2 lang=und><mark style="--w:0.50">Part</mark></h2>' in page
    assert '<mark style="--w:0.75">First</mark> passage.' in page
    assert "<h2 lang=ko>나.md</h2>" in page


def test_nothing_found_is_said():
    assert "Nothing was found." in results([])


def test_warnings_are_shown():
    assert "not trained" in "".join(Tree(results(HITS, notes=["not trained"])).text)


def test_long_passages_are_folded():
    tree = Tree(results([hit(1, "word " * 300, dense=1.0)]))
    assert len(tree.of_class("long")) == 1
    assert tree.of_class("more")[0]["aria-expanded"] == "false"


def test_negative_scores_have_no_bar():
    tree = Tree(results([hit(1, "a", dense=-0.2), hit(2, "b", dense=-0.5)]))
    assert [attrs["style"] for attrs in tree.of_class("dense")] == ["--w:0.000", "--w:0.000"]


def evil_search():
    found = hit(1, EVIL, title=EVIL, document=EVIL, metadata={"<b>key": EVIL[:40]}, dense=1.0)
    marks = Marks((Highlight(0, 8, 1.0),), (Highlight(1, 20, 1.0),))
    return search_page(EVIL, [found, found], marks=[marks] * 2, facts={EVIL: EVIL}, notes=[EVIL])


def evil_explanation():
    return explanation_page(explain(HashingEncoder(), EVIL, EVIL), facts={"source": EVIL}, notes=[EVIL])


def benign_explanation():
    found = explain(HashingEncoder(), "무엇이 컨테이너를 담나", "파드는 컨테이너를 담는다 🙂")
    return explanation_page(found, facts={"model": "hashing"})


PAGES = [lambda: results(HITS), evil_search, evil_explanation, benign_explanation]


@pytest.mark.parametrize("make", PAGES)
def test_pages_are_well_formed_utf8_and_need_nothing_from_outside(make):
    page = make()
    page.encode("utf-8")
    tree = Tree(page)
    assert not {"link", "img", "iframe", "object", "base", "form"} & {tag for tag, _ in tree.tags}
    for _, attrs in tree.tags:
        assert not {"src", "href", "action"} & set(attrs)
        assert not any(name.startswith("on") for name in attrs)
    style = re.search(r"<style>(.*?)</style>", page, re.DOTALL)[1]
    assert "url(" not in style
    assert "@import" not in style


@pytest.mark.parametrize("make", [evil_search, evil_explanation])
def test_no_text_becomes_markup(make):
    tree = Tree(make())
    assert [tag for tag, _ in tree.tags].count("script") == 1
    assert "alert('x')" in "".join(tree.text).replace("\n", "")
    assert "\x00" not in "".join(tree.text)


@pytest.mark.parametrize("make", PAGES)
def test_only_the_pages_own_script_may_run(make):
    page = make()
    script = re.search(r"<script>(.*?)</script>", page, re.DOTALL)[1]
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    policy = next(attrs["content"] for _, attrs in Tree(page).tags if "http-equiv" in attrs)
    assert f"script-src 'sha256-{digest}'" in policy
    assert "default-src 'none'" in policy


def test_query_words_point_at_what_answers_them():
    tree = Tree(benign_explanation())
    tokens, places = tree.of_class("token"), tree.of_class("place")
    assert [token["aria-label"].split(":")[0] for token in tokens] == ["무엇이", "컨테이너를", "담나"]
    assert all(token["aria-pressed"] == "false" for token in tokens)
    assert {place["data-place"] for place in places} >= {
        number for token in tokens for number in token["data-to"].split()
    }
    assert "컨테이너를: best match 컨테이너를, similarity 1.00" in [token["aria-label"] for token in tokens]
    assert all(tag == "button" for tag, attrs in tree.tags if "token" in (attrs.get("class") or "").split())


def test_the_whole_text_and_the_whole_query_are_shown():
    page = benign_explanation()
    aligned = re.search(r"<p class=\"passage aligned\".*?>(.*?)</p>", page, re.DOTALL)[1]
    assert re.sub(r"<.*?>", "", aligned) == "파드는 컨테이너를 담는다 🙂"


def test_words_without_a_vector_are_shown_as_they_are():
    class Forgetful(HashingEncoder):
        """Has vectors and spans for all but the first word."""

        def vector_spans(self, text, *, kind):
            spans = super().vector_spans(text, kind=kind)
            return spans if kind == "passage" else spans[1:]

        def encode(self, texts, *, kind, modes=None, progress=False):
            cut = [text.split(" ", 1)[1] if kind == "query" else text for text in texts]
            return super().encode(cut, kind=kind, modes=modes)

    page = explanation_page(explain(Forgetful(), "unseen words here", "words"), facts={})
    tree = Tree(page)
    assert [token["aria-label"].split(":")[0] for token in tree.of_class("token")] == ["words", "here"]
    assert '<span class=silent title="no vector">unseen</span>' in page


def test_the_sum_of_the_shares_is_shown():
    found = explain(HashingEncoder(), "a pod holds", "a pod")
    shown = "".join(Tree(explanation_page(found, facts={})).text)
    assert f"{found.scores['multi_vector']:.4f}" in shown
    assert f"{found.fused:.4f}" in shown


def test_an_encoder_with_one_mode_has_a_page_too():
    class DenseOnly(HashingEncoder):
        def encode(self, texts, *, kind, modes=None, progress=False):
            return super().encode(texts, kind=kind, modes=["dense"])

    tree = Tree(explanation_page(explain(DenseOnly(), "a", "b <i>c</i>"), facts={}))
    assert "b <i>c</i>" in "".join(tree.text)
    assert tree.of_class("token") == []
