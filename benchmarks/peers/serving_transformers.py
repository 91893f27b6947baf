"""Serve with transformers and PEFT: requests one at a time, or batches of those that wait, adapters mixed.

    python benchmarks/peers/serving_transformers.py --work work.json --output out.json --batch 16 --precision float32

A batch is static: it is padded to its longest prompt, and nobody joins it until it is answered.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import time
from collections import deque
from collections.abc import Iterator, Sequence
from typing import Any

from serving_load import Answer, Load, Request, Work, main

BASE = "__base__"  # PEFT's name for a row without an adapter


class Generating:
    """Answers with `generate`.

    Args:
        model: With all adapters, or the bare base model where there are none.
        tokenizer: Pads on the left.
        num_adapters: Adapters, which are named by their numbers.
        batch: Requests at a time.
    """

    def __init__(self, model: Any, tokenizer: Any, num_adapters: int, batch: int) -> None:
        self._model = model
        self._tokenizer = tokenizer
        self._num_adapters = num_adapters
        self._batch = batch
        self.facts: dict[str, Any] = {}

    def __call__(self, load: Load) -> Sequence[Answer]:
        waiting = deque(enumerate(load.requests))
        answers: list[Answer | None] = [None] * len(load.requests)
        # Those that were sent and aren't answered, in order of arrival: as many as there are clients.
        sent: deque[tuple[int, Request]] = deque()
        while waiting or sent:
            while waiting and len(sent) < load.concurrency:
                number, request = waiting.popleft()
                answers[number] = Answer(time.perf_counter())
                sent.append((number, request))
            rows = [sent.popleft() for _ in range(min(self._batch, len(sent)))]
            self._generate([request for _, request in rows], [answers[number] for number, _ in rows])
        return [answer for answer in answers if answer is not None]

    def _generate(self, requests: Sequence[Request], answers: Sequence[Any]) -> None:
        import torch

        inputs = self._tokenizer([request.prompt for request in requests], return_tensors="pt", padding=True)
        num_tokens = requests[0].max_new_tokens
        watch = _watch(answers)
        with torch.inference_mode():
            output = self._model.generate(
                **inputs,
                **self._chosen(requests),
                do_sample=False,
                min_new_tokens=num_tokens,
                max_new_tokens=num_tokens,
                pad_token_id=self._tokenizer.pad_token_id,
                stopping_criteria=watch,
            )
        texts = self._tokenizer.batch_decode(output[:, inputs["input_ids"].shape[1] :], skip_special_tokens=True)
        for answer, text, mask in zip(answers, texts, inputs["attention_mask"], strict=True):
            answer.text, answer.num_prompt_tokens = text, int(mask.sum())

    def _chosen(self, requests: Sequence[Request]) -> dict[str, Any]:
        """Choose the adapters: one for all where there is one request, else one a row."""
        if not self._num_adapters:
            return {}
        if self._batch == 1:
            self._model.set_adapter(str(requests[0].adapter))
            return {}
        return {"adapter_names": [BASE if each.adapter is None else str(each.adapter) for each in requests]}


def _watch(answers: Sequence[Answer]) -> Any:
    """Notes when tokens come: transformers asks after each one whether to stop."""
    import torch
    from transformers import StoppingCriteria, StoppingCriteriaList

    class Watch(StoppingCriteria):  # type: ignore[misc]
        def __call__(self, input_ids: torch.Tensor, scores: Any, **_: Any) -> torch.Tensor:  # noqa: ARG002
            now_s = time.perf_counter()
            for answer in answers:
                answer.note(1, now_s)
            return torch.zeros(input_ids.shape[0], dtype=torch.bool)

    return StoppingCriteriaList([Watch()])


@contextlib.contextmanager
def generating(work: Work, options: argparse.Namespace) -> Iterator[Generating]:
    # Before the libraries are imported: they read it then.
    os.environ.update(HF_HUB_OFFLINE="1", TOKENIZERS_PARALLELISM="false")
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM, AutoTokenizer

    torch.set_num_threads(work.num_threads)
    tokenizer = AutoTokenizer.from_pretrained(work.model_folder, padding_side="left", local_files_only=True)
    tokenizer.pad_token = tokenizer.pad_token or tokenizer.eos_token
    dtype = getattr(torch, options.precision)
    model: Any = AutoModelForCausalLM.from_pretrained(work.model_folder, dtype=dtype, local_files_only=True).eval()
    for number, folder in enumerate(work.adapters):
        if number == 0:
            model = PeftModel.from_pretrained(model, folder, adapter_name=str(number), autocast_adapter_dtype=False)
        else:
            model.load_adapter(folder, adapter_name=str(number), autocast_adapter_dtype=False)
    yield Generating(model.eval(), tokenizer, len(work.adapters), int(options.batch))


if __name__ == "__main__":
    main(__doc__, generating, "batch", "precision")
