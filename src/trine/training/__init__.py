"""Examples -> checkpoint: steps, the loop, distribution, checkpoints of the whole state."""
