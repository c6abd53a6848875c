"""Embeddings -> loss: pure functions of tensors, one objective a file."""
