from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from sienn_ray.datasets.prompt import FILE_NAME as PROMPT_FORMAT_FILE
from sienn_ray.datasets.prompt import PromptFormat, PromptKind
from sienn_ray.errors import ArtifactError, TrainingError
from sienn_ray.storage import Storage
from sienn_ray.training.adapter.start import fetched_start, read_start
from sienn_ray.training.checkpoint_files import ADAPTER_CONFIG, ADAPTER_WEIGHTS, START_WEIGHTS
from sienn_ray.training.config import LoraSettings, TrainingConfig

KEY = "adapters/job-1"
CONFIG = TrainingConfig(base_model="owner/model", lora=LoraSettings(r=4, lora_alpha=8))
FORMAT = PromptFormat(PromptKind.CHAT, "{{ messages }}")
WRITTEN = {"base_model_name_or_path": "owner/model", "r": 4, "lora_alpha": 8, "use_rslora": False, "use_dora": False}


@pytest.fixture
def storage(tmp_path: Path) -> Storage:
    return Storage(f"file://{tmp_path / 'storage'}")


def publish(storage: Storage, folder: Path, *, prompt_format: PromptFormat | None = FORMAT, **fields: Any) -> None:
    folder.mkdir()
    save_file({"weight": torch.ones(2)}, folder / ADAPTER_WEIGHTS)
    (folder / ADAPTER_CONFIG).write_text(json.dumps({**WRITTEN, **fields}))
    if prompt_format is not None:
        (folder / PROMPT_FORMAT_FILE).write_text(prompt_format.to_json())
    storage.publish(folder, KEY)


@pytest.mark.parametrize("prompt_format", [FORMAT, None])
def test_an_adapter_that_fits_is_fetched(storage: Storage, tmp_path: Path, prompt_format: PromptFormat | None) -> None:
    publish(storage, tmp_path / "adapter", prompt_format=prompt_format)
    with fetched_start(storage, KEY, CONFIG, FORMAT) as folder:
        assert (folder / ADAPTER_WEIGHTS).is_file()
    assert not folder.exists()


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"base_model_name_or_path": "owner/other"}, "has base_model_name_or_path=owner/other, and this run has owner"),
        ({"r": 8}, "has r=8, and this run has 4"),
        ({"lora_alpha": 16}, "has lora_alpha=16, and this run has 8"),
        ({"use_rslora": True}, "has use_rslora=True"),
        ({"use_dora": True}, "has use_dora=True"),
    ],
)
def test_one_that_counts_otherwise_is_refused(
    storage: Storage, tmp_path: Path, fields: dict[str, Any], words: str
) -> None:
    publish(storage, tmp_path / "adapter", **fields)
    with pytest.raises(TrainingError, match=words), fetched_start(storage, KEY, CONFIG, FORMAT):
        pass


def test_other_prompts_are_refused(storage: Storage, tmp_path: Path) -> None:
    publish(storage, tmp_path / "adapter", prompt_format=PromptFormat(PromptKind.CHAT, "other"))
    with (
        pytest.raises(TrainingError, match="another kind or chat template"),
        fetched_start(storage, KEY, CONFIG, FORMAT),
    ):
        pass


def test_one_that_is_gone_is_said_so(storage: Storage) -> None:
    with (
        pytest.raises(ArtifactError, match="can't be had from adapters/job-1"),
        fetched_start(storage, KEY, CONFIG, FORMAT),
    ):
        pass


def test_a_checkpoint_s_weights_come_first(tmp_path: Path) -> None:
    save_file({"weight": torch.full((2,), 3.0)}, tmp_path / START_WEIGHTS)

    def fetch() -> Any:
        raise AssertionError

    assert read_start(tmp_path, fetch)["weight"].tolist() == [3.0, 3.0]
    (tmp_path / START_WEIGHTS).write_bytes(b"no weights")
    with pytest.raises(ArtifactError, match=START_WEIGHTS):
        read_start(tmp_path, fetch)
