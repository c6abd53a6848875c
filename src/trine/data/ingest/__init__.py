"""One module per document type, each with ``read(path, *, name, limits) -> Iterator[Document | Skipped]``.

`name` is the document id of a whole file. Types without an extra are read in this process; the others, which run other
people's parsers, in the worker process of `trine.data.sandbox`.
"""

from trine.tables import Row

INGESTORS = {
    ".txt": Row("trine.data.ingest.text:read"),
    ".jsonl": Row("trine.data.ingest.jsonl:read"),
    ".ndjson": Row("trine.data.ingest.jsonl:read"),
    ".csv": Row("trine.data.ingest.csv:read"),
    ".tsv": Row("trine.data.ingest.csv:read"),
    ".md": Row("trine.data.ingest.markdown:read", "documents"),
    ".markdown": Row("trine.data.ingest.markdown:read", "documents"),
    ".html": Row("trine.data.ingest.html:read", "documents"),
    ".htm": Row("trine.data.ingest.html:read", "documents"),
    ".xhtml": Row("trine.data.ingest.html:read", "documents"),
    ".pdf": Row("trine.data.ingest.pdf:read", "documents"),
    ".docx": Row("trine.data.ingest.docx:read", "documents"),
    ".hwp": Row("trine.data.ingest.hwp:read", "documents"),
    ".hwpx": Row("trine.data.ingest.hwp:read", "documents"),
}
"""File suffix, in lower case -> reader."""

__all__ = ["INGESTORS"]
