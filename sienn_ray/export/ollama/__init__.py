"""Models for Ollama."""
