"""Meanings of the HTTP statuses of errors, with an example of each one's detail."""

from __future__ import annotations

from http import HTTPStatus

# Status, its meaning here, an example of its detail.
_MEANINGS: dict[int, tuple[str, str]] = {
    400: (
        "What is asked can't be done.",
        "Job status is 'running', model testing is only available for completed jobs",
    ),
    401: (
        "The request comes without a valid API key.",
        "this needs an API key; send one as 'Authorization: Bearer <key>' or 'X-API-Key: <key>'",
    ),
    403: (
        "The key isn't for this, or the link isn't valid, or not any more.",
        "this link has expired at 2025-11-13T11:00:00Z; GET /api/exports/{job_id} gives a new one",
    ),
    404: ("There is nothing with this id.", "Job a1b2c3d4-5678-40ef-8123-456789abcdef not found"),
    408: (
        "The body stopped coming, or came too slowly.",
        "nothing came for 60 s (SIENN_UPLOAD_IDLE_TIMEOUT_S) in the middle of the file; send it again",
    ),
    409: (
        "What is asked contradicts what there is.",
        "Job a1b2c3d4-5678-40ef-8123-456789abcdef is 'completed' and can't be cancelled any more",
    ),
    413: ("The body is too large.", "the body has 2097152 bytes, and at most 1048576 bytes are taken here"),
    415: ("The body is of another kind than this route accepts.", "Content-Type 'text/plain' is not application/json"),
    416: ("The file has no such part.", "the header 'Range: bytes=200000000-' asks for what the file doesn't have"),
    422: ("A value has the wrong type or is out of range.", "num_epochs: has to be less than or equal to 10"),
    429: ("Too much is asked for at once.", "10000 jobs are waiting, and SIENN_MAX_PENDING_JOBS is 10000"),
    500: (
        "Something failed that should not.",
        "Internal error; the server's log has the details under request id 1a2b3c4d5e6f40718293a4b5c6d7e8f9",
    ),
    503: ("There is too much to do, or a part is away, at the moment.", "the job tracker is restarting"),
    507: (
        "Storage has no room for it.",
        "the export takes 3.10 GB and storage has 1.24 GB left; delete exports or jobs",
    ),
}


def meaning_of(status: int) -> str:
    """Return the meaning of an error's status here, or HTTP's own phrase where it has no other."""
    return _MEANINGS[status][0] if status in _MEANINGS else HTTPStatus(status).phrase


def example_of(status: int) -> str:
    """Return an example of the detail of errors with a status; HTTP's own phrase where there is no better one."""
    return _MEANINGS[status][1] if status in _MEANINGS else HTTPStatus(status).phrase
