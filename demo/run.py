"""The main job on real text: index a bilingual folder, ask it six questions, measure the answers.

Run it with `make demo`. Each step shows the command that does the same from a shell.
"""

from __future__ import annotations

import argparse
import json
import shutil
import time
from dataclasses import replace
from pathlib import Path

from rich.console import Console

HERE = Path(__file__).parent
OUT = HERE / "out"
console = Console(highlight=False, soft_wrap=True)


def step(title: str, command: str) -> None:
    console.rule(f"[bold]{title}", align="left")
    console.print(f"[dim]$ {command}[/dim]\n")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", help="a folder or hub id; the default is the model of the extra 'demo'")
    model = parser.parse_args().model

    from trine import Collection, Encoder
    from trine.cli.encoders import silence_libraries
    from trine.evaluation.beir import read_beir
    from trine.evaluation.evaluate import evaluate_collection
    from trine.evaluation.report import html, table

    silence_libraries()
    encoder = Encoder.load(model)
    path = OUT / "demo.trine"
    shutil.rmtree(path, ignore_errors=True)

    step("Index a folder of English and Korean documents", f"trine index {HERE / 'documents'} --to {path}")
    start = time.perf_counter()
    with Collection.create(path, encoder=encoder) as collection:
        report = collection.add_files([HERE / "documents"])
        console.print(f"{report.added} documents, {report.passages} passages in {time.perf_counter() - start:.0f} s")
        for skipped in report.skipped:
            console.print(f"[yellow]skipped {skipped.path}: {skipped.reason}[/yellow]")
        note(encoder.config.untrained)

        for question in json.loads((HERE / "questions.json").read_text(encoding="utf-8")):
            step("Ask", f'trine search {path} "{question}"')
            for hit in collection.search(question, k=3):
                place = f"{hit.passage.document_id}:{hit.passage.line}"
                scores = "  ".join(f"{name} {value:.3f}" for name, value in hit.scores.items())
                console.print(f"[bold]{hit.rank}. {place}[/bold]  {hit.passage.title}\n   [dim]{scores}[/dim]")
                console.print(f"   {' '.join(hit.passage.text.split())[:160]}\n", markup=False)

        step("Measure it on judged queries", f"trine evaluate {HERE} --collection {path}")
        everything = read_beir(HERE, corpus=False)
        rows = map(json.loads, (HERE / "queries.jsonl").read_text(encoding="utf-8").splitlines())
        languages = {row["_id"]: row["lang"] for row in rows}
        for language, name in (("ko", "Korean"), ("en", "English")):
            qrels = {query: grades for query, grades in everything.qrels.items() if languages[query] == language}
            queries = [query for query in everything.queries if query.id in qrels]
            measured = evaluate_collection(
                collection, replace(everything, name=f"demo, {name} queries", queries=queries, qrels=qrels)
            )
            console.print(table(measured), markup=False)
            (OUT / f"report-{language}.html").write_text(html(measured), encoding="utf-8")
    console.print(f"With plots: {OUT / 'report-ko.html'}, {OUT / 'report-en.html'}")
    note(encoder.config.untrained)


def note(untrained: tuple[str, ...]) -> None:
    if untrained:
        console.print(
            f"[yellow]Note: of this model only the dense part is trained, on English. Its {' and '.join(untrained)} "
            "parts are corpus statistics and plain token states.[/yellow]"
        )


if __name__ == "__main__":
    main()
