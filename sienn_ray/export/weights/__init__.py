"""A base model's and an adapter's tensors, read and merged."""
