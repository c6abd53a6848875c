"""Documents of a domain -> what adapting a model to it needs: pairs to train on, passages, and judged sets.

train.jsonl       pairs, with train.kinds.json beside it
passages.json     passages of the training documents
validation/       a judged set out of the training documents, for early stopping
held_out/         the judged set that decides, out of documents that training never sees
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from trine.curation.decontamination import Decontaminated
from trine.curation.duplicates import find_duplicates
from trine.curation.output import plain, write_examples, write_json
from trine.curation.sections import Spans
from trine.curation.texts import canonical
from trine.curation.weak_pairs import DEFAULT_KINDS, PairRules, WeakPair, WeakPairs, weak_pairs
from trine.data.examples import ExampleFile, open_examples
from trine.data.files import read_documents
from trine.data.sources import Skipped
from trine.errors import UsageError
from trine.evaluation.beir import Dataset, read_beir
from trine.models.files import read_json
from trine.recipes.held_out import Part, families, judged_set, overlapping, passages_of, set_aside, write_set
from trine.types import Document, Example

SHARE = 0.15
SENTENCES = "first_sentence"
"""The kind of pair that is apart from the others: every passage of two sentences gives one, and it is torn out of one
text. It joins the others only where they are too few."""
_CORPUS = 300
"""Passages of the validation set, unless more are asked for: it is measured several times while a model trains, and
encoding 1,000 passages each time took as long as the training between."""


@dataclass(frozen=True, slots=True)
class Division:
    """How documents are divided."""

    held_out: Part = field(default_factory=lambda: Part(SHARE, least=40, most=1000))
    validation: Part = field(default_factory=lambda: Part(0.1, least=20, most=200))
    least_pairs: int = 60
    """To train on."""
    most_corpus: int = 8000
    """Passages of the held-out set at most: those of held-out documents, and of the others as many as fit, by seed."""
    seed: int = 0


@dataclass(frozen=True, slots=True)
class Domain:
    """What `prepare_domain` has written."""

    folder: Path
    facts: Mapping[str, Any]

    @property
    def pairs(self) -> ExampleFile:
        """The training pairs."""
        return open_examples(self.folder / "train.jsonl", name="weak_pairs")

    @property
    def sentences(self) -> ExampleFile | None:
        """The pairs of first sentences, where there are any."""
        path = self.folder / "sentences.jsonl"
        return open_examples(path, name="first_sentences") if path.is_file() else None

    @property
    def kinds(self) -> list[str]:
        """The kind of each training pair."""
        kinds: list[str] = read_json(self.folder / "train.kinds.json")
        return kinds

    @property
    def passages(self) -> list[str]:
        """Every passage of the training documents, and of the training pairs."""
        found: list[str] = read_json(self.folder / "passages.json")
        return found

    @property
    def validation(self) -> Dataset:
        """For early stopping."""
        return read_beir(self.folder / "validation")


def prepare_domain(
    paths: Sequence[str],
    folder: Path,
    *,
    rules: PairRules,
    spans: Spans | None = None,
    division: Division | None = None,
    held_out: Path | None = None,
    progress: bool = False,
) -> dict[str, Any]:
    """Read documents, make pairs of them and divide these by document; the counts of each step.

    Args:
        paths: files, folders and patterns.
        folder: to write into.
        rules: of pairs and passages.
        spans: the model's tokens.
        division: how much is held out.
        held_out: a judged set in BEIR's layout in place of held-out documents.
        progress: show bars.

    Raises:
        UsageError: too few documents or pairs; the message says how many are needed, and what became of the others.
    """
    chosen = division or Division()
    least = _Sizes(
        held_out=chosen.held_out.least if held_out is None else 0,
        validation=chosen.validation.least,
        training=chosen.least_pairs,
    )
    own_test = None if held_out is None else read_beir(held_out)
    documents, counts = _read(paths, progress=progress)
    kinds = [*DEFAULT_KINDS, SENTENCES]
    found = weak_pairs(documents, kinds=kinds, rules=rules, spans=spans, progress=progress)
    pairs, sentences = _sorted(found.pairs, least.held_out + least.validation + least.training)
    divided = _divide(documents, pairs, chosen, judged=held_out is not None)
    everything = passages_of([*divided.held_out, *divided.validation, *divided.training], rules=rules, spans=spans)
    test = own_test or _test(divided, everything, chosen, folder / "held_out")
    validation = _validation(divided, everything, chosen, folder / "validation")
    kept, clean = _clear(divided.training_pairs, [test, validation])
    sizes = _Sizes(len(test.judged), len(validation.judged), len(kept))
    if any(getattr(sizes, part) < getattr(least, part) for part in _Sizes.__slots__):
        copies = counts["documents"]["copies"]
        raise _too_little(sizes, least, found=found, copies=copies, shared=len(clean.findings))
    learned = _ids(divided.training)
    more, _ = _clear([pair for pair in sentences if pair.document_id in learned], [test, validation])
    own = [passage.text for passage in everything if passage.metadata["document"] in learned]
    pool = _pool(own, kept, [test, validation])
    _write(folder, kept, more, pool)
    facts: dict[str, Any] = plain(
        {
            **counts,
            "weak_pairs": found.summary(),
            "held_out": _counted(divided.held_out, test),
            "validation": _counted(divided.validation, validation),
            "training": {
                "documents": len(divided.training),
                "pairs": len(kept),
                "first_sentences": len(more),
                "passages": len(pool),
            },
            "overlap": clean.summary(),
        }
    )
    return facts


@dataclass(frozen=True, slots=True)
class _Divided:
    """Documents and pairs of each part."""

    held_out: Sequence[Document]
    validation: Sequence[Document]
    training: Sequence[Document]
    held_out_pairs: Sequence[WeakPair]
    validation_pairs: Sequence[WeakPair]
    training_pairs: Sequence[WeakPair]


@dataclass(frozen=True, slots=True)
class _Sizes:
    held_out: int
    validation: int
    training: int


def _read(paths: Sequence[str], *, progress: bool) -> tuple[list[Document], dict[str, Any]]:
    """Documents without copies, and the counts."""
    read: list[Document] = []
    skipped: list[Skipped] = []
    for item in (reader := read_documents(paths)):
        (skipped if isinstance(item, Skipped) else read).append(item)  # type: ignore[arg-type]
    if not read:
        reasons = "; ".join(f"{item.path}: {item.reason}" for item in skipped[:3])
        raise UsageError(f"no document could be read from {', '.join(paths)}" + (f" ({reasons})" if reasons else ""))
    copies = find_duplicates([document.text for document in read], progress=progress)
    counts = {
        "documents": {
            "read": len(read),
            "skipped": [asdict(item) for item in skipped],
            "ignored": dict(reader.ignored),
            "copies": int((~copies.kept).sum()),
            "kept": int(copies.kept.sum()),
        }
    }
    return [document for document, kept in zip(read, copies.kept, strict=True) if kept], counts


def _sorted(pairs: Sequence[WeakPair], needed: int) -> tuple[list[WeakPair], list[WeakPair]]:
    """The pairs to ask with, and the first sentences; these count among the former where the others are too few."""
    usual = [pair for pair in pairs if pair.kind != SENTENCES]
    if len({canonical(pair.example.query) for pair in usual}) < needed:
        return list(pairs), []
    return usual, [pair for pair in pairs if pair.kind == SENTENCES]


def _divide(documents: Sequence[Document], pairs: Sequence[WeakPair], division: Division, *, judged: bool) -> _Divided:
    family_of = families(documents)

    def among(chosen: set[str]) -> tuple[list[Document], list[WeakPair]]:
        return (
            [document for document in documents if family_of[document.id] in chosen],
            [pair for pair in pairs if family_of[pair.document_id] in chosen],
        )

    away = set() if judged else set_aside(pairs, family_of, division.held_out, seed=division.seed)
    left = set(family_of.values()) - away
    validated = set_aside(among(left)[1], family_of, division.validation, seed=division.seed + 1)
    (held_out, held_out_pairs), (validation, validation_pairs) = among(away), among(validated)
    training, training_pairs = among(left - validated)
    return _Divided(held_out, validation, training, held_out_pairs, validation_pairs, training_pairs)


def _test(divided: _Divided, passages: Sequence[Document], division: Division, folder: Path) -> Dataset:
    """The held-out documents' queries over the passages of all documents, written to `folder`."""
    wanted = _ids(divided.held_out)
    own = [passage.metadata["document"] in wanted for passage in passages]
    corpus = _some(passages, own, most=division.most_corpus, seed=division.seed)
    others = [*divided.validation_pairs, *divided.training_pairs]
    data = judged_set(divided.held_out_pairs, corpus, others=others, name="held-out documents")
    write_set(data, folder)
    return data


