"""Files and requests as people have them (`tests/cases`), sent to the whole service in one process, and judged.

A case says what it takes for a right answer: an acceptance with so many rows, or a refusal whose words name the cause.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, Iterator
from contextlib import ExitStack, aclosing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import huggingface_hub.constants
import pytest
import torch
from starlette.testclient import TestClient

from sienn_ray.api.app import create_app
from sienn_ray.base_model import load_causal_lm, load_tokenizer
from sienn_ray.datasets.prompt import FILE_NAME as PROMPT_FORMAT_FILE
from sienn_ray.datasets.prompt import PromptFormat
from sienn_ray.export.archive import ARCHIVE_FILES
from sienn_ray.inference.batching.engine import BatchingEngine
from sienn_ray.inference.engine import Engine, GenerationDelta, GenerationRequest, GenerationResult
from sienn_ray.jobs.schema import JobStatus
from sienn_ray.settings import Settings
from sienn_ray.storage import Storage
from sienn_ray.training.adapter.adapters import add_adapter
from sienn_ray.training.config import TrainingConfig
from tests.support.fakes_api import job_record
from tests.support.fakes_backends import fake_backends
from tests.support.in_process_tracker import InProcessTracker
from tests.support.tiny_model import CONTRACT_ID, add_to_hub_cache

FOLDER = Path(__file__).parents[1] / "cases"
JOB_ID = "a1b2c3d4-5678-40ef-8123-456789abcdef"
_OPENAI = "/v1"
_ERROR_KEYS = {"message", "type", "param", "code"}
_SERVER_ERROR = 500


@dataclass(frozen=True)
class Outcome:
    """What came of a case.

    Args:
        status: HTTP status.
        words: What the answer says.
        fault: Why it isn't right; empty where it is.
    """

    status: int
    words: str
    fault: str = ""

    @property
    def verdict(self) -> str:
        """In a word or two."""
        if self.fault:
            return "wrong"
        return "accepted" if self.status < 400 else "refused, rightly" if self.status < _SERVER_ERROR else "wrong"


def load_cases(*kinds: str) -> list[dict[str, Any]]:
    """Return the cases of some kinds, or all."""
    lines = (FOLDER / "cases.jsonl").read_text(encoding="utf-8").splitlines()
    return [case for case in map(json.loads, lines) if not kinds or case["kind"] in kinds]


class InProcessEngines:
    """One engine of this process, whatever base model is asked."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    async def generate(
        self, base_model: str, request: GenerationRequest, start_wait_s: float | None = None
    ) -> GenerationResult:
        async with aclosing(self.stream(base_model, request)) as deltas:
            async for delta in deltas:
                if delta.error is not None:
                    raise delta.error
                if delta.result is not None:
                    return delta.result
        raise AssertionError("an answer without an end")

    async def stream(
        self, base_model: str, request: GenerationRequest, start_wait_s: float | None = None
    ) -> AsyncGenerator[GenerationDelta]:
        loop, deltas = asyncio.get_running_loop(), asyncio.Queue[GenerationDelta]()
        generation = self._engine.submit(request, lambda delta: _put(loop, deltas, delta))
        try:
            is_first = True
            while True:
                delta = await deltas.get()
                if is_first and delta.error is not None:
                    raise delta.error
                is_first = False
                yield delta
                if delta.is_last:
                    return
        finally:
            generation.cancel()


def _put(loop: asyncio.AbstractEventLoop, deltas: asyncio.Queue[GenerationDelta], delta: GenerationDelta) -> None:
    loop.call_soon_threadsafe(deltas.put_nowait, delta)


