"""The report's plots as SVG: one row per system, a dot at the mean and a bar over its interval.

Colours and fonts come from the page's style sheet, so that one drawing serves light and dark.
"""

from __future__ import annotations

import html
import math
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass

from trine.evaluation.results import Report, Result
from trine.evaluation.significance import Difference

_WIDTH = 860
_ROW = 30
_TOP = 8
_FOOT = 30
_VALUE = 80
"""Room on the right for the number."""
_TICKS = 6
_LEAST_SPAN = 0.02
"""Values closer than this are drawn in the middle, not blown up to the width of the plot."""


@dataclass(frozen=True, slots=True)
class _Mark:
    """One row of a plot."""

    label: str
    mean: float
    low: float
    high: float
    shown: str
    style: str
    """Class of the row: its colour."""
    full: bool = False
    """Whether the dot is filled and the label bold."""


def means(report: Report) -> str:
    """The first metric of every system with its interval."""
    marks = []
    for result in report.results:
        value, name = result.metrics[report.metrics[0]], result.system.name
        best = name == report.best
        marks.append(_Mark(name, value.mean, value.low, value.high, f"{value.mean:.4f}", _kind(result), best))
    return _figure(marks, title=f"{report.metrics[0]} per system", zero=False)


def differences(report: Report, gaps: Sequence[tuple[str, Difference]]) -> str:
    """Differences to the baseline, coloured where the interval leaves 0 out."""
    marks = []
    for name, gap in gaps:
        style = "level" if not gap.significant else ("plus" if gap.mean > 0 else "minus")
        marks.append(_Mark(name, gap.mean, gap.low, gap.high, f"{gap.mean:+.4f}", style, gap.significant))
    return _figure(marks, title=f"{report.metrics[0]} minus {report.baseline}", zero=True)


def _kind(result: Result) -> str:
    if result.system.retrievers == ("bm25",):
        return "lex"
    return "one" if len(result.system.retrievers) == 1 else "mix"


def _figure(marks: Sequence[_Mark], *, title: str, zero: bool) -> str:
    left = min(max(_text_width(mark.label) for mark in marks) + 24, _WIDTH * 0.45)
    right = _WIDTH - _VALUE
    height = _TOP + _ROW * len(marks) + _FOOT
    ticks = ticks_of([value for mark in marks for value in (mark.low, mark.high)] + ([0.0] if zero else []))
    scale = (right - left) / (ticks[-1] - ticks[0])

    def across(value: float) -> float:
        return round(left + (value - ticks[0]) * scale, 1)

    bottom, digits = _TOP + _ROW * len(marks), digits_of(ticks[1] - ticks[0])
    parts = []
    for tick in ticks:
        x, style = across(tick), "zero" if zero and tick == 0 else "grid"
        parts.append(f'<line class="{style}" x1="{x}" x2="{x}" y1="{_TOP}" y2="{bottom}"/>')
        label = f"{tick:+.{digits}f}" if zero and tick else f"{tick:.{digits}f}"
        parts.append(f'<text class="soft" x="{x}" y="{bottom + 18}" text-anchor="middle">{label}</text>')
    for number, mark in enumerate(marks):
        y = _TOP + _ROW * number + _ROW / 2
        full, bold = (" full", ' class="top"') if mark.full else ("", "")
        name = html.escape(mark.label)
        parts.append(
            f'<g class="{mark.style}"><title>{name}: {mark.mean:.4f} [{mark.low:.4f}, {mark.high:.4f}]</title>'
            f'<text{bold} x="{left - 12}" y="{y + 4.5}" text-anchor="end">{name}</text>'
            f'<line class="bar" x1="{across(mark.low)}" x2="{across(mark.high)}" y1="{y}" y2="{y}"/>'
            f'<circle class="dot{full}" cx="{across(mark.mean)}" cy="{y}" r="5"/>'
            f'<text{bold} x="{_WIDTH - 4}" y="{y + 4.5}" text-anchor="end">{mark.shown}</text></g>'
        )
    return (
        f'<figure><svg viewBox="0 0 {_WIDTH} {height}" role="img" aria-label="{html.escape(title)}">'
        f"{''.join(parts)}</svg></figure>"
    )


def ticks_of(values: Sequence[float]) -> list[float]:
    """Round numbers that span the values, about `_TICKS` of them."""
    low, high = min(values), max(values)
    if high - low < _LEAST_SPAN:
        low, high = low - _LEAST_SPAN / 2, high + _LEAST_SPAN / 2
    span = high - low
    power = 10.0 ** math.floor(math.log10(span / _TICKS))
    step = next(power * factor for factor in (1, 2, 5, 10) if power * factor * _TICKS >= span)
    first, last = math.floor(low / step), math.ceil(high / step)
    return [number * step for number in range(first, max(last, first + 1) + 1)]


def digits_of(step: float) -> int:
    return max(0, -math.floor(math.log10(step) + 1e-9))


def _text_width(text: str) -> float:
    """Rough width in pixels at the plot's font size; an East Asian character is as wide as it is high."""
    return sum(13.0 if unicodedata.east_asian_width(letter) in "WF" else 7.4 for letter in text)
