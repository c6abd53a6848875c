"""A report for people: a table for the terminal, and one HTML page that needs nothing but itself."""

from __future__ import annotations

import html as markup
from collections.abc import Iterable, Sequence

from trine.evaluation import plots
from trine.evaluation.results import Report, Result
from trine.evaluation.significance import CONFIDENCE, Difference

_FEW = 20
"""Queries under which intervals are too narrow: in 3,000 trials on normal values, of the 95% intervals 83% held the
true mean with 5 queries, 89% with 10, 92% with 20, 94% with 50."""


def table(report: Report) -> str:
    """The report as plain text of even columns, also where names are Korean.

    A star marks a difference to the baseline whose interval leaves 0 out; it is printed as plain ASCII, for any
    terminal.
    """
    main = report.metrics[0]
    head = ["system", main, f"{CONFIDENCE:.0%} interval", *report.metrics[1:], f"{main} - {report.baseline}"]
    rows = [_row(report, result) for result in report.results]
    lines = [*_aligned([head, *rows]), "", *_notes(report), *warnings(report)]
    return "\n".join([headline(report), "", *lines]) + "\n"


def headline(report: Report) -> str:
    """Data set, sizes and model in one line."""
    counts = report.counts
    cut = "" if counts.passages == counts.documents else f" in {counts.passages:,} passages"
    sizes = f"{counts.documents:,} documents{cut}, {counts.judged:,} judged queries"
    return f"{report.dataset}: {sizes}" + (f"; {report.model}" if report.model else "")


def warnings(report: Report) -> list[str]:
    """What makes the numbers less than they seem, one sentence each."""
    counts, found = report.counts, []
    if counts.judged < _FEW:
        found.append(f"{_plural(counts.judged, 'query is', 'queries are')} too few for the intervals to mean much.")
    if counts.missing_queries:
        found.append(
            f"{_plural(counts.missing_queries, 'judged query has', 'judged queries have')} no text in the data and "
            "count as 0 in every mean."
        )
    if counts.missing_documents:
        found.append(
            f"{_plural(counts.missing_documents, 'judged document is', 'judged documents are')} not in the corpus; "
            "nothing can find them, yet they count as relevant."
        )
    return found


def html(report: Report) -> str:
    """The report as one HTML page: plots, table and facts, without any outside resource."""
    main = report.metrics[0]
    others = [result for result in report.results if result.system.name != report.baseline]
    gaps = [(result, gap) for result in others if (gap := report.compare(result.system.name, report.baseline))]
    sections = [
        f"<h2>{_text(main)} per system</h2>"
        f"<p class=lead>Mean over {report.counts.judged:,} judged queries. "
        f"The bar is the {CONFIDENCE:.0%} interval of the mean; the filled dot is the best mean.</p>",
        plots.means(report),
    ]
    if gaps:
        sections += [
            f"<h2>Difference to {_text(report.baseline)}</h2>"
            f"<p class=lead>{_text(main)} of each system minus that of {_text(report.baseline)}, query by query, with "
            "the interval of the mean difference. Where it crosses 0, these queries do not tell the two apart.</p>",
            plots.differences(report, [(result.system.name, gap) for result, gap in gaps]),
        ]
    sections += ["<h2>All metrics</h2>", _html_table(report), _legend(report), "<h2>Facts</h2>", _facts(report)]
    alerts = "".join(f"<p class=alert>{_text(sentence)}</p>" for sentence in warnings(report))
    return _PAGE.format(
        title=_text(f"{report.dataset} · retrieval evaluation"),
        style=_STYLE,
        name=_text(report.dataset),
        head=_tiles(report),
        body=alerts + "\n".join(sections),
    )


def _row(report: Report, result: Result) -> list[str]:
    name, main = result.system.name, report.metrics[0]
    value = result.metrics[main]
    cells = [name, f"{value.mean:.4f}", f"[{value.low:.4f}, {value.high:.4f}]"]
    cells += [f"{result.metrics[metric].mean:.4f}" for metric in report.metrics[1:]]
    return [*cells, _signed(report.compare(name, report.baseline))]


