"""A second engine, as plain as one can be: one request at a time, in transformers' and PEFT's own ways."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel

from sienn_ray.base_model import load_causal_lm, load_tokenizer, local_folder
from sienn_ray.errors import EngineError
from sienn_ray.inference.engine import Generation, GenerationDelta, GenerationRequest, SamplingParams
from sienn_ray.inference.requests.adapter_files import AdapterFiles, read_config, read_tensors
from sienn_ray.inference.requests.answer import Answer
from sienn_ray.inference.requests.open_requests import OpenRequests, queue_timeout
from sienn_ray.inference.requests.prompts import PromptEncoder
from sienn_ray.inference.requests.request_preparation import LoadedAdapter, RequestPreparation
from sienn_ray.inference.sampling.logprobs import Sampled
from sienn_ray.inference.sampling.sampler import eos_token_ids
from sienn_ray.inference.text.vocabulary import Vocabulary
from sienn_ray.settings import Settings
from tests.unit.inference.logits_reference import reference_scores


@dataclass(frozen=True)
class CheckedFolder:
    """An adapter that PEFT reads again for each request."""

    folder: Path
    size_bytes: int


class PlainEngine:
    """`Engine` in one thread, which answers one request after the other.

    Args:
        base_model: Hub id.
        settings: Storage and limits; `engine_max_batch` is always 1.
    """

    num_cpus: int | None = 1

    def __init__(self, base_model: str, settings: Settings) -> None:
        folder = local_folder(base_model, settings)
        tokenizer = load_tokenizer(folder)
        self._base_model = base_model
        self._queue_timeout_s = settings.engine_queue_timeout_s
        self._model: Any = load_causal_lm(folder, torch.device("cpu")).eval()
        self._eos = frozenset(eos_token_ids(self._model.generation_config.eos_token_id, tokenizer.eos_token_id))
        prompts = PromptEncoder(base_model, tokenizer, context_tokens=self._model.config.max_position_embeddings)
        self._preparation = RequestPreparation(
            settings, prompts, Vocabulary(tokenizer), self._checked, unload=lambda _: None
        )
        self._requests = OpenRequests(base_model, settings.engine_max_queue)
        self._waiting: list[tuple[Answer, CheckedFolder | None]] = []
        self._running: Answer | None = None
        self._step_began_at: float | None = None
        self._has_changed = threading.Condition()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    @property
    def num_adapters(self) -> int:
        return self._preparation.num_adapters

    @property
    def stuck_s(self) -> float:
        began_at = self._step_began_at
        return 0.0 if began_at is None else time.monotonic() - began_at

    @property
    def failure(self) -> str | None:
        return self._requests.failure

    def submit(self, request: GenerationRequest, listener: Callable[[GenerationDelta], None]) -> Generation:
        answer = Answer(request, listener)
        self._requests.add(answer, num_running=0 if self._running is None else 1)
        self._preparation.submit(answer, partial(self._ready, answer))
        return answer

    def load_adapter(self, adapter_id: str, adapter_key: str) -> None:
        self._preparation.load_adapter(adapter_id, adapter_key)

    def kill(self) -> None:
        pass

    def close(self) -> None:
        self._requests.close()
        with self._has_changed:
            self._has_changed.notify()
        self._thread.join()
        self._requests.fail_all()
        self._preparation.close()

    def _checked(self, files: AdapterFiles) -> CheckedFolder:
        read_config(files.folder, self._base_model)
        return CheckedFolder(files.folder, sum(each.nbytes for each in read_tensors(files.folder).values()))

    def _ready(self, answer: Answer, adapter: LoadedAdapter[CheckedFolder] | None) -> None:
        with self._has_changed:
            self._waiting.append((answer, None if adapter is None else adapter.weights))
            self._has_changed.notify()

    def _run(self) -> None:
        try:
            self._run_until_closed()
        finally:
            self._requests.fail("its thread has ended")

    def _run_until_closed(self) -> None:
        while not self._requests.is_closed:
            self._drop_abandoned()
            with self._has_changed:
                self._has_changed.wait_for(lambda: self._waiting or self._requests.is_closed)
                answer, adapter = self._waiting.pop(0) if self._waiting else (None, None)
                self._running = answer
            if answer is not None:
                self._answer(answer, adapter)
                self._running = None

    def _drop_abandoned(self) -> None:
        with self._has_changed:
            waiting = [answer for answer, _ in self._waiting]
        for answer in waiting:
            if answer.is_cancelled:
                answer.drop()
            elif answer.arrived_at < time.monotonic() - self._queue_timeout_s:
                answer.fail(queue_timeout(self._queue_timeout_s))
        with self._has_changed:
            self._waiting = [each for each in self._waiting if not each[0].is_over]

    def _answer(self, answer: Answer, adapter: CheckedFolder | None) -> None:
        answer.start()
        try:
            with self._adapted(adapter) as model:
                for sampled in self._tokens(model, answer):
                    answer.take(sampled, self._eos)
                    self._drop_abandoned()
                    if answer.is_cancelled:
                        answer.drop()
                    if answer.is_over or self._requests.is_closed:
                        break
        except Exception as error:
            answer.fail(EngineError(str(error)))
        finally:
            self._step_began_at = None

    @contextmanager
    def _adapted(self, adapter: CheckedFolder | None) -> Iterator[Any]:
        if adapter is None:
            yield self._model
            return
        model = PeftModel.from_pretrained(self._model, adapter.folder).eval()
        try:
            yield model
        finally:
            model.unload()

    @torch.inference_mode()
    def _tokens(self, model: Any, answer: Answer) -> Iterator[Sampled]:
        generator = torch.Generator()
        seed = answer.request.sampling.seed
        generator.seed() if seed is None else generator.manual_seed(seed)
        input_ids, cache = torch.tensor([answer.tokens]), None
        while True:
            self._step_began_at = time.monotonic()
            output = model(input_ids=input_ids, past_key_values=cache, use_cache=True)
            cache = output.past_key_values
            yield _choose(output.logits[0, -1].float(), answer, generator)
            input_ids = torch.tensor([answer.tokens[-1:]])


def _choose(logits: torch.Tensor, answer: Answer, generator: torch.Generator) -> Sampled:
    params: SamplingParams = answer.request.sampling
    if params.temperature == 0:
        params = replace(params, do_sample=False, temperature=1.0)
    num_prompt = len(answer.prompt.input_ids)
    scores = reference_scores(logits, params, answer.tokens[:num_prompt], answer.tokens[num_prompt:])
    if params.do_sample:
        token_id = int(torch.multinomial(scores.softmax(-1), 1, generator=generator))
    else:
        token_id = int(scores.argmax())
    if params.num_logprobs is None:
        return Sampled(token_id)
    logprobs = logits.log_softmax(-1)
    values, ids = logprobs.topk(params.num_logprobs)
    return Sampled(token_id, float(logprobs[token_id]), tuple(zip(ids.tolist(), values.tolist(), strict=True)))