def save_adapter(model_folder: Path, folder: Path) -> None:
    """Write an adapter that changes nothing, as training publishes it."""
    model = add_adapter(load_causal_lm(model_folder, torch.device("cpu")), TrainingConfig(base_model=CONTRACT_ID))
    tokenizer = load_tokenizer(model_folder)
    model.save_pretrained(folder, save_embedding_layers=False)
    (folder / "README.md").unlink(missing_ok=True)
    tokenizer.save_pretrained(folder, save_jinja_files=False)
    for name in ARCHIVE_FILES:
        if not (folder / name).exists():
            (folder / name).write_text("{}")
    (folder / PROMPT_FORMAT_FILE).write_text(PromptFormat.for_chat(tokenizer).to_json())


@contextmanager
def answering(model_folder: Path, folder: Path) -> Iterator[TestClient]:
    """The service with a completed job of a tiny base model, which a real engine answers with.

    Args:
        model_folder: The tiny base model.
        folder: For everything that is kept.
    """
    with ExitStack() as stack:
        patch = stack.enter_context(pytest.MonkeyPatch.context())
        add_to_hub_cache(model_folder, folder / "hub-home", CONTRACT_ID)
        patch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(folder / "hub-home" / "hub"))
        patch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
        settings = Settings(env="test", home=folder / "home", engine_num_cpus=1, engine_kv_cache_bytes=16 << 20)
        save_adapter(model_folder, folder / "adapter")
        job = job_record(id=JOB_ID, status=JobStatus.COMPLETED)
        Storage(settings.storage_url).publish(folder / "adapter", job.adapter_key)
        tracker = InProcessTracker(settings)
        tracker.put(job)
        engine = BatchingEngine(CONTRACT_ID, settings)
        stack.callback(engine.close)
        app = create_app(fake_backends(settings, tracker=tracker, engines=InProcessEngines(engine)))
        yield stack.enter_context(TestClient(app, follow_redirects=False, raise_server_exceptions=False))


def run_case(client: TestClient, case: dict[str, Any]) -> Outcome:
    """Send a case, and judge the answer."""
    return _run_file(client, case) if case["kind"] == "data" else _run_request(client, case)


def _run_file(client: TestClient, case: dict[str, Any]) -> Outcome:
    content = (FOLDER / case["input"]["file"]).read_bytes()
    name = case["input"]["upload_as"]
    report = client.post("/api/validate-dataset", files={"file": (name, content)}).json()
    answer = client.post("/api/upload-dataset", files={"file": (name, content)})
    body = answer.json()
    try:
        fault = _fault_of_file(client, case, answer.status_code, body)
    finally:
        if "dataset_id" in body:
            client.delete(f"/api/datasets/{body['dataset_id']}")
    if not fault and report["valid"] is not (answer.status_code == 201):
        fault = "upload and validation differ"
    words = f"{body['num_rows']} rows, {body['format']}" if "dataset_id" in body else str(body.get("detail", body))
    return Outcome(answer.status_code, words, fault)


def _fault_of_file(client: TestClient, case: dict[str, Any], status: int, body: Any) -> str:
    if status == 201:
        wanted = case["accept"]
        if wanted is None:
            return f"accepted; expected: {case['expect']}"
        if body["num_rows"] not in wanted["rows"] or wanted["format"] not in {None, body["format"]}:
            return f"accepted otherwise than expected: {wanted}"
        return _fault_of_rows(client, case, body["dataset_id"])
    if body.keys() != {"detail", "status_code"} or body["status_code"] != status:
        return "an error of another shape"
    return _fault_of_refusal(case, status, body["detail"])


def _fault_of_rows(client: TestClient, case: dict[str, Any], dataset_id: str) -> str:
    """What the rows, as training reads them, lack or have against the case's word."""
    rows = client.get(f"/api/datasets/{dataset_id}/rows").json()["rows"]
    texts = [text for row in rows for text in _texts_of(row)]
    for wish in case.get("trains", []):
        kind, _, text = wish.partition(":")
        is_exact = text.startswith("^") and text.endswith("$")
        is_there = any(text[1:-1] == each if is_exact else text in each for each in texts)
        if is_there is not (kind == "needs"):
            return f"training {'reads' if is_there else 'does not read'} {text!r}"
    return ""


