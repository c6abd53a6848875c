"""What rerankers are made of: pairs of texts as tokens, and the folders they are read from and written to."""
