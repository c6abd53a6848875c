"""Text in, hits out: collections on disk, their filters, retrieval and fusion."""
