"""Texts from tokens.

vocabulary: tokens as bytes and as text.
detokenizer: whole characters from tokens, one by one.
turn_ends: marks of a chat template that end an answer.
stop_strings: the end of an answer at a stop string.
text_stream: the text of an answer while tokens come.
"""
