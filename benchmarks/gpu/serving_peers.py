"""Transformers' continuous batching beside our engine: the same model, prompts and numbers of tokens."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from checks import Place
from models import ascii_prompts, load_tokenizer, random_llama, save_tokenizer
from serving_runs import Answered, Asked
from transformers import ContinuousBatchingConfig, GenerationConfig


@contextmanager
def batching(shape: str, place: Place) -> Iterator[Callable[..., Answered]]:
    """Give a function that answers `Asked`, as transformers comes: it sizes its cache, and records its graphs.

    The same is asked twice, and the second time counts: the first one is spent on sizes and graphs, which are made for
    the number of requests.
    """
    model: Any = random_llama(shape, place)
    folder = place.scratch / f"tokenizer-{shape}"
    save_tokenizer(folder, model.config.vocab_size)
    tokenizer = load_tokenizer(folder)
    # It sizes its cache by the memory of a GPU.
    chosen = ContinuousBatchingConfig(num_blocks=8, max_batch_tokens=64) if place.is_rehearsal else None

    def answer(asked: Asked, seed: int) -> Answered:
        prompts = ascii_prompts(asked.num_requests, asked.prompt_tokens, seed)
        ids = [tokenizer(prompt, add_special_tokens=False)["input_ids"] for prompt in prompts]
        greedy = GenerationConfig(
            max_new_tokens=asked.answer_tokens, do_sample=False, eos_token_id=None, pad_token_id=0
        )
        model.destroy_cached_continuous_batching_manager()
        for _ in range(1 if place.is_rehearsal else 2):
            began = time.perf_counter()
            outputs = model.generate_batch(
                ids, generation_config=greedy, continuous_batching_config=chosen, persistent_manager=True
            )
            seconds = time.perf_counter() - began
        num_tokens = sum(len(output.generated_tokens) for output in outputs.values())
        if num_tokens != asked.num_requests * asked.answer_tokens:
            raise RuntimeError(f"transformers gave {num_tokens} tokens of {asked.num_requests * asked.answer_tokens}")
        return Answered(num_tokens, seconds, float("nan"))

    try:
        yield answer
    finally:
        model.destroy_cached_continuous_batching_manager()
