"""What the engine adds to plain PEFT, and what its adapter cache saves.

Claim: an answer by a cached adapter takes about as long as with plain `peft` + `transformers` and that one adapter
loaded, and less than when the adapter is loaded for the request. Peers and engine answer the same greedy prompt in the
same process, in turns; medians of `ROUNDS` rounds.

Run: `python benchmarks/adapter_cache.py`
"""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch
from peft import LoraConfig, PeftModel, get_peft_model

from sienn_ray.base_model import load_causal_lm, load_tokenizer, local_folder
from sienn_ray.datasets.prompt import FILE_NAME, PromptFormat
from sienn_ray.inference.batching.engine import BatchingEngine
from sienn_ray.inference.blocking import generate as answer
from sienn_ray.inference.engine import GenerationRequest, SamplingParams
from sienn_ray.settings import Settings
from sienn_ray.storage import Storage

BASE_MODEL = "HuggingFaceTB/SmolLM2-135M-Instruct"
ADAPTER_KEY = "adapters/benchmark"
NEW_TOKENS = 16
ROUNDS = 5


def main() -> None:
    settings = Settings()
    with tempfile.TemporaryDirectory() as folder:
        settings = settings.model_copy(update={"storage_url": f"file://{folder}/storage"})
        run(settings, Path(folder) / "adapter")


def run(settings: Settings, adapter_folder: Path) -> None:
    device = torch.device("cpu")
    base_folder = local_folder(BASE_MODEL, settings)
    tokenizer = load_tokenizer(base_folder)
    make_adapter(load_causal_lm(base_folder, device), adapter_folder, PromptFormat.for_chat(tokenizer))
    Storage(settings.storage_url).publish(adapter_folder, ADAPTER_KEY)

    engine = BatchingEngine(BASE_MODEL, settings)
    request = GenerationRequest.ask(
        "What is a lighthouse?",
        adapter_id="benchmark",
        adapter_key=ADAPTER_KEY,
        sampling=SamplingParams(max_new_tokens=NEW_TOKENS, do_sample=False, repetition_penalty=1.0),
    )
    rendered = answer(engine, request).rendered_prompt
    inputs = tokenizer(rendered, add_special_tokens=False, return_tensors="pt")
    loaded = PeftModel.from_pretrained(load_causal_lm(base_folder, device), adapter_folder).eval()
    bare = load_causal_lm(base_folder, device)

    @torch.inference_mode()
    def generate(model: PeftModel) -> None:
        model.generate(**inputs, max_new_tokens=NEW_TOKENS, do_sample=False)

    def load_for_request() -> None:
        adapted = PeftModel.from_pretrained(bare, adapter_folder).eval()
        generate(adapted)
        adapted.unload()

    contenders: dict[str, Callable[[], object]] = {
        "engine, adapter cached": lambda: answer(engine, request),
        "plain PEFT, adapter loaded": lambda: generate(loaded),
        "plain PEFT, loaded for the request": load_for_request,
    }
    for contender in contenders.values():
        contender()  # warms caches up
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    for _ in range(ROUNDS):
        for name, contender in contenders.items():
            seconds[name].append(timed(contender))
    medians = {name: statistics.median(values) for name, values in seconds.items()}
    ours = medians["engine, adapter cached"]
    for name, median in medians.items():
        print(f"{name:38} {median * 1000:8.0f} ms   {median / ours:5.2f} x the engine's")


def make_adapter(model: object, folder: Path, prompt_format: PromptFormat) -> None:
    config = LoraConfig(
        r=16, lora_alpha=32, target_modules="all-linear", task_type="CAUSAL_LM", init_lora_weights=False
    )
    adapter = get_peft_model(model, config)
    adapter.peft_config["default"].base_model_name_or_path = BASE_MODEL
    adapter.save_pretrained(folder, save_embedding_layers=False)
    (folder / FILE_NAME).write_text(prompt_format.to_json())


def timed(action: Callable[[], object]) -> float:
    started = time.perf_counter()
    action()
    return time.perf_counter() - started


if __name__ == "__main__":
    main()
