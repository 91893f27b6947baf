"""How good each quantization of an export is, as llama.cpp runs it.

For small trained models of each architecture, and for a fine-tune of SmolLM2, in each quantization: the size of the
file; the perplexity on a text that the model has never seen; the mean divergence (Kullback and Leibler, in nats) of its
next tokens' probabilities from those of F32, which doesn't fall by chance as a perplexity may; and how many of twenty
prompts get the very answer of this project's engine, to the last token. The GGUF LoRA over a GGUF of the base model
comes last.

    python benchmarks/export_quality.py                        # the small models: ten minutes on two CPUs
    python benchmarks/export_quality.py --adapter FOLDER       # SmolLM2, half an hour

FOLDER is that of a SmolLM2 fine-tune's adapter in storage, such as `make demo` leaves in `.demo/storage/adapters`.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import shutil
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(REPOSITORY))
SCRATCH = tempfile.TemporaryDirectory()
# The hub's library reads it when it is imported.
os.environ.update(HF_HOME=SCRATCH.name, HF_HUB_OFFLINE="1")

import numpy as np
import torch

from benchmarks.own import quality_material
from sienn_ray.base_model import load_tokenizer, local_folder
from sienn_ray.export.gguf.model import GgufModel, ModelTexts, write_lora
from sienn_ray.export.options import GgufQuantization
from sienn_ray.export.weights.adapter_reader import Adapter
from sienn_ray.inference.batching.engine import BatchingEngine
from sienn_ray.inference.blocking import generate
from sienn_ray.inference.engine import GenerationRequest, SamplingParams
from sienn_ray.settings import Settings
from sienn_ray.storage import MANIFEST_NAME, Storage
from tests.support.llama_cpp import LlamaCpp, opened
from tests.support.tiny_model import add_to_hub_cache

SMOLLM2 = "HuggingFaceTB/SmolLM2-135M-Instruct"
NEW_TOKENS = 32
PIECE_TOKENS, NUM_PIECES = 800, 4
DECISIONS = REPOSITORY / "docs" / "decisions"
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


@dataclass(frozen=True)
class Subject:
    """A model to look at.

    Args:
        base_model: Its id in the hub cache.
        base: The base model's folder.
        adapter: The adapter's folder.
        prompts: To compare answers.
        text: To take the perplexity on.
    """

    base_model: str
    base: Path
    adapter: Path
    prompts: Sequence[str]
    text: str


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--adapter", type=Path, help="of a SmolLM2 fine-tune, to look at that")
    parser.add_argument("--architectures", nargs="*", default=list(quality_material.ARCHITECTURES))
    parser.add_argument("--quantizations", nargs="*", type=GgufQuantization, default=list(GgufQuantization))
    options = parser.parse_args()
    names = ["SmolLM2"] if options.adapter else options.architectures
    for name in names:
        folder = Path(SCRATCH.name) / name
        folder.mkdir()
        subject = smollm2(folder, options.adapter) if options.adapter else small(folder, name)
        print(f"\n{name}\n\n| Quantization | MB | Perplexity | Divergence | Answers like the engine's |\n{'|---' * 5}|")
        measure(subject, folder, options.quantizations)


def small(folder: Path, architecture: str) -> Subject:
    base_model = f"benchmarks/{architecture}"
    torch.set_num_threads(len(os.sched_getaffinity(0)))
    quality_material.save_trained(architecture, folder / "base", folder / "adapter")
    prompts = quality_material.python_prompts(NUM_PROMPTS)
    subject = Subject(base_model, folder / "base", folder / "adapter", prompts, quality_material.python_never_seen())
    return ready(subject)


def smollm2(folder: Path, adapter: Path) -> Subject:
    quality_material.save_off_grid(local_folder(SMOLLM2, Settings()), folder / "base")
    shutil.copytree(adapter, folder / "adapter", ignore=shutil.ignore_patterns(MANIFEST_NAME))
    rows = [json.loads(line)["instruction"] for line in ROWS.read_text().splitlines()]
    prompts = [*rows[: NUM_PROMPTS - len(OTHER_PROMPTS)], *OTHER_PROMPTS]
    text = "\n".join(page.read_text() for page in sorted(DECISIONS.glob("0*.md")))
    return ready(Subject("benchmarks/SmolLM2", folder / "base", folder / "adapter", prompts, text))


def ready(subject: Subject) -> Subject:
    """Put the base model where engines look for it, and say so in the adapter."""
    add_to_hub_cache(subject.base, Path(SCRATCH.name), subject.base_model)
    config = subject.adapter / "adapter_config.json"
    config.write_text(json.dumps({**json.loads(config.read_text()), "base_model_name_or_path": subject.base_model}))
    return subject


def measure(subject: Subject, folder: Path, quantizations: Sequence[GgufQuantization]) -> None:
    tokenizer = load_tokenizer(subject.adapter)
    expected = answers_of_engine(subject, folder)
    # llama.cpp's threads and PyTorch's would take turns on the same CPUs.
    torch.set_num_threads(1)
    tokens = tokenizer(subject.text, add_special_tokens=False)["input_ids"]
    pieces = [tokens[start : start + PIECE_TOKENS] for start in range(0, NUM_PIECES * PIECE_TOKENS, PIECE_TOKENS)]
    path, lora = folder / "model.gguf", folder / "lora.gguf"
    write_model(subject, Adapter(subject.adapter), GgufQuantization.F32, path)
    with opened(path) as model:
        table = Table([log_probs(model, piece) for piece in pieces], pieces, expected, tokenizer)
    for quantization in quantizations:
        write_model(subject, Adapter(subject.adapter), quantization, path)
        with opened(path) as model:
            table.add(quantization, path.stat().st_size, model)
    adapter = Adapter(subject.adapter)
    with lora.open("wb") as file:
        for _ in write_lora(file, subject.base, adapter, GgufQuantization.F32, "x"):
            pass
    for parts in adapter.layers.values():
        parts["b"].zero_()
    write_model(subject, adapter, GgufQuantization.F16, path)
    with opened(path, lora) as model:
        table.add("F16 and GGUF LoRA", path.stat().st_size + lora.stat().st_size, model)


@dataclass(frozen=True)
class Table:
    """What each file is compared with.

    Args:
        unquantized: Logarithms of probabilities in F32, for each piece (tokens, vocabulary).
        pieces: Tokens of the text.
        expected: What the engine read and answered.
        tokenizer: The model's.
    """

    unquantized: Sequence[np.ndarray]
    pieces: Sequence[list[int]]
    expected: Sequence[tuple[str, str]]
    tokenizer: Any

    def add(self, name: str, size: int, model: LlamaCpp) -> None:
        """Measure, and print a line."""
        losses, divergences = [], []
        for piece, exact in zip(self.pieces, self.unquantized, strict=True):
            found = log_probs(model, piece)
            losses.append(-found[np.arange(len(piece) - 1), piece[1:]].mean())
            divergences.append((np.exp(exact) * (exact - found)).sum(axis=1).mean())
        same = sum(self._is_same(model, *each) for each in self.expected)
        print(
            f"| {name} | {size / 1e6:.1f} | {math.exp(np.mean(losses)):.2f} | {np.mean(divergences):.5f} "
            f"| {same} of {len(self.expected)} |",
            flush=True,
        )

    def _is_same(self, model: LlamaCpp, prompt: str, answer: str) -> bool:
        given = self.tokenizer.decode(model.continuation(model.tokenize(prompt), NEW_TOKENS), skip_special_tokens=True)
        return bool(given.strip() == answer.strip())


def log_probs(model: LlamaCpp, tokens: Sequence[int]) -> np.ndarray:
    """(tokens, vocabulary): logarithms of the probabilities of what follows each token."""
    logits = model.logits(tokens)
    logits -= logits.max(axis=1, keepdims=True)
    return logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))


def write_model(subject: Subject, adapter: Adapter, quantization: GgufQuantization, path: Path) -> None:
    texts = ModelTexts("x", subject.base_model, None)
    with path.open("wb") as file:
        for _ in GgufModel(subject.base, adapter, quantization).write(
            file, texts, subject.adapter, load_tokenizer(subject.adapter)
        ):
            pass


def answers_of_engine(subject: Subject, folder: Path) -> list[tuple[str, str]]:
    """What the engine read and answered, for each prompt."""
    settings = Settings(storage_url=f"file://{folder}/storage")
    Storage(settings.storage_url).publish(subject.adapter, "adapters/job")
    engine = BatchingEngine(subject.base_model, settings)
    sampling = SamplingParams(max_new_tokens=NEW_TOKENS, do_sample=False, repetition_penalty=1.0)
    asked = [
        GenerationRequest.ask(prompt, adapter_id="job", adapter_key="adapters/job", sampling=sampling)
        for prompt in subject.prompts
    ]
    try:
        results = [generate(engine, request) for request in asked]
    finally:
        engine.close()
    return [(result.rendered_prompt, result.text) for result in results]


if __name__ == "__main__":
    main()
