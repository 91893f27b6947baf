"""Models for Ollama.

modelfile: a Modelfile, with template and stop words.
"""
