"""Serve with llama.cpp's server, as a ready wheel brings it or built for this very CPU.

    python benchmarks/peers/serving_llamacpp.py --work work.json --output out.json --weights q8_0 --binary llama-server

Without `--binary` it is the server in xllamacpp's wheel, which is built for any CPU with AVX2 and knows no newer
instructions. It answers requests for different adapters in different batches, by its documentation.
"""

from __future__ import annotations

import argparse
import contextlib
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from serving_http import Clients, free_port, server, wait_until_ready
from serving_load import Request, Work, main

TOKENS_PER_SLOT = 1024  # prompts of 512 tokens at the most, and what is added to them


@contextlib.contextmanager
def llama_server(work: Work, options: argparse.Namespace) -> Iterator[Clients]:
    port = free_port()
    if options.binary:
        command = built_for_this_cpu(work, options.binary, options.weights, port)
    else:
        command = [sys.executable, __file__, "wheel", str(port), *settings_of_wheel(work, options.weights)]
    with tempfile.TemporaryDirectory() as scratch:
        log = Path(scratch) / "server.log"
        with server(command, log):
            wait_until_ready(port, log)
            yield Clients(port, lambda request: body(request, len(work.gguf_adapters)), facts(options.binary))


def body(request: Request, num_adapters: int) -> dict[str, Any]:
    """An adapter that isn't named is off."""
    chosen: dict[str, Any] = {"ignore_eos": True}
    if num_adapters:
        chosen["lora"] = [] if request.adapter is None else [{"id": request.adapter, "scale": 1.0}]
    return chosen


def built_for_this_cpu(work: Work, binary: str, weights: str, port: int) -> list[str]:
    num_slots = work.max_concurrency
    command = [binary, "--model", work.gguf[weights], "--host", "127.0.0.1", "--port", str(port)]
    command += ["--threads", str(work.num_threads), "--threads-batch", str(work.num_threads)]
    command += ["--parallel", str(num_slots), "--ctx-size", str(num_slots * TOKENS_PER_SLOT)]
    command += ["--threads-http", str(num_slots + 4)]
    if work.gguf_adapters:
        command += ["--lora-init-without-apply", "--lora", ",".join(work.gguf_adapters)]
    return command


def settings_of_wheel(work: Work, weights: str) -> list[str]:
    return [str(work.max_concurrency), str(work.num_threads), work.gguf[weights], *work.gguf_adapters]


def serve_wheel(port: str, num_slots: str, num_threads: str, model: str, *adapters: str) -> None:
    """The same settings in the words of xllamacpp; serves until it is ended."""
    import signal

    import xllamacpp

    params = xllamacpp.CommonParams()
    params.model.path = model
    params.hostnames, params.port = ["127.0.0.1"], int(port)
    params.n_parallel, params.n_ctx = int(num_slots), int(num_slots) * TOKENS_PER_SLOT
    params.n_threads_http = int(num_slots) + 4
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = int(num_threads)
    params.lora_adapters = [xllamacpp.CommonAdapterLoraInfo(path, 1.0) for path in adapters]
    params.lora_init_without_apply = True
    running = xllamacpp.Server(params)
    print(running.listening_address, flush=True)
    signal.pause()


def facts(binary: str) -> dict[str, Any]:
    if binary:
        return {"build": subprocess.run([binary, "--version"], capture_output=True, text=True, check=False).stderr}
    from importlib.metadata import version

    import xllamacpp

    return {"build": f"xllamacpp {version('xllamacpp')}: {xllamacpp.get_system_info()}"}


def run(arguments: Sequence[str]) -> None:
    if arguments[:1] == ["wheel"]:
        serve_wheel(*arguments[1:])
    else:
        main(__doc__, llama_server, "weights", "binary")


if __name__ == "__main__":
    run(sys.argv[1:])
