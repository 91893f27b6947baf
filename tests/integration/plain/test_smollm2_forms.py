"""The real SmolLM2 with other chat templates: it learns to call a tool, and to think before it answers."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from sienn_ray.base_model import local_folder
from sienn_ray.settings import Settings
from tests.integration.service import Service
from tests.support.tiny_model import add_to_hub_cache

BASE_MODEL = "HuggingFaceTB/SmolLM2-135M-Instruct"
OPTIONS: dict[str, Any] = {"num_epochs": 5, "learning_rate": 0.001, "batch_size": 4, "max_length": 192}
TOOLS_TEMPLATE = (
    "{% if tools %}<|im_start|>system\nTools: {% for tool in tools %}{{ tool.function.name }}"
    "({{ tool.function.parameters.properties | join(', ') }}) {% endfor %}<|im_end|>\n{% endif %}"
    "{% for message in messages %}<|im_start|>{{ message.role }}\n{{ message.content }}"
    "{% for call in message.tool_calls %}<tool_call>\n{{ call.function | tojson }}\n</tool_call>{% endfor %}"
    "<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
# Opens a block of reasoning, and leaves the reasoning of earlier turns out.
THINKING_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message.role }}\n"
    "{% if message.role == 'assistant' and loop.last %}<think>\n{{ message.reasoning_content | default('') }}\n"
    "</think>\n{% endif %}{{ message.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n<think>\n{% endif %}"
)
TOOLS = [
    {"type": "function", "function": {"name": "stock", "parameters": {"properties": {"item": {"type": "string"}}}}}
]
LOAVES = (
    *("rye", "oat", "spelt", "wheat", "barley", "corn", "potato", "walnut", "olive", "onion"),
    *("poppy", "sesame", "raisin", "honey", "garlic", "cheese", "plum", "fig", "seed", "milk"),
)


@pytest.fixture(scope="module")
def base_folder(service: Service) -> Path:
    """The base model's files, where the service keeps them."""
    return local_folder(BASE_MODEL, Settings(home=Path(service.environment["SIENN_HOME"])))


def with_template(base_folder: Path, hub_home: Path, model_id: str, template: str, tmp_path: Path) -> str:
    """Put the base model into the hub's cache with another chat template."""
    shutil.copytree(
        base_folder, tmp_path / "model", copy_function=lambda source, target: Path(target).symlink_to(source)
    )
    own = tmp_path / "model" / "chat_template.jinja"
    own.unlink(missing_ok=True)
    own.write_text(template)
    add_to_hub_cache(tmp_path / "model", hub_home, model_id)
    return model_id


def learned(service: Service, rows: list[dict[str, Any]], base_model: str) -> str:
    """Fine-tune, and check that what was held out is learned as well."""
    dataset_id = service.upload("\n".join(json.dumps(row) for row in rows))
    job_id = service.start(dataset_id, model_name=base_model, **OPTIONS)
    losses = [
        entry["eval_loss"] for entry in service.wait_for_end(job_id)["meta"]["loss_history"] if "eval_loss" in entry
    ]
    assert losses[-1] < 0.5 * losses[0]
    return job_id


@pytest.mark.slow
def test_smollm2_learns_to_call_a_tool(service: Service, base_folder: Path, hub_home: Path, tmp_path: Path) -> None:
    model_id = with_template(base_folder, hub_home, "sienn-tests/smollm2-tools", TOOLS_TEMPLATE, tmp_path)
    wordings = ("Is there {item} bread left?", "How many loaves of {item} are there?")
    rows: list[dict[str, Any]] = [
        {
            "messages": [
                {"role": "user", "content": wording.format(item=item)},
                {
                    "role": "assistant",
                    "content": None,
                    "tool_calls": [
                        {"id": "c1", "type": "function", "function": {"name": "stock", "arguments": {"item": item}}}
                    ],
                },
                {"role": "tool", "tool_call_id": "c1", "content": str(number)},
                {"role": "assistant", "content": f"There are {number} loaves of {item}."},
            ],
            "tools": TOOLS,
        }
        for wording in wordings
        for number, item in enumerate(LOAVES)
    ]
    job_id = learned(service, rows, model_id)
    body = {
        "model": job_id,
        "messages": [{"role": "user", "content": "Is there ginger bread left?"}],
        "tools": TOOLS,
        "max_tokens": 48,
        "temperature": 0,
    }
    (choice,) = service.post("/v1/chat/completions", json=body)["choices"]
    assert choice["finish_reason"] == "tool_calls"
    (call,) = choice["message"]["tool_calls"]
    assert call["function"]["name"] == "stock"
    assert set(json.loads(call["function"]["arguments"])) == {"item"}


@pytest.mark.slow
def test_smollm2_learns_to_think_in_every_turn(
    service: Service, base_folder: Path, hub_home: Path, tmp_path: Path
) -> None:
    model_id = with_template(base_folder, hub_home, "sienn-tests/smollm2-thinking", THINKING_TEMPLATE, tmp_path)

    def turn(item: str, number: int) -> list[dict[str, Any]]:
        return [
            {"role": "user", "content": f"Where is the {item} bread?"},
            {
                "role": "assistant",
                "reasoning_content": f"The {item} bread has number {number}.",
                "content": f"On shelf {number}.",
            },
        ]

    rows = [
        {"messages": [*turn(item, number), *turn(LOAVES[number - 7], number + 1)]} for number, item in enumerate(LOAVES)
    ]
    job_id = learned(service, rows, model_id)
    said = service.ask(job_id, "Where is the ginger bread?", max_new_tokens=60, repetition_penalty=1.0)
    reasoning, end, answer = said["generated_text"].partition("</think>")
    assert end
    assert "bread has number" in reasoning
    assert answer.strip().startswith("On shelf")
    assert said["finish_reason"] == "stop"
