"""The service's messages in the words of the command: options and commands in place of fields and routes."""

from __future__ import annotations

import re

from sienn_ray.training.hyperparameters import HYPERPARAMETERS

_ID = r"[^\s/)`;,]+"
_ROUTES: tuple[tuple[re.Pattern[str], str], ...] = tuple(
    (re.compile(pattern), words)
    for pattern, words in (
        (rf"`?POST /api/jobs/({_ID})/(cancel|pause|resume|retry)`?", r"`sienn \2 \1`"),
        (r"`?GET /api/jobs\?dataset_id=\S+`?", "`sienn jobs`"),
        (r"`?GET /api/exports/\{job_id\}`?", "`sienn exports JOB_ID`"),
        (r"`?GET /api/(jobs|datasets)`?(?![/\w])", r"`sienn \1`"),
        (r"`?GET /(?:v1/models|api/models/available)`?", "`sienn models`"),
    )
)
# Fields whose options have other names; those of all others are made of theirs.
_OTHER_NAMES = {"labels": "--label", "label": "--label", "model_name": "--base-model", "attempt": "--attempt"}
_FIELDS = frozenset(
    {each.name for each in HYPERPARAMETERS}
    | {"adapter_only", "frequency_penalty", "max_new_tokens", "merged", "min_p", "presence_penalty", "quantization"}
    | {
        "repetition_penalty",
        "stop",
        "system",
        "temperature",
        "top_k",
        "top_p",
        "validation_dataset_id",
        "from_job",
        "limit",
        "tail",
    }
    | {"columns", "encoding", "idempotency_key", "name", "priority", "separator", "status"}
    | _OTHER_NAMES.keys()
)
# A field at the start of a sentence about it, maybe with the place where it stands; or a name that is no English word.
_LED = re.compile(r"(^|; )(?:query\.|path\.|header\.)?([A-Za-z][A-Za-z_-]*)(?:\.[^:]*)?(?=: )")
_NAMED = re.compile(r"(?<![\w/.'`-])([a-z]+(?:_[a-z0-9]+)+)(?![\w/`-])")
_ASSIGNED = re.compile(r"(?<![\w/.'`-])([a-z]+)(?==)")


def in_own_words(message: str, *, other_names: dict[str, str] | None = None) -> str:
    """A message of the service in words that a user of the command knows.

    Args:
        message: What the service says.
        other_names: Options of fields that are called otherwise in this command.

    Example:
        >>> in_own_words("query.max_length: must be 128 or more")
        '--max-length: must be 128 or more'
    """
    for route, words in _ROUTES:
        message = route.sub(words, message)
    message = re.sub(r"\b(?:Input|String|List|Dictionary) should (be|have)\b", r"must \1", message)

    def option(field: str) -> str:
        field = field.lower().replace("-", "_")
        if field not in _FIELDS:
            return ""
        names = {**_OTHER_NAMES, **(other_names or {})}
        return names.get(field, f"--{field.replace('_', '-')}")

    message = _LED.sub(lambda found: found[1] + (option(found[2]) or found[0].removeprefix(found[1])), message)
    message = _NAMED.sub(lambda found: option(found[1]) or found[0], message)
    return _ASSIGNED.sub(lambda found: option(found[1]) or found[0], message)
