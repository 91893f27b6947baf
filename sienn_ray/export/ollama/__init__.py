"""Models for Ollama.

modelfile: a Modelfile, with template and stop words.
chat_turns: a chat template as the strings around each turn.
"""