def _validation(divided: _Divided, passages: Sequence[Document], division: Division, folder: Path) -> Dataset:
    """The validation documents' queries over the passages that answer them and some others, not of held-out ones."""
    away = _ids(divided.held_out)
    learned = [passage for passage in passages if passage.metadata["document"] not in away]
    answers = {canonical(text) for pair in divided.validation_pairs for text in pair.example.positives}
    corpus = _some(
        learned, [canonical(passage.text) in answers for passage in learned], most=_CORPUS, seed=division.seed
    )
    data = judged_set(divided.validation_pairs, corpus, others=divided.training_pairs, name="validation documents")
    write_set(data, folder)
    return data


def _counted(documents: Sequence[Document], data: Dataset) -> dict[str, int]:
    return {"documents": len(documents), "queries": len(data.judged), "corpus": len(data.corpus)}


def _ids(documents: Sequence[Document]) -> set[str]:
    return {document.id for document in documents}


def _some(passages: Sequence[Document], own: Sequence[bool], *, most: int, seed: int) -> list[Document]:
    """The passages that are `own`, and of the others as many as make `most`, by seed."""
    others = [number for number, mine in enumerate(own) if not mine]
    drawn = np.random.default_rng(seed).permutation(others)[: max(most - sum(own), 0)]
    chosen = set(drawn.tolist())
    return [
        passage for number, (passage, mine) in enumerate(zip(passages, own, strict=True)) if mine or number in chosen
    ]


