"""The published ways to train, as functions that return a typed, frozen configuration."""
