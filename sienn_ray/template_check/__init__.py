"""Checks of a dataset's rows against a base model's chat template, before anything is trained.

check: whether a chat template renders a dataset's rows.
verdict: the result of such a check, and its key in storage.
base_template: a base model's chat template and special tokens, read from its files.
gguf_metadata: names and values at the beginning of a GGUF file.
program: the process that renders rows, with limits.
template_tokenizer: what renders as a base model's tokenizer does, without its vocabulary.
row_sample: the rows that are tried, a few of every shape.
"""
