"""`trine encode`: texts to embeddings."""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from trine.cli.choices import chosen_kind, chosen_modes, one_of
from trine.cli.encoders import load_encoder, model_name, warn_untrained
from trine.cli.options import Device, DType, Model, Modes, Quiet
from trine.cli.output import Output
from trine.cli.texts import STDIN, InputText, read_texts
from trine.errors import UsageError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from trine.encoding.bulk.plan import Settings
    from trine.types import Embeddings, Kind, Mode, TextEncoder

WINDOW = 256
"""Texts that are embedded together; JSONL is written after each, so that memory stays flat."""
SUFFIXES = (".npz", ".safetensors")
BULK_PANEL = "Bulk jobs: --out FOLDER"


def encode(  # noqa: PLR0913 -- a command's parameters are its options
    source: Annotated[
        str,
        typer.Argument(
            metavar="[INPUT]",
            help="A file, or '-' for standard input: a text per line, JSONL or Parquet; for bulk jobs a folder too.",
        ),
    ] = STDIN,
    out: Annotated[
        str,
        typer.Option(
            "--out",
            "-o",
            metavar="FILE|FOLDER",
            help="A .npz or .safetensors file, or '-' for JSONL on standard output; a folder for any number of texts.",
        ),
    ] = STDIN,
    kind: Annotated[
        str,
        typer.Option(metavar="NAME", help="The side of a search: query or passage; it decides prompts and lengths."),
    ] = "passage",
    instruction: Annotated[
        str | None,
        typer.Option(
            metavar="TEXT", help="What the texts are for; put in front by the model's template, where it has one."
        ),
    ] = None,
    mode: Modes = None,
    form: Annotated[
        str,
        typer.Option(
            "--format",
            metavar="NAME",
            help='lines; jsonl (objects with a "text" and perhaps an "id"); auto: jsonl if the name ends in .jsonl or '
            "the first line is such an object.",
        ),
    ] = "auto",
    model: Model = None,
    device: Device = "auto",
    dtype: DType = "auto",
    quiet: Quiet = False,
    workers: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            min=1,
            show_default=False,
            rich_help_panel=BULK_PANEL,
            help="Processes, each with its own copy of the model; by default one for each CUDA device, else one.",
        ),
    ] = None,
    precision: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            show_default=False,
            rich_help_panel=BULK_PANEL,
            help="Of dense and multi-vectors: float32 (the default) or float16.",
        ),
    ] = None,
    shard_format: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            show_default=False,
            rich_help_panel=BULK_PANEL,
            help="safetensors (the default), or parquet (extra 'parquet').",
        ),
    ] = None,
    shard_texts: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            min=1,
            show_default=False,
            rich_help_panel=BULK_PANEL,
            help="Most texts of a shard: what a worker holds in memory. 4096 by default, 1024 with multi-vectors.",
        ),
    ] = None,
    skip_errors: Annotated[
        bool,
        typer.Option("--skip-errors", rich_help_panel=BULK_PANEL, help="Leave out and count lines that give no text."),
    ] = False,
) -> None:
    """Embed texts and write the vectors.

    JSONL has a line per text: "id", "dense" as a list, "sparse" as {token: weight}; "multi_vector" only where --mode
    asks for it. The files hold flat arrays: dense; sparse.offsets, .ids, .weights and .width; multi_vector.values and
    .offsets; and the ids.

    trine encode notes.txt -o notes.safetensors

    echo 'what is a pod?' | trine encode - --kind query --mode dense

    With a folder for --out any number of texts go to shards, the manifest last; interrupted or killed, the same command
    goes on.

    trine encode corpus/ -o vectors --workers 4
    """
    output = Output(json=True, quiet=quiet)
    wanted, side = chosen_modes(mode), chosen_kind(kind)
    bulk = {
        "--workers": workers,
        "--precision": precision,
        "--shard-format": shard_format,
        "--shard-texts": shard_texts,
        "--skip-errors": skip_errors or None,
    }
    if _is_folder(out):
        from trine.cli.encode_bulk import encode_bulk

        settings = _settings(bulk, kind=side, modes=wanted, instruction=instruction, form=form)
        load = partial(load_encoder, model, dtype=dtype)
        encode_bulk(source, Path(out), settings=settings, load=load, device=device, workers=workers, output=output)
        return
    _require_file(out, bulk)
    from trine.encoding.bulk.reading import FORMATS

    one_of(form, FORMATS, kind="input format")
    texts = read_texts(source, form=form)
    first = next(texts, None)
    encoder = load_encoder(model, device=device, dtype=dtype)
    if wanted is None and out == STDIN:
        wanted = [each for each in encoder.dimensions if each != "multi_vector"] or None
    encode_all = partial(encoder.encode, kind=side, modes=wanted)
    if instruction is not None:
        encode_all = partial(encode_all, instruction=instruction)
    parts = embedded(itertools.chain([] if first is None else [first], texts), encode_all, output)
    if out == STDIN:
        for ids, embeddings in parts:
            for row in json_rows(encoder, ids, embeddings):
                output.line(row)
    else:
        count = _write(Path(out), list(parts))
        output.note(f"wrote {count} texts to {out}; model {model_name(encoder)}")
    warn_untrained(encoder, output)


