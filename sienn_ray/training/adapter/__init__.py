"""Adapters on a base model."""
