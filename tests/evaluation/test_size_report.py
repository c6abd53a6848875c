import re
from dataclasses import replace
from html.parser import HTMLParser
from xml.etree import ElementTree

import numpy as np
import pytest

from trine.encoding.precision import Precision
from trine.evaluation.significance import Difference, Interval
from trine.evaluation.size import Setting, SizeReport
from trine.evaluation.size_report import headline, html, human, notes, plot, shown, table, verdict

FULL = Precision.full(["dense", "sparse"])


def setting(precision, dense, sparse, value, low=-0.02):
    sizes = {"dense": dense, "sparse": sparse}
    return Setting(
        precision,
        {mode: sizes[mode] for mode in precision.modes},
        0,
        Interval(value, value - 0.05, value + 0.05),
        Difference(value - 0.7, low, 0.02, 0.4),
        0.9,
        np.full(4, value),
    )


def report(**changes):
    settings = (
        setting(FULL, 400.0, 100.0, 0.7),
        setting(replace(FULL, dense="int8"), 104.0, 100.0, 0.69),
        setting(Precision(dense="int8", sparse="uint8", multi_vector=None), 104.0, 40.0, 0.68),
        setting(Precision(dense="int8", sparse=None, multi_vector=None), 104.0, 0.0, 0.69),
        setting(Precision(dense="binary", sparse=None, multi_vector=None), 12.5, 0.0, 0.5, low=-0.3),
    )
    facts = {
        "dataset": "<표본>", "model": "m&m", "judged": True, "queries_from": "judged", "sampled": 100, "queries": 4,
        "documents": 1_000_000, "budget": 150_000_000, "loss": 0.01, "settings": settings,
        "recommended": settings[3], "machine": {"cores": "2"}, "seconds": {"encode": 1.5},
    }  # fmt: skip
    return SizeReport(**{**facts, **changes})


def test_the_table_shows_parts_sizes_values_and_what_fits():
    lines = table(report()).splitlines()
    assert lines[0] == "<표본>: 100 documents, 4 queries; totals for 1,000,000; m&m"
    rows = {line.split("  ")[0] + line[12:24].strip(): line for line in lines[4:9]}
    assert len(lines[4:9]) == 4 + 1
    first, last = lines[4], lines[7]
    assert re.search(r"400 +100 +500 +500 MB +0\.7000 +0\.900 +\+ too large$", first)
    assert re.search(
        r"^binary +- +12 +- +12 +12\.5 MB +0\.5000 +-0\.2000 \[-0\.3000, \+0\.0200\] +0\.900 +\+$", last
    ), rows
    assert "+ recommended" in lines[6]


def test_shown_are_full_precision_one_change_the_front_and_the_recommendation():
    given = report()
    assert [given.settings.index(each) for each in shown(given)] == [0, 1, 3, 4]
    assert [given.settings.index(each) for each in shown(replace(given, recommended=given.settings[2]))] == [
        0,
        1,
        2,
        3,
        4,
    ]


def test_the_verdict_says_what_it_takes_and_loses():
    assert verdict(report()) == (
        "Recommended within 150 MB: dense int8: 104 MB, 4.8 times smaller than full precision, ndcg@10 0.6900 "
        "(-0.0100 [-0.0200, +0.0200]). It is the smallest whose difference to the best that fits is within 0.01, "
        "by its interval."
    )
    assert verdict(report(recommended=None, budget=1000)) == (
        "Nothing fits within 1 kB: 1,000,000 documents take at least 12.5 MB, as dense binary."
    )


def test_without_judgements_the_notes_say_so():
    assert not any("No judgements" in note for note in notes(report()))
    assert any(note.endswith("agreement with full precision.") for note in notes(report(judged=False)))
    assert any("sentences" in note for note in notes(report(judged=False, queries_from="sentences")))
    assert headline(report(documents=100)) == "<표본>: 100 documents, 4 queries; m&m"


def test_the_plot_places_settings_by_size_and_value():
    root = ElementTree.fromstring(plot(report()))
    dots = root.findall(".//circle")
    assert len(dots) == 5
    across = [float(dot.get("cx")) for dot in dots]
    down = [float(dot.get("cy")) for dot in dots]
    assert across == sorted(across, reverse=True)
    assert down[0] < down[1] < down[4]
    assert all(0 <= x <= 860 for x in across)
    assert all(0 <= y <= 420 for y in down)
    line = root.find(".//polyline").get("points").split()
    assert [tuple(map(float, point.split(","))) for point in line] == [(across[at], down[at]) for at in (4, 3, 0)]
    assert "budget 150 MB" in [text.text for text in root.iter("text")]


def test_a_budget_outside_the_plot_and_a_single_setting_are_drawn_too():
    assert "budget" not in plot(report(budget=None))
    assert "budget 1 PB" not in plot(report(budget=10**15))
    one = report(settings=report().settings[:1], recommended=None)
    assert len(ElementTree.fromstring(plot(one)).findall(".//circle")) == 1


def test_the_page_is_whole_escaped_and_needs_nothing_else():
    page = html(report())
    assert "&lt;표본&gt;" in page
    assert "<표본>" not in page
    assert "m&amp;m" in page
    assert not re.search(r"https?://|<script|<link|@import", page)

    class Balanced(HTMLParser):
        def __init__(self):
            super().__init__()
            self.open = []

        def handle_starttag(self, tag, attrs):
            self.open += [] if tag in ("meta", "line", "circle", "polyline") else [tag]

        def handle_endtag(self, tag):
            assert tag in ("line", "circle", "polyline") or self.open.pop() == tag

    parser = Balanced()
    parser.feed(page)
    assert parser.open == []
    assert "nothing fits" in html(report(recommended=None))


@pytest.mark.parametrize(
    ("size", "text"),
    [(0, "0 B"), (999, "999 B"), (1000, "1 kB"), (1_536_000, "1.54 MB"), (2e9, "2 GB"), (3.69e12, "3.69 TB")],
)
def test_sizes_are_in_thousands(size, text):
    assert human(size) == text
