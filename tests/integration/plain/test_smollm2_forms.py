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
MODEL_ID = "sienn-tests/smollm2-forms"
# Tools are called without reasoning; any other last answer has a block of it, which the template opens, and the
# reasoning of earlier turns is left out.
TEMPLATE = (
    "{% if tools %}<|im_start|>system\nTools: {% for tool in tools %}{{ tool.function.name }}"
    "({{ tool.function.parameters.properties | join(', ') }}) {% endfor %}<|im_end|>\n{% endif %}"
    "{% for message in messages %}<|im_start|>{{ message.role }}\n"
    "{% if message.role == 'assistant' and loop.last and not tools %}<think>\n"
    "{{ message.reasoning_content | default('') }}\n</think>\n{% endif %}{{ message.content }}"
    "{% for call in message.tool_calls %}<tool_call>\n{{ call.function | tojson }}\n</tool_call>{% endfor %}"
    "<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% if not tools %}<think>\n{% endif %}{% endif %}"
)
TOOLS = [
    {"type": "function", "function": {"name": "stock", "parameters": {"properties": {"item": {"type": "string"}}}}}
]
LOAVES = (
    *("rye", "oat", "spelt", "wheat", "barley", "corn", "potato", "walnut", "olive", "onion"),
    *("poppy", "sesame", "raisin", "honey", "garlic", "cheese", "plum", "fig", "seed", "milk"),
)


@pytest.fixture(scope="module")
def job_id(service: Service, hub_home: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    """One fine-tune on rows of both forms; what was held out is learned as well."""
    add_to_hub_cache(with_template(service, tmp_path_factory.mktemp("forms") / "model"), hub_home, MODEL_ID)
    rows = [row for number, item in enumerate(LOAVES) for row in (calling(item, number), thinking(item, number))]
    dataset_id = service.upload("\n".join(json.dumps(row) for row in rows))
    job_id = service.start(dataset_id, model_name=MODEL_ID, **OPTIONS)
    losses = [
        entry["eval_loss"] for entry in service.wait_for_end(job_id)["meta"]["loss_history"] if "eval_loss" in entry
    ]
    assert losses[-1] < 0.5 * losses[0]
    return job_id


def with_template(service: Service, folder: Path) -> Path:
    """The base model's files, as the service keeps them, with the chat template above."""
    base_folder = local_folder(BASE_MODEL, Settings(home=Path(service.environment["SIENN_HOME"])))
    shutil.copytree(base_folder, folder, copy_function=lambda source, target: Path(target).symlink_to(source))
    own = folder / "chat_template.jinja"
    own.unlink(missing_ok=True)
    own.write_text(TEMPLATE)
    return folder


def calling(item: str, number: int) -> dict[str, Any]:
    """A conversation that calls a tool and tells what it said."""
    call = {"id": "c1", "type": "function", "function": {"name": "stock", "arguments": {"item": item}}}
    messages = [
        {"role": "user", "content": f"Is there {item} bread left?"},
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "c1", "content": str(number)},
        {"role": "assistant", "content": f"There are {number} loaves of {item}."},
    ]
    return {"messages": messages, "tools": TOOLS}


def thinking(item: str, number: int) -> dict[str, Any]:
    """A conversation of two turns, each of which is thought about before it is answered."""

    def turn(item: str, number: int) -> list[dict[str, str]]:
        reasoning = f"The {item} bread has number {number}."
        answer = {"role": "assistant", "reasoning_content": reasoning, "content": f"On shelf {number}."}
        return [{"role": "user", "content": f"Where is the {item} bread?"}, answer]

    return {"messages": [*turn(item, number), *turn(LOAVES[number - 7], number + 1)]}


@pytest.mark.slow
def test_smollm2_learns_to_call_a_tool(service: Service, job_id: str) -> None:
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
def test_smollm2_learns_to_think_in_every_turn(service: Service, job_id: str) -> None:
    said = service.ask(job_id, "Where is the ginger bread?", max_new_tokens=60, repetition_penalty=1.0)
    reasoning, end, answer = said["generated_text"].partition("</think>")
    assert end
    assert "bread has number" in reasoning
    assert answer.strip().startswith("On shelf")
    assert said["finish_reason"] == "stop"