def embedded(
    texts: Iterable[InputText], encode: Callable[[Sequence[str]], Embeddings], output: Output
) -> Iterator[tuple[list[str | int], Embeddings]]:
    """Ids and embeddings, a window of texts at a time."""
    source = iter(texts)
    done = 0
    with output.bar("encoding") as progress:
        while part := list(itertools.islice(source, WINDOW)):
            yield [text.id for text in part], encode([text.text for text in part])
            done += len(part)
            progress(done, None)


def json_rows(encoder: TextEncoder, ids: Sequence[str | int], embeddings: Embeddings) -> Iterator[dict[str, Any]]:
    """One plain object per text; numbers in the shortest form that gives the same float32 again."""
    for number, key in enumerate(ids):
        row: dict[str, Any] = {"id": key}
        if embeddings.dense is not None:
            row["dense"] = _floats(embeddings.dense[number])
        if embeddings.sparse is not None:
            terms, weights = embeddings.sparse.row(number)
            row["sparse"] = dict(zip(encoder.token_labels(terms.tolist()), _floats(weights), strict=True))
        if embeddings.multi_vector is not None:
            row["multi_vector"] = [_floats(vector) for vector in embeddings.multi_vector.row(number)]
        yield row


def _is_folder(out: str) -> bool:
    """Whether a bulk job is meant: a folder that is there, or a name that no file would have."""
    path = Path(out)
    if out == STDIN or path.suffix in SUFFIXES:
        return False
    return path.is_dir() or not path.suffix or out.endswith(("/", os.sep))


def _require_file(out: str, bulk: Mapping[str, object]) -> None:
    if out != STDIN and Path(out).suffix not in SUFFIXES:
        raise UsageError(
            f"--out {out!r}: a file's name must end in {' or '.join(SUFFIXES)}, a folder's with {os.sep!r} where there "
            "is a dot in it; '-' stands for JSONL"
        )
    given = [name for name, value in bulk.items() if value is not None]
    if given:
        raise UsageError(f"{given[0]} has an effect in bulk jobs only: give --out a folder")


def _settings(
    bulk: Mapping[str, Any], *, kind: Kind, modes: Sequence[Mode] | None, instruction: str | None, form: str
) -> Settings:
    from trine.encoding.bulk.plan import Settings

    return Settings(
        kind=kind,
        modes=None if modes is None else tuple(modes),
        instruction=instruction,
        precision=bulk["--precision"] or "float32",
        shard_format=bulk["--shard-format"] or "safetensors",
        shard_texts=bulk["--shard-texts"],
        form=form,
        skip_errors=bool(bulk["--skip-errors"]),
    )


def _write(path: Path, parts: Sequence[tuple[list[str | int], Embeddings]]) -> int:
    import numpy as np

    from trine.encoding.bulk.storage import arrays_of
    from trine.evaluation.files import replacing
    from trine.types import Embeddings

    ids = [key for keys, _ in parts for key in keys]
    arrays = arrays_of(Embeddings.concatenate([embeddings for _, embeddings in parts]))
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as scratch:
        if path.suffix == ".npz":
            with scratch.open("wb") as stream:
                np.savez(stream, allow_pickle=False, ids=np.array([str(key) for key in ids]), **arrays)
        else:
            from safetensors.numpy import save_file

            from trine.cli.output import dumps

            save_file(arrays, scratch, metadata={"ids": dumps(ids)})
    return len(ids)


def _floats(values: NDArray[np.floating[Any]]) -> list[float]:
    return [float(f"{value:.9g}") for value in values.tolist()]
