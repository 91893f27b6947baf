"""The engine: one batch for all requests and adapters."""
