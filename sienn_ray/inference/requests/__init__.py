"""Requests and adapters as every engine needs them: rendered, checked, and ended."""
