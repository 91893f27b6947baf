"""Statistics of datasets, computed by Ray Data on a real cluster, against a count in plain Python."""

from __future__ import annotations

import contextlib
import json
import math
import statistics
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx2
import pytest

from sienn_ray.base_model import load_tokenizer
from sienn_ray.datasets.prompt import PromptFormat
from sienn_ray.datasets.tokenization import IGNORE_INDEX, tokenize_row
from tests.integration.service import RefusedError, Service
from tests.support.tiny_model import STRICT_ID, TINY_ID

MAX_LENGTH = 128
NO_LIMIT = 10**9
# Some answers are long, some prompts fill everything, every hundredth row repeats an earlier one.
ROWS: list[dict[str, Any]] = [
    {
        "instruction": f"What is item {number % 2_900}?" + " Think about it." * (150 if number % 500 == 7 else 0),
        "input": None if number % 3 == 0 else "" if number % 3 == 1 else f"Item {number % 2_900} is here.",
        "response": "It is a thing. " * (1 + number % 2_900 % 40),
        "note": " ",
    }
    for number in range(3_000)
]

# Holds every CPU, as a fine-tune does; `ray.get` returns once it has them.
HOLD_CPUS = """
@ray.remote(num_cpus=ray.cluster_resources()["CPU"])
class Holder:
    def ready(self):
        return True
holder = Holder.options(name="holder", lifetime="detached").remote()
ray.get(holder.ready.remote(), timeout=60)
print(ray.available_resources().get("CPU", 0))
"""
RELEASE_CPUS = "ray.kill(ray.get_actor('holder'))"


def spread(values: Sequence[int]) -> dict[str, Any]:
    ordered = sorted(values)

    def percentile(percent: int) -> int:
        return ordered[math.ceil(percent * len(ordered) / 100) - 1]

    return {
        "total": sum(values),
        "mean": round(statistics.fmean(values), 2),
        "min": min(values),
        "p50": percentile(50),
        "p95": percentile(95),
        "max": max(values),
    }


def expected(rows: list[dict[str, Any]], tokenizer: Any) -> dict[str, Any]:
    """The statistics by plain Python, row by row as training tokenizes."""
    prompt_format = PromptFormat.for_chat(tokenizer)
    prompts, completions, characters, lines, seen = [], [], [], [], set()
    num_dropped = 0
    for number, row in enumerate(rows, 1):
        prompt = row["instruction"] + (f"\n\n{row['input']}" if row["input"] else "")
        messages = [{"role": "user", "content": prompt}, {"role": "assistant", "content": row["response"]}]
        [whole] = tokenize_row(tokenizer, prompt_format, messages=messages, text=None, max_length=NO_LIMIT)
        [cut] = tokenize_row(tokenizer, prompt_format, messages=messages, text=None, max_length=MAX_LENGTH)
        completions.append(sum(label != IGNORE_INDEX for label in whole.labels))
        prompts.append(len(whole.input_ids) - completions[-1])
        characters.append(len(prompt) + len(row["response"]))
        num_dropped += not cut.has_answer
        if (prompt, row["response"]) in seen:
            lines.append(number)
        seen.add((prompt, row["response"]))
    tokens = [prompt + completion for prompt, completion in zip(prompts, completions, strict=True)]
    return {
        "model_name": TINY_ID,
        "max_length": MAX_LENGTH,
        "num_rows": len(rows),
        "characters": spread(characters),
        "tokens": {**spread(tokens), "prompt": spread(prompts), "completion": spread(completions)},
        "num_rows_over_max_length": sum(count > MAX_LENGTH for count in tokens),
        "num_tokens_over_max_length": sum(max(count - MAX_LENGTH, 0) for count in tokens),
        "num_rows_dropped": num_dropped,
        "duplicates": {"num_rows": len(lines), "lines": lines[:10]},
        "empty_fields": {
            name: sum(not (row[name] or "").strip() for row in rows)
            for name in ("instruction", "input", "response", "note")
        },
    }


def jsonl(rows: list[dict[str, Any]]) -> str:
    return "\n".join(json.dumps(row) for row in rows)


@contextlib.contextmanager
def every_cpu_held(service: Service) -> Iterator[None]:
    assert float(service.on_ray(HOLD_CPUS).split()[-1]) == 0
    try:
        yield
    finally:
        service.on_ray(RELEASE_CPUS)


def test_numbers_are_those_of_plain_python_while_every_cpu_is_held(service: Service, tiny_model_folder: Path) -> None:
    dataset_id = service.upload(jsonl(ROWS))
    path = f"/api/datasets/{dataset_id}/statistics?model_name={TINY_ID}&max_length={MAX_LENGTH}"

    def ask(_: int) -> Any:
        return httpx2.get(service.url + path, timeout=180.0)

    with every_cpu_held(service), ThreadPoolExecutor(3) as threads:
        responses = list(threads.map(ask, range(3)))
    assert {response.status_code for response in responses} == {200}, responses[0].text
    assert {response.text for response in responses} == {responses[0].text}
    assert responses[0].json() == {
        "dataset_id": dataset_id,
        **expected(ROWS, load_tokenizer(tiny_model_folder)),
    }
    (kept,) = (service.storage / "datasets" / dataset_id / "statistics").iterdir()
    kept_at = kept.stat().st_mtime_ns
    assert service.get(path) == responses[0].json()
    assert kept.stat().st_mtime_ns == kept_at  # not computed again


def test_template_that_refuses_a_row_is_said_in_its_words(service: Service) -> None:
    messages = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "What?"},
        {"role": "assistant", "content": "That."},
    ]
    dataset_id = service.upload(json.dumps({"messages": messages}))
    with pytest.raises(RefusedError) as error:
        service.get(f"/api/datasets/{dataset_id}/statistics?model_name={STRICT_ID}")
    answer = json.loads(str(error.value))
    assert answer["status_code"] == 400
    assert "Brief answers are not supported" in answer["detail"]
    assert "Traceback" not in answer["detail"]
