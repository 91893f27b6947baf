"""What the servers of `benchmarks/serving.py` work with: a base model, adapters, prompts. Made once, and kept.

The adapters are random: what they answer is of no interest, how long that takes is. They are published in a storage of
ours, from where the peers read them as well, since a published adapter is a folder as PEFT writes it.
"""

from __future__ import annotations

import json
import os
import shutil
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from peft import LoraConfig
from safetensors.numpy import load_file, save_file
from serving_gguf import TYPES, convert_adapter, convert_base
from serving_load import Load, Request
from serving_prompts import make_prompts

from sienn_ray import catalog
from sienn_ray.base_model import load_tokenizer, local_folder
from sienn_ray.datasets.prompt import FILE_NAME as PROMPT_FORMAT_FILE
from sienn_ray.datasets.prompt import PromptFormat
from sienn_ray.jobs.schema import DatasetRecord, JobRecord, JobStatus, utc_now
from sienn_ray.jobs.store.store import Store
from sienn_ray.settings import Settings
from sienn_ray.storage import Storage
from sienn_ray.training.config import LoraSettings, TrainingConfig

BASE_MODEL = "HuggingFaceTB/SmolLM2-135M-Instruct"
PROJECTIONS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
LORA_R, LORA_ALPHA = 16, 32
B_STD = 0.01
# Stands for "end of text" in the copy of the base model, so that every answer has the length that was asked for, also
# from a server that has no switch for that. The vocabulary has it, and no text does.
NEVER_SAID = "<empty_output>"
ID_SPACE = uuid.UUID("6f1c1f0e-5c0b-4a51-9a52-6d2d3f0c7a10")


def job_id(number: int) -> str:
    """Of the job that an adapter is said to come from."""
    return str(uuid.uuid5(ID_SPACE, str(number)))


def adapter_key(number: int) -> str:
    return f"adapters/{job_id(number)}"


