"""A base model as the engine computes it."""
