"""Schemathesis over the OpenAPI document: every operation, every check, and jobs that are followed by their links."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter, defaultdict
from collections.abc import Iterator
from pathlib import Path

import huggingface_hub.constants
import pytest
from fastapi import FastAPI
from starlette.types import Message, Receive, Scope, Send

from sienn_ray.api.openapi.document import operations_of
from sienn_ray.errors import FailureReason
from sienn_ray.export.options import ExportFormat
from tests.contract.walk import Walk
from tests.support.in_process import Service, running_service, served
from tests.support.tiny_model import CONTRACT_ID, add_to_hub_cache

ROOT = Path(__file__).parents[3]
TIMEOUT_S = 900
# At twenty looks a second, shorter than Schemathesis waits for a log that is followed.
NUM_LOOKS = 40
# They need the hub, which isn't asked here; `test_dataset_imports.py` has one.
NEED_THE_HUB = {"import_dataset"}


class Answers:
    """ASGI application around another one that notes which operation has answered with which statuses."""

    def __init__(self, app: FastAPI) -> None:
        self.app = app
        self.statuses: dict[str, set[int]] = defaultdict(set)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def note(message: Message) -> None:
            if message["type"] == "http.response.start" and hasattr(scope.get("route"), "operation_id"):
                self.statuses[scope["route"].name].add(message["status"])
            await send(message)

        await self.app(scope, receive, note)


@pytest.fixture(scope="module")
def answers(tmp_path_factory: pytest.TempPathFactory, tiny_model_folder: Path) -> Iterator[tuple[str, Answers]]:
    """URL of a service, and what it answers."""
    folder = tmp_path_factory.mktemp("schemathesis")
    add_to_hub_cache(tiny_model_folder, folder, CONTRACT_ID)
    with (
        pytest.MonkeyPatch.context() as patch,
        running_service(
            folder,
            max_running_jobs=1_000,
            max_running_exports=1_000,
            job_poll_s=0.05,
            export_wait_s=0.5,
            max_webhooks=1_000,
            webhook_allowed_networks=("127.0.0.1",),
            webhook_allow_http=True,
        ) as service,
    ):
        patch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(folder / "hub"))
        patch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
        service.ray_jobs.on_look = Runs(service).on_look
        # Those go on until they are cancelled.
        service.export_runs.held_formats = {ExportFormat.OLLAMA}
        answers = Answers(service.app)
        with served(answers) as url:
            yield url, answers


class Runs:
    """Moves jobs whenever the tracker looks at them: one of three is completed at once, one fails at once, and one goes
    on for some time, in which it can be watched, paused and cancelled.
    """

    def __init__(self, service: Service) -> None:
        self._service = service
        self._num_looks: Counter[str] = Counter()
        self._turns: dict[str, int] = {}

    def on_look(self, submission_id: str) -> None:
        self._num_looks[submission_id] += 1
        num_looks = self._num_looks[submission_id]
        job = self._service.tracker.job(submission_id.removeprefix("sienn-").rsplit("-", 1)[0])
        turn = self._turns.setdefault(job.id, len(self._turns) % 3)
        if job.is_pausing:
            self._service.tracker.pause(job.id, job.attempt)
            return
        if num_looks == 1:
            self._service.train(job)
        if turn == 1 and num_looks == 1:
            self._service.tracker.fail(job.id, job.attempt, FailureReason.INTERNAL, "the loss is not a number")
        elif num_looks == (1 if turn == 0 else NUM_LOOKS):
            self._service.complete(job)


@pytest.mark.timeout(TIMEOUT_S)
def test_document_and_application_agree(answers: tuple[str, Answers]) -> None:
    url, noted = answers
    run = subprocess.run(
        [sys.executable, "-m", "schemathesis.cli", "--no-color", "run", f"{url}/openapi.json"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=TIMEOUT_S,
    )
    print(run.stdout)
    assert run.returncode == 0, run.stderr
    Walk(url).run()
    # It has got behind the 404s: every operation has done its work at least once.
    operations = {operation["operationId"] for operation in operations_of(noted.app.openapi())}
    assert {name for name in operations if not {200, 201, 202} & noted.statuses[name]} == NEED_THE_HUB