def _clear(pairs: Sequence[WeakPair], sets: Sequence[Dataset]) -> tuple[list[WeakPair], Decontaminated]:
    """The pairs that share nothing with judged sets."""
    found = overlapping([pair.example for pair in pairs], sets)
    return [pair for pair, stays in zip(pairs, found.kept, strict=True) if stays], found


def _write(folder: Path, pairs: Sequence[WeakPair], sentences: Sequence[WeakPair], pool: Sequence[str]) -> None:
    write_examples((pair.example for pair in pairs), folder / "train.jsonl")
    write_json(folder / "train.kinds.json", [pair.kind for pair in pairs])
    if sentences:
        write_examples((pair.example for pair in sentences), folder / "sentences.jsonl")
    write_json(folder / "passages.json", list(pool))


def _pool(own: Sequence[str], pairs: Sequence[WeakPair], sets: Sequence[Dataset]) -> list[str]:
    """Passages to compete with and to take negatives from: nothing that a judged set asks for."""
    texts = list(dict.fromkeys([*(text for pair in pairs for text in pair.example.positives), *own]))
    kept = overlapping([Example(text, (text,)) for text in texts], sets).kept
    return [text for text, stays in zip(texts, kept, strict=True) if stays]


def _too_little(sizes: _Sizes, least: _Sizes, *, found: WeakPairs, copies: int, shared: int) -> UsageError:
    reasons = Counter[str]()
    for dropped in found.dropped.values():
        reasons.update(dropped)
    why = ", ".join(f"{reason} {count}" for reason, count in reasons.most_common()) or "none"
    measured = f"{least.held_out} queries to measure on ({sizes.held_out} found), " if least.held_out else ""
    return UsageError(
        f"too little to adapt to: it takes {measured}{least.validation} queries to stop by ({sizes.validation} found) "
        f"and {least.training} pairs to train on ({sizes.training} found), each from other documents. "
        f"{found.documents} documents, {copies} copies of them left out, gave {len(found.pairs)} pairs; candidates "
        f"dropped: {why}; {shared} pairs shared text with what is asked. Give more documents, with titles and headings "
        "where they have some" + ("; or a judged set of your own" if least.held_out else "")
    )
