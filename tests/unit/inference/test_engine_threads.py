"""How an engine computes, seen from inside a process that runs nothing else."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from sienn_ray.base_model import load_causal_lm, load_tokenizer
from sienn_ray.compute_threads import usable_cpus
from sienn_ray.datasets.prompt import FILE_NAME as PROMPT_FORMAT_FILE
from sienn_ray.datasets.prompt import PromptFormat
from sienn_ray.settings import Settings
from sienn_ray.storage import Storage
from sienn_ray.training.adapter.adapters import add_adapter
from sienn_ray.training.config import TrainingConfig
from tests.support.computing import NEEDS_CPUS, seen
from tests.support.tiny_model import TINY_ID, add_to_hub_cache

pytestmark = pytest.mark.alone

# Its listener is called by the thread that computes, between two steps.
_PROGRAM = f"""
import queue
from sienn_ray.inference.batching.engine import BatchingEngine
from sienn_ray.inference.engine import GenerationRequest, SamplingParams
from sienn_ray.settings import Settings

engine = BatchingEngine("{TINY_ID}", Settings())
said = queue.SimpleQueue()
show(engine.compute_setup)
for adapter in (None, "one", "two"):
    request = GenerationRequest.ask(
        "What is Python?",
        adapter_id=adapter,
        adapter_key=adapter and "adapters/" + adapter,
        sampling=SamplingParams(max_new_tokens=5),
    )
    engine.submit(request, lambda delta: delta.is_last and said.put((delta, observe())))
    delta, setup = said.get(timeout=60)
    if delta.error:
        raise delta.error
    show(setup)
engine.close()
"""


@NEEDS_CPUS
def test_engine_computes_in_the_one_thread_with_workers_which_spin(tiny_model_folder: Path, tmp_path: Path) -> None:
    add_to_hub_cache(tiny_model_folder, tmp_path, TINY_ID)
    storage = Storage(Settings(home=tmp_path).storage_url)
    for name in ("one", "two"):
        folder = tmp_path / name
        config = TrainingConfig(base_model=TINY_ID)
        adapter = add_adapter(load_causal_lm(tiny_model_folder, torch.device("cpu")), config)
        adapter.save_pretrained(folder, save_embedding_layers=False)
        prompt_format = PromptFormat.for_chat(load_tokenizer(tiny_model_folder))
        (folder / PROMPT_FORMAT_FILE).write_text(prompt_format.to_json())
        storage.publish(folder, f"adapters/{name}")
    # As in a replica that reserves no CPU.
    variables = {"HF_HOME": str(tmp_path), "HF_HUB_OFFLINE": "1", "SIENN_HOME": str(tmp_path), "OMP_NUM_THREADS": "1"}
    setups = seen(_PROGRAM, **variables)
    assert len(setups) == 4
    for setup in setups:
        assert setup["is_compute_thread"]
        assert setup["openmp"] == "libgomp"
        assert setup["num_threads"] == usable_cpus()
        assert not setup["is_waking_workers"]