def _texts_of(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list):
        for inner in value.values() if isinstance(value, dict) else value:
            yield from _texts_of(inner)


def _fault_of_refusal(case: dict[str, Any], status: int, words: str) -> str:
    refuse = case["refuse"]
    if refuse is None:
        return f"refused; expected: {case['expect']}"
    if status not in refuse["status"]:
        return f"refused with another status than {refuse['status']}"
    if refuse["says_one_of"] and not any(word.lower() in words.lower() for word in refuse["says_one_of"]):
        return f"refused, but the words have none of {refuse['says_one_of']}"
    return ""


def _run_request(client: TestClient, case: dict[str, Any]) -> Outcome:
    sent, dataset_id = case["input"], ""
    if file := sent.get("dataset_file"):
        content = (FOLDER / file).read_bytes()
        dataset_id = client.post("/api/upload-dataset", files={"file": (Path(file).name, content)}).json()["dataset_id"]
    names = {"{JOB_ID}": JOB_ID, "{BASE_MODEL}": CONTRACT_ID, "{DATASET_ID}": dataset_id}
    body = json.dumps(_written_out(sent["json"])) if "json" in sent else sent.get("raw")
    path = sent["path"]
    for name, value in names.items():
        path = path.replace(name, value)
        body = None if body is None else body.replace(name, value)
    headers = {**({"Content-Type": "application/json"} if "json" in sent else {}), **sent.get("headers", {})}
    answer = client.request(sent["method"], path, headers=headers, content=None if body is None else body.encode())
    words, error, form = _said(answer)
    return Outcome(answer.status_code, words, _fault_of_answer(case, answer.status_code, path, words, error, form))


def _written_out(value: Any) -> Any:
    """A body in which `{"repeat": [text, times]}` is the text so many times."""
    if isinstance(value, dict):
        if value.keys() == {"repeat"}:
            text, times = value["repeat"]
            return text * times
        return {name: _written_out(inner) for name, inner in value.items()}
    return [_written_out(inner) for inner in value] if isinstance(value, list) else value


def _said(answer: Any) -> tuple[str, dict[str, Any] | None, str]:
    """The words of an answer, the error if it is one of the OpenAI API, and a fault of form."""
    if "text/event-stream" in answer.headers.get("content-type", ""):
        events = [line[5:].strip() for line in answer.text.splitlines() if line.startswith("data:")]
        parsed = [json.loads(event) for event in events if event != "[DONE]"]
        fault = "" if events and events[-1] == "[DONE]" else "a stream that doesn't end with [DONE]"
        if any("error" in each for each in parsed):
            fault = "an error within a stream that began well"
        return f"a stream of {len(events)} events", None, fault
    try:
        body = answer.json() if answer.content else {}
    except ValueError:
        return answer.text, None, "no JSON"
    if isinstance(error := body.get("error"), dict):
        return str(error.get("message")), error, "" if error.keys() == _ERROR_KEYS else "an error of another shape"
    if "detail" in body:
        return str(body["detail"]), None, "" if body["status_code"] == answer.status_code else "status_code differs"
    return json.dumps(body), None, "an error of another shape" if answer.status_code >= 400 else ""


def _fault_of_answer(
    case: dict[str, Any], status: int, path: str, words: str, error: dict[str, Any] | None, form: str
) -> str:
    if status >= _SERVER_ERROR and not (case["refuse"] and status in case["refuse"]["status"]):
        return f"status {status}: {words}"
    if form:
        return form
    if status >= 400 and path.startswith(_OPENAI) and error is None:
        return "not in the shape of the OpenAI API"
    if case["accept"] and status in case["accept"]["status"]:
        return ""
    if fault := _fault_of_refusal(case, status, words):
        return fault
    for name in ("param", "code"):
        if (wanted := case["refuse"].get(name)) and (error or {}).get(name) != wanted:
            return f"refused, but {name} is {(error or {}).get(name)}, and not {wanted}"
    return ""
