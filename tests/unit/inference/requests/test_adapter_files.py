from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from sienn_ray.datasets.prompt import FILE_NAME as PROMPT_FORMAT_FILE
from sienn_ray.datasets.prompt import PromptFormat
from sienn_ray.errors import ArtifactError, EngineError
from sienn_ray.inference.requests.adapter_files import (
    CONFIG_FILE,
    WEIGHTS_FILE,
    errors_naming,
    fetch_adapter,
    read_config,
    read_tensors,
)
from sienn_ray.local_copies import LocalCopies
from sienn_ray.storage import Storage

NAME = "base_model.model.layers.0.q_proj.lora_A.weight"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """An adapter's files."""
    folder = tmp_path / "adapter"
    folder.mkdir()
    (folder / PROMPT_FORMAT_FILE).write_text(PromptFormat.for_text().to_json())
    (folder / CONFIG_FILE).write_text(json.dumps({"peft_type": "LORA", "base_model_name_or_path": "org/base"}))
    save_file({NAME: torch.ones(2, 3)}, folder / WEIGHTS_FILE)
    return folder


@pytest.fixture
def storage(tmp_path: Path) -> Storage:
    return Storage(f"file://{tmp_path}/storage")


@pytest.fixture
def copies(tmp_path: Path) -> LocalCopies:
    return LocalCopies(tmp_path / "cache", 10_000)


def test_files_are_those_that_were_published(storage: Storage, folder: Path, copies: LocalCopies) -> None:
    for key in ("adapters/a", "adapters/b"):
        storage.publish(folder, key)
    first, second = (fetch_adapter(storage, key, copies) for key in ("adapters/a", "adapters/b"))
    assert first.prompt_format == PromptFormat.for_text()
    assert first.content_hash == second.content_hash
    assert read_config(first.folder, "org/base")["peft_type"] == "LORA"
    assert read_tensors(first.folder)[NAME].shape == (2, 3)


def test_other_files_have_another_hash(storage: Storage, folder: Path, copies: LocalCopies) -> None:
    storage.publish(folder, "adapters/a")
    save_file({NAME: torch.zeros(2, 3)}, folder / WEIGHTS_FILE)
    storage.publish(folder, "adapters/b")
    hashes = {fetch_adapter(storage, key, copies).content_hash for key in ("adapters/a", "adapters/b")}
    assert len(hashes) == 2


@pytest.mark.parametrize(
    ("content", "match"),
    [(None, "^adapters/a has no prompt_format.json"), ("{}", "^adapters/a: prompt_format.json can't be read")],
)
def test_a_prompt_format_has_to_be_there(
    storage: Storage, folder: Path, copies: LocalCopies, content: str | None, match: str
) -> None:
    (folder / PROMPT_FORMAT_FILE).unlink()
    if content is not None:
        (folder / PROMPT_FORMAT_FILE).write_text(content)
    storage.publish(folder, "adapters/a")
    with pytest.raises(ArtifactError, match=match):
        fetch_adapter(storage, "adapters/a", copies)


def test_an_adapter_of_another_base_model_is_refused(folder: Path) -> None:
    with pytest.raises(EngineError, match="trained on 'org/base', this engine holds 'org/other'"):
        read_config(folder, "org/other")


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_have_to_be_finite(folder: Path, value: float) -> None:
    save_file({NAME: torch.tensor([[1.0, value]])}, folder / WEIGHTS_FILE)
    with pytest.raises(EngineError, match=r"weights for 'layers\.0\.q_proj' aren't all finite"):
        read_tensors(folder)


def test_an_error_names_the_adapter_and_keeps_its_type() -> None:
    with pytest.raises(ArtifactError, match=r"^adapters/a: altered$"), errors_naming("adapters/a"):
        raise ArtifactError("altered")
