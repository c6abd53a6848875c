import re
from html.parser import HTMLParser
from xml.etree import ElementTree

import pytest
from rich.cells import cell_len

from trine.evaluation.report import html, table
from trine.evaluation.results import Counts

VOID = {"meta", "br", "hr", "img", "input", "link"}


class Page(HTMLParser):
    """Checks that tags nest, and keeps what matters."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.open, self.words, self.tags, self.attributes = [], [], [], []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self.attributes += attributes
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.tags.append(tag)
        self.attributes += attributes

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.words.append(data)


def test_the_table_holds_means_intervals_and_differences(plain):
    lines = table(plain).splitlines()
    assert lines[0] == "표본: 1,234 documents, 40 judged queries; hashing-32"
    assert lines[2].split() == ["system", "ndcg@10", "95%", "interval", "mrr@10", "ndcg@10", "-", "bm25"]
    assert re.fullmatch(
        r"dense +1\.0000 +\[1\.0000, 1\.0000\] +1\.0000 +\+0\.5000 \[\+0\.5000, \+0\.5000\]\*", lines[4]
    )
    assert re.fullmatch(r"bm25 +0\.5000 +\[0\.5000, 0\.5000\] +0\.3333", lines[5])
    assert "Best ndcg@10: dense" in lines


def test_a_difference_that_may_be_none_has_no_star(sample):
    lines = table(sample(queries=1, keep=["dense", "dense+bm25 (rrf)"])).splitlines()
    assert lines[5].endswith("+0.0000 [+0.0000, +0.0000]")
    assert "Best ndcg@10: dense; not told apart from it: dense+bm25 (rrf)" in lines


def test_wide_names_keep_the_columns_even(sample):
    report = sample(names=["한국어 모드", "bm25", "e\u0301 결합"], metrics=["ndcg@10"])
    lines = table(report).splitlines()[2:7]
    assert len({cell_len(row[: row.index(".")]) for row in lines[2:]}) == 1
    assert len({cell_len(row[: row.index("]")]) for row in lines[2:]}) == 1
    assert cell_len(lines[1]) == max(cell_len(line) for line in lines)


def test_the_page_is_whole_and_needs_nothing_from_outside(plain):
    text = html(plain)
    page = Page(text)
    assert page.tags.count("svg") == 2
    assert "script" not in page.tags
    assert "link" not in page.tags
    assert not [value for name, value in page.attributes if name in ("src", "href")]
    assert "url(" not in text
    assert "@import" not in text
    assert "http" not in text
    assert 'charset="utf-8"' in text
    assert "prefers-color-scheme: dark" in text


def test_the_page_holds_the_numbers(plain):
    words = " ".join(Page(html(plain)).words)
    for expected in ("표본", "hashing-32", "1,234", "40", "dense+bm25 (rrf)", "0.3333", "Difference to bm25", "0.95"):
        assert expected in words
    for name, value in plain.machine.items():
        assert name in words
        assert value in words


def test_plots_put_the_means_where_the_scale_says(plain):
    """Dots of systems in between are placed in proportion to those at the ends."""
    svg = ElementTree.fromstring(re.search(r"<svg.*?</svg>", html(plain), re.DOTALL)[0])
    rows = [group for group in svg.iter("g")]
    dots = {group.find("title").text.split(":")[0]: float(group.find("circle").get("cx")) for group in rows}
    means = {result.system.name: result.metrics["ndcg@10"].mean for result in plain.results}
    low, high, middle = dots["bm25"], dots["dense"], dots["dense+bm25 (rrf)"]
    share = (means["dense+bm25 (rrf)"] - means["bm25"]) / (means["dense"] - means["bm25"])
    assert (middle - low) / (high - low) == pytest.approx(share, abs=0.001)
    bar = rows[-1].find("line")
    assert float(bar.get("x1")) < middle < float(bar.get("x2"))


def test_text_is_escaped_everywhere(sample):
    nasty = "<script>alert('각')</script>&\"'{x}"
    report = sample(dataset=nasty, model=nasty)
    report.machine["<b>"] = nasty
    text = html(report)
    page = Page(text)
    assert "script" not in page.tags
    assert page.words.count(nasty) >= 3
    assert nasty in table(report)


def test_what_is_missing_is_said(sample):
    counts = Counts(documents=10, passages=25, queries=5, judged=3, missing_queries=1, missing_documents=2)
    report = sample(counts=counts)
    for text in (table(report), html(report)):
        assert "1 judged query has no text in the data" in text
        assert "2 judged documents are not in the corpus" in text
    assert table(report).startswith("표본: 10 documents in 25 passages, 3 judged queries")
    assert "missing" not in table(sample())
    assert "no text in the data" not in html(sample())


def test_a_handful_of_queries_comes_with_a_warning(sample):
    assert "3 queries are too few for the intervals" in table(sample(queries=3))
    assert "1 query is too few for the intervals" in html(sample(queries=1))
    assert "too few" not in table(sample(queries=40))


def test_one_system_alone_makes_a_page_without_differences(sample):
    report = sample(keep=["bm25"])
    assert Page(html(report)).tags.count("svg") == 1
    assert "bm25" in table(report)


def test_values_that_are_all_zero_can_be_drawn(sample):
    report = sample(metrics=["mrr@1"], keep=["bm25"])
    assert report.result("bm25").metrics["mrr@1"].mean == 0
    assert Page(html(report)).tags.count("circle") == 1
    assert "0.0000" in table(report)
