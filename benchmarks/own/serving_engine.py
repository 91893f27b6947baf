"""Answer what `benchmarks/serving.py` asks with our engine alone, in this process.

python benchmarks/own/serving_engine.py --work work.json --output out.json --settings '{"engine_max_batch": 16}'
"""

from __future__ import annotations

import argparse
import contextlib
import json
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "peers"))

from serving_load import Answer, Listening, Load, Request, Work, main
from serving_material import BASE_MODEL, adapter_key, job_id

from sienn_ray.inference.engine import Engine, GenerationDelta, GenerationRequest, SamplingParams
from sienn_ray.settings import Settings


class Submitting:
    """Submits to an engine, and listens.

    Args:
        engine: The engine.
        facts: What is to be told of it.
    """

    def __init__(self, engine: Engine, facts: dict[str, Any]) -> None:
        self._engine = engine
        self._listening = Listening(self._submit)
        self.facts = facts

    def __call__(self, load: Load) -> Sequence[Answer]:
        return self._listening.answer(load, _take)

    def _submit(self, number: int, request: Request) -> None:
        adapter = request.adapter
        asked = GenerationRequest(
            request.prompt,
            adapter_id=None if adapter is None else job_id(adapter),
            adapter_key=None if adapter is None else adapter_key(adapter),
            sampling=SamplingParams(max_new_tokens=request.max_new_tokens, do_sample=False, repetition_penalty=1.0),
        )
        self._engine.submit(asked, lambda delta: self._listening.say(number, delta))


def _take(answer: Answer, moment_s: float, delta: GenerationDelta) -> bool:
    """Note what has come. The times are those of the text's pieces, the number of tokens is the engine's own."""
    if delta.error is not None:
        raise delta.error
    if delta.text:
        answer.first_s = answer.first_s or moment_s
        answer.last_s = moment_s
        answer.text += delta.text
    if delta.result is not None:
        answer.num_tokens = delta.result.num_generated_tokens
        answer.num_prompt_tokens = delta.result.num_prompt_tokens
    return delta.is_last


@contextlib.contextmanager
def engine(work: Work, options: argparse.Namespace) -> Iterator[Submitting]:
    from sienn_ray.inference.batching.engine import BatchingEngine

    chosen = json.loads(options.settings or "{}")
    with tempfile.TemporaryDirectory() as home:
        (Path(home) / "models").symlink_to(Path(work.home) / "models")
        settings = Settings(
            home=Path(home),
            storage_url=f"file://{work.home}/storage",
            engine_num_cpus=work.num_threads,
            engine_max_queue=max(64, work.max_concurrency),
            adapter_cache_max_count=max(1, len(work.adapters)),
            **chosen,
        )
        made: Engine = BatchingEngine(BASE_MODEL, settings)
        try:
            yield Submitting(made, {"settings": chosen})
        finally:
            made.close()


if __name__ == "__main__":
    main(__doc__, engine, "settings")
