"""Embeddings in fewer bytes: codecs of NumPy arrays, flat arrays in and flat arrays out."""

from trine.encoding.precision.compress import Compressed, Compressor, fit
from trine.encoding.precision.settings import Precision

__all__ = ["Compressed", "Compressor", "Precision", "fit"]
