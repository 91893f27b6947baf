"""Datasets in storage, and base models that are nothing but a chat template, to check the one against the other."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from sienn_ray.datasets import dataset_keys
from sienn_ray.datasets.row_writer import RowWriter
from sienn_ray.datasets.schema import CanonicalRow, Message, Role, RowKind
from sienn_ray.storage import Storage
from sienn_ray.template_check.verdict import TemplateRequest

BASE_MODEL = "owner/base"
EOS = "<|im_end|>"
CHATML = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
# Refuses what some templates refuse: turns of one role behind each other.
STRICT = (
    "{% for message in messages %}{% if loop.index0 > 0 and message['role'] == messages[loop.index0 - 1]['role'] %}"
    "{{ raise_exception('Roles must alternate') }}{% endif %}{% endfor %}" + CHATML
)


def save_template(folder: Path, chat_template: str | None = CHATML, **config: Any) -> Path:
    """A folder with the files of a tokenizer that tell its chat template."""
    folder.mkdir(parents=True, exist_ok=True)
    content = {"eos_token": EOS, "bos_token": {"content": "<|im_start|>"}, "chat_template": chat_template, **config}
    (folder / "tokenizer_config.json").write_text(json.dumps(content))
    return folder


def conversation(*contents: str, roles: str = "ua") -> CanonicalRow:
    """A conversation whose speakers are told by letters, again and again."""
    names = {"u": Role.USER, "a": Role.ASSISTANT, "s": Role.SYSTEM}
    letters = roles * len(contents)
    return CanonicalRow(
        tuple(Message(names[letter], content) for letter, content in zip(letters, contents, strict=False))
    )


def put_rows(storage: Storage, rows: list[CanonicalRow], dataset_id: str = "d1") -> TemplateRequest:
    """Write a dataset's rows; returns the request for their check."""
    with storage.writing(dataset_keys.rows_key(dataset_id)) as file, RowWriter(file) as writer:
        for number, row in enumerate(rows):
            writer.add(row, number + 2, [])
    kind = RowKind.CONVERSATION if rows[0].messages else RowKind.TEXT
    return TemplateRequest(dataset_id, len(rows), kind, BASE_MODEL)
