"""Paths of other APIs that clients ask by mistake, and what they find here instead."""

from __future__ import annotations

_DOCS = "/docs lists what is"
_NO_OLLAMA = "this is no Ollama; set the client to a server of the OpenAI API, with the base URL ending in /v1"
# The first that a path begins with counts.
_WAYS_OUT = {
    "/v1/v1/": "the base URL has /v1 already, which this client adds itself; leave it out of the one or the other",
    "/v1/fine_tuning": "fine-tunes start with POST /api/start-finetuning",
    "/v1/files": "files are uploaded with POST /api/upload-dataset",
    "/v1/responses": "conversations are for POST /v1/chat/completions",
    "/api/chat": _NO_OLLAMA,
    "/api/generate": _NO_OLLAMA,
    "/api/tags": _NO_OLLAMA,
    "/chat/completions": "the base URL ends in /v1 here, as in /v1/chat/completions",
    "/completions": "the base URL ends in /v1 here, as in /v1/completions",
    "/models": "the base URL ends in /v1 here, as in /v1/models",
}


def way_out_of(path: str) -> str:
    """Say where a client that asks a path that isn't here should turn.

    Example:
        >>> way_out_of("/v1/fine_tuning/jobs")
        'fine-tunes start with POST /api/start-finetuning'
    """
    return next((words for start, words in _WAYS_OUT.items() if path.startswith(start)), _DOCS)
