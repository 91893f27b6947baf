"""Every error that sienn_ray raises on purpose.

A message names the value, the limit and the way out, since a user reads it as it stands.

```
SiennError
├── InvalidInputError            the request can't be carried out as asked
│   ├── InvalidDatasetError      a file's content, with the line where it is wrong
│   ├── InvalidBaseModelError    an id that is malformed, unknown, gated or not allowed
│   ├── JobStateError            the job isn't in a state that allows this
│   ├── ExportError              a fine-tuned model can't be exported as asked
│   ├── UploadTooLargeError      more bytes than the server takes
│   ├── ContextLengthError       a prompt that leaves too little room for its answer
│   ├── RefusedPromptError       a conversation that can't be asked as it is; carries the field
│   ├── DestinationError         a URL that the service sends nothing to
│   ├── MediaTypeError           a body of a kind that isn't taken
│   ├── TokenRequestError        a request for a token that can't be granted; carries OAuth's code
│   └── SlowClientError          a body that stopped coming
├── NotFoundError                no such dataset, job or adapter
├── ConflictError                what is asked contradicts what there is
│   ├── TransitionError          a status change that the table doesn't allow
│   └── FencedError              an attempt at a job that isn't awaited any more
├── UnauthorizedError            a request comes without valid credentials
│   ├── InvalidTokenError        a key, token or session that isn't valid, or not any more
│   └── InvalidClientError       a request for a token by who isn't known
├── ForbiddenError               the caller may not do this, or a signed link isn't valid
│   └── QuotaExceededError       an owner has as much as it may have
├── ArtifactError                a stored artifact is missing, incomplete or altered
├── StorageFullError             storage has no room for what is to be written
├── TrainingError                a run ended without an adapter; carries a reason code
│   └── MicroBatchMemoryError    another attempt may have room for smaller micro batches; carries their tokens
├── ExportStoppedError           an export isn't wanted any more, so its run ends
├── CapacityError                too much to do at the moment; carries when to come back
│   ├── OutOfReachError      hub or storage can't be reached at the moment; worth another try
│   │   └── IssuerError          an outside issuer of tokens doesn't answer, or not as it should
│   ├── QueueFullError           as many requests wait for an engine as may
│   ├── TooManyRequestsError     this user asked for more than the server takes
│   ├── TooLateError             a change came too late to be carried out, and won't be
│   └── RedeployedError          a change was asked of a deployment that has been replaced
└── EngineError                  a base model or an adapter couldn't be loaded or asked
    └── AdapterMemoryError       a device has no memory for adapters of a batch; carries their names
```

They cross process boundaries, so each one pickles with its fields.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Any

# Where nothing more is known of when another try makes sense.
DEFAULT_RETRY_AFTER_S = 5
MAX_FIRST_LINE_CHARS = 500


class SiennError(Exception):
    """Base of all errors raised on purpose."""

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message

    def _fields(self) -> tuple[Any, ...]:
        """Constructor arguments that rebuild this error."""
        return (self.message,)

    def __reduce__(self) -> tuple[Any, ...]:
        return (type(self), self._fields())


class InvalidInputError(SiennError):
    """The request can't be carried out as asked."""


class InvalidDatasetError(InvalidInputError):
    """A dataset's content is not what it has to be.

    Args:
        message: What is wrong and what was expected.
        line: 1-based line (CSV, JSONL) or row (JSON array) of the first fault, if it has one.
    """

    def __init__(self, message: str, line: int | None = None) -> None:
        super().__init__(
            message if line is None or message.startswith(("line ", "row ")) else f"line {line}: {message}"
        )
        self.line = line

    def _fields(self) -> tuple[Any, ...]:
        return (self.message, self.line)


class InvalidBaseModelError(InvalidInputError):
    """A base model id is malformed, unknown, gated or not allowed."""


class JobStateError(InvalidInputError):
    """The job isn't in a state that allows this."""


class ExportError(InvalidInputError):
    """A fine-tuned model can't be exported as asked."""


class UploadTooLargeError(InvalidInputError):
    """An upload has more bytes than the server accepts."""


class ContextLengthError(InvalidInputError):
    """A prompt and its answer don't fit into what the base model can see at once."""


class RefusedPromptError(InvalidInputError):
    """A conversation can't be asked as it is: its parts don't go together, or a template has no place for them.

    Args:
        message: What is wrong.
        field: The field of the request that has it.
    """

    def __init__(self, message: str, field: str) -> None:
        super().__init__(message)
        self.field = field

    def _fields(self) -> tuple[Any, ...]:
        return (self.message, self.field)


class DestinationError(InvalidInputError):
    """A URL is malformed, or leads to where the service sends no requests of users."""


class MediaTypeError(InvalidInputError):
    """A request's body is of a kind that isn't accepted."""


class SlowClientError(InvalidInputError):
    """A request's body has stopped coming."""


class TokenRequestError(InvalidInputError):
    """A request for a token can't be granted as it is.

    Args:
        message: What is wrong.
        code: OAuth's name for it (RFC 6749, section 5.2).
    """

    def __init__(self, message: str, code: str = "invalid_request") -> None:
        super().__init__(message)
        self.code = code

    def _fields(self) -> tuple[Any, ...]:
        return (self.message, self.code)


