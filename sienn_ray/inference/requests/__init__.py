"""Requests and adapters as every engine needs them: rendered, checked, and ended.

adapter_cache: loaded adapters; the least recently used is evicted first.
adapter_files: an adapter's files, fetched from storage and checked.
answer: the answer to one request, from its arrival to its last delta.
open_requests: requests that are accepted and not yet answered.
prompts: prompts, rendered, tokenized, and checked for their length.
request_preparation: threads that load adapters and tokenize prompts.
"""
