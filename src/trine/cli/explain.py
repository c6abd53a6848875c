"""`trine explain`: why a text scores as it does."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from trine.cli.choices import parsed_weights
from trine.cli.encoders import load_encoder, model_name, uncovered_sentence, untrained_modes, untrained_sentence
from trine.cli.exits import NotFound
from trine.cli.opening import searchable
from trine.cli.options import Device, DType, Html, Json, Model, Quiet, Weights
from trine.cli.output import Output
from trine.cli.search import Request, collection_and_query
from trine.cli.texts import read_all
from trine.errors import UsageError

if TYPE_CHECKING:
    from trine.search.explain import Explanation, Span
    from trine.types import TextEncoder


def explain(  # noqa: PLR0913 -- a command's parameters are its options
    words: Annotated[
        list[str],
        typer.Argument(
            metavar="QUERY TEXT | [COLLECTION] QUERY --rank N",
            help="A query and a text ('-' for standard input); or, with --rank, what `trine search` takes.",
        ),
    ],
    rank: Annotated[
        int | None,
        typer.Option(
            metavar="N", min=1, show_default=False, help="Explain the passage that a search puts at this rank."
        ),
    ] = None,
    weights: Weights = None,
    tokens: Annotated[bool, typer.Option("--tokens", help="Show the model's tokens instead of whole words.")] = False,
    html: Html = None,
    model: Model = None,
    device: Device = "auto",
    dtype: DType = "auto",
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Show which word of a text answers which word of the query (MaxSim), and what every shared term contributes.

    trine explain 'what holds containers?' 'A pod holds one or more containers.'

    trine explain 'what holds containers?' --rank 1 --html why.html
    """
    output = Output(json=json, quiet=quiet)
    facts: dict[str, Any]
    if rank is None:
        if len(words) != 2:
            raise UsageError(
                f"a QUERY and a TEXT are wanted, got {len(words)} arguments; for a hit of a search add --rank 1"
            )
        query, text, facts = words[0], read_all(words[1]), {}
        encoder: TextEncoder = load_encoder(model, device=device, dtype=dtype)
    else:
        path, query = collection_and_query(words)
        encoder, text, facts = _hit(path, query, rank, model=model, device=device, dtype=dtype)
    from trine.search.explain import explain as explain_pair

    explanation = explain_pair(encoder, query, text, weights=parsed_weights(weights) or "m3")  # type: ignore[arg-type]
    untrained = untrained_modes(encoder)
    facts |= {"model": model_name(encoder)}
    warnings = [] if encoder.covers(query) else [uncovered_sentence(model_name(encoder))]
    warnings += [untrained_sentence(model_name(encoder), untrained)] if untrained else []
    if html is not None:
        from trine.search.page import explanation_page

        shown = {name: fact for name, fact in facts.items() if name not in ("document", "line")}
        if "document" in facts:
            shown = {"source": f"{facts['document']}:{facts['line']}", **shown}
        output.page(html, explanation_page(explanation, facts=shown, notes=warnings))
    if output.json:
        output.document({**facts, "untrained": list(untrained), **as_dict(explanation)})
    else:
        from trine.cli.show_explanation import print_explanation

        print_explanation(explanation, facts, tokens=tokens)
    for warning in warnings:
        output.warn(warning)


def as_dict(explanation: Explanation) -> dict[str, Any]:
    """For JSON: every token and every term, and both gathered into words."""
    from trine.search.explain import word_contributions

    query, text, alignment, terms = explanation.query, explanation.text, explanation.alignment, explanation.terms
    return {
        "query": query,
        "text": text,
        "scores": dict(explanation.scores),
        "weights": dict(explanation.weights),
        "weighted": explanation.fused,
        "alignment": None
        if alignment is None
        else {
            "score": alignment.score,
            "tokens": [
                {
                    "query": _piece(query, token.query),
                    "passage": _piece(text, token.passage),
                    "similarity": token.similarity,
                    "share": token.share,
                }
                for token in alignment.tokens
            ],
            "words": [
                {
                    "query": _piece(query, word.query),
                    "passages": [{**(_piece(text, span) or {}), "share": share} for span, share in word.passages],
                    "similarity": word.similarity,
                    "share": word.share,
                }
                for word in alignment.words()
            ],
        },
        "terms": None
        if terms is None
        else [
            {
                "term": match.term,
                "query_weight": match.query_weight,
                "passage_weight": match.passage_weight,
                "contribution": match.contribution,
                "query_spans": [list(span) for span in match.query_spans],
                "passage_spans": [list(span) for span in match.passage_spans],
            }
            for match in terms
        ],
        "term_words": None
        if terms is None
        else [
            {"word": word.word, "contribution": word.contribution, "terms": list(word.terms)}
            for word in word_contributions(terms, query)
        ],
    }


def _hit(
    path: Path, query: str, rank: int, *, model: str | None, device: str, dtype: str
) -> tuple[TextEncoder, str, dict[str, Any]]:
    """The model, the passage at that rank as it is embedded, and where it comes from."""
    request = Request.of(modes=None, fusion=None, weights=None, filters=None, k=rank, depth=100)
    with searchable(path, model=model, device=device, dtype=dtype) as opened:
        hits = request.run(opened, [query])[0]
        assert opened.encoder is not None
        if len(hits) < rank:
            raise NotFound(f"the search found {len(hits)} passages, so there is none at rank {rank}")
    passage = hits[-1].passage
    source = {"collection": str(path), "rank": rank, "document": passage.document_id, "line": passage.line}
    return opened.encoder, passage.content, source


def _piece(text: str, span: Span | None) -> Mapping[str, Any] | None:
    return None if span is None else {"start": span[0], "end": span[1], "text": text[slice(*span)]}
