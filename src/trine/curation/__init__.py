"""Corpus -> training examples: weak pairs, filters, hard negatives, teacher scores, tokenizers."""
