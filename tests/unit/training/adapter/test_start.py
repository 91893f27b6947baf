from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig
from safetensors.torch import save_file

from sienn_ray.datasets.prompt import FILE_NAME as PROMPT_FORMAT_FILE
from sienn_ray.datasets.prompt import PromptFormat, PromptKind
from sienn_ray.datasets.render_options import RenderOptions
from sienn_ray.errors import ArtifactError, TrainingError
from sienn_ray.storage import Storage
from sienn_ray.training.adapter.start import fetched_start, read_start
from sienn_ray.training.adapter.start_checks import NOT_PLAIN, PEFT_DEFAULTS
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
    written = {name: value for name, value in {**WRITTEN, **fields}.items() if value is not ...}
    (folder / ADAPTER_CONFIG).write_text(json.dumps(written))
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
        ({"peft_type": "IA3"}, "has peft_type=IA3, and this run has LORA"),
        ({"r": ...}, r"has r=8 \(PEFT's default\), and this run has 4"),
        ({"base_model_name_or_path": ...}, r"has base_model_name_or_path=None \(PEFT's default\)"),
        ({"alpha_pattern": {"q_proj": 32}}, r'has alpha_pattern=\{"q_proj": 32\}, and runs here are without'),
        ({"rank_pattern": {"q_proj": 32}}, r'has rank_pattern=\{"q_proj": 32\}'),
        ({"bias": "all"}, "has bias=all"),
        ({"modules_to_save": ["lm_head"]}, r'has modules_to_save=\["lm_head"\]'),
        ({"alora_invocation_tokens": [1, 2]}, r"has alora_invocation_tokens=\[1, 2\]"),
        ({"layer_replication": [[0, 2]]}, "has layer_replication"),
        *(
            ({"init_lora_weights": name}, f"has init_lora_weights={name}, which changes the base model's weights")
            for name in ("pissa", "pissa_niter_16", "olora", "corda", "loftq", "lora_ga")
        ),
    ],
)
def test_one_that_counts_otherwise_is_refused(
    storage: Storage, tmp_path: Path, fields: dict[str, Any], words: str
) -> None:
    publish(storage, tmp_path / "adapter", **fields)
    with pytest.raises(TrainingError, match=words), fetched_start(storage, KEY, CONFIG, FORMAT):
        pass


@pytest.mark.parametrize(
    ("there", "here", "words"),
    [
        (PromptFormat(PromptKind.CHAT, "other"), FORMAT, "its chat_template is another one"),
        (FORMAT, PromptFormat.for_text(), "its prompts are of the kind chat, and this run's of text"),
        (
            PromptFormat(PromptKind.CHAT, FORMAT.chat_template, RenderOptions.of({"thinks": True}, "text")),
            FORMAT,
            r"it has chat_template_kwargs=\{\"thinks\": ?true\}, and this run \{\}",
        ),
        (
            PromptFormat.for_text(RenderOptions.of({}, "tokens")),
            PromptFormat.for_text(),
            "it has special_tokens=tokens, and this run text",
        ),
    ],
)
def test_other_prompts_are_refused_by_what_differs(
    storage: Storage, tmp_path: Path, there: PromptFormat, here: PromptFormat, words: str
) -> None:
    publish(storage, tmp_path / "adapter", prompt_format=there)
    with pytest.raises(TrainingError, match=words), fetched_start(storage, KEY, CONFIG, here):
        pass


def test_a_chat_adapter_of_an_earlier_version_is_taken(storage: Storage, tmp_path: Path) -> None:
    earlier = tmp_path / "earlier"
    publish(storage, earlier)
    content = json.loads(FORMAT.to_json())
    del content["special_tokens"], content["chat_template_kwargs"]
    (earlier / PROMPT_FORMAT_FILE).write_text(json.dumps(content))
    storage.publish(earlier, "adapters/job-2")
    with fetched_start(storage, "adapters/job-2", CONFIG, FORMAT) as folder:
        assert (folder / ADAPTER_WEIGHTS).is_file()


def test_an_adapter_as_peft_writes_it_is_taken(storage: Storage, tmp_path: Path) -> None:
    lora = LoraConfig(r=4, lora_alpha=8, task_type="CAUSAL_LM", base_model_name_or_path="owner/model")
    lora.save_pretrained(tmp_path / "written")
    publish(storage, tmp_path / "adapter", **json.loads((tmp_path / "written" / ADAPTER_CONFIG).read_text()))
    with fetched_start(storage, KEY, CONFIG, FORMAT) as folder:
        assert (folder / ADAPTER_WEIGHTS).is_file()


def test_defaults_are_peft_s() -> None:
    defaults = json.loads(json.dumps(LoraConfig().to_dict(), default=list))
    assert {name: defaults[name] for name in PEFT_DEFAULTS} == PEFT_DEFAULTS
    assert set(NOT_PLAIN) <= defaults.keys()


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
