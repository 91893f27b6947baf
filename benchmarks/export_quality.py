"""How good each quantization of an export is, as llama.cpp runs it.

A small fine-tune's adapter is exported in every quantization. For each: the size of the file, the perplexity on a text
that the model has never seen (docs/decisions.md, in pieces of `PIECE_TOKENS`), and how many of twenty prompts get the
very answer of this project's engine, token by token. The GGUF LoRA over a GGUF of the base model comes last.

Run: `python benchmarks/export_quality.py [ADAPTER_FOLDER]` with the unpacked adapter of a SmolLM2 fine-tune, such as
`make demo` leaves in `.demo/storage/adapters`; without it a random adapter is taken.
"""

from __future__ import annotations

import json
import math
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(REPOSITORY))

from benchmarks.own import export_material
from sienn_ray.base_model import load_tokenizer, local_folder
from sienn_ray.export.adapter_reader import Adapter
from sienn_ray.export.gguf_model import GgufModel, ModelTexts, write_lora
from sienn_ray.export.options import QUANTIZATIONS
from sienn_ray.inference.batching_engine import BatchingEngine
from sienn_ray.inference.blocking import generate
from sienn_ray.inference.engine import GenerationRequest, SamplingParams
from sienn_ray.settings import Settings
from sienn_ray.storage import Storage
from tests.llama_cpp import opened

BASE_MODEL = "HuggingFaceTB/SmolLM2-135M-Instruct"
NEW_TOKENS = 32
PIECE_TOKENS, NUM_PIECES = 800, 4
TEXT = REPOSITORY / "docs" / "decisions.md"
ROWS = REPOSITORY / "examples" / "kestrel-ferry.jsonl"
OTHER_PROMPTS = (
    "What is machine learning?",
    "Write a haiku about rain.",
    "Explain TCP in 3 lines.",
    "你好",
    "def f(x):\n  return",
    "1234567 + 89 = ?",
)
NUM_PROMPTS = 20


def main() -> None:
    with tempfile.TemporaryDirectory() as name:
        if len(sys.argv) > 1:
            measure(Path(sys.argv[1]))
        else:
            export_material.main("small", Path(name))
            measure(Path(name) / "adapter")


def measure(adapter_folder: Path) -> None:
    settings = Settings()
    base = local_folder(BASE_MODEL, settings)
    tokenizer = load_tokenizer(adapter_folder)
    rows = [json.loads(line)["instruction"] for line in ROWS.read_text().splitlines()]
    prompts = [*rows[: NUM_PROMPTS - len(OTHER_PROMPTS)], *OTHER_PROMPTS]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        expected = answers_of_engine(adapter_folder, prompts, settings, folder)
        text = tokenizer(TEXT.read_text(), add_special_tokens=False)["input_ids"]
        pieces = [text[start : start + PIECE_TOKENS] for start in range(0, NUM_PIECES * PIECE_TOKENS, PIECE_TOKENS)]
        print("| Quantization | MB | Perplexity | Answers like the engine's |\n|---|---|---|---|")
        for quantization in QUANTIZATIONS:
            path = folder / "model.gguf"
            model = GgufModel(base, Adapter(adapter_folder), quantization)
            with path.open("wb") as file:
                for _ in model.write(file, ModelTexts("x", BASE_MODEL, None), adapter_folder, tokenizer):
                    pass
            say(quantization, path, None, pieces, expected, tokenizer)
        over_base(base, adapter_folder, folder, tokenizer, pieces, expected)


def answers_of_engine(
    adapter_folder: Path, prompts: Sequence[str], settings: Settings, folder: Path
) -> list[tuple[str, str]]:
    """What the engine read and answered, for each prompt."""
    chosen = settings.model_copy(update={"storage_url": f"file://{folder}/storage"})
    Storage(chosen.storage_url).publish(adapter_folder, "adapters/job")
    engine = BatchingEngine(BASE_MODEL, chosen)
    sampling = SamplingParams(max_new_tokens=NEW_TOKENS, do_sample=False, repetition_penalty=1.0)
    try:
        results = [
            generate(
                engine,
                GenerationRequest.ask(prompt, adapter_id="job", adapter_key="adapters/job", sampling=sampling),
            )
            for prompt in prompts
        ]
    finally:
        engine.close()
    return [(result.rendered_prompt, result.text) for result in results]


def over_base(
    base: Path, adapter_folder: Path, folder: Path, tokenizer: Any, pieces: list[list[int]], expected: Any
) -> None:
    adapter = Adapter(adapter_folder)
    with (folder / "lora.gguf").open("wb") as file:
        for _ in write_lora(file, base, adapter, "F32", "x"):
            pass
    for parts in adapter.layers.values():
        parts["b"].zero_()
    with (folder / "base.gguf").open("wb") as file:
        for _ in GgufModel(base, adapter, "F16").write(
            file, ModelTexts("x", BASE_MODEL, None), adapter_folder, tokenizer
        ):
            pass
    say("F16 base + GGUF LoRA", folder / "base.gguf", folder / "lora.gguf", pieces, expected, tokenizer)


def say(name: str, path: Path, lora: Path | None, pieces: list[list[int]], expected: Any, tokenizer: Any) -> None:
    size_mb = (path.stat().st_size + (lora.stat().st_size if lora else 0)) / 1e6
    with opened(path, lora) as model:
        perplexity = math.exp(sum(math.log(model.perplexity(piece)) for piece in pieces) / len(pieces))
        same = 0
        for prompt, answer in expected:
            given = tokenizer.decode(model.continuation(model.tokenize(prompt), NEW_TOKENS), skip_special_tokens=True)
            same += given.strip() == answer.strip()
    print(f"| {name} | {size_mb:.0f} | {perplexity:.3f} | {same} of {len(expected)} |", flush=True)


if __name__ == "__main__":
    main()
