from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path
from typing import Any

import jsonschema_rs
import pytest
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

START = "/api/start-finetuning"
KEY = {"Idempotency-Key": "order 66/a"}
TIMESTAMP = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z"


def start(client: TestClient, headers: dict[str, str] | None = None, **fields: Any) -> Any:
    return client.post(START, json={"dataset_id": "dataset-1", **fields}, headers=headers)


@pytest.fixture
def dataset(tracker: InProcessTracker) -> str:
    tracker.put(dataset_record())
    return "dataset-1"


@pytest.mark.usefixtures("dataset", "cached_base_model")
class TestStart:
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
        }

    def test_defaults_are_those_of_the_contract(self, client: TestClient, tracker: InProcessTracker) -> None:
        start(client)
        assert tracker.last_job.config == TrainingConfig(
            base_model="Qwen/Qwen2.5-0.5B-Instruct",
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
        assert job.config == config_of(BASE_MODEL, values)
        assert (job.name, job.labels) == ("Fähre", {"team": "support"})
        shown = client.get(f"/api/jobs/{response.json()['job_id']}").json()["meta"]["hyperparameters"]
        assert shown == json.loads(json.dumps(values))
        # Each differs from its default, so none was left out.
        default = hyperparameters(TrainingConfig(base_model=BASE_MODEL))
        assert [name for name in shown if shown[name] == default[name]] == []
        assert len(shown) == len(TrainingConfig.model_fields) - 2 + len(LoraSettings.model_fields)
        assert (job.dataset_id, job.status, job.progress) == ("dataset-1", JobStatus.PENDING, 0)
        assert job.created_at == job.updated_at

    def test_defaults_of_what_came_later(self, client: TestClient, tracker: InProcessTracker) -> None:
        start(client)
        job = tracker.last_job
        assert job.config == TrainingConfig(base_model=BASE_MODEL)
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
            ("precision", ["auto", "float32", "bfloat16"], ["float16", "", None, 32]),
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
        schema = client.get("/openapi.json").json()["components"]["schemas"]["StartFinetuningRequest"]
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
        schema = client.get("/openapi.json").json()["components"]["schemas"]["StartFinetuningRequest"]
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


@pytest.mark.usefixtures("dataset", "cached_base_model")
class TestFullQueue:
    @pytest.fixture
    def settings(self, tmp_path: Path) -> Settings:
        return Settings(env="test", home=tmp_path / "home", max_pending_jobs=1)

    def test_it_says_when_to_come_back(self, client: TestClient) -> None:
        assert start(client).status_code == 201
        response = start(client)
        assert (response.status_code, response.headers["retry-after"]) == (429, "60")
        assert "1 jobs wait already" in response.json()["detail"]


@pytest.mark.usefixtures("dataset", "cached_base_model")
class TestValidationDataset:
    def test_reaches_the_job_and_nothing_is_held_out(self, client: TestClient, tracker: InProcessTracker) -> None:
        tracker.put(dataset_record(id="dataset-2"))
        job_id = start(client, validation_dataset_id="dataset-2").json()["job_id"]
        assert tracker.last_job.validation_dataset_id == "dataset-2"
        meta = client.get(f"/api/jobs/{job_id}").json()["meta"]
        assert (meta["validation_dataset_id"], meta["hyperparameters"]["validation_split"]) == ("dataset-2", 0.0)

    def test_null_is_none(self, client: TestClient, tracker: InProcessTracker) -> None:
        assert start(client, validation_dataset_id=None, validation_split=0.2).status_code == 201
        assert tracker.last_job.config.validation_split == 0.2

    @pytest.mark.parametrize("validation_split", [0.1, 0.0, 0.3])
    def test_excludes_a_split(self, client: TestClient, tracker: InProcessTracker, validation_split: float) -> None:
        tracker.put(dataset_record(id="dataset-2"))
        response = start(client, validation_dataset_id="dataset-2", validation_split=validation_split)
        assert response.status_code == 422
        assert "validation_split and validation_dataset_id exclude each other" in response.json()["detail"]

    @pytest.mark.parametrize("dataset_id", ["other", "no/id"])
    def test_unknown(self, client: TestClient, dataset_id: str) -> None:
        response = start(client, validation_dataset_id=dataset_id)
        assert (response.status_code, response.json()["detail"]) == (404, f"Dataset {dataset_id} not found")

    def test_is_another_one(self, client: TestClient) -> None:
        response = start(client, validation_dataset_id="dataset-1")
        assert response.status_code == 400
        assert response.json()["detail"].startswith("validation_dataset_id is dataset_id; name another dataset")

    @pytest.mark.parametrize(("validation_format", "status"), [("text", 400), ("chat", 201)])
    def test_is_of_the_same_kind(
        self, client: TestClient, tracker: InProcessTracker, validation_format: str, status: int
    ) -> None:
        tracker.put(dataset_record(id="dataset-2", format=validation_format))
        response = start(client, validation_dataset_id="dataset-2")
        assert response.status_code == status
        if status == 400:
            assert "format is 'instruction-response' and the validation dataset's is 'text'" in response.text

    def test_two_plain_texts(self, client: TestClient, tracker: InProcessTracker) -> None:
        tracker.put(dataset_record(format="text"), dataset_record(id="dataset-2", format="text"))
        assert start(client, validation_dataset_id="dataset-2").status_code == 201


@pytest.mark.usefixtures("dataset", "cached_base_model")
class TestIdempotency:
    def test_same_request_makes_one_job(self, client: TestClient, tracker: InProcessTracker) -> None:
        first, second = start(client, KEY, num_epochs=2), start(client, KEY, num_epochs=2)
        assert (first.status_code, second.status_code) == (201, 201)
        assert first.json() == second.json()
        assert "idempotent-replayed" not in first.headers
        assert second.headers["idempotent-replayed"] == "true"
        assert tracker.num_records == 2

    def test_defaults_that_are_written_out_are_the_same_request(self, client: TestClient) -> None:
        first = start(client, KEY)
        second = start(client, KEY, num_epochs=3, labels={}, name=None, learning_rate=2e-4)
        assert second.json()["job_id"] == first.json()["job_id"]

    def test_hash_is_that_of_the_canonical_json(self, client: TestClient, tracker: InProcessTracker) -> None:
        start(client, KEY, seed=7, labels={"b": "1", "a": "ü"})
        asked = json.dumps(
            {"dataset_id": "dataset-1", "labels": {"a": "ü", "b": "1"}, "seed": 7},
            sort_keys=True,
            separators=(",", ":"),
        )
        assert tracker.last_job.request_hash == hashlib.sha256(asked.encode()).hexdigest()
        assert tracker.last_job.idempotency_key == "order 66/a"

    def test_another_request_is_a_conflict(self, client: TestClient, tracker: InProcessTracker) -> None:
        job_id = start(client, KEY).json()["job_id"]
        response = start(client, KEY, seed=7)
        assert response.status_code == 409
        assert f"'order 66/a' came with another request before, which made job {job_id}" in response.json()["detail"]
        assert tracker.num_records == 2

    def test_other_keys_and_none_make_jobs_of_their_own(self, client: TestClient) -> None:
        answers = [start(client, headers) for headers in (KEY, {"Idempotency-Key": "b"}, None, None)]
        assert len({answer.json()["job_id"] for answer in answers}) == 4

    def test_replay_asks_neither_for_the_dataset_nor_the_hub(
        self, client: TestClient, tracker: InProcessTracker
    ) -> None:
        start(client, KEY)
        tracker.calls.clear()
        assert start(client, KEY).status_code == 201
        assert tracker.calls == ["job_of_key"]

    def test_replay_tells_what_the_job_is_by_now(self, client: TestClient, tracker: InProcessTracker) -> None:
        job_id = start(client, KEY).json()["job_id"]
        client.post(f"/api/jobs/{job_id}/cancel")
        answer = start(client, KEY)
        assert (answer.status_code, answer.json()["status"]) == (201, "cancelled")

    @pytest.mark.parametrize("key", ["", "ä", "a\tb", "k" * 256])
    def test_what_is_no_key(self, client: TestClient, tracker: InProcessTracker, key: str) -> None:
        response = client.post(START, json={"dataset_id": "dataset-1"}, headers={b"Idempotency-Key": key.encode()})
        assert response.status_code == 422
        assert "Idempotency-Key" in response.json()["detail"]
        assert tracker.num_records == 1

    @pytest.mark.parametrize("key", ["k" * 255, "~!"])
    def test_any_printable_ascii_is_a_key(self, client: TestClient, key: str) -> None:
        assert start(client, {"Idempotency-Key": key}).status_code == 201

    def test_header_is_documented(self, client: TestClient) -> None:
        operation = client.get("/openapi.json").json()["paths"][START]["post"]
        (header,) = [parameter for parameter in operation["parameters"] if parameter["in"] == "header"]
        assert (header["name"], header["required"]) == ("Idempotency-Key", False)
        assert header["description"]
        assert header["schema"]["examples"]
        assert "Idempotent-Replayed" in operation["responses"]["201"]["headers"]
        assert "schema" in operation["responses"]["201"]["content"]["application/json"]
        assert {"400", "404", "409", "422", "429", "503"} <= operation["responses"].keys()


@pytest.mark.usefixtures("dataset", "cached_base_model")
class TestIdempotencyRace:
    def test_is_settled_by_the_tracker(self, client: TestClient, tracker: InProcessTracker) -> None:
        """Two equal requests at once: neither finds the other's job when it looks."""
        tracker.answers["job_of_key"] = None
        first, second = start(client, KEY), start(client, KEY)
        assert first.json()["job_id"] == second.json()["job_id"]
        assert second.headers["idempotent-replayed"] == "true"
        assert start(client, KEY, seed=7).status_code == 409
        assert tracker.num_records == 2


@pytest.mark.usefixtures("dataset", "hub_cache")
class TestBaseModel:
    def test_unknown_id_offline_shows_a_way_out(self, client: TestClient, tracker: InProcessTracker) -> None:
        response = start(client, model_name="nobody/nothing")
        detail = response.json()["detail"]
        assert response.status_code == 400
        assert detail.startswith("base model 'nobody/nothing' is not in the local cache and the hub can't be reached")
        assert re.search(r"Choose one that is here as model_name: .*HuggingFaceTB/SmolLM2-135M-Instruct", detail)
        assert tracker.num_records == 1

    def test_cached_model_is_named_as_the_way_out(self, client: TestClient, cached_base_model: str) -> None:
        assert cached_base_model in start(client, model_name="nobody/nothing").json()["detail"]

    def test_packaged_model_needs_no_hub(self, client: TestClient) -> None:
        assert start(client, model_name="HuggingFaceTB/SmolLM2-135M-Instruct").status_code == 201

    @pytest.mark.parametrize(
        "model_name",
        [
            "",
            "/etc/passwd",
            "../models/mine",
            "~/model",
            "C:\\model",
            "https://huggingface.co/Qwen/Qwen2.5-0.5B-Instruct",
            "file:///model",
            "a/b/c",
            "owner/name@main",
            "owner/na me",
            "owner/name\n",
            "owner/..",
            "owner/model.gguf",
            "o" * 97,
        ],
    )
    def test_path_or_url_is_no_id(self, client: TestClient, tracker: InProcessTracker, model_name: str) -> None:
        response = start(client, model_name=model_name)
        assert response.status_code == 400
        assert "is not a model id; give a hub id" in response.json()["detail"]
        assert len(response.json()["detail"]) < 500
        assert tracker.num_records == 1

    def test_folder_of_that_name_is_not_taken(
        self, client: TestClient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tiny_model_folder: Path
    ) -> None:
        (tmp_path / "owner").mkdir()
        (tmp_path / "owner" / "name").symlink_to(tiny_model_folder)
        monkeypatch.chdir(tmp_path)
        assert start(client, model_name="owner/name").status_code == 400
