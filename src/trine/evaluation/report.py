"""A report for people: a table for the terminal, and one HTML page that needs nothing but itself."""

from __future__ import annotations

from collections.abc import Iterable

from trine.evaluation import plots
from trine.evaluation.pages import aligned, escaped, page
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
    lines = [*aligned([head, *rows]), "", *_notes(report), *warnings(report)]
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
        f"<h2>{escaped(main)} per system</h2>"
        f"<p class=lead>Mean over {report.counts.judged:,} judged queries. "
        f"The bar is the {CONFIDENCE:.0%} interval of the mean; the filled dot is the best mean.</p>",
        plots.means(report),
    ]
    if gaps:
        sections += [
            f"<h2>Difference to {escaped(report.baseline)}</h2>"
            f"<p class=lead>{escaped(main)} of each system minus that of {escaped(report.baseline)}, query by query, "
            "with the interval of the mean. Where it crosses 0, these queries do not tell the two apart.</p>",
            plots.differences(report, [(result.system.name, gap) for result, gap in gaps]),
        ]
    sections += ["<h2>All metrics</h2>", _html_table(report), _legend(report), "<h2>Facts</h2>", _facts(report)]
    alerts = "".join(f"<p class=alert>{escaped(sentence)}</p>" for sentence in warnings(report))
    return page(
        title=f"{report.dataset} · retrieval evaluation",
        kicker="Retrieval evaluation",
        name=report.dataset,
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
    return "".join(
        f"<div class=tile><b>{escaped(value)}</b><span>{escaped(name)}</span></div>" for name, value in tiles
    )


def _html_table(report: Report) -> str:
    tops = {metric: max(result.metrics[metric].mean for result in report.results) for metric in report.metrics}
    head = "".join(f"<th>{escaped(metric)}</th>" for metric in report.metrics)
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
        rows.append(f"<tr><th scope=row>{escaped(result.system.name)}</th>{''.join(cells)}</tr>")
    body = f"<thead><tr><th>system</th>{head}</tr></thead><tbody>{''.join(rows)}</tbody>"
    return f"<div class=wide><table>{body}</table></div>"


def _legend(report: Report) -> str:
    return (
        "<p class=lead>Bold: the highest mean. <span class=up></span> and <span class=down></span> mark a mean that is "
        f"above or below that of {escaped(report.baseline)} with an interval that leaves 0 out. "
        f"{escaped(_verdict(report))}. Comparisons are not corrected for one another.</p>"
    )


def _facts(report: Report) -> str:
    counts = report.counts
    facts: list[tuple[str, object]] = [("data set", report.dataset), ("queries", f"{counts.queries:,}")]
    facts += [("model", report.model)] if report.model else []
    facts += [(name.replace("_", " "), value) for name, value in report.settings.items() if value is not None]
    facts += [*report.machine.items()]
    facts += [(f"seconds: {name}", f"{value:,.1f}") for name, value in report.seconds.items()]
    rows = "".join(f"<div><dt>{escaped(name)}</dt><dd>{escaped(value)}</dd></div>" for name, value in facts)
    return f"<dl>{rows}</dl>"