class NotFoundError(SiennError):
    """No such dataset, job or adapter."""


class ConflictError(SiennError):
    """A request contradicts what there is, such as deleting a dataset that a job uses."""


class TransitionError(ConflictError):
    """A status change of a job or an export is not in the table of allowed transitions."""


class FencedError(ConflictError):
    """An attempt at a job isn't awaited any more: the job is gone, has ended, or goes on with another attempt."""


class UnauthorizedError(SiennError):
    """A request comes without credentials, or with some that aren't valid."""


class InvalidTokenError(UnauthorizedError):
    """A key, a token or a session is malformed, forged, out of date, ended, or meant for somebody else."""


class InvalidClientError(UnauthorizedError):
    """A request for a token comes from somebody who doesn't prove who they are."""


class ForbiddenError(SiennError):
    """The caller may not do this, or a signed link was altered or has expired."""


class QuotaExceededError(ForbiddenError):
    """An owner has as much as it may have; only something that is deleted makes room."""


class StorageFullError(SiennError):
    """Storage has no room for what is to be written."""


class ArtifactError(SiennError):
    """A stored artifact is missing, incomplete or altered."""


class FailureReason(StrEnum):
    """The reason for a job's failure, for programs to switch on."""

    INVALID_DATASET = "invalid_dataset"
    INVALID_BASE_MODEL = "invalid_base_model"
    INVALID_HYPERPARAMETERS = "invalid_hyperparameters"
    OUT_OF_MEMORY = "out_of_memory"
    DIVERGED = "diverged"
    NO_RESOURCES = "no_resources"
    WORKER_LOST = "worker_lost"
    INTERRUPTED = "interrupted"
    STOPPED = "stopped"
    STORAGE = "storage"
    OUT_OF_REACH = "out_of_reach"
    INTERNAL = "internal"


class TrainingError(SiennError):
    """A run ended without an adapter.

    Args:
        message: What happened and what to do about it.
        reason: The code a program can switch on.
    """

    def __init__(self, message: str, reason: FailureReason = FailureReason.INTERNAL) -> None:
        super().__init__(message)
        self.reason = reason

    def _fields(self) -> tuple[Any, ...]:
        return (self.message, self.reason)


class MicroBatchMemoryError(TrainingError):
    """Memory ran out where a worker can't try again by itself; another attempt may, with smaller micro batches.

    Args:
        message: What ran out, and what to do about it.
        max_tokens: Most tokens that a micro batch is to have then.
    """

    def __init__(self, message: str, max_tokens: int) -> None:
        super().__init__(message, FailureReason.OUT_OF_MEMORY)
        self.max_tokens = max_tokens

    def _fields(self) -> tuple[Any, ...]:
        return (self.message, self.max_tokens)


class ExportStoppedError(SiennError):
    """An export was cancelled or deleted, or another run makes it, so this run of it ends."""


class CapacityError(SiennError):
    """There is too much to do at the moment.

    Args:
        message: What is full.
        retry_after_s: Seconds after which another try makes sense.
    """

    def __init__(self, message: str, retry_after_s: int = DEFAULT_RETRY_AFTER_S) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s

    def _fields(self) -> tuple[Any, ...]:
        return (self.message, self.retry_after_s)


class OutOfReachError(CapacityError):
    """Hub or storage can't be reached at the moment, so another try may succeed."""

    @classmethod
    def of(cls, what: str, error: BaseException) -> OutOfReachError:
        """With what is out of reach, and the kind of error, in its message."""
        return cls(f"{what} can't be reached at the moment ({type(error).__name__}); try again in a while", 30)


class IssuerError(OutOfReachError):
    """An outside issuer of tokens doesn't answer, or not as the standard says."""


class QueueFullError(CapacityError):
    """As many requests wait for an engine as may."""

    @classmethod
    def of(cls, base_model: str, limit: int) -> QueueFullError:
        """With the engine and the limit in its message."""
        return cls(f"{limit} requests wait for {base_model} already (SIENN_ENGINE_MAX_QUEUE); try again in a moment")


class TooManyRequestsError(CapacityError):
    """A user asked for more at once than the server accepts."""


class TooLateError(CapacityError):
    """A change was asked for too long ago to be carried out; it has not happened, and won't."""


class RedeployedError(CapacityError):
    """The service was deployed anew with another storage meanwhile, so that a change has not happened, and won't."""


class EngineError(SiennError):
    """A base model or an adapter couldn't be loaded or asked."""


class AdapterMemoryError(EngineError):
    """A device has no memory for the adapters of a batch; requests for others go on.

    Args:
        message: How much there was to be room for, and what to do about it.
        names: Names of the adapters that there is no room for.
    """

    def __init__(self, message: str, names: tuple[str, ...]) -> None:
        super().__init__(message)
        self.names = names

    def _fields(self) -> tuple[Any, ...]:
        return (self.message, self.names)


def first_line(error: BaseException) -> str:
    """Return the first line of an error's message, cut to what fits into another message; Ray's have a traceback."""
    return next(iter(str(error).splitlines()), "")[:MAX_FIRST_LINE_CHARS]
