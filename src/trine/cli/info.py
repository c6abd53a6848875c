"""`trine info`: what is installed, what a model is, what a collection holds."""

from __future__ import annotations

import importlib.metadata
import platform
import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

import trine
from trine.cli.encoders import load_encoder, silence_libraries, untrained_sentence
from trine.cli.opening import is_collection
from trine.cli.options import Device, DType, Json, Quiet
from trine.cli.output import Output
from trine.cli.show_facts import print_facts

if TYPE_CHECKING:
    from trine.models.encoder import Encoder

PACKAGES = ("torch", "transformers", "tokenizers", "safetensors", "numpy", "qdrant-edge-py")
_EXTRA = re.compile(r"""^([\w.-]+).*;.*extra\s*==\s*['"]([\w-]+)['"]""")


def info(
    what: Annotated[
        str | None,
        typer.Argument(
            metavar="[COLLECTION|MODEL]",
            show_default=False,
            help="A collection, a model folder, an id on the hub (which is fetched), or 'default' for the "
            "default model.",
        ),
    ] = None,
    device: Device = "auto",
    dtype: DType = "auto",
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Describe a collection or a model; without either, this installation.

    trine info

    trine info .trine
    """
    output = Output(json=json, quiet=quiet)
    if what is None:
        facts = installation(device)
    elif is_collection(Path(what).expanduser()):
        facts = collection_facts(Path(what).expanduser())
    else:
        facts = model_facts(load_encoder(what, device=device, dtype=dtype))
    if output.json:
        output.document(facts)
    else:
        print_facts(_readable(facts))
    if facts.get("untrained"):
        output.warn(untrained_sentence(facts["model"], tuple(facts["untrained"])))


def installation(device: str) -> dict[str, Any]:
    """Versions, device, and which optional packages are there."""
    silence_libraries()
    from trine.models.devices import choose_device, choose_dtype
    from trine.models.encoder import ENGINES
    from trine.models.sources import DEFAULT

    where = choose_device(device)
    return {
        "trine": trine.__version__,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "packages": {name: _version(name) for name in PACKAGES},
        "device": str(where),
        "dtype": str(choose_dtype("auto", where)).removeprefix("torch."),
        "engines": list(ENGINES),
        "default_model": DEFAULT,
        "extras": extras(),
    }


def extras() -> dict[str, dict[str, Any]]:
    """Every extra: its packages with versions (None where missing), and the command that installs it."""
    found: dict[str, dict[str, Any]] = {}
    for requirement in importlib.metadata.requires("trine") or []:
        match = _EXTRA.match(requirement)
        if match is None or match[2] == "all":
            continue
        entry = found.setdefault(match[2], {"installed": True, "packages": {}})
        entry["packages"][match[1]] = _version(match[1])
        entry["installed"] = entry["installed"] and _version(match[1]) is not None
    for name, entry in found.items():
        entry["command"] = f"pip install 'trine[{name}]'"
    return found


def model_facts(encoder: Encoder) -> dict[str, Any]:
    """What an encoder is."""
    config = encoder.config
    heads = {"dense": config.dense, "sparse": config.sparse, "multi_vector": config.multi_vector}
    return {
        "model": encoder.name,
        "layout": config.origin,
        "backbone": encoder.backbone.model.config.model_type,
        "parameters": sum(parameter.numel() for parameter in encoder.parameters()),
        "modes": {
            mode: {"dimensions": width, "trained": mode not in config.untrained, "head": _head(heads[mode])}
            for mode, width in encoder.dimensions.items()
        },
        "untrained": list(config.untrained),
        "prompts": dict(config.text.prompts),
        "max_tokens": {"query": encoder.text.max_length("query"), "passage": encoder.text.max_length("passage")},
        "device": str(encoder.device),
        "dtype": str(encoder.dtype).removeprefix("torch."),
        "fingerprint": encoder.fingerprint,
    }


def collection_facts(path: Path) -> dict[str, Any]:
    """What a collection holds and what it was made with."""
    from dataclasses import asdict

    from trine.models.sources import DEFAULT
    from trine.search.collection import Collection

    with Collection.open(path, read_only=True) as collection:
        held = asdict(collection.info())
    name = held.pop("encoder")
    held["model"] = name or (DEFAULT if name == "" else None)
    # Only a model that lies on this machine is looked at: a question about a collection fetches nothing.
    local = held["model"] == DEFAULT or (name is not None and Path(name).is_dir())
    held["untrained"] = list(load_encoder(held["model"]).config.untrained) if local else None
    for key in ("retrievers", "metadata_keys"):
        held[key] = list(held[key])
    return {"collection": held.pop("path"), **held}


def _readable(facts: dict[str, Any]) -> dict[str, Any]:
    """The same in fewer lines."""
    shown = {name: fact for name, fact in facts.items() if name != "untrained"}
    if "extras" in facts:
        shown["extras"] = {
            name: "installed" if extra["installed"] else f"missing; {extra['command']}"
            for name, extra in facts["extras"].items()
        }
    if "modes" in facts:
        shown["modes"] = {
            mode: f"{head['dimensions']:,} dimensions, {head['head']}{'' if head['trained'] else ', not trained'}"
            for mode, head in facts["modes"].items()
        }
    if "bytes" in facts:
        shown["bytes"] = f"{facts['bytes'] / 2**20:,.1f} MiB"
    return shown


def _head(config: Any) -> str:
    """How a head makes its output, in a few words."""
    import msgspec

    parts = msgspec.to_builtins(config)
    if "source" in parts:
        start = parts["source"]
    else:
        start = "token states" if "pooling" not in parts else f"{' + '.join(parts['pooling'])} of the token states"
    return " -> ".join([start, *(layer["kind"] for layer in parts.get("layers", ()))])


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None