def _signed(gap: Difference | None) -> str:
    if gap is None:
        return ""
    return f"{gap.mean:+.4f} [{gap.low:+.4f}, {gap.high:+.4f}]{'*' if gap.significant else ' '}"


def _aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    """Columns padded by the cells that a terminal gives them: the first to the left, the others to the right."""
    from rich.cells import cell_len

    widths = [max(cell_len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = []
    for row in rows:
        first, *rest = (" " * (width - cell_len(cell)) for cell, width in zip(row, widths, strict=True))
        lines.append("  ".join([row[0] + first, *(pad + cell for cell, pad in zip(row[1:], rest, strict=True))]))
    rule = "-" * max(cell_len(line) for line in lines)
    return [line.rstrip() for line in (lines[0], rule, *lines[1:])]


def _notes(report: Report) -> Iterable[str]:
    yield f"* the {CONFIDENCE:.0%} interval of the paired difference to {report.baseline} leaves 0 out"
    yield _verdict(report)


def _verdict(report: Report) -> str:
    level = ", ".join(_level_with_best(report))
    return f"Best {report.metrics[0]}: {report.best}" + (f"; not told apart from it: {level}" if level else "")


def _level_with_best(report: Report) -> list[str]:
    gaps = {result.system.name: report.compare(result.system.name, report.best) for result in report.results}
    return [name for name, gap in gaps.items() if gap is not None and not gap.significant]


def _plural(count: int, one: str, many: str) -> str:
    return f"{count:,} {one if count == 1 else many}"


def _text(value: object) -> str:
    return markup.escape(str(value))


def _tiles(report: Report) -> str:
    counts = report.counts
    best = report.result(report.best).metrics[report.metrics[0]]
    tiles = [("documents", f"{counts.documents:,}")]
    if counts.passages != counts.documents:
        tiles.append(("passages", f"{counts.passages:,}"))
    tiles += [
        ("judged queries", f"{counts.judged:,}"),
        (f"best {report.metrics[0]}", f"{best.mean:.4f}"),
        ("reached by", report.best),
    ]
    return "".join(f"<div class=tile><b>{_text(value)}</b><span>{_text(name)}</span></div>" for name, value in tiles)


def _html_table(report: Report) -> str:
    tops = {metric: max(result.metrics[metric].mean for result in report.results) for metric in report.metrics}
    head = "".join(f"<th>{_text(metric)}</th>" for metric in report.metrics)
    rows = []
    for result in report.results:
        cells = []
        for metric in report.metrics:
            value, gap = result.metrics[metric], report.compare(result.system.name, report.baseline, metric=metric)
            mark = "" if gap is None or not gap.significant else ("up" if gap.mean > 0 else "down")
            shown = f"{value.mean:.4f}"
            cells.append(
                f"<td class='{mark}'>{f'<b>{shown}</b>' if value.mean == tops[metric] else shown}"
                f"<small>{value.low:.3f} – {value.high:.3f}</small></td>"
            )
        rows.append(f"<tr><th scope=row>{_text(result.system.name)}</th>{''.join(cells)}</tr>")
    body = f"<thead><tr><th>system</th>{head}</tr></thead><tbody>{''.join(rows)}</tbody>"
    return f"<div class=wide><table>{body}</table></div>"


def _legend(report: Report) -> str:
    return (
        "<p class=lead>Bold: the highest mean. <span class=up></span> and <span class=down></span> mark a mean that is "
        f"above or below that of {_text(report.baseline)} with an interval that leaves 0 out. "
        f"{_text(_verdict(report))}. Comparisons are not corrected for one another.</p>"
    )


def _facts(report: Report) -> str:
    counts = report.counts
    facts: list[tuple[str, object]] = [("data set", report.dataset), ("queries", f"{counts.queries:,}")]
    facts += [("model", report.model)] if report.model else []
    facts += [(name.replace("_", " "), value) for name, value in report.settings.items() if value is not None]
    facts += [*report.machine.items()]
    facts += [(f"seconds: {name}", f"{value:,.1f}") for name, value in report.seconds.items()]
    rows = "".join(f"<div><dt>{_text(name)}</dt><dd>{_text(value)}</dd></div>" for name, value in facts)
    return f"<dl>{rows}</dl>"


_STYLE = """
:root { color-scheme: light dark;
  --back: #fbfaf8; --card: #ffffff; --ink: #1f2328; --soft: #667078; --line: #e3e0da; --grid: #ece9e3;
  --one: #2f6f8f; --mix: #7a4fa3; --lex: #8a8378; --up: #24764a; --down: #b0413e; --alert: #fff4d6; }
@media (prefers-color-scheme: dark) { :root {
  --back: #15171a; --card: #1c1f23; --ink: #e6e4df; --soft: #9aa3ab; --line: #30353b; --grid: #282c32;
  --one: #6bb3d6; --mix: #b894e0; --lex: #a59d90; --up: #62c08a; --down: #ec8a85; --alert: #3a3218; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--back); color: var(--ink); font: 15px/1.55 system-ui, -apple-system, "Segoe UI",
  Roboto, "Apple SD Gothic Neo", "Malgun Gothic", "Noto Sans KR", "Noto Sans CJK KR", sans-serif; }
main { max-width: 60rem; margin: 0 auto; padding: 2.5rem 1.25rem 4rem; }
header p { margin: 0; color: var(--soft); }
h1 { margin: 0 0 1.25rem; font-size: 1.9rem; line-height: 1.2; overflow-wrap: anywhere; }
h2 { margin: 2.5rem 0 .25rem; font-size: 1.15rem; }
.lead { margin: 0 0 .9rem; color: var(--soft); max-width: 46rem; }
.tiles { display: grid; grid-template-columns: repeat(auto-fit, minmax(9.5rem, 1fr)); gap: .75rem; }
.tile, figure, .wide, dl { background: var(--card); border: 1px solid var(--line); border-radius: 10px; }
.tile { padding: .8rem 1rem; } .tile b { display: block; font-size: 1.15rem; overflow-wrap: anywhere; }
.tile span { color: var(--soft); font-size: .85rem; }
.alert { background: var(--alert); border-radius: 8px; padding: .6rem .9rem; margin: 1rem 0 0; }
figure { margin: 0; padding: .75rem .75rem .25rem; overflow-x: auto; }
svg { display: block; width: 100%; min-width: 34rem; height: auto; font: inherit; }
svg text { fill: var(--ink); font-size: 13px; } svg .soft { fill: var(--soft); font-size: 12px; }
svg .grid { stroke: var(--grid); } svg .zero { stroke: var(--soft); stroke-dasharray: 3 3; }
svg .top { font-weight: 650; }
.one { --hue: var(--one); } .mix { --hue: var(--mix); } .lex { --hue: var(--lex); }
.plus { --hue: var(--up); } .minus { --hue: var(--down); } .level { --hue: var(--lex); }
svg .bar { stroke: var(--hue); stroke-width: 2; stroke-linecap: round; }
svg .dot { stroke: var(--hue); stroke-width: 2; fill: var(--card); } svg .full { fill: var(--hue); }
.wide { overflow-x: auto; } table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }
th, td { padding: .5rem .9rem; text-align: right; border-bottom: 1px solid var(--line); white-space: nowrap; }
tr > :first-child { text-align: left; } tbody tr:last-child > * { border-bottom: 0; }
thead th { color: var(--soft); font-weight: 500; } tbody th { font-weight: 500; }
td small { display: block; color: var(--soft); }
.up::before { content: "▲ "; color: var(--up); font-size: .75em; }
.down::before { content: "▼ "; color: var(--down); font-size: .75em; }
.wide + .lead { margin-top: .6rem; }
dl { display: grid; grid-template-columns: repeat(auto-fit, minmax(15rem, 1fr)); gap: .1rem 1.5rem; margin: .6rem 0 0;
  padding: .8rem 1rem; }
dl div { padding: .2rem 0; min-width: 0; } dt { color: var(--soft); font-size: .8rem; }
dd { margin: 0; overflow-wrap: anywhere; }
@media print { body { background: none; } figure, .wide, dl, .tile { break-inside: avoid; } }
"""

_PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<style>{style}</style>
</head>
<body>
<main>
<header><p>Retrieval evaluation</p><h1>{name}</h1><div class=tiles>{head}</div></header>
{body}
</main>
</body>
</html>
"""
