"""The terminal app: turn a dial and see the model think longer. Compute goes through loopkit.session on one thread."""
