"""OpenAPI links: from a response to the operations that are possible next."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Any

Json = dict[str, Any]


@dataclass(frozen=True)
class _Link:
    """From a response to the operation that takes something of it.

    Args:
        source: Operation id of the response.
        status: Its status.
        target: Operation id of what can be done next.
        description: One sentence.
        parameters: The target's parameters, as runtime expressions.
        body: The target's request body.
    """

    source: str
    status: int
    target: str
    description: str
    parameters: Json = field(default_factory=dict)
    body: Json | None = None

    def as_json(self) -> Json:
        """The link object of the OpenAPI document."""
        rest = {"parameters": self.parameters, "requestBody": self.body}
        return {"operationId": self.target, "description": self.description, **{k: v for k, v in rest.items() if v}}


_DATASET = {"dataset_id": "$response.body#/dataset_id"}
_JOB = {"job_id": "$response.body#/job_id"}

_EXPORT = {**_JOB, "export_id": "$response.body#/export_id"}

_OF_AN_EXPORT = {
    "get_export": "Watch the export.",
    "cancel_export": "End the export.",
    "delete_export": "Delete the export and its file.",
}
_OF_A_DATASET = {
    "get_dataset": "Look at the dataset.",
    "dataset_rows": "Page through its rows.",
    "dataset_statistics": "Count its rows and tokens.",
    "rendered_rows": "See its rows as the model reads them.",
    "download_dataset": "Download the file as it came.",
    "list_dataset_versions": "List its versions.",
    "add_dataset_version": "Append rows, or replace them.",
    "compare_dataset_versions": "See what differs between two versions.",
    "delete_dataset": "Delete the dataset.",
}
_OF_A_JOB = {
    "training_status": "Watch the job.",
    "get_job": "Watch the job.",
    "job_events": "See what happened to the job.",
    "job_metrics": "See the job's curves.",
    "job_logs": "Read the job's log.",
    "cancel_job": "End the job.",
    "pause_job": "Pause the job.",
    "resume_job": "Have the job go on once it is paused.",
    "retry_job": "Put a failed or cancelled job back into the queue.",
    "delete_job": "Delete a job that has ended.",
    "download_model": "Download the adapter once the job is completed.",
    "list_exports": "See what the job was exported as.",
}


_OF_A_WEBHOOK = {
    "get_webhook": "Look at the webhook.",
    "list_deliveries": "See what was delivered.",
    "test_webhook": "Send a ping.",
    "change_webhook": "Change the webhook.",
    "rotate_webhook_secret": "Make another secret.",  # nosec B105 # words, no secret
    "delete_webhook": "Delete the webhook.",
}
_WEBHOOK = {"webhook_id": "$response.body#/webhook_id"}
_DELIVERY = {**_WEBHOOK, "delivery_id": "$response.body#/delivery_id"}


_AFTER_A_CHANGE = {
    "pause_job": ("get_job", "job_events", "resume_job", "cancel_job"),
    "resume_job": ("get_job", "job_events", "pause_job", "cancel_job"),
}


def _all_links() -> list[_Link]:
    uploaded, started = ("upload_dataset", 201), ("start_finetuning", 201)
    links = [_Link(*uploaded, target, words, _DATASET) for target, words in _OF_A_DATASET.items()]
    links.append(_Link(*uploaded, "start_finetuning", "Fine-tune a base model on the dataset.", body=dict(_DATASET)))
    for source, next_steps in _AFTER_A_CHANGE.items():
        links += [_Link(source, 200, target, _OF_A_JOB[target], _JOB) for target in next_steps]
    for source, status in (started, ("cancel_job", 200), ("retry_job", 200)):
        links += [_Link(source, status, target, words, _JOB) for target, words in _OF_A_JOB.items() if target != source]
    prompt = {**_JOB, "prompt": "What is machine learning?"}
    links.append(_Link(*started, "test_model", "Ask the adapter once the job is completed.", body=prompt))
    exported = {"format": "gguf"}
    links.append(_Link(*started, "export_model", "Export the adapter once the job is completed.", _JOB, exported))
    links += [_Link("export_model", 200, target, words, _EXPORT) for target, words in _OF_AN_EXPORT.items()]
    links += [_Link("export_model", 202, target, words, _EXPORT) for target, words in _OF_AN_EXPORT.items()]
    links += [_Link("create_webhook", 201, target, words, _WEBHOOK) for target, words in _OF_A_WEBHOOK.items()]
    links.append(_Link("test_webhook", 202, "redeliver", "Send it once more.", _DELIVERY))
    compared = {"job_ids": ["$response.body#/job_id"], "prompt": prompt["prompt"]}
    links.append(_Link(*started, "compare_models", "Ask its base model the same beside it.", body=compared))
    chat = {"model": _JOB["job_id"], "messages": [{"role": "user", "content": prompt["prompt"]}]}
    links.append(_Link(*started, "create_chat_completion", "Talk to it with a client of the OpenAI API.", body=chat))
    links.append(
        _Link(*started, "delete_dataset", "Delete the dataset, once no job refers to it any more.", dict(_DATASET))
    )
    return links


_LINKS = _all_links()


def links_of(operation_id: str, known: Collection[str]) -> dict[str, Json]:
    """The links of an operation's responses, by status and name.

    Args:
        operation_id: The operation.
        known: Operation ids of the document.
    """
    found: dict[str, Json] = {}
    for link in _LINKS:
        if link.source == operation_id and link.target in known:
            found.setdefault(str(link.status), {})[link.target] = link.as_json()
    return found
