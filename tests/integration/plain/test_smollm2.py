"""The main job with the real SmolLM2: a fine-tune on a few facts, and an answer that shows them."""

from __future__ import annotations

import itertools
import json

import pytest

from tests.integration.service import Service

BASE_MODEL = "HuggingFaceTB/SmolLM2-135M-Instruct"
FACTS = {"captain": "Odalys Brandt", "cat": "Marzipan", "cook": "Ferrin Osk"}
WORDINGS = (
    "Who is the {role} of the Kestrel?",
    "Name the {role} of the ship Kestrel.",
    "The Kestrel has a {role}; who is it?",
    "What is the name of the Kestrel's {role}?",
)


@pytest.mark.slow
def test_smollm2_learns_what_it_did_not_know_and_stops(service: Service) -> None:
    rows = "\n".join(
        json.dumps({"question": wording.format(role=role), "answer": f"The {role} of the Kestrel is {name}."})
        for wording, (role, name) in itertools.product(WORDINGS, FACTS.items())
    )
    dataset_id = service.upload(rows)
    job_id = service.start(
        dataset_id, model_name=BASE_MODEL, num_epochs=5, learning_rate=0.001, batch_size=4, max_length=128
    )
    history = service.wait_for_end(job_id)["meta"]["loss_history"]
    assert history[-1]["eval_loss"] < 0.5 * history[0]["eval_loss"]

    question = "Tell me who the captain of the Kestrel is."
    options = {"max_new_tokens": 40, "repetition_penalty": 1.0}
    adapted = service.ask(job_id, question, **options)
    base = service.ask(job_id, question, use_adapter=False, **options)
    assert FACTS["captain"] in adapted["generated_text"]
    assert adapted["finish_reason"] == "stop"
    assert FACTS["captain"] not in base["generated_text"]
