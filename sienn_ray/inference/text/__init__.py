"""Texts from tokens."""
