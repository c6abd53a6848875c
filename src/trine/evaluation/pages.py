"""What every page and every table of text is made of, without any outside resource."""

from __future__ import annotations

import html
from collections.abc import Sequence


def page(*, title: str, kicker: str, name: str, head: str, body: str) -> str:
    """A whole HTML page; `head` and `body` are HTML, the rest is text."""
    return _PAGE.format(
        title=escaped(title), style=_STYLE, kicker=escaped(kicker), name=escaped(name), head=head, body=body
    )


def escaped(value: object) -> str:
    """A value as text inside HTML."""
    return html.escape(str(value))


def aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    """Columns padded by the cells that a terminal gives them: the first to the left, the others to the right."""
    from rich.cells import cell_len

    widths = [max(cell_len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = []
    for row in rows:
        first, *rest = (" " * (width - cell_len(cell)) for cell, width in zip(row, widths, strict=True))
        lines.append("  ".join([row[0] + first, *(pad + cell for cell, pad in zip(row[1:], rest, strict=True))]))
    rule = "-" * max(cell_len(line) for line in lines)
    return [line.rstrip() for line in (lines[0], rule, *lines[1:])]


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
<header><p>{kicker}</p><h1>{name}</h1><div class=tiles>{head}</div></header>
{body}
</main>
</body>
</html>
"""
