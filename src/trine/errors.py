"""Every error that trine raises on purpose.

TrineError
├── UsageError            an argument or option that cannot be used; the caller can mend it
│   └── UnknownName       a name that no table holds; says the nearest
├── MissingExtra          an optional package is not installed; says the command
├── CheckpointError       a model folder that is incomplete, foreign or unsafe
│   └── ModelNotFound     neither a folder nor a model on the hub
├── DocumentError         one source document that cannot be read; never ends a run
├── CollectionError       an index on disk that is missing, busy, corrupt or made for another model
│   ├── CollectionNotFound
│   ├── CollectionLocked
│   ├── CollectionCorrupt
│   └── ModelMismatch
├── DataError             a dataset file (queries, qrels, corpus) that breaks its format
└── TrainingError         a training run that cannot go on; says the step and how to resume
"""


class TrineError(Exception):
    """Base of all errors raised on purpose; its message says the values and the remedy."""


class UsageError(TrineError, ValueError):
    """An argument or a combination of options that cannot be used."""


class UnknownName(UsageError):
    """A name that the table it was looked up in does not hold."""


class MissingExtra(TrineError, ImportError):
    """An optional dependency that is not installed."""


class CheckpointError(TrineError):
    """A model folder that is incomplete, of an unknown layout, or unsafe to read."""


class ModelNotFound(CheckpointError):
    """No model of that name: no folder, and nothing that could be fetched."""


class DocumentError(TrineError):
    """A source document that cannot be read; ingestion reports it and goes on."""


class CollectionError(TrineError):
    """An index on disk that cannot be used as asked."""


class CollectionNotFound(CollectionError):
    """No collection lies at that path."""


class CollectionLocked(CollectionError):
    """Another process is writing to the collection."""


class CollectionCorrupt(CollectionError):
    """The collection's file is damaged, truncated or something else."""


class ModelMismatch(CollectionError):
    """The encoder given is not the one the collection was built with."""


class DataError(TrineError):
    """A dataset file that breaks its format; the message names file and line."""


class TrainingError(TrineError):
    """A training run that cannot go on; the message says the step and how to resume."""
