from itertools import pairwise
from xml.etree import ElementTree

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trine.evaluation import plots
from trine.evaluation.significance import Difference


@given(st.lists(st.floats(-1, 1), min_size=1, max_size=20))
@settings(max_examples=100, deadline=None, derandomize=True)
def test_ticks_are_even_round_and_span_the_values(values):
    ticks = plots.ticks_of(values)
    assert 2 <= len(ticks) <= 9
    assert ticks[0] <= min(values) + 1e-12
    assert ticks[-1] >= max(values) - 1e-12
    steps = [after - before for before, after in pairwise(ticks)]
    assert steps == pytest.approx([steps[0]] * len(steps))
    digits = plots.digits_of(steps[0])
    assert [float(f"{tick:.{digits}f}") for tick in ticks] == pytest.approx(ticks, abs=1e-9)


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([0.61, 0.74], [0.6, 0.65, 0.7, 0.75]),
        ([-0.031, 0.052], [-0.04, -0.02, 0.0, 0.02, 0.04, 0.06]),
        ([0.5, 0.5], [0.49, 0.495, 0.5, 0.505, 0.51]),
    ],
)
def test_ticks_by_hand(values, expected):
    assert plots.ticks_of(values)[: len(expected)] == pytest.approx(expected, abs=1e-9)


def test_dots_lie_where_the_axis_says(plain):
    svg = ElementTree.fromstring(plots.means(plain).removeprefix("<figure>").removesuffix("</figure>"))
    axis = [(float(text.text), float(text.get("x"))) for text in svg.findall("text")]
    (low, left), (high, right) = axis[0], axis[-1]
    for group, result in zip(svg.iter("g"), plain.results, strict=True):
        place = left + (result.metrics["ndcg@10"].mean - low) / (high - low) * (right - left)
        assert float(group.find("circle").get("cx")) == pytest.approx(place, abs=0.1)


def test_every_row_is_inside_the_drawing(sample):
    report = sample(names=["한국어로 된 아주 긴 이름의 시스템 " * 3, "bm25", "a & <b>"])
    svg = ElementTree.fromstring(plots.means(report).removeprefix("<figure>").removesuffix("</figure>"))
    width, height = map(float, svg.get("viewBox").split()[2:])
    for circle in svg.iter("circle"):
        assert 0 < float(circle.get("cx")) < width
        assert 0 < float(circle.get("cy")) < height
    assert [text for group in svg.iter("g") if (text := group.findall("text")[0].text).startswith("a &")] == ["a & <b>"]


def test_differences_are_coloured_by_what_the_interval_says(plain):
    gaps = [
        ("up", Difference(0.2, 0.1, 0.3, 1.0)),
        ("down", Difference(-0.2, -0.3, -0.1, 0.0)),
        ("level", Difference(0.01, -0.1, 0.1, 0.6)),
    ]
    svg = ElementTree.fromstring(plots.differences(plain, gaps).removeprefix("<figure>").removesuffix("</figure>"))
    groups = list(svg.iter("g"))
    assert [group.get("class") for group in groups] == ["plus", "minus", "level"]
    assert [group.find("circle").get("class") for group in groups] == ["dot full", "dot full", "dot"]
    zero = [line for line in svg.iter("line") if line.get("class") == "zero"]
    assert len(zero) == 1
    places = [float(group.find("circle").get("cx")) for group in groups]
    assert places[1] < float(zero[0].get("x1")) < places[2] < places[0]
