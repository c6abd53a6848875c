"""The sizes that were measured, for people: a table for the terminal, and one HTML page with a plot."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TypeAlias

from trine.encoding.precision import Precision
from trine.evaluation import plots
from trine.evaluation.pages import aligned, escaped, page
from trine.evaluation.significance import CONFIDENCE
from trine.evaluation.size import METRIC, Setting, SizeReport
from trine.types import MODES

_WIDTH, _HEIGHT = 860, 420
_LEFT, _RIGHT, _TOP, _BOTTOM = 64, 24, 16, 48
_Place: TypeAlias = Callable[[float], float]
_MOST_DECADES = 5
"""Powers of ten from which on only they are labelled."""
_UNITS = ("B", "kB", "MB", "GB", "TB", "PB")


def table(report: SizeReport) -> str:
    """Full precision, each change of one part, and the front of all combinations, as plain text of even columns."""
    modes = [mode for mode in MODES if mode in report.full.nbytes]
    head = [
        *(mode.replace("_vector", "") for mode in modes),
        *(f"{mode.replace('_vector', '')} B" for mode in modes),
        "B/document",
        "total",
        METRIC,
        f"- full [{CONFIDENCE:.0%}]",
        "overlap@10",
        "",
    ]
    rows = [
        [*(setting.precision.part(mode) for mode in modes), *_cells(report, setting), _mark(report, setting)]
        for setting in shown(report)
    ]
    return "\n".join([headline(report), "", *aligned([head, *rows]), "", *notes(report)]) + "\n"


def headline(report: SizeReport) -> str:
    """What was measured on what, in one line."""
    of = "" if report.sampled == report.documents else f"; totals for {report.documents:,}"
    return f"{report.dataset}: {report.sampled:,} documents, {report.queries:,} queries{of}; {report.model}"


def notes(report: SizeReport) -> list[str]:
    """How to read the table, and what it recommends."""
    found = [
        f"+ on the front: no smaller setting has as high a {METRIC}. "
        f"* the {CONFIDENCE:.0%} interval of the difference to full precision leaves 0 out.",
        "Bytes are those of the vectors, their scales, ids and offsets; texts and search structures come on top.",
    ]
    if not report.judged:
        found.append(
            f"No judgements: {METRIC} is agreement with full precision"
            + (", and sentences of the documents stand in for queries." if report.queries_from == "sentences" else ".")
        )
    return [*found, verdict(report)]


def verdict(report: SizeReport) -> str:
    """The recommendation in one sentence."""
    budget = "" if report.budget is None else f" within {human(report.budget)}"
    if report.recommended is None:
        least = min(report.settings, key=lambda each: each.total(report.documents))
        return (
            f"Nothing fits{budget}: {report.documents:,} documents take at least "
            f"{human(least.total(report.documents))}, as {least.precision.name}."
        )
    chosen = report.recommended
    ratio = report.full.per_document / chosen.per_document
    return (
        f"Recommended{budget}: {chosen.precision.name}: {human(chosen.total(report.documents))}, "
        f"{ratio:,.1f} times smaller than full precision, {METRIC} {chosen.value.mean:.4f} "
        f"({chosen.gap.mean:+.4f} [{chosen.gap.low:+.4f}, {chosen.gap.high:+.4f}]). It is the smallest whose "
        f"difference to the best that fits is within {report.loss:g}, by its interval."
    )


def html(report: SizeReport) -> str:
    """One HTML page: the plot, the table and facts, without any outside resource."""
    what = "Judged" if report.judged else "Agreement with full precision"
    sections = [
        f"<h2>{METRIC} by size</h2><p class=lead>{what}. Every dot is a setting; the line joins those that no smaller "
        "one equals; the bar is the interval of the mean of full precision and of the recommended setting.</p>",
        plot(report),
        f"<p class=lead style='margin-top:.6rem'>{escaped(verdict(report))}</p>",
        "<h2>Settings</h2>",
        _html_table(report),
        *(f"<p class=lead>{escaped(note)}</p>" for note in notes(report)[:-1]),
        "<h2>Facts</h2>",
        _facts(report),
    ]
    return page(
        title=f"{report.dataset} · size of embeddings",
        kicker="Size of embeddings",
        name=report.dataset,
        head=_tiles(report),
        body="\n".join(sections),
    )


def plot(report: SizeReport) -> str:
    """Value over bytes per document (logarithmic) of all settings, as SVG."""
    sizes = [each.per_document for each in report.settings]
    low, high = math.log10(max(min(sizes), 1)) - 0.05, math.log10(max(*sizes, 2)) + 0.05
    marked = [each for each in (report.full, report.recommended) if each is not None]
    values = [each.value.mean for each in report.settings]
    values += [end for each in marked for end in (each.value.low, each.value.high)]
    ticks = plots.ticks_of(values)

    def x(size: float) -> float:
        return round(_LEFT + (math.log10(max(size, 1)) - low) / (high - low) * (_WIDTH - _LEFT - _RIGHT), 1)

    def y(value: float) -> float:
        share = (value - ticks[0]) / (ticks[-1] - ticks[0])
        return round(_HEIGHT - _BOTTOM - share * (_HEIGHT - _TOP - _BOTTOM), 1)

    parts = [*_grid(ticks, (low, high), x, y), *_budget(report, (low, high), x)]
    points = " ".join(f"{x(each.per_document)},{y(each.value.mean)}" for each in report.front)
    parts.append(f'<g class="one"><polyline class="bar" fill="none" points="{points}"/></g>')
    for each in report.settings:
        style, full = _style(report, each)
        at = x(each.per_document)
        label = escaped(f"{each.precision.name}: {each.per_document:,.0f} B, {METRIC} {each.value.mean:.4f}")
        bar = ""
        if each in marked:
            bar = f'<line class="bar" x1="{at}" x2="{at}" y1="{y(each.value.low)}" y2="{y(each.value.high)}"/>'
        radius = 7 if each is report.recommended else 4
        parts.append(
            f'<g class="{style}"><title>{label}</title>{bar}'
            f'<circle class="dot{full}" cx="{at}" cy="{y(each.value.mean)}" r="{radius}"/></g>'
        )
    title = f"{METRIC} by bytes per document"
    return (
        f'<figure><svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="{title}">{"".join(parts)}</svg></figure>'
    )


def shown(report: SizeReport) -> list[Setting]:
    """Settings for people: full precision, one part changed, the front and what is recommended, by falling size."""
    front = {each.precision for each in report.front}
    chosen = report.recommended
    return [
        each
        for each in report.settings
        if each is report.full or each is chosen or each.precision in front or _changes(report, each) == 1
    ]


def human(size: float) -> str:
    """Bytes in thousands: "1.5 GB"."""
    power = min(int(math.log10(max(size, 1)) // 3), len(_UNITS) - 1)
    return f"{size:,.0f} B" if not power else f"{size / 1000**power:,.3g} {_UNITS[power]}"


def _changes(report: SizeReport, setting: Setting) -> int:
    """Parts that differ from full precision; one left out counts as many, for it is no precision of that part."""
    kept = report.full.precision.modes
    if setting.precision.modes != kept:
        return len(kept) + 1
    full: Precision = report.full.precision
    return sum(setting.precision.part(mode) != full.part(mode) for mode in kept)


def _cells(report: SizeReport, setting: Setting) -> list[str]:
    modes = [mode for mode in MODES if mode in report.full.nbytes]
    sizes = [f"{setting.nbytes[mode]:,.0f}" if mode in setting.nbytes else "-" for mode in modes]
    gap = setting.gap
    star = "*" if gap.significant else " "
    shift = "" if setting is report.full else f"{gap.mean:+.4f} [{gap.low:+.4f}, {gap.high:+.4f}]{star}"
    return [
        *sizes,
        f"{setting.per_document:,.0f}",
        human(setting.total(report.documents)),
        f"{setting.value.mean:.4f}",
        shift,
        f"{setting.overlap:.3f}",
    ]


def _mark(report: SizeReport, setting: Setting) -> str:
    marks = ["+"] if setting.precision in {each.precision for each in report.front} else []
    if setting is report.recommended:
        marks.append("recommended")
    if report.budget is not None and setting.total(report.documents) > report.budget:
        marks.append("too large")
    return " ".join(marks)


def _style(report: SizeReport, setting: Setting) -> tuple[str, str]:
    if setting is report.recommended:
        return "plus", " full"
    if setting is report.full:
        return "mix", " full"
    if setting.precision in {each.precision for each in report.front}:
        return "one", " full"
    return "lex", ""


def _grid(ticks: Sequence[float], span: tuple[float, float], x: _Place, y: _Place) -> list[str]:
    parts = []
    digits = plots.digits_of(ticks[1] - ticks[0])
    for tick in ticks:
        parts.append(f'<line class="grid" x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{y(tick)}" y2="{y(tick)}"/>')
        parts.append(f'<text class="soft" x="{_LEFT - 8}" y="{y(tick) + 4}" text-anchor="end">{tick:.{digits}f}</text>')
    foot = _HEIGHT - _BOTTOM
    factors = (1, 2, 5) if span[1] - span[0] < _MOST_DECADES else (1,)
    sizes = [factor * 10.0**power for power in range(math.floor(span[0]), math.ceil(span[1]) + 1) for factor in factors]
    for size in sizes:
        if span[0] <= math.log10(size) <= span[1]:
            at = x(size)
            parts.append(f'<line class="grid" x1="{at}" x2="{at}" y1="{_TOP}" y2="{foot}"/>')
            parts.append(f'<text class="soft" x="{at}" y="{foot + 18}" text-anchor="middle">{human(size)}</text>')
    middle = (_LEFT + _WIDTH - _RIGHT) / 2
    parts.append(f'<text class="soft" x="{middle}" y="{_HEIGHT - 6}" text-anchor="middle">bytes per document</text>')
    return parts


def _budget(report: SizeReport, span: tuple[float, float], x: _Place) -> list[str]:
    """A line where the budget ends, if it does within the plot."""
    each = (report.budget or 0) / report.documents
    if each < 1 or not span[0] <= math.log10(each) <= span[1]:
        return []
    at = x(each)
    return [
        f'<line class="zero" x1="{at}" x2="{at}" y1="{_TOP}" y2="{_HEIGHT - _BOTTOM}"/>',
        f'<text class="soft" x="{at - 5}" y="{_TOP + 12}" text-anchor="end">budget {human(report.budget or 0)}</text>',
    ]


def _tiles(report: SizeReport) -> str:
    chosen = report.recommended
    tiles = [
        ("documents", f"{report.documents:,}"),
        ("full precision", human(report.full.total(report.documents))),
        ("recommended", "nothing fits" if chosen is None else human(chosen.total(report.documents))),
        (f"its {METRIC}", "-" if chosen is None else f"{chosen.value.mean:.4f}"),
    ]
    cells = ((escaped(value), escaped(name)) for name, value in tiles)
    return "".join(f"<div class=tile><b>{value}</b><span>{name}</span></div>" for value, name in cells)


def _html_table(report: SizeReport) -> str:
    modes = [mode for mode in MODES if mode in report.full.nbytes]
    names = [*(f"{mode} B" for mode in modes), "B/document", "total", METRIC, "- full", "overlap@10"]
    head = "".join(f"<th>{escaped(name)}</th>" for name in ("setting", *names, ""))
    rows = []
    for setting in shown(report):
        cells = "".join(f"<td>{escaped(cell)}</td>" for cell in (*_cells(report, setting), _mark(report, setting)))
        rows.append(f"<tr><th scope=row>{escaped(setting.precision.name)}</th>{cells}</tr>")
    return f"<div class=wide><table><thead><tr>{head}</tr></thead><tbody>{''.join(rows)}</tbody></table></div>"


def _facts(report: SizeReport) -> str:
    facts: list[tuple[str, object]] = [
        ("data set", report.dataset),
        ("model", report.model),
        ("measured on", f"{report.sampled:,} documents, {report.queries:,} queries ({report.queries_from})"),
        ("settings measured", len(report.settings)),
        ("loss allowed", report.loss),
        *report.machine.items(),
        *((f"seconds: {name}", f"{value:,.1f}") for name, value in report.seconds.items()),
    ]
    rows = "".join(f"<div><dt>{escaped(name)}</dt><dd>{escaped(value)}</dd></div>" for name, value in facts)
    return f"<dl>{rows}</dl>"
