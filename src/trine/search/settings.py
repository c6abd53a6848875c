"""What a collection was made with, kept in its store, and the encoder that goes with it."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from trine.data.chunking import Chunking
from trine.errors import ModelMismatch, UsageError
from trine.index import ANALYZERS
from trine.index.analysis import Analyzer
from trine.tables import resolve
from trine.types import MODES, Mode, TextEncoder


@dataclass(frozen=True, slots=True)
class Settings:
    """Fixed when a collection is made: everything stored depends on them."""

    encoder: str | None
    """Name or absolute path to load the encoder by; "" for the default model; None if it was given as an object."""
    fingerprint: str
    dimensions: Mapping[Mode, int]
    analyzer: str
    chunking: Chunking
    index: str

    def to_config(self) -> dict[str, Any]:
        """As JSON values."""
        return {**asdict(self), "dimensions": dict(self.dimensions)}

    @staticmethod
    def from_config(config: Mapping[str, Any]) -> Settings:
        """From what `to_config` gave."""
        widths = config["dimensions"]
        dimensions: dict[Mode, int] = {mode: widths[mode] for mode in MODES if mode in widths}
        return Settings(
            encoder=config["encoder"],
            fingerprint=config["fingerprint"],
            dimensions=dimensions,
            analyzer=config["analyzer"],
            chunking=Chunking(**config["chunking"]),
            index=config["index"],
        )


def named(encoder: TextEncoder | str | Path | None) -> tuple[TextEncoder, str | None]:
    """The encoder, loaded where a name was given, and what to load it by another time."""
    if encoder is not None and not isinstance(encoder, str | Path):
        return encoder, getattr(encoder, "name", None) or None
    if encoder is None:
        return load(""), ""
    # A path is kept absolute, so that the collection opens from any folder.
    name = str(Path(encoder).absolute()) if Path(encoder).exists() else str(encoder)
    return load(name), name


def load(name: str) -> TextEncoder:
    """Load an encoder by name or path; "" is the default model."""
    from trine.models.encoder import Encoder

    return Encoder.load(name or None)


def load_analyzer(name: str) -> Analyzer:
    """The analyser of that name.

    Raises:
        UnknownName: there is none.
        MissingExtra: its package is not installed.
    """
    analyzer: Analyzer = resolve(ANALYZERS, name, kind="analyzer")()
    return analyzer


class Models:
    """The encoder and the analyser of a collection, loaded when they are first needed."""

    def __init__(self, encoder: TextEncoder | str | Path | None, settings: Settings) -> None:
        """Bind; an encoder object is checked at once, a name when it is loaded.

        Raises:
            ModelMismatch: the encoder given has another fingerprint.
        """
        self._given, self._settings = encoder, settings
        self._loading = threading.Lock()
        self._analyzer: Analyzer | None = None
        self._encoder: TextEncoder | None = None
        if encoder is not None and not isinstance(encoder, str | Path):
            self._encoder = self._checked(encoder)

    def encoder(self) -> TextEncoder:
        """The encoder.

        Raises:
            ModelMismatch: what was loaded has another fingerprint.
            UsageError: the collection was made with an encoder object, and none was given.
        """
        with self._loading:
            if self._encoder is None:
                name = self._settings.encoder if self._given is None else str(self._given)
                if name is None:
                    raise UsageError(
                        f"this collection was made with an encoder object (fingerprint {self._settings.fingerprint}) "
                        f"that has no name to load it by; open it with encoder=<that object>"
                    )
                self._encoder = self._checked(load(name))
            return self._encoder

    def analyzer(self, fingerprint: str | None = None) -> Analyzer:
        """The analyser.

        Args:
            fingerprint: of the one that made the stored terms; None takes the one installed, whatever it is.

        Raises:
            MissingExtra: its package is not installed.
            ModelMismatch: the one installed has another fingerprint.
        """
        with self._loading:
            if self._analyzer is None:
                self._analyzer = load_analyzer(self._settings.analyzer)
        if fingerprint not in (None, self._analyzer.fingerprint):
            raise ModelMismatch(
                f"the BM25 terms of the collection were made with the analyzer {fingerprint}, installed is "
                f"{self._analyzer.fingerprint}; install the former, or call Collection.reanalyze(), which keeps all "
                f"embeddings"
            )
        return self._analyzer

    def _checked(self, encoder: TextEncoder) -> TextEncoder:
        if encoder.fingerprint == self._settings.fingerprint:
            return encoder
        raise ModelMismatch(
            f"the collection was made with {_described(self._settings.encoder)}, fingerprint "
            f"{self._settings.fingerprint}; the encoder given is {_described(getattr(encoder, 'name', None))}, "
            f"fingerprint {encoder.fingerprint}. Their vectors cannot be compared: open the collection with the "
            f"first, or index the documents anew with the second"
        )


def _described(name: str | None) -> str:
    return "an encoder object" if name is None else repr(name) if name else "the default model"
