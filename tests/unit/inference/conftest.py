"""A tiny base model in the hub's cache, and random adapters for it in storage."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest
import torch
from peft import PeftModel
from transformers import GenerationConfig

from sienn_ray.base_model import load_causal_lm, load_tokenizer
from sienn_ray.datasets.prompt import FILE_NAME as PROMPT_FORMAT_FILE
from sienn_ray.datasets.prompt import PromptFormat
from sienn_ray.settings import Settings
from sienn_ray.storage import Storage
from sienn_ray.training.adapter.adapters import add_adapter
from sienn_ray.training.config import TrainingConfig
from tests.support.tiny_model import TINY_ID, add_to_hub_cache
from tests.unit.inference.asking import PROMPT

CPU = torch.device("cpu")


@pytest.fixture(scope="session")
def adapter_folders(tiny_model_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Random adapters as training publishes them; `minus` undoes what `plus` adds."""
    torch.manual_seed(0)
    model = add_adapter(load_causal_lm(tiny_model_folder, CPU), TrainingConfig(base_model=TINY_ID))
    tokenizer = load_tokenizer(tiny_model_folder)
    folders = {}
    weights_b = [parameter for name, parameter in model.named_parameters() if "lora_B" in name]
    noise = [torch.randn_like(parameter) * 0.2 for parameter in weights_b]
    for name, sign in (("plus", 1.0), ("minus", -1.0), ("half", 0.5)):
        for parameter, values in zip(weights_b, noise, strict=True):
            parameter.data = values * sign
        folder = tmp_path_factory.mktemp(name)
        model.save_pretrained(folder, save_embedding_layers=False)
        (folder / "README.md").unlink()
        tokenizer.save_pretrained(folder, save_jinja_files=False)
        (folder / PROMPT_FORMAT_FILE).write_text(PromptFormat.for_chat(tokenizer).to_json())
        folders[name] = folder
    return folders


@pytest.fixture
def hub_home(tiny_model_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A hub cache, out of reach of the hub, that has the tiny model."""
    home = tmp_path / "hub-home"
    add_to_hub_cache(tiny_model_folder, home, TINY_ID)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(home / "hub"))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    return home


@pytest.fixture(scope="session")
def measured_layers(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the first engine has measured, as the later ones of a machine find it; a second or two for each of them."""
    return tmp_path_factory.mktemp("measured") / "linear-layers.json"


@pytest.fixture
def settings(tmp_path: Path, measured_layers: Path) -> Iterator[Settings]:
    settings = Settings(env="test", home=tmp_path / "home", engine_num_cpus=1, engine_kv_cache_bytes=16 << 20)
    own = settings.home / "cache" / measured_layers.name
    own.parent.mkdir(parents=True)
    if measured_layers.exists():
        shutil.copyfile(measured_layers, own)
    yield settings
    if own.exists():
        shutil.copyfile(own, measured_layers)


@pytest.fixture
def storage(settings: Settings, adapter_folders: dict[str, Path]) -> Storage:
    """The adapters, as `adapters/<name>`."""
    storage = Storage(settings.storage_url)
    for name, folder in adapter_folders.items():
        storage.publish(folder, f"adapters/{name}")
    return storage


@pytest.fixture(scope="session")
def expected(tiny_model_folder: Path, adapter_folders: dict[str, Path]) -> Callable[[str | None], str]:
    """The greedy answer of plain transformers and PEFT, 12 tokens long, by the adapter's name."""
    tokenizer = load_tokenizer(tiny_model_folder)
    answers: dict[str | None, str] = {}

    def ask(adapter: str | None) -> str:
        if adapter not in answers:
            model: Any = load_causal_lm(tiny_model_folder, CPU)
            if adapter is not None:
                model = PeftModel.from_pretrained(model, adapter_folders[adapter])
            prompt = tokenizer.apply_chat_template(
                [{"role": "user", "content": PROMPT}], add_generation_prompt=True, return_tensors="pt", return_dict=True
            )
            options = GenerationConfig(max_new_tokens=12, do_sample=False, pad_token_id=2, eos_token_id=2)
            output = model.eval().generate(**prompt, generation_config=options)
            generated = output[0, prompt["input_ids"].shape[1] :]
            answers[adapter] = tokenizer.decode(generated, skip_special_tokens=True).strip()
        return answers[adapter]

    return ask