@dataclass(frozen=True)
class Material:
    """A folder with everything.

    Args:
        folder: It is a home of our service as well: converted base models and storage are where it looks for them.
        models: Where the base model itself is converted to.
    """

    folder: Path
    models: Path

    @property
    def model_folder(self) -> Path:
        return self.folder / "models" / BASE_MODEL.replace("/", "--")

    @property
    def storage_url(self) -> str:
        return f"file://{self.folder / 'storage'}"

    def adapter(self, number: int) -> Path:
        return self.folder / "storage" / adapter_key(number)

    def gguf(self, weights: str) -> Path:
        return self.folder / "gguf" / f"base-{weights}.gguf"

    def gguf_adapter(self, number: int) -> Path:
        return self.folder / "gguf" / f"{job_id(number)}.gguf"

    def prepare(self, num_adapters: int, weights: set[str]) -> None:
        """Make what isn't there yet."""
        if not self.model_folder.is_dir():
            self._copy_base_model()
        (self.folder / "gguf").mkdir(exist_ok=True)
        for number in range(num_adapters):
            if not (self.adapter(number) / "manifest.json").is_file():
                self._make_adapter(number)
            if weights and not self.gguf_adapter(number).is_file():
                config = self._config()
                partial = self.gguf_adapter(number).with_suffix(".partial")
                heads = config["num_attention_heads"], config["num_key_value_heads"]
                convert_adapter(self.adapter(number), partial, *heads)
                partial.rename(self.gguf_adapter(number))
        for kind in sorted(weights):
            if not self.gguf(kind).exists():
                self._make_gguf(kind)

    def _config(self) -> dict[str, Any]:
        config: dict[str, Any] = json.loads((self.model_folder / "config.json").read_text())
        return config

    def _copy_base_model(self) -> None:
        source = local_folder(BASE_MODEL, Settings(home=self.models.parent))
        partial = self.model_folder.with_suffix(".partial")
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        for path in source.iterdir():
            if path.suffix == ".safetensors":
                os.link(path.resolve(), partial / path.name)
            else:
                shutil.copy(path, partial)
        never_said = load_tokenizer(source).convert_tokens_to_ids(NEVER_SAID)
        for name, key, value in (
            ("config.json", "eos_token_id", never_said),
            ("generation_config.json", "eos_token_id", never_said),
            ("tokenizer_config.json", "eos_token", NEVER_SAID),
        ):
            fields = json.loads((partial / name).read_text())
            (partial / name).write_text(json.dumps(fields | {key: value}, indent=2))
        partial.rename(self.model_folder)

    def _make_adapter(self, number: int) -> None:
        scratch = self.folder / f"adapter-{number}"
        scratch.mkdir(exist_ok=True)
        config = LoraConfig(
            r=LORA_R,
            lora_alpha=LORA_ALPHA,
            target_modules=PROJECTIONS,
            task_type="CAUSAL_LM",
            base_model_name_or_path=BASE_MODEL,
            inference_mode=True,
        )
        config.save_pretrained(scratch)
        save_file(self._random_weights(number), scratch / "adapter_model.safetensors", metadata={"format": "pt"})
        prompt_format = PromptFormat.for_chat(load_tokenizer(self.model_folder))
        (scratch / PROMPT_FORMAT_FILE).write_text(prompt_format.to_json())
        Storage(self.storage_url).publish(scratch, adapter_key(number))
        shutil.rmtree(scratch)

    def _random_weights(self, number: int) -> dict[str, Any]:
        """A as it would be at the start of training, B as small numbers instead of zeros."""
        chance = np.random.default_rng([1, number])
        weights: dict[str, Any] = {}
        for name, tensor in load_file(self.model_folder / "model.safetensors").items():
            if name.rpartition(".weight")[0].rpartition(".")[2] in PROJECTIONS:
                rows, columns = tensor.shape
                module = f"base_model.model.{name.removesuffix('.weight')}"
                a = chance.standard_normal((LORA_R, columns), dtype=np.float32) / np.sqrt(columns, dtype=np.float32)
                b = chance.standard_normal((rows, LORA_R), dtype=np.float32) * np.float32(B_STD)
                weights |= {f"{module}.lora_A.weight": a, f"{module}.lora_B.weight": b}
        return weights

    def _make_gguf(self, weights: str) -> None:
        packaged = catalog.PACKAGED[BASE_MODEL]
        folder = packaged.folder()
        if folder is None:
            raise RuntimeError(f"the peers on llama.cpp need the packaged weights: `{packaged.install_command}`")
        if weights not in TYPES:
            self.gguf(weights).symlink_to(folder / packaged.gguf_file)  # as it comes, Q4_1
            return
        partial = self.gguf(weights).with_suffix(".partial")
        convert_base(folder / packaged.gguf_file, partial, weights)
        partial.rename(self.gguf(weights))

    def enter_jobs(self, home: Path, num_adapters: int) -> None:
        """Write the job database of a service that isn't running yet, as if its jobs had trained the adapters."""
        store = Store(f"sqlite:///{home / 'sienn.db'}")
        dataset = DatasetRecord(
            id=job_id(-1),
            filename="rows.jsonl",
            size_bytes=1,
            sha256="0" * 64,
            format="instruction-response",
            num_rows=1,
            columns=["instruction", "response"],
            preview=[],
            created_at=utc_now(),
        )
        store.datasets.add(dataset)
        lora = LoraSettings(r=LORA_R, lora_alpha=LORA_ALPHA)
        for number in range(num_adapters):
            now = utc_now()
            record = JobRecord(
                id=job_id(number),
                dataset_id=dataset.id,
                config=TrainingConfig(base_model=BASE_MODEL, lora=lora),
                status=JobStatus.COMPLETED,
                progress=100,
                message="Training completed successfully",
                attempt=1,
                created_at=now,
                updated_at=now,
                started_at=now,
                ended_at=now,
            )
            store.jobs.add(record)
        store.close()

    def warm_up(self, num_adapters: int) -> Load:
        """Has every adapter, prompts of all lengths, and a batch."""
        return self.load(8, max(8, num_adapters), num_adapters, seed=-1, max_new_tokens=4)

    def load(self, concurrency: int, num_requests: int, num_adapters: int, seed: int, max_new_tokens: int) -> Load:
        """Prompts that have no beginning in common, each for the next adapter in turn."""
        prompts = make_prompts(load_tokenizer(self.model_folder), num_requests, f"{concurrency} {seed}")
        requests = [
            Request(prompt, number % num_adapters if num_adapters else None, max_new_tokens)
            for number, prompt in enumerate(prompts)
        ]
        return Load(concurrency, requests)
