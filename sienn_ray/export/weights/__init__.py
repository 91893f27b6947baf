"""A base model's and an adapter's tensors, read and merged.

checkpoint_reader: a base model's tensors, one at a time.
adapter_reader: an adapter's matrices and configuration.
merged_weights: tensors with the adapter merged in.
"""
