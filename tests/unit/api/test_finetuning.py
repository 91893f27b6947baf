"""Starts of fine-tunes: what is checked and what is kept."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from typing import Any, cast

import jsonschema_rs
import pytest
from fastapi import FastAPI
from starlette.testclient import TestClient

from sienn_ray.api.schemas.hyperparameters import hyperparameters
from sienn_ray.errors import CapacityError
from sienn_ray.jobs.schema import JobStatus
from sienn_ray.settings import Settings
from sienn_ray.training.config import LoraSettings, TrainingConfig
from sienn_ray.training.hyperparameters import config_of
from tests.support.fakes_api import BASE_MODEL, dataset_record
from tests.support.hyperparameter_values import other_values
from tests.support.in_process_tracker import InProcessTracker
from tests.support.tiny_model import TINY_COMMIT
from tests.unit.api.starting import TIMESTAMP, start


def request_schema(client: TestClient) -> dict[str, Any]:
    """The schema of the request, with those that it refers to."""
    schemas = client.get("/openapi.json").json()["components"]["schemas"]
    return {**schemas["StartFinetuningRequest"], "components": {"schemas": schemas}}


@pytest.mark.usefixtures("dataset", "cached_base_model")
class TestStart:
    def test_rows_longer_than_the_base_model_reads_are_refused(
        self, client: TestClient, settings: Settings, tracker: InProcessTracker
    ) -> None:
        raised = settings.model_copy(update={"max_row_tokens": 8192})
        app = cast(FastAPI, client.app)
        app.state.backends = replace(app.state.backends, settings=raised)
        assert start(client, max_length=2048).status_code == 201
        refused = start(client, max_length=2049)
        assert refused.status_code == 400
        assert "more than the 2048 tokens that base model" in refused.json()["detail"]

    def test_an_adapter_that_no_engine_could_serve_is_refused(self, client: TestClient, settings: Settings) -> None:
        app = cast(FastAPI, client.app)
        for engine, status in (("auto", 201), ("vllm", 400)):
            changed = Settings.model_validate({**settings.model_dump(), "engine": engine})
            app.state.backends = replace(app.state.backends, settings=changed)
            answers = [start(client, use_dora=True), start(client, lora_r=128)]
            assert [answer.status_code for answer in answers] == [status] * 2
        assert "uses DoRA" in answers[0].json()["detail"]
        assert "has rank 128, and SIENN_ENGINE_MAX_LORA_RANK is 64" in answers[1].json()["detail"]
        assert start(client, lora_r=64).status_code == 201

    def test_preferences_that_would_have_to_be_split_are_refused(
        self, client: TestClient, tracker: InProcessTracker
    ) -> None:
        tracker.put(dataset_record(id="pairs", format="preference", columns=["prompt", "chosen", "rejected"]))
        refused = start(client, dataset_id="pairs", long_rows="split")
        assert refused.status_code == 400
        assert "long_rows=split can't split preference rows" in refused.json()["detail"]
        assert start(client, dataset_id="pairs", long_rows="drop").status_code == 201

    def test_answer_is_that_of_the_contract(self, client: TestClient) -> None:
        response = start(client)
        body = response.json()
        assert response.status_code == 201
        assert re.fullmatch(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", body.pop("job_id"))
        assert re.fullmatch(TIMESTAMP, body.pop("created_at"))
        assert body == {
            "status": "pending",
            "dataset_id": "dataset-1",
            "message": "Fine-tuning job submitted successfully",
            "num_long_rows": None,
            "warning": None,
            "warnings": [],
        }

    def test_rows_that_are_too_long_are_told_where_they_were_counted(
        self, client: TestClient, tracker: InProcessTracker
    ) -> None:
        client.get("/api/datasets/dataset-1/statistics", params={"max_length": 256})
        body = start(client, max_length=256).json()
        assert body["num_long_rows"] == 7
        assert body["warning"].startswith("7 of 1319 rows have more than max_length=256 tokens and are cut")
        assert start(client, max_length=128).json()["num_long_rows"] is None
        refused = start(client, max_length=256, long_rows="fail")
        assert refused.status_code == 400
        assert "7 of 1319 rows have more than max_length=256 tokens, and long_rows=fail" in refused.json()["detail"]

    def test_defaults_are_those_of_the_contract(self, client: TestClient, tracker: InProcessTracker) -> None:
        start(client)
        assert tracker.last_job.config == TrainingConfig(
            base_model="Qwen/Qwen2.5-0.5B-Instruct",
            base_model_revision=TINY_COMMIT,
            learning_rate=0.0002,
            num_epochs=3,
            batch_size=4,
            max_length=512,
            seed=42,
        )

    def test_every_field_reaches_the_job(self, client: TestClient, tracker: InProcessTracker) -> None:
        values = other_values()
        response = start(client, model_name=BASE_MODEL, name="Fähre", labels={"team": "support"}, **values)
        job = tracker.last_job
        assert job.config == config_of(BASE_MODEL, values).pinned(TINY_COMMIT)
        assert (job.name, job.labels) == ("Fähre", {"team": "support"})
        shown = client.get(f"/api/jobs/{response.json()['job_id']}").json()["meta"]["hyperparameters"]
        assert shown == json.loads(json.dumps(values))
        # Each differs from its default, so none was left out.
        default = hyperparameters(TrainingConfig(base_model=BASE_MODEL))
        assert [name for name in shown if shown[name] == default[name]] == []
        assert len(shown) == len(TrainingConfig.model_fields) - 3 + len(LoraSettings.model_fields)
        assert (job.dataset_id, job.status, job.progress) == ("dataset-1", JobStatus.PENDING, 0)
        assert job.created_at == job.updated_at

    def test_the_base_model_is_pinned_to_a_commit(self, client: TestClient, tracker: InProcessTracker) -> None:
        for revision in ("main", TINY_COMMIT):
            job_id = start(client, revision=revision).json()["job_id"]
            assert tracker.last_job.config.base_model_revision == TINY_COMMIT
            assert client.get(f"/api/jobs/{job_id}").json()["meta"]["model_revision"] == TINY_COMMIT

    @pytest.mark.parametrize("revision", ["../main", "", "a b", "x" * 129])
    def test_a_malformed_revision_is_refused(self, client: TestClient, revision: str) -> None:
        response = start(client, revision=revision)
        assert response.status_code == 422
        assert "revision" in response.json()["detail"]

    def test_defaults_of_what_came_later(self, client: TestClient, tracker: InProcessTracker) -> None:
        start(client)
        job = tracker.last_job
        assert job.config == TrainingConfig(base_model=BASE_MODEL, base_model_revision=TINY_COMMIT)
        assert (job.name, job.labels, job.validation_dataset_id) == (None, {}, None)
        assert (job.idempotency_key, job.request_hash) == (None, None)

    @pytest.mark.parametrize(
        ("field", "inside", "outside"),
        [
            ("learning_rate", [1e-5, 1e-3], [9.9e-6, 1.01e-3, 0, -1e-4, "fast", None, [1e-4]]),
            ("num_epochs", [1, 10, 2.0], [0, 11, -1, 1.5, None, "three", 10**30]),
            ("batch_size", [1, 32], [0, 33, -4, 2.5, None]),
            ("max_length", [128, 2048], [127, 2049, 0, None]),
            ("seed", [0, 2**31 - 1], [-1, 2**31, 0.5]),
            ("gradient_accumulation_steps", [1, 64], [0, 65, 1.5, None]),
            ("warmup_ratio", [0, 0.5], [-0.1, 0.51, None]),
            ("weight_decay", [0.0, 1], [-0.01, 1.01, None]),
            ("lr_scheduler", ["cosine", "linear", "constant"], ["", "Cosine", "step", None, 1]),
            ("max_grad_norm", [1e-9, 1, 1e300], [0, -1, None, "1", 10**400]),
            ("validation_split", [0.0, 0.5], [-0.1, 0.6, None]),
            ("num_workers", [1, 64, None], [0, 65, 1.5, "two"]),
            ("eval_steps", [1, 10**9, None], [0, -1, 1.5, "10", True]),
            ("early_stopping_patience", [1, 100, None], [0, 101, 1.5]),
            ("max_train_time_s", [0.1, 30 * 24 * 3600, None], [0, -1, 30 * 24 * 3600 + 1, "1h"]),
            ("min_workers", [1, 64, None], [0, 65, 1.5]),
            ("precision", ["auto", "float32", "bfloat16", "float16"], ["float64", "", None, 32]),
            ("quantization", ["nf4", None], ["int8", "", 4]),
            ("gradient_checkpointing", [True, False, None], ["true", 1, 0]),
            ("torch_compile", [True, False], ["true", 1, None]),
            ("sharding", ["auto", "never", "always"], ["fsdp", True, None]),
            ("dpo_beta", [0.01, 1, 10], [0, 10.1, None, "0.1"]),
            ("use_rslora", [True, False], ["yes", 0, None]),
            ("use_dora", [True, False], ["no", 1, None]),
            ("loraplus_lr_ratio", [1, 16.0, 64, None], [0.9, 65, "16"]),
            ("lora_r", [1, 256], [0, 257, 8.5, None]),
            ("lora_alpha", [1, 1024], [0, 1025, None]),
            ("lora_dropout", [0, 0.99], [-0.1, 1, 1.0, None]),
            (
                "target_modules",
                ["all-linear", ["q_proj"], ["layers.0.q_proj", "v_proj"]],
                ["", "q_proj", [], ["q_proj", "q_proj"], [""], ["q proj"], ["../x"], ["m"] * 65, [1], None, {}],
            ),
            (
                "name",
                ["a", "x" * 200, "Fähre \N{ZERO WIDTH JOINER}", None],
                ["", "x" * 201, "a\nb", "a\tb", "\x7f", "\u202eb", 3],
            ),
            (
                "labels",
                [{}, {"a": ""}, {"A.b-c_9": "ä" * 255}, {str(number): "v" for number in range(32)}],
                [
                    {"": "v"},
                    {"-a": "v"},
                    {"a b": "v"},
                    {"a=b": "v"},
                    {"k" * 64: "v"},
                    {"a": "v" * 256},
                    {"a": "line\nbreak"},
                    {"a": 1},
                    {"a": None},
                    {str(number): "v" for number in range(33)},
                    ["a"],
                    None,
                ],
            ),
        ],
    )
    def test_ranges(
        self, client: TestClient, tracker: InProcessTracker, field: str, inside: list[Any], outside: list[Any]
    ) -> None:
        assert [value for value in inside if start(client, **{field: value}).status_code != 201] == []
        num_records = tracker.num_records
        for value in outside:
            response = start(client, **{field: value})
            assert (response.status_code, value) == (422, value)
            assert re.match(rf"{field}[:.]", response.json()["detail"])
            assert len(response.json()["detail"]) < 1500
        assert tracker.num_records == num_records

    @pytest.mark.parametrize(
        ("fields", "words"),
        [
            ({"min_workers": 3, "num_workers": 2}, "min_workers=3 is more than num_workers=2"),
            ({"quantization": "nf4", "sharding": "always"}, "with quantization=nf4 can't be shared out; leave out"),
            (
                {"early_stopping_patience": 2, "validation_split": 0},
                "early_stopping_patience=2 needs rows to evaluate on, and validation_split is 0; raise it, or name",
            ),
        ],
    )
    def test_values_that_do_not_go_together(
        self, client: TestClient, tracker: InProcessTracker, fields: dict[str, Any], words: str
    ) -> None:
        response = start(client, **fields)
        assert (response.status_code, set(response.json())) == (422, {"detail", "status_code"})
        assert words in response.json()["detail"]
        assert tracker.num_records == 1
        schema = request_schema(client)
        request = {"dataset_id": "dataset-1", **fields}
        # A schema can't compare two numbers.
        assert jsonschema_rs.is_valid(schema, request) is ("min_workers" in fields)

    @pytest.mark.parametrize(
        "fields",
        [
            {"min_workers": 2, "num_workers": 2},
            {"min_workers": 2},
            {"quantization": "nf4", "sharding": "never"},
            {"early_stopping_patience": 2},
            {"early_stopping_patience": None, "validation_split": 0},
            {"early_stopping_patience": 2, "validation_dataset_id": "dataset-2"},
        ],
    )
    def test_values_that_go_together(
        self, client: TestClient, tracker: InProcessTracker, fields: dict[str, Any]
    ) -> None:
        tracker.put(dataset_record(id="dataset-2"))
        response = start(client, **fields)
        assert response.status_code == 201, response.text
        schema = request_schema(client)
        jsonschema_rs.validate(schema, {"dataset_id": "dataset-1", **fields})

    def test_unknown_dataset_is_refused_by_name(self, client: TestClient, tracker: InProcessTracker) -> None:
        response = start(client, dataset_id="other")
        assert (response.status_code, response.json()["detail"]) == (404, "Dataset other not found")
        assert tracker.num_records == 1

    @pytest.mark.parametrize("dataset_id", ["", "../../etc/passwd", "a" * 65, "dataset-1\n", "d%00", "datasét"])
    def test_what_is_no_id_never_reaches_the_tracker(
        self, client: TestClient, tracker: InProcessTracker, dataset_id: str
    ) -> None:
        response = start(client, dataset_id=dataset_id)
        assert response.status_code == 404
        assert response.json()["detail"].endswith("not found")
        assert len(response.json()["detail"]) < 150
        assert tracker.calls == []

    def test_misspelt_field_is_named(self, client: TestClient, tracker: InProcessTracker) -> None:
        response = start(client, lora_rank=8)
        assert response.status_code == 422
        assert response.json()["detail"].startswith("lora_rank: ")
        assert tracker.num_records == 1

    def test_tracker_that_is_away_is_no_5xx_without_retry_after(
        self, client: TestClient, tracker: InProcessTracker
    ) -> None:
        tracker.fail_with(CapacityError("the job tracker is restarting; try again in a moment"))
        response = start(client)
        assert (response.status_code, response.headers["retry-after"]) == (503, "5")
